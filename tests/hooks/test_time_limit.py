"""The time limit stops between steps and can be gone on from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from treadle.errors import UsageError
from treadle.hooks import TimeLimit, time_limit


class Clock:
    """Time that passes by one second a look."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time_limit, "time", made)
    return made


def test_stops_and_goes_on_to_the_same_weights(scripted: Callable[..., Any], clock: Clock) -> None:
    trainer, bare = scripted(max_time=10.0), scripted()
    bare.train()
    summary = trainer.train()
    assert (summary.status, summary.reason, summary.step) == ("stopped", "time limit", 10)
    assert trainer.train().step == 20
    summaries = [trainer.train() for _ in range(3)]
    assert [(s.status, s.step) for s in summaries] == [("stopped", 30), ("finished", 32), ("finished", 32)]
    assert torch.equal(trainer.model.weight, bare.model.weight)


def test_stepped_from_outside(scripted: Callable[..., Any], clock: Clock) -> None:
    trainer = scripted(max_time=10.0)
    count = 0
    while trainer.iterate():
        count += 1
    assert count == 10 and not trainer.ended and trainer.iterate()


def test_a_run_on_disk_is_saved(scripted: Callable[..., Any], clock: Clock, tmp_path: Path) -> None:
    with scripted(max_time=10.0, run_dir=tmp_path / "line", save_every=None) as trainer:
        trainer.train()
    assert [p.name for p in (trainer.run.path / "checkpoints").glob("step-*")] == ["step-00000010"]


def test_it_alone_may_end_a_run(scripted: Callable[..., Any], clock: Clock) -> None:
    summary = scripted(max_time=5.0, max_epochs=None).train()
    assert (summary.status, summary.reason) == ("stopped", "time limit")


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_bad_limits(seconds: float) -> None:
    with pytest.raises(UsageError, match="time limit is"):
        TimeLimit(seconds)
