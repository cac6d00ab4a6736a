"""The feed: batches in an order that is a function of (seed, epoch), with an exactly known position."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch

from treadle.data.batch import Batch
from treadle.errors import StateError


class BatchIterator(ABC):
    """The batches of one epoch, from `Feed.iterate`.

    `exhausted` is True as soon as the batch delivered last was the epoch's last one (and before the first, where there
    is none at all). Feeds of known length just count; a stream looks one item ahead when it is asked.
    """

    @property
    @abstractmethod
    def exhausted(self) -> bool:
        """Whether no batch of the epoch is left."""

    @abstractmethod
    def __next__(self) -> Batch:
        """The next batch; raises StopIteration after the last."""

    def __iter__(self) -> BatchIterator:
        return self


class Feed(ABC):
    """Gives the batches of a run.

    The order of an epoch is a pure function of (seed, epoch) and per-sample randomness one of (seed, epoch, sample),
    so a position is two numbers, and `iterate(epoch, start)` continues exactly where a run was stopped. Feeds leave
    the global generators of Python, NumPy and torch as they found them.

    Subclasses give `batches`, `iterate` and `fingerprint`; `seed` holds the seed in force, `device` the device bound.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._own_seed = seed is not None
        self.seed = 0 if seed is None else seed
        self.device = torch.device("cpu")

    @property
    @abstractmethod
    def batches(self) -> int | None:
        """Batches per epoch, the same in every epoch; None where the length is unknown before it is read."""

    @property
    def samples(self) -> int | None:
        """Samples per epoch, or None where unknown."""
        return None

    @abstractmethod
    def iterate(self, epoch: int, start: int = 0) -> BatchIterator:
        """The batches of `epoch` (from 0) from batch `start` on, without touching the samples before it."""

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256, in hex, over what identifies the data: equal for equal data, whatever the order and batch size."""

    def bind(self, seed: int, device: torch.device | str) -> None:
        """Take the run's seed (unless this feed was given its own) and its device. Called by the trainer."""
        if not self._own_seed:
            self.seed = seed
        self.device = torch.device(device)

    def state_dict(self) -> dict[str, Any]:
        """State beyond (seed, epoch, batch): none, except for streams."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave, before `iterate`. Raises StateError for state this feed cannot have."""
        if state:
            raise StateError(f"{type(self).__name__} has no state of its own, but was given {sorted(state)}")

    def close(self) -> None:  # noqa: B027 (most feeds have nothing to close)
        """End worker processes, where there are any. The feed can be iterated again; it would start them anew."""
