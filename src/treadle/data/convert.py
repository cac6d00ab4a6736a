"""What people have (tensors, datasets, loaders, iterables) as the feed that suits it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from treadle.data.batch import ready_batch
from treadle.data.feed import Feed
from treadle.data.tensors import TensorFeed
from treadle.errors import UsageError


def as_feed(
    data: Any,
    *,
    batch_size: int | None = 32,
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

    `batch_size=None` says that what a dataset, list or iterable gives are batches already: they are not joined.

    Raises UsageError for anything else, for empty data, and for settings that would give no batch.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise UsageError(f"workers is {workers!r}: expected a whole number of 0 or more")
    if isinstance(data, Feed):
        own: Feed = data
        return own
    # Imported where they are needed: what trains on tensors starts without worker processes and readers.
    if isinstance(data, DataLoader):
        from treadle.data.loader import LoaderFeed

        return LoaderFeed(data, seed=seed)
    if type(data) is TensorDataset:
        data = data.tensors
    if isinstance(data, Tensor | np.ndarray | tuple | Mapping):
        if batch_size is None:
            raise UsageError(
                f"{name} is tensors, whose rows are samples, and no ready batches: give a batch_size, or a TensorFeed"
            )
        return TensorFeed(data, batch_size, shuffle=shuffle, drop_last=drop_last, seed=seed, name=name)
    joined = batch_size is not None and isinstance(data, list) and len(data) > 0
    if joined and all(isinstance(entry, Tensor | np.ndarray) for entry in data):
        raise UsageError(
            f"{name} is a list of tensors, which can mean columns or samples: give a tuple of columns, "
            "DatasetFeed(samples, ...), or batch_size=None where each is a batch"
        )
    if isinstance(data, str | bytes | type):
        raise UsageError(f"{name} is {data!r}: expected tensors, a dataset, an iterable, a DataLoader or a Feed")
    if batch_size is not None and getattr(data, "batch_size", None) is not None:
        raise UsageError(
            f"{name} is a {type(data).__name__} with a batch_size of its own, so what it gives seems to be batches "
            f"already: say batch_size=None, or join them on purpose with StreamFeed or DatasetFeed"
        )
    is_stream = isinstance(data, IterableDataset)
    if not is_stream and hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        from treadle.data.dataset import DatasetFeed
        from treadle.data.sampler import FixedBatches

        if batch_size is None:
            ready = FixedBatches(len(data), 1, shuffle=shuffle, name=name)
            return DatasetFeed(data, batching=ready, workers=workers, collate=ready_batch, seed=seed, name=name)
        return DatasetFeed(
            data, batch_size, shuffle=shuffle, drop_last=drop_last, workers=workers, seed=seed, name=name
        )
    if is_stream or isinstance(data, Iterable | Iterator) or callable(data):
        if workers:
            raise UsageError(
                f"{name} is a stream, which is read in the training process: set workers=0, give a dataset with "
                "__len__ and __getitem__, or a torch DataLoader with workers of its own"
            )
        from treadle.data.stream import StreamFeed

        return StreamFeed(data, batch_size, drop_last=drop_last and batch_size is not None, seed=seed, name=name)
    raise UsageError(
        f"{name} is a {type(data).__name__}: expected tensors, a dataset with __len__ and __getitem__, an iterable, "
        "a DataLoader or a Feed"
    )
