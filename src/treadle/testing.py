"""For tests of trainers, ours and yours: stop one as a kill would, look at its state, check that it resumes exactly.

from treadle.testing import check_resume

def test_my_trainer_resumes_exactly(tmp_path):
    check_resume(lambda **where: MyTrainer(data=data, max_steps=20, **where), tmp_path, stops=[1, 7, 13])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from treadle.checkpoint.compare import differences
from treadle.checkpoint.state import State
from treadle.engine.trainer import Trainer


class Line(Trainer):
    """The smallest trainer: fits y = 3x + 1 with Adam. `line_data()` is what it is given."""

    def setup(self) -> None:
        """Build the line."""
        self.model = torch.nn.Linear(1, 1)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)

    def step(self, batch: Any) -> Any:
        """Fit it to a batch."""
        loss = self.loss(batch)
        self.minimize(loss)
        return {"loss": loss}

    def validation_step(self, batch: Any) -> Any:
        """How well it fits."""
        return {"loss": self.loss(batch)}

    def loss(self, batch: Any) -> torch.Tensor:
        """The mean squared error of a batch."""
        x, y = batch
        return torch.nn.functional.mse_loss(self.model(x), y)


def line_data(points: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    """Points on the line: x in [-1, 1] and y, both of shape (points, 1)."""
    x = torch.linspace(-1, 1, points)[:, None]
    return x, 3 * x + 1


def capture(trainer: Trainer) -> State:
    """The trainer's complete state; its tensors are the trainer's own (`state.copy()` has others)."""
    with trainer.driver.active:
        return trainer.loop.state.capture()


def restore(trainer: Trainer, state: State) -> None:
    """Put the trainer, constructed as the one was that `state` is of, into it."""
    with trainer.driver.active:
        trainer.loop.state.restore(state)


def kill(trainer: Trainer) -> None:
    """Leave the trainer as a process that is killed leaves its run: nothing fires, and nothing more is written.

    The checkpoint that is under way is finished first, so that what is on the disk does not depend on the moment.
    """
    trainer.driver.abandon()
    if trainer.run is not None:
        trainer.run.metrics.file.close()  # as the operating system closes what the process had open
        trainer.run.journal.close()


def check_resume(build: Callable[..., Trainer], directory: Path, stops: Iterable[int] = (1, 3)) -> None:
    """Train to the end without and with a kill after each of the steps `stops`; the digests have to be equal.

    Args:
        build: makes the trainer, as `build(run_dir=..., resume=...)`.
        directory: where the runs go: one for the whole, one for each stop.
        stops: after how many steps the run is killed, below the number it takes in all.

    Raises AssertionError naming the first entry that differs.
    """
    whole = build(run_dir=directory / "whole" / "v001", resume=False)
    expected = whole.train().digest
    for stop in stops:
        path = directory / f"stopped-{stop}" / "v001"
        first = build(run_dir=path, resume=False)
        while first.progress.step < stop and first.iterate():
            pass
        first.save()
        kill(first)
        resumed = build(run_dir=path, resume=True)
        if resumed.train().digest != expected:
            first_difference = next(differences(capture(whole), capture(resumed)), "nothing by then")
            raise AssertionError(f"killed after step {stop} and resumed it is another run: {first_difference}")
