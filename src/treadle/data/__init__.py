"""Feeds: batches in an order that is a function of (seed, epoch), with an exactly known position."""

from __future__ import annotations

from treadle.data.batch import Padded, batch_elements, to_device
from treadle.data.convert import as_feed
from treadle.data.dataset import DatasetFeed
from treadle.data.feed import BatchIterator, Feed
from treadle.data.length import LengthBuckets, pad_collate
from treadle.data.loader import LoaderFeed
from treadle.data.random import derive_seed
from treadle.data.sampler import Batching, FixedBatches
from treadle.data.stream import StreamFeed
from treadle.data.tensors import TensorFeed

__all__ = [
    "BatchIterator",
    "Batching",
    "DatasetFeed",
    "Feed",
    "FixedBatches",
    "LengthBuckets",
    "LoaderFeed",
    "Padded",
    "StreamFeed",
    "TensorFeed",
    "as_feed",
    "batch_elements",
    "derive_seed",
    "pad_collate",
    "to_device",
]
