"""Order: the order of an epoch, its cut into batches. Pure functions of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from treadle.data.random import derive_seed
from treadle.errors import UsageError

Indices = NDArray[np.int64]


def epoch_order(n: int, seed: int, epoch: int) -> Indices:
    """A permutation of range(n), int64, that depends on (n, seed, epoch) and on nothing else."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    order: Indices = torch.randperm(n, generator=generator).numpy()
    return order


class Batching(Protocol):
    """Says which samples form the batches of an epoch. Every epoch has the same number of batches."""

    def __len__(self) -> int:
        """Batches per epoch."""

    @property
    def samples(self) -> int:
        """Samples that the batches of an epoch hold together."""

    def epoch(self, seed: int, epoch: int) -> Sequence[Indices]:
        """The batches of an epoch, each as sample indices; a pure function of (seed, epoch)."""


class _Slices(Sequence[Indices]):
    """`order` cut into consecutive batches, made when asked for: an epoch of many batches costs no list of them."""

    def __init__(self, order: Indices, batch_size: int, count: int) -> None:
        self._order, self._batch_size, self._count = order, batch_size, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return [self[k] for k in range(*key.indices(self._count))]
        if not -self._count <= key < self._count:
            raise IndexError(key)
        first = (key % self._count) * self._batch_size
        return self._order[first : first + self._batch_size]


def batch_count(n: int, batch_size: int, drop_last: bool = False) -> int:
    """How many batches of `batch_size` an epoch of `n` samples has; the ragged last one counts unless dropped."""
    return n // batch_size if drop_last else -(-n // batch_size)


def fixed_batches(order: Indices, batch_size: int, drop_last: bool = False) -> Sequence[Indices]:
    """Cut `order` into consecutive batches of `batch_size`; a ragged last one is kept unless `drop_last`."""
    return _Slices(order, batch_size, batch_count(len(order), batch_size, drop_last))


def check_batches(n: int, batch_size: int, drop_last: bool, name: str = "data") -> None:
    """Raise UsageError for what gives no batch: empty data, a batch size below 1, less data than a dropped batch."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise UsageError(f"batch_size is {batch_size!r}: expected a whole number of at least 1")
    if n < 1:
        raise UsageError(f"{name} is empty: give it at least one sample")
    if drop_last and n < batch_size:
        raise UsageError(
            f"{name} has {n} samples, fewer than one batch of {batch_size}, and drop_last leaves none: "
            f"set batch_size to at most {n}, or drop_last=False"
        )


class FixedBatches:
    """Batches of one size from `n` samples, in a new order each epoch (`shuffle`) or always in their own.

    Each sample comes once per epoch; with `drop_last` a short last batch, other samples each epoch, is left out.
    Raises UsageError where that would give no batch.
    """

    def __init__(
        self, n: int, batch_size: int, *, shuffle: bool = True, drop_last: bool = False, name: str = "data"
    ) -> None:
        check_batches(n, batch_size, drop_last, name)
        self.n, self.batch_size, self.shuffle, self.drop_last = n, batch_size, shuffle, drop_last

    def __len__(self) -> int:
        """Batches per epoch."""
        return batch_count(self.n, self.batch_size, self.drop_last)

    @property
    def samples(self) -> int:
        """Samples per epoch."""
        return len(self) * self.batch_size if self.drop_last else self.n

    def epoch(self, seed: int, epoch: int) -> Sequence[Indices]:
        """The batches of an epoch as sample indices."""
        order = epoch_order(self.n, seed, epoch) if self.shuffle else np.arange(self.n, dtype=np.int64)
        return fixed_batches(order, self.batch_size, self.drop_last)
