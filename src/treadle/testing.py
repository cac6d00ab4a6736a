"""For tests of trainers, ours and yours: stop one as a kill would, look at its state, check that it resumes exactly.

    from treadle.testing import check_resume


    def test_my_trainer_resumes_exactly(tmp_path):
        check_resume(lambda **where: MyTrainer(data=data, max_steps=20, **where), tmp_path, stops=[1, 7, 13])

None of it needs pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from treadle.checkpoint.compare import differences
from treadle.checkpoint.state import State
from treadle.engine.trainer import Trainer
from treadle.errors import UsageError


class Line(Trainer):
    """The smallest trainer: fits a line to points with Adam. `line_data` makes points to fit it to.

    Example:
        Line(data=line_data(), batch_size=20, max_epochs=2, seed=0).train()
    """

    def setup(self) -> None:
        """Build the line and its optimizer."""
        self.model = torch.nn.Linear(1, 1)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)

    def step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        """Fit it to a batch: `x` and `y`, both of shape (batch, 1), float32."""
        loss = self.loss(batch)
        self.minimize(loss)
        return {"loss": loss}

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        """How well it fits a batch."""
        return {"loss": self.loss(batch)}

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The mean squared error over a batch, a scalar."""
        x, y = batch
        return torch.nn.functional.mse_loss(self.model(x), y)


def line_data(points: int = 50) -> tuple[Tensor, Tensor]:
    """Points on the line y = 3x + 1: x from -1 to 1, and y, both of shape (points, 1), float32."""
    x = torch.linspace(-1, 1, points)[:, None]
    return x, 3 * x + 1


def capture(trainer: Trainer) -> State:
    """The trainer's complete state between two steps, as a checkpoint would hold it.

    `values` are plain data, `tensors` go by path ("model/state/weight"), `digest` is that of the run. The tensors are
    the trainer's own: `capture(trainer).copy()` keeps what they are now. Raises StateError naming an attribute that has
    state and cannot be saved.
    """
    with trainer.driver.active:
        return trainer.loop.state.capture()


def restore(trainer: Trainer, state: State) -> None:
    """Put `trainer`, constructed as the one was that `state` is of, into that state.

    Raises StateError naming what the trainer has and the state has not, or the other way round.
    """
    with trainer.driver.active:
        trainer.loop.state.restore(state)


def kill(trainer: Trainer) -> None:
    """Leave the trainer as a process that is killed leaves its run: no event fires, and nothing more is written.

    A checkpoint that is under way is finished first, so that what is on the disk does not depend on the moment. The run
    can then be resumed, in the same process too. Raises UsageError inside a step or a hook: end the step first, or kill
    a process.
    """
    if trainer.loop.lifecycle.in_step:
        raise UsageError("kill() was called from inside a step or a hook: call it between two, with iterate()")
    trainer.driver.abandon()
    if trainer.run is not None:
        trainer.run.metrics.file.close()  # as the operating system closes what the process had open
        trainer.run.journal.close()


def check_resume(build: Callable[..., Trainer], directory: str | Path, stops: Iterable[int] = (1, 3)) -> None:
    """Train once to the end, and once more for each of `stops`: killed after so many steps, then resumed to the end.

    All have to end in the same state, bit for bit. What a trainer keeps where Treadle cannot see it (in a global
    variable, in an attribute named in `transient`) is what makes them differ.

    Args:
        build: makes the trainer: `build(run_dir=..., resume=...)`, which it hands on to its constructor.
        directory: an empty one for the runs, such as pytest's `tmp_path`.
        stops: numbers of steps, fewer than the run takes in all.

    Raises:
        AssertionError: a resumed run ended otherwise; it names the first entry of the state that differs.
        UsageError: there is nothing to check: no stops, one that is not within the run, or a run that never finishes.
    """
    stops = list(stops)
    if not stops:
        raise UsageError("check_resume() was given no stops: name at least one number of steps, such as stops=[1]")
    with build(run_dir=Path(directory) / "whole" / "v001", resume=False) as whole:
        summary = whole.train()
    if summary.status != "finished":
        raise UsageError(f"the run to compare with is {summary.status} ({summary.reason}), not finished: let it end")
    for stop in stops:
        if not 0 <= stop < summary.step:
            raise UsageError(f"cannot stop after step {stop}: the run takes {summary.step}; give fewer, from 0")
        path = Path(directory) / f"stopped-{stop}" / "v001"
        first = build(run_dir=path, resume=False)
        while first.progress.step < stop:
            if not first.iterate():
                raise AssertionError(f"built once more it ends after step {first.progress.step}, not {summary.step}")
        first.save()
        kill(first)
        with build(run_dir=path, resume=True) as resumed:
            resumed.train()
        difference = next(differences(capture(whole), capture(resumed)), None)
        if difference is not None:
            raise AssertionError(f"killed after step {stop} and resumed it ends elsewhere: {difference}")
