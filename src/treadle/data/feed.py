"""The feed: batches in an order that is a function of (seed, epoch), with an exactly known position."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from treadle.data.batch import Batch
from treadle.errors import StateError, UsageError


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


def as_feed(
    data: Any,
    *,
    batch_size: int = 32,
    shuffle: bool = True,
    drop_last: bool = False,
    workers: int = 0,
    seed: int | None = None,
    name: str = "data",
) -> Feed:
    """The feed that suits `data`; `name` is what error messages call it.

    - a `Feed`: itself, with its own settings;
    - a tensor or array, a tuple or dict of them, a `TensorDataset`: `TensorFeed` (which needs no `workers`);
    - a torch `DataLoader`: `LoaderFeed`, with the loader's own settings;
    - a map-style dataset (`__len__` and `__getitem__`), or a list of samples: `DatasetFeed`;
    - an iterable, an `IterableDataset`, or a function of the epoch that returns an iterable: `StreamFeed` (in its own
      order: `shuffle` does not apply).

    Raises UsageError for anything else, for empty data, and for settings that would give no batch.
    """
    from treadle.data.dataset import DatasetFeed
    from treadle.data.loader import LoaderFeed
    from treadle.data.stream import StreamFeed
    from treadle.data.tensors import TensorFeed

    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise UsageError(f"workers is {workers!r}: expected a whole number of 0 or more")
    if isinstance(data, Feed):
        own: Feed = data
        return own
    if isinstance(data, DataLoader):
        return LoaderFeed(data, seed=seed)
    if type(data) is TensorDataset:
        data = data.tensors
    if isinstance(data, Tensor | np.ndarray | tuple | Mapping):
        return TensorFeed(data, batch_size, shuffle=shuffle, drop_last=drop_last, seed=seed, name=name)
    if isinstance(data, list) and data and all(isinstance(entry, Tensor | np.ndarray) for entry in data):
        raise UsageError(
            f"{name} is a list of tensors, which can mean columns or samples: give a tuple of columns, "
            "or DatasetFeed(samples, ...)"
        )
    if isinstance(data, str | bytes | type):
        raise UsageError(f"{name} is {data!r}: expected tensors, a dataset, an iterable, a DataLoader or a Feed")
    is_stream = isinstance(data, IterableDataset)
    if not is_stream and hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return DatasetFeed(
            data, batch_size, shuffle=shuffle, drop_last=drop_last, workers=workers, seed=seed, name=name
        )
    if is_stream or isinstance(data, Iterable | Iterator) or callable(data):
        if workers:
            raise UsageError(
                f"{name} is a stream, which is read in the training process: set workers=0, give a dataset with "
                "__len__ and __getitem__, or a torch DataLoader with workers of its own"
            )
        return StreamFeed(data, batch_size, drop_last=drop_last, seed=seed, name=name)
    raise UsageError(
        f"{name} is a {type(data).__name__}: expected tensors, a dataset with __len__ and __getitem__, an iterable, "
        "a DataLoader or a Feed"
    )
