"""Verifying: a run taken again comes to the same states, or the first difference is named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from treadle import StateError, Trainer, UsageError
from treadle.checkpoint.store import list_checkpoints
from treadle.runs.verify import edits_in_force, verify_run
from treadle.testing import kill

X = torch.linspace(-1, 1, 48)[:, None]


class Noisy(Trainer):
    """A little network with dropout; `noise` comes from outside the run's own random streams."""

    noise = False

    def setup(self) -> None:
        self.model = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)

    def step(self, batch: Any) -> Any:
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.model(x), y)
        if self.noise:
            loss = loss * (1 + os.urandom(1)[0] / 1e4)
        self.minimize(loss)
        return {"loss": loss}

    def validation_step(self, batch: Any) -> Any:
        return {"loss": torch.nn.functional.mse_loss(self.model(batch[0]), batch[1])}


def maker(kind: type[Noisy] = Noisy, data: Any = (X, 3 * X), **settings: Any) -> Callable[..., Noisy]:
    """A function that makes the trainer, as a run in a directory."""
    settings = {"batch_size": 8, "max_epochs": 3, "save_every": "4 steps", "keep_checkpoints": 9} | settings

    def make(run_dir: Path, **more: Any) -> Noisy:
        return kind(data=data, validation_data=data, run_dir=run_dir, **settings, **more)

    return make


def trained(directory: Path, make: Callable[..., Noisy]) -> Path:
    trainer = make(directory / "line")
    trainer.train()
    run: Path = trainer.run.path
    return run


def test_a_run_is_verified_from_its_last_checkpoint_but_one_from_any_and_from_the_beginning(tmp_path: Path) -> None:
    make = maker()
    run = trained(tmp_path, make)
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for start, compared in ((None, [18]), (8, [12, 16, 18]), (0, [4, 8, 12, 16, 18])):
        verdict = verify_run(run, make, start)
        assert verdict.holds and verdict.compared == compared and verdict.differences == []
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files, "nothing in it changes"


def test_a_planted_nondeterminism_is_caught_and_named(tmp_path: Path) -> None:
    class Random(Noisy):
        noise = True

    make = maker(Random)
    verdict = verify_run(trained(tmp_path, make), make, 0)
    assert not verdict.holds and verdict.differs_at == 4 and verdict.compared == [4]
    named = [line.partition(":")[0] for line in verdict.differences]
    assert "attributes/model" not in named and any(name.startswith("model/state/0.weight") for name in named)
    assert named[0].startswith("meter/"), "plain data comes first"


def test_one_odd_parameter_is_named(tmp_path: Path) -> None:
    """A nondeterminism so small that only one entry of the state shows it."""

    class Odd(Noisy):
        def setup(self) -> None:
            super().setup()
            self.odd = torch.zeros(3)

        def step(self, batch: Any) -> Any:
            if self.progress.step == 9:
                self.odd[1] = int.from_bytes(os.urandom(2), "big") + 1
            return super().step(batch)

    make = maker(Odd)
    run = trained(tmp_path, make)
    assert verify_run(run, make, 4).differences[0].startswith("odd: 1 of 3 entries differ, by up to ")
    assert verify_run(run, make, 4).differs_at == 12
    assert verify_run(run, make, 12).holds, "after it all is well"


def test_a_planted_data_change_is_caught_and_named(tmp_path: Path) -> None:
    run = trained(tmp_path, maker())
    y = 3 * X
    y[20] += 1e-6
    verdict = verify_run(run, maker(data=(X, y)), 0)
    assert verdict.differs_at == 4 and verdict.differences[0].startswith("data/feed: ")
    verdict = verify_run(run, maker(data=(X, y)), 4)
    assert verdict.differs_at == 4 and "the data of 'feed' is not what it was" in verdict.differences[0]


def test_another_setting_is_another_run(tmp_path: Path) -> None:
    run = trained(tmp_path, maker())
    assert not verify_run(run, maker(seed=1), 0).holds
    shorter = verify_run(run, maker(max_epochs=2), 8)
    assert shorter.differs_at in (12, 16)


def test_what_a_person_changed_is_changed_again(tmp_path: Path) -> None:
    make = maker()
    trainer = make(tmp_path / "line")
    for _ in range(6):
        trainer.iterate()
    trainer.commands.lr_multiplier(0.1)
    trainer.train()
    assert verify_run(trainer.run.path, make, 0).holds
    assert verify_run(trainer.run.path, make, 4).holds


def test_an_edit_that_a_kill_undid_is_not_repeated(tmp_path: Path) -> None:
    make = maker()
    trainer = make(tmp_path / "line")
    for _ in range(6):
        trainer.iterate()
    trainer.commands.lr_multiplier(0.1)
    trainer.iterate()
    kill(trainer)
    resumed = make(trainer.run.path, resume=True)
    assert resumed.progress.step == 6, "the checkpoint that is written before a run's first edit"
    assert resumed.optimizer.param_groups[0]["lr"] == 0.01
    resumed.train()
    assert verify_run(resumed.run.path, make, 0).holds


def test_edits_at_the_step_that_a_run_goes_back_to() -> None:
    edit = {"event": "edit", "step": 4}
    written = {"event": "checkpoint", "step": 4, "checkpoint": "step-00000004"}
    resume, rewind = {"event": "resume", "step": 4}, {"event": "rewind", "step": 9, "restored": 3}
    assert edits_in_force([edit, resume]) == []
    assert edits_in_force([edit, written, resume]) == [edit]
    assert edits_in_force([written, edit, resume]) == []
    assert edits_in_force([edit, written, rewind]) == []
    assert edits_in_force([edit, {"event": "rollback", "step": 7, "restored": 6}]) == [edit]


def test_a_run_that_patience_ended_and_that_went_on_is_verified(tmp_path: Path) -> None:
    class Flat(Noisy):
        def validation_step(self, batch: Any) -> Any:
            return {"loss": 1.0}

    run = trained(tmp_path, maker(Flat, patience=1, max_epochs=9))
    steps = [int(path.name[5:]) for path in list_checkpoints(run / "checkpoints")]
    maker(Flat, patience=2, max_epochs=9)(run, resume=True).train()
    assert verify_run(run, maker(Flat, patience=2, max_epochs=9), steps[-1]).holds


def test_what_cannot_be_verified_says_why(tmp_path: Path) -> None:
    make = maker()
    run = trained(tmp_path, make)
    with pytest.raises(UsageError, match="has no checkpoint at step 5: there are 4, 8, 12, 16, 18, and 0"):
        verify_run(run, make, 5)
    with pytest.raises(UsageError, match="has no checkpoint after step 18"):
        verify_run(run, make, 18)
    (run / "checkpoints" / "step-00000018" / "tensors.safetensors").write_bytes(b"")
    with pytest.raises(StateError, match=r"tensors\.safetensors is damaged"):
        verify_run(run, make)
    with pytest.raises(UsageError, match="has no checkpoint to compare with"):
        verify_run(tmp_path, make)
