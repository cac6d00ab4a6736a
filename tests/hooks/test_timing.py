"""Timing: the clock, driven by hand."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from treadle import Trainer
from treadle.hooks.timing import Durations, Timing


class Ticking(Trainer):
    """Takes as many seconds for a step as its batch says, on a clock of its own."""

    def setup(self) -> None:
        self.model = torch.nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def step(self, batch: Any) -> Any:
        clock[0] += float(batch)
        loss = self.model(batch[:, None]).sum()
        self.minimize(loss)
        return loss


clock = [0.0]


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    clock[0] = 0.0
    monkeypatch.setattr(
        "treadle.hooks.timing.time", type("Clock", (), {"perf_counter": staticmethod(lambda: clock[0])})
    )


def make(timing: Timing, **settings: Any) -> Ticking:
    data = torch.tensor([1.0, 4.0, 1.0])
    return Ticking(data=data, batch_size=1, shuffle=False, hooks=[timing], **settings)


def test_steps_and_epochs_are_measured() -> None:
    timing = Timing()
    trainer = make(timing, max_epochs=2)
    trainer.train()
    assert timing.steps == Durations(6, 12.0, 1.0, 4.0)
    assert timing.epochs == Durations(2, 12.0, 6.0, 6.0)
    assert str(timing.steps) == "mean 2.0 s, fastest 1.0 s, slowest 4.0 s (6)"
    (entry,) = [entry for entry in trainer.journal if entry["event"] == "timing"]
    assert entry["steps"] == str(timing.steps) and entry["epochs"] == str(timing.epochs)


def test_an_epoch_entered_in_its_middle_is_not_measured(tmp_path: Any) -> None:
    trainer = make(Timing(), max_steps=4, run_dir=tmp_path / "run")
    with trainer:
        trainer.iterate()
        trainer.save()
    timing = Timing()
    with make(timing, max_steps=4, run_dir=tmp_path / "run" / "v001", resume=True) as again:
        again.train()
    assert timing.steps.count == 3 and timing.epochs.count == 0


def test_without_steps_there_is_nothing_to_say() -> None:
    assert str(Durations()) == "none"
    assert Durations().mean != Durations().mean
    assert time.perf_counter() > 0  # the real clock is not touched
