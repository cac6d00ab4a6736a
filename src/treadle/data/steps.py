"""The feed of a loop that makes its own data: an epoch is a number of steps, and nothing is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from treadle.data.feed import Feed
from treadle.data.fingerprint import Fingerprint
from treadle.errors import UsageError


class Steps(Feed):
    """Epochs of `count` steps for a trainer that makes its own data in `step`: from an environment, by sampling.

    The batch of a step is its number in the epoch, an int from 0; it weighs one element. What the data come from (an
    environment, a buffer, generators) is an attribute of the trainer, so it is saved and restored with the run.

    Of several processes each takes every step: what they make should depend on their rank.

    Raises UsageError for a count below 1.

    Example:
        class Gambler(Trainer):
            def step(self, number):
                actions, rewards = self.play(64)
                ...

        Gambler(data=Steps(100), max_epochs=20).train()
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise UsageError(f"Steps got {count!r}: expected how many steps an epoch has, a whole number of at least 1")
        self.count = count

    @property
    def batches(self) -> int:
        """Steps per epoch."""
        return self.count

    def plan(self, epoch: int) -> Sequence[Any]:
        """The number of each step, once for each process, or part."""
        return cast(Sequence[Any], np.arange(self.count)[:, None].repeat(self._world.size * (self._cut or 1), axis=1))

    def gather(self, epoch: int, indices: Any) -> int:
        """The number of the step."""
        return int(indices[0])

    def fingerprint(self) -> str:
        """SHA-256 over the count: there are no data to identify."""
        return Fingerprint().add("steps").add(self.count).hexdigest()
