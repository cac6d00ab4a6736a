"""Forks that go on with other data: what stays exact, where in the data they go on, what they forget."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import treadle
from treadle.checkpoint.store import read_checkpoint
from treadle.errors import StateError, UsageError
from treadle.fields.nerf_trainer import NeRFTrainer
from treadle.runs.best import has_best
from treadle.runs.run import read_journal
from treadle.splats.trainer import SplatsTrainer
from treadle.testing import Line, line_data

X, Y = line_data(48)
OTHER = (X[:20] + 1, Y[:20] - 1)


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """6 batches an epoch, 3 epochs, validated after each."""
    path = tmp_path / "runs" / "v001"
    settings = {"batch_size": 8, "max_epochs": 3, "save_every": "4 steps", "keep_checkpoints": 9}
    with Line(data=(X, Y), validation_data=(X, Y), run_dir=path, **settings) as trainer:
        trainer.train()
    return path


def fork(parent: Path, at: int = 8, data: Any = OTHER, validation_data: Any = (X, Y), **settings: Any) -> Any:
    return treadle.fork(parent, at, trainer=Line, data=data, validation_data=validation_data, **settings)


def tensors(run: Path, step: int) -> dict[str, torch.Tensor]:
    return read_checkpoint(run / "checkpoints" / f"step-{step:08d}").tensors


def test_weights_and_optimizer_stay_and_the_place_is_that_of_a_run_that_had_the_data_from_its_start(
    parent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Step 8 of 6 batches an epoch is batch 3 of epoch 2; of 3 batches it is batch 3 of epoch 3."""
    with fork(parent, max_epochs=6) as trainer:
        assert capsys.readouterr().err == (
            "treadle: other data: weights, optimizers and schedules go on as they were, from step 8; the place is that "
            "of a run which had these data from its start, epoch 3, batch 3; what was best so far is forgotten\n"
        )
        run = trainer.run.path
        before, after = tensors(parent, 8), tensors(run, 8)
        assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
        assert (trainer.progress.step, trainer.progress.epoch, trainer.progress.batch) == (8, 2, 2)
        assert trainer.iterate() and torch.equal(trainer.batch[0], batch_of(OTHER, epoch=2, batch=2))
        assert trainer.train().step == 18, "six epochs of three batches"
    entry = read_journal(run)[0]
    assert entry["data"] == {"feeds": ["feed"], "epoch": 2, "batch": 2}
    assert treadle.verify(run, start=8, trainer=Line, data=OTHER, validation_data=(X, Y)).holds
    verdict = treadle.verify(run, start=12, trainer=Line, data=OTHER, validation_data=(X, Y))
    assert verdict.holds and verdict.compared == [16, 18]
    with treadle.resume(run, trainer=Line, data=OTHER, validation_data=(X, Y), max_epochs=7) as trainer:
        assert trainer.train().step == 21
    with pytest.raises(UsageError, match="the data of 'feed' is not what it was"):
        treadle.resume(run, trainer=Line, data=(X, Y), validation_data=(X, Y))


def batch_of(data: Any, epoch: int, batch: int) -> torch.Tensor:
    with Line(data=data, batch_size=8, max_epochs=9) as trainer:
        return list(trainer.feed.epoch(epoch))[batch][0]


def test_what_was_best_with_the_former_data_is_forgotten(parent: Path) -> None:
    with fork(parent, at=16, max_epochs=7) as trainer:
        assert trainer.best is None and trainer.validation_metrics == {} and not has_best(trainer.run.path)
        trainer.train()
        assert trainer.best["step"] > 16 and has_best(trainer.run.path)
    with fork(parent, at=16, data=(X, Y), validation_data=OTHER) as trainer:
        assert trainer.best is None and (trainer.progress.epoch, trainer.progress.batch) == (2, 4), "as it was"
        trainer.train()
    assert treadle.verify(trainer.run.path, start=16, trainer=Line, data=(X, Y), validation_data=OTHER).holds


def test_the_same_data_elsewhere_is_the_same_run(parent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with fork(parent, data=(X.clone(), Y.clone())) as trainer:
        digest = trainer.train().digest
    assert capsys.readouterr().err == "" and "data" not in read_journal(trainer.run.path)[0]
    assert digest == read_checkpoint(parent / "checkpoints" / "step-00000018").digest


def test_epochs_of_another_length_are_placed_too(parent: Path) -> None:
    with fork(parent, data=(X, Y), batch_size=16) as trainer:
        assert (trainer.progress.epoch, trainer.progress.batch) == (2, 2)
        assert trainer.train().step == 9
    assert treadle.verify(trainer.run.path, start=8, trainer=Line, data=(X, Y), validation_data=(X, Y)).holds


def test_data_of_unknown_length_begin_anew(parent: Path) -> None:
    class Stream:
        def __iter__(self) -> Iterator[Any]:
            return iter([(X[:8], Y[:8]), (X[8:16], Y[8:16])])

    with fork(parent, data=Stream()) as trainer:
        assert (trainer.progress.epoch, trainer.progress.batch) == (1, 0)
        assert trainer.train().step == 10, "two more epochs of a batch"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "after step 8, which is epoch 8 of the other data, the run is at its end with max_epochs=3: raise that"),
        ({"max_epochs": None, "max_steps": 8}, "the run is at its end with max_steps=8: raise that, or begin a new"),
    ],
)
def test_a_run_that_would_be_at_its_end_is_not_made(parent: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        fork(parent, data=(X[:8], Y[:8]), **settings)
    assert said in str(caught.value) and not parent.with_name("v002").exists()


def test_what_is_learnt_of_one_scene_has_no_other_data(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Line, "one_scene", True)
    with pytest.raises(UsageError, match="Line learns one scene, which lies where its data say: other data are anoth"):
        fork(parent)
    assert not parent.with_name("v002").exists()
    with fork(parent, data=(X.clone(), Y.clone()), max_epochs=4) as trainer:
        assert trainer.progress.step == 8
    assert SplatsTrainer.one_scene and NeRFTrainer.one_scene


def test_what_does_not_fit_is_refused_before_a_run_is_made(parent: Path) -> None:
    class Counting(Line):
        def setup(self) -> None:
            super().setup()
            if self.feed.samples == 20:
                self.seen = torch.nn.Linear(1, 1)

    run = parent.parent.parent / "counting" / "v001"
    with Counting(data=(X, Y), max_epochs=1, batch_size=8, run_dir=run) as trainer:
        trainer.train()
    with pytest.raises(StateError, match="the trainer has attribute 'seen', the checkpoint has not"):
        treadle.fork(run, 6, trainer=Counting, data=OTHER, max_epochs=9)
    assert not run.with_name("v002").exists()
