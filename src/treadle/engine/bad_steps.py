"""After a bad step: stop, skip its batch, or go back to the last good state and pass over the batch."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

from torch import Tensor

from treadle.engine.parts import Parts
from treadle.engine.progress import Progress
from treadle.errors import RunError

WINDOW, LEAST = 100, 20
"""A loss is compared with those of the last 100 updates, once there are 20."""


class BadStep(RunError):
    """A step that must not count: `what` says what is wrong with it. No parameter has been touched by it."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class NonFiniteError(BadStep):
    """A loss or gradient is NaN or Inf."""


class LossSpike(BadStep):
    """A loss is far above those before it."""


class SpikeDetector:
    """Tells a loss that is more than `deviations` standard deviations above the mean of the losses before it."""

    def __init__(self, deviations: float) -> None:
        self._deviations = deviations
        self._losses: deque[float] = deque(maxlen=WINDOW)

    def check(self, loss: float) -> None:
        """Raise LossSpike for a spike; any other loss joins those that the next is compared with."""
        count = len(self._losses)
        if count >= LEAST:
            mean = math.fsum(self._losses) / count
            spread = math.sqrt(math.fsum((value - mean) ** 2 for value in self._losses) / count)
            if loss > mean + self._deviations * spread and loss > mean:
                raise LossSpike(f"the loss is {loss:.4g}, a spike over {mean:.4g} +- {spread:.2g} before it")
        self._losses.append(loss)

    def state_dict(self) -> list[float]:
        """The losses that the next one is compared with."""
        return list(self._losses)

    def load_state_dict(self, losses: list[float]) -> None:
        """Restore what `state_dict` gave."""
        self._losses = deque(losses, maxlen=WINDOW)


class RollBack(Exception):
    """Unwinds the loop, which then begins again from the last good state."""


class Recovery:
    """What is done about bad steps, how often it was, and which batches are passed over.

    The policy is the setting `on_bad_step`, at most `max_recoveries` times.

    Args:
        policy: "stop", "skip" or "rollback".
        most: recoveries after which the run stops all the same.
        progress: the run's counters.
        parts: the modules, whose buffers a skipped step leaves as they were.
        note: adds to the journal.
        keep: writes a batch where it can be looked at, by a name; returns where, or None where there is no place.
    """

    def __init__(
        self,
        policy: str,
        most: int,
        progress: Progress,
        parts: Parts,
        note: Callable[..., None],
        keep: Callable[[str, Any], str | None],
    ) -> None:
        self._policy, self._most, self._progress, self._parts = policy, most, progress, parts
        self._note, self._keep = note, keep
        self.skips = policy == "skip"
        self._buffers: list[tuple[Tensor, Tensor]] = []
        self.count = 0
        self.skipped: set[tuple[int, int]] = set()

    def remember_buffers(self) -> None:
        """Before a step that may be skipped: what a forward pass changes by itself, such as batch statistics."""
        self._buffers = [(b, b.detach().clone()) for m in self._parts.modules.values() for b in m.buffers()]

    def handle(self, error: BadStep, batch: Any, where: str) -> None:
        """Note the bad step and keep its batch; returns for "skip", raises RollBack, or the error for "stop"."""
        located = type(error)(
            f"{error.what}, at {where}; no parameter was touched by it: look at that batch, lower the learning rate, "
            "set clip_norm, or let on_bad_step be 'skip' or 'rollback'"
        )
        saved = self._keep(f"bad_batches/step-{self._progress.step + 1:08d}", batch)
        self._note("bad step", what=error.what, where=where, policy=self._policy, batch=saved)
        if self._policy == "stop":
            raise located from None
        if self.count >= self._most:
            raise type(error)(f"{located.what} (given up after {self.count} recoveries)") from None
        self.count += 1
        if self._policy == "rollback":
            self.skipped.add((self._progress.epoch, self._progress.batch))
            raise RollBack
        for buffer, before in self._buffers:
            if buffer.shape == before.shape:
                buffer.data.copy_(before)

    def passes_over(self) -> bool:
        """Whether the coming batch is one that a rollback left out."""
        return (self._progress.epoch, self._progress.batch) in self.skipped

    def state_dict(self) -> dict[str, Any]:
        """How many recoveries there were, and the batches that are passed over."""
        return {"count": self.count, "skipped": sorted(self.skipped)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.count = state["count"]
        self.skipped = {(int(epoch), int(batch)) for epoch, batch in state["skipped"]}
