"""Feeds: batches in an order that is a function of (seed, epoch), with an exactly known position."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treadle.data.batch import Padded, batch_elements, to_device
    from treadle.data.convert import as_feed
    from treadle.data.dataset import DatasetFeed
    from treadle.data.feed import BatchIterator, Feed
    from treadle.data.length import LengthBuckets, pad_collate
    from treadle.data.loader import LoaderFeed
    from treadle.data.random import derive_seed
    from treadle.data.sampler import Batching, FixedBatches
    from treadle.data.shapes import ShapeBuckets
    from treadle.data.steps import Steps
    from treadle.data.stream import StreamFeed
    from treadle.data.tensors import TensorFeed

# Imported when asked for: what trains on tensors needs neither worker processes nor readers.
_HOMES = {
    "BatchIterator": "feed",
    "Batching": "sampler",
    "DatasetFeed": "dataset",
    "Feed": "feed",
    "FixedBatches": "sampler",
    "LengthBuckets": "length",
    "LoaderFeed": "loader",
    "Padded": "batch",
    "ShapeBuckets": "shapes",
    "Steps": "steps",
    "StreamFeed": "stream",
    "TensorFeed": "tensors",
    "as_feed": "convert",
    "batch_elements": "batch",
    "derive_seed": "random",
    "pad_collate": "length",
    "to_device": "batch",
}

__all__ = [
    "BatchIterator",
    "Batching",
    "DatasetFeed",
    "Feed",
    "FixedBatches",
    "LengthBuckets",
    "LoaderFeed",
    "Padded",
    "ShapeBuckets",
    "Steps",
    "StreamFeed",
    "TensorFeed",
    "as_feed",
    "batch_elements",
    "derive_seed",
    "pad_collate",
    "to_device",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
