"""Batches of samples of similar length, and their padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from treadle.data.batch import Padded, collate
from treadle.data.random import derive_seed
from treadle.data.sampler import Indices
from treadle.errors import UsageError


class LengthBuckets:
    """Batches of samples of similar length: for `DatasetFeed(dataset, batching=LengthBuckets(...))`.

    Every sample comes exactly once per epoch. Samples are sorted into buckets of similar length; each epoch draws the
    members of each batch anew within its bucket, and the order of the batches, from (seed, epoch). What full batches
    leave over in each bucket is joined across buckets. The number of batches is the same in every epoch.

    Args:
        lengths: length of each sample, whole numbers >= 0 (elements, points, tokens).
        batch_size: most samples per batch.
        max_elements: most elements per batch, padding included: samples times the longest of them. A sample longer
            than that forms a batch of its own. At least one of `batch_size` and `max_elements` is needed.
        max_padding: in (0, 1): within a bucket at most this fraction of a batch is padding. Smaller: more buckets,
            less padding, less mixing of lengths. Batches of leftovers may have more.
        shuffle: False gives the same batches in every epoch, from short to long.

    Raises UsageError for no lengths, negative ones, or limits out of range.
    """

    def __init__(
        self,
        lengths: ArrayLike | Tensor,
        batch_size: int | None = None,
        *,
        max_elements: int | None = None,
        max_padding: float = 0.1,
        shuffle: bool = True,
    ) -> None:
        values = np.asarray(lengths)
        if values.ndim != 1 or values.size == 0:
            raise UsageError(f"lengths has shape {values.shape}: expected one length per sample, at least one")
        if values.dtype.kind not in "iu" or values.min() < 0:
            raise UsageError(f"lengths holds {values.dtype}, smallest {values.min()}: expected whole numbers >= 0")
        if batch_size is None and max_elements is None:
            raise UsageError("LengthBuckets needs a batch_size or max_elements")
        for name, limit in (("batch_size", batch_size), ("max_elements", max_elements)):
            if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
                raise UsageError(f"{name} is {limit!r}: expected a whole number of at least 1")
        if not 0 < max_padding < 1:
            raise UsageError(f"max_padding is {max_padding!r}: expected a fraction between 0 and 1")
        self.lengths: NDArray[np.int64] = values.astype(np.int64)
        self.batch_size, self.max_elements, self.shuffle = batch_size, max_elements, shuffle
        self._buckets = _buckets(self.lengths, max_padding)
        self._count = len(self._cut(self._buckets))

    def __len__(self) -> int:
        """Batches per epoch."""
        return self._count

    @property
    def samples(self) -> int:
        """Samples per epoch: all of them."""
        return len(self.lengths)

    def epoch(self, seed: int, epoch: int) -> Sequence[Indices]:
        """The batches of an epoch as sample indices."""
        if not self.shuffle:
            return self._cut(self._buckets)
        rng = np.random.Generator(np.random.PCG64(derive_seed(seed, "buckets", epoch)))
        batches = self._cut([rng.permutation(bucket) for bucket in self._buckets])
        return [batches[k] for k in rng.permutation(len(batches))]

    def _cut(self, buckets: Sequence[Indices]) -> list[Indices]:
        """Cut buckets (from short to long) into batches. How many is decided by the buckets' sizes alone, since a
        batch's size follows from the bucket's longest sample, whoever is in it."""
        batches: list[Indices] = []
        leftover: list[Indices] = []
        open_places = 0
        # From long to short, so that leftovers joined to a batch never exceed what its first, longest bucket allows.
        for bucket in reversed(buckets):
            size = self._size(int(self.lengths[bucket].max()))
            whole = len(bucket) // size * size
            batches += [bucket[k : k + size] for k in range(0, whole, size)]
            rest = bucket[whole:]
            while len(rest):
                if not open_places:
                    leftover.append(rest[:0])
                    open_places = size
                joined, rest = rest[:open_places], rest[open_places:]
                leftover[-1] = np.concatenate([leftover[-1], joined])
                open_places -= len(joined)
        return sorted(batches + leftover, key=lambda batch: int(self.lengths[batch].max()))

    def _size(self, longest: int) -> int:
        """How many samples of at most `longest` elements fit into a batch."""
        size = len(self.lengths) if self.batch_size is None else self.batch_size
        if self.max_elements is not None:
            size = min(size, self.max_elements // max(1, longest))
        return max(1, size)


def _buckets(lengths: NDArray[np.int64], max_padding: float) -> list[Indices]:
    """Sample indices in groups, from short to long, of lengths that differ by at most `max_padding`, relatively."""
    order = np.argsort(lengths, kind="stable").astype(np.int64)
    ranked = lengths[order]
    edges = [len(order)]
    while edges[-1] > 0:
        longest = ranked[edges[-1] - 1]
        edges.append(int(np.searchsorted(ranked, np.ceil(longest * (1 - max_padding)), side="left")))
    edges.reverse()
    return [order[a:b] for a, b in pairwise(edges)]


def pad_collate(samples: Sequence[Any], value: float = 0.0) -> Padded:
    """Join samples of different lengths: a collate function for feeds.

    A sample is a tensor (length, ...), or a tuple or dict whose first entry is one. Entries whose first dimension is
    the sample's length are padded at the end with `value`, to the longest of the batch; other entries are joined as
    usual. Returns `Padded(values, lengths, mask, elements)`. Use `functools.partial` for another `value`.

    Raises UsageError where a sample does not begin with a tensor of at least one dimension.
    """
    first = [_first(sample) for sample in samples]
    lengths = torch.tensor([entry.shape[0] for entry in first], dtype=torch.int64)
    longest = int(lengths.max())
    sample = samples[0]
    values: Any
    if isinstance(sample, Mapping):
        values = {key: _join([s[key] for s in samples], first, longest, value) for key in sample}
    elif isinstance(sample, tuple | list):
        build: Any = getattr(type(sample), "_make", type(sample))
        values = build(_join(list(entries), first, longest, value) for entries in zip(*samples, strict=True))
    else:
        values = _pad(first, longest, value)
    mask = torch.arange(longest)[None, :] < lengths[:, None]
    return Padded(values, lengths, mask, int(lengths.sum()))


def _first(sample: Any) -> Tensor:
    entry = sample
    if isinstance(entry, Mapping):
        entry = next(iter(entry.values()), None)
    elif isinstance(entry, tuple | list):
        entry = entry[0] if entry else None
    entry = torch.from_numpy(entry) if isinstance(entry, np.ndarray) else entry
    if not isinstance(entry, Tensor) or entry.dim() == 0:
        raise UsageError(
            f"pad_collate was given a sample that begins with {type(entry).__name__}: expected a tensor (length, ...)"
        )
    return entry


def _join(entries: list[Any], first: list[Tensor], longest: int, value: float) -> Any:
    tensors = [torch.from_numpy(entry) if isinstance(entry, np.ndarray) else entry for entry in entries]
    ragged = all(
        isinstance(entry, Tensor) and entry.dim() > 0 and entry.shape[0] == whole.shape[0]
        for entry, whole in zip(tensors, first, strict=True)
    )
    return _pad(tensors, longest, value) if ragged else collate(tensors)


def _pad(tensors: list[Tensor], longest: int, value: float) -> Tensor:
    trailing = {tuple(tensor.shape[1:]) for tensor in tensors}
    if len(trailing) > 1:
        raise UsageError(f"pad_collate pads the first dimension only, but the others differ: {sorted(trailing)}")
    padded = torch.full((len(tensors), longest, *trailing.pop()), value, dtype=tensors[0].dtype)
    for row, tensor in zip(padded, tensors, strict=True):
        row[: tensor.shape[0]] = tensor
    return padded
