"""How far a run is: counters of what is finished, and the limits they run towards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass
class Progress:
    """Counters of finished things; they only ever grow, and every schedule is counted from them.

    `epoch` and `step` count finished epochs and steps of the run (during the first epoch `epoch == 0`); `batch` counts
    finished batches of the current epoch. `batches_per_epoch` is None for a stream of unknown length.
    """

    epoch: int = 0
    step: int = 0
    batch: int = 0
    max_epochs: int | None = None
    max_steps: int | None = None
    batches_per_epoch: int | None = None
    min_steps: int = 0

    @property
    def total_steps(self) -> int | None:
        """Steps of the whole run, or None where neither limit tells (a stream without `max_steps`)."""
        limits = []
        if self.max_steps is not None:
            limits.append(self.max_steps)
        if self.max_epochs is not None and self.batches_per_epoch is not None:
            limits.append(self.max_epochs * self.batches_per_epoch)
        return min(limits) if limits else None

    @property
    def may_end(self) -> bool:
        """Whether the run may end before its limit: `min_steps` are finished."""
        return self.step >= self.min_steps

    @property
    def at_limit(self) -> bool:
        """Whether `max_epochs` or `max_steps` is reached."""
        return (self.max_steps is not None and self.step >= self.max_steps) or (
            self.max_epochs is not None and self.epoch >= self.max_epochs
        )

    def state_dict(self) -> dict[str, int]:
        """The counters; the limits are settings."""
        return {"epoch": self.epoch, "step": self.step, "batch": self.batch}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore what `state_dict` gave."""
        self.epoch, self.step, self.batch = state["epoch"], state["step"], state["batch"]

    def count_step(self) -> None:
        """One more step, and batch of the epoch, is finished."""
        self.step += 1
        self.batch += 1

    def count_epoch(self) -> None:
        """One more epoch is finished; the next one has no batch yet."""
        self.epoch += 1
        self.batch = 0
