"""The k best models of a run on disk: which are kept, in which order, through kills, rewinds and forks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import treadle
from treadle.errors import RunError, UsageError
from treadle.runs import best as best_files
from treadle.runs.best import ranks, read_best
from treadle.runs.models import find_model
from treadle.testing import Line, kill, line_data

DATA = {"data": line_data(8), "validation_data": line_data(4)}


class Scripted(Line):
    """Two steps an epoch; after the n-th it validates as the n-th value of `script`."""

    script: tuple[float, ...] = ()

    def validation_step(self, batch: Any) -> Any:
        return {"score": self.script[self.progress.epoch - 1], "weight": self.model.weight.item()}


def make(script: tuple[float, ...], **settings: Any) -> Scripted:
    """A trainer with `script`, which keeps the three largest scores and a checkpoint of each epoch."""
    kind = type("Scripted", (Scripted,), {"script": script, "__module__": __name__, "__qualname__": "Scripted"})
    given = {"max_epochs": len(script), "batch_size": 4, "keep_best": 3, "monitor": "score", "monitor_mode": "max"}
    return kind(**DATA, **(given | settings))


def check(run: Path, steps: list[int]) -> None:
    """The run keeps the models of these steps, the best first, each with the weights that it was validated with."""
    found = ranks(run)
    assert [entry.info["step"] for entry in found] == steps
    assert [entry.directory.name for entry in found] == ["best_model", *(f"step-{step:08d}" for step in steps[1:])]
    for rank, entry in enumerate(found, 1):
        best = read_best(run, rank)
        assert best.info == entry.info
        assert float(best.weights["model.weight"]) == best.info["metrics"]["weight"]
    others = run / "best_models"
    assert sorted(path.name for path in others.iterdir()) == sorted(f"step-{step:08d}" for step in steps[1:])
    assert not list(run.glob(".best*"))


@pytest.mark.parametrize(
    ("script", "steps"),
    [
        ((1, 2, 3, 4), [8, 6, 4]),
        ((4, 3, 2, 1), [2, 4, 6]),
        ((1, 4, 2, 3, 2), [4, 8, 6]),
        ((2, 2, 2, 2), [2, 4, 6]),
        ((float("nan"), 1, float("nan"), 2), [8, 4]),
    ],
)
def test_the_best_are_kept_in_order(tmp_path: Path, script: tuple[float, ...], steps: list[int]) -> None:
    trainer = make(script, run_dir=tmp_path / "line")
    trainer.train()
    check(trainer.run.path, steps)
    for rank, step in enumerate(steps, 1):
        info = trainer.load_best(rank)
        assert info["step"] == step and trainer.model.weight.item() == info["metrics"]["weight"]
    assert trainer.load_best() == trainer.load_best(1) == trainer.best
    with pytest.raises(UsageError, match=f"no best model of rank {len(steps) + 1}: it keeps {len(steps)} "):
        trainer.load_best(len(steps) + 1)
    with pytest.raises(UsageError, match="of rank 0"):
        trainer.load_best(0)


def test_in_memory_too_and_they_are_state(tmp_path: Path) -> None:
    trainer = make((1, 4, 2, 3, 2), snapshot_every="1 epoch", keep_snapshots=9)
    trainer.train()
    digest = trainer.digest()
    for rank, step in ((1, 4), (2, 8), (3, 6)):
        info = trainer.load_best(rank)
        assert info["step"] == step and trainer.model.weight.item() == info["metrics"]["weight"]
    with pytest.raises(UsageError, match="no best model of rank 4: 3 is kept"):
        trainer.load_best(4)
    trainer.rewind(6)
    assert [trainer.load_best(rank)["step"] for rank in (1, 2, 3)] == [4, 6, 2]
    trainer.rewind(6)
    trainer.train()
    assert trainer.digest() == digest


def test_their_checkpoints_are_kept_besides_the_newest(tmp_path: Path) -> None:
    trainer = make((1, 9, 2, 8, 3, 4, 5), run_dir=tmp_path / "line", keep_checkpoints=1)
    trainer.train()
    steps = sorted(int(path.name[5:]) for path in (trainer.run.path / "checkpoints").glob("step-*"))
    assert steps == [4, 8, 14]
    fork = treadle.fork(trainer.run.path, at=8, trainer=type(trainer), **DATA)
    assert fork.progress.step == 8 and fork.load_best(2)["step"] == 8


@pytest.mark.parametrize("steps", [3, 5, 7, 9])
def test_a_killed_run_ends_with_the_same(tmp_path: Path, steps: int) -> None:
    script = (1.0, 4.0, 2.0, 3.0, 2.5)
    first = make(script, run_dir=tmp_path / "line", save_every="3 steps")
    for _ in range(steps):
        first.iterate()
    kill(first)
    resumed = make(script, run_dir=first.run.path, resume=True, save_every="3 steps")
    whole = make(script, run_dir=tmp_path / "whole", save_every="3 steps")
    assert resumed.train().digest == whole.train().digest
    check(first.run.path, [4, 8, 10])


def test_a_rewind_gives_up_those_of_the_future(tmp_path: Path) -> None:
    trainer = make((1, 3, 2, 4, 5), run_dir=tmp_path / "line", keep_checkpoints=9)
    for _ in range(9):
        trainer.iterate()
    check(trainer.run.path, [8, 4, 6])
    trainer.rewind(6)
    assert [entry.info["step"] for entry in ranks(trainer.run.path)] == [4, 6]
    assert trainer.load_best()["step"] == trainer.best["step"] == 4
    trainer.rewind(6)
    trainer.replace("step", lambda trainer, batch: {})  # another future
    type(trainer).script = (1, 3, 2, 2.5, 2.75)
    trainer.train()
    check(trainer.run.path, [4, 10, 8])


def test_a_fork_has_those_of_its_past(tmp_path: Path) -> None:
    parent = make((1, 3, 2, 4, 5), run_dir=tmp_path / "line", keep_checkpoints=9)
    parent.train()
    check(parent.run.path, [10, 8, 4])
    fork = treadle.fork(parent.run.path, at=8, trainer=type(parent), **DATA)
    check(fork.run.path, [8, 4])
    assert fork.train().digest == parent.summary().digest
    check(fork.run.path, [10, 8, 4])
    early = treadle.fork(parent.run.path, at=2, trainer=type(parent), **DATA)
    assert ranks(early.run.path) == [], "what it had by then is gone"
    early.train()
    check(early.run.path, [10, 8, 4])


def test_more_or_fewer_may_be_kept_from_here_on(tmp_path: Path) -> None:
    first = make((1, 3, 2, 4), run_dir=tmp_path / "line")
    first.train()
    check(first.run.path, [8, 4, 6])
    fewer = make((1, 3, 2, 4, 5, 6), run_dir=first.run.path, resume=True, keep_best=2)
    fewer.train()
    check(first.run.path, [12, 10])
    more = make((1, 3, 2, 4, 5, 6, 0, 1), run_dir=first.run.path, resume=True, keep_best=4)
    more.train()
    check(first.run.path, [12, 10, 16, 14])
    one = make((1, 3, 2, 4, 5, 6, 0, 1, 9), run_dir=first.run.path, resume=True, keep_best=1)
    one.train()
    assert [entry.info["step"] for entry in ranks(first.run.path)] == [18]


@pytest.mark.parametrize("number", range(1, 12))
def test_whatever_stops_a_write_the_best_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The n-th thing that is done to best models fails: the models that are there are whole."""
    trainer = make((1, 2, 3, 2.5), run_dir=tmp_path / "line")
    count = 0

    def failing(name: str) -> Callable[..., Any]:
        original = getattr(best_files, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                raise OSError(28, "No space left on device")
            return original(*arguments, **keywords)

        return call

    for name in ("write_whole", "replace_directory", "copy_regular"):
        monkeypatch.setattr(best_files, name, failing(name))
    monkeypatch.setattr(os, "link", failing_link)
    with pytest.raises(RunError, match="No space left on device"):
        trainer.train()
    monkeypatch.undo()
    for rank, entry in enumerate(ranks(trainer.run.path), 1):
        best = read_best(trainer.run.path, rank)
        assert best.info == entry.info and float(best.weights["model.weight"]) == best.info["metrics"]["weight"]
    resumed = make((1, 2, 3, 2.5), run_dir=trainer.run.path, resume=True)
    resumed.train()
    check(trainer.run.path, [6, 8, 4])


def failing_link(*_: Any, **__: Any) -> None:
    """A disk without links."""
    raise OSError(95, "Operation not supported")


def test_one_is_kept_as_before(tmp_path: Path) -> None:
    trainer = make((1, 3, 2), run_dir=tmp_path / "line", keep_best=1)
    trainer.train()
    assert not (trainer.run.path / "best_models").exists()
    saved = json.loads((trainer.run.path / "checkpoints" / "step-00000006" / "state.json").read_text())
    assert "others" not in json.dumps(saved["values"]["hooks"])
    assert read_best(trainer.run.path, 1).info["step"] == 4


@pytest.mark.parametrize(
    ("monitor", "steps"), [("score", [2, 6, 4]), ("accuracy", [4, 6, 2]), ("hard/psnr", [4, 6, 2])]
)
def test_the_metric_says_which_way_is_better(tmp_path: Path, monitor: str, steps: list[int]) -> None:
    class Named(Scripted):
        script = (1, 3, 2)

        def validation_step(self, batch: Any) -> Any:
            return {monitor: super().validation_step(batch)["score"]}

    trainer = Named(**DATA, batch_size=4, max_epochs=3, keep_best=3, monitor=monitor, run_dir=tmp_path / "line")
    trainer.train()
    assert [entry.info["step"] for entry in ranks(trainer.run.path)] == steps
    mode = "min" if monitor == "score" else "max"
    assert {entry.info["mode"] for entry in ranks(trainer.run.path)} == {mode}
    again = Named(**DATA, batch_size=4, max_epochs=3, keep_best=3, monitor=monitor, monitor_mode=mode,
                  run_dir=trainer.run.path, resume=True)  # fmt: skip
    assert again.ended, "what the metric says may be said"
    with pytest.raises(UsageError, match="a resume cannot change monitor_mode"):
        Named(**DATA, batch_size=4, max_epochs=3, keep_best=3, monitor=monitor, run_dir=trainer.run.path, resume=True,
              monitor_mode="min" if mode == "max" else "max")  # fmt: skip


def test_where_nothing_is_monitored_the_final_model_is_the_best(tmp_path: Path) -> None:
    trainer = make((1, 3, 2), monitor=None, monitor_mode=None, run_dir=tmp_path / "line")
    for _ in range(4):
        trainer.iterate()
    trainer.save()
    assert find_model(trainer.run.path, "best").step == 4, "of the newest checkpoint, where it was stopped"
    trainer.train()
    assert trainer.best is None and trainer.summary().validation_metrics["score"] == 2
    found = find_model(trainer.run.path, "best")
    assert str(found) == "final model, step 6 (nothing says which is best)"
    assert found.of("model")["weight"].item() == trainer.model.weight.item()
    assert trainer.load_best()["step"] == 6
    with pytest.raises(UsageError, match="patience is 3, and monitor is null: name the metric"):
        make((1, 3, 2), monitor=None, monitor_mode=None, patience=3)
