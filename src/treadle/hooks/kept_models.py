"""Keeps what is used after training as it was at each validation: to be chosen from, and seen side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from treadle.engine.events import Hook, Order
from treadle.engine.history import Archive
from treadle.engine.schedule import Every
from treadle.engine.trainer import Trainer
from treadle.engine.weights import weights_of
from treadle.errors import UsageError
from treadle.hooks.periodic import Periodic


class KeptModels(Hook):
    """Keeps the weights of some of a trainer's modules at each validation, as they are validated, in `models/`.

    Of a run on disk only. Where there would be more than `keep` of them, every second one goes, then every second of
    those that are left, and so on: they stay spread over the whole run, and the newest is always there. It is an
    observer: a disk that is full ends no run. `treadle.runs.models.find_model(run, step)` reads them.

    Args:
        keep: how many there are at most.
        names: the trainer's attributes that are kept.
    """

    order: ClassVar[int] = Order.LATE
    observer: ClassVar[bool] = True
    wants_batches: ClassVar[bool] = False

    def __init__(self, keep: int, names: Sequence[str]) -> None:
        if keep < 1:
            raise UsageError(f"keep is {keep}: expected at least 1")
        self.keep, self.names = keep, tuple(names)
        self._count = 0
        self._steps: dict[int, int] = {}
        """The steps of those that are kept, by the number of their validation, in ascending order."""

    def post_validation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Keep the weights that were validated."""
        self.take(trainer, metrics)

    def take(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Keep the weights as they are now, and give up some of the earlier ones where there are too many."""
        archive: Archive | None = trainer.loop.archive
        if archive is None:
            return
        step = trainer.progress.step
        if step not in self._steps.values():  # else it is validated once more
            self._count += 1
            self._steps = {number: kept for number, kept in self._steps.items() if number % self._apart() == 0}
            self._steps[self._count] = step
        weights = {
            name: value for name, value in weights_of(trainer.parts).items() if name.partition(".")[0] in self.names
        }
        counts = {"step": step, "epoch": trainer.progress.epoch}
        found = {name: float(value) for name, value in metrics.items()}
        info: dict[str, Any] = {"monitor": None, "mode": "min", "value": None, **counts, "metrics": found}
        archive.keep_model(weights, info)
        archive.prune_models(list(self._steps.values()))

    def on_load(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Give up what was kept of a future that has been given up."""
        if trainer.loop.archive is not None:
            trainer.loop.archive.prune_models(list(self._steps.values()))

    def state_dict(self) -> dict[str, Any]:
        """How often it was validated, and what is kept of that."""
        return {"count": self._count, "steps": [list(pair) for pair in self._steps.items()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._count = int(state["count"])
        self._steps = {int(number): int(step) for number, step in state["steps"]}

    def _apart(self) -> int:
        """One of how many validations is kept, besides the newest: a power of two, so that none is missed later."""
        apart = 1
        while self._count // apart + (self._count % apart > 0) > self.keep:
            apart *= 2
        return apart


class KeptUnvalidated(KeptModels, Periodic):
    """`KeptModels` of a trainer that has nothing to validate on: every so many steps, epochs or percent of the run."""

    def __init__(self, keep: int, names: Sequence[str], every: str | Every) -> None:
        KeptModels.__init__(self, keep, names)
        Periodic.__init__(self, every)

    def act(self, trainer: Trainer) -> None:
        """Keep the weights as a validation would see them."""
        if trainer.loop.archive is not None:
            with trainer.evaluating():
                self.take(trainer, {})
