"""The fast path: tensors in memory, each batch one gather per tensor, no item ever touched by Python."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from treadle.data.batch import Batch, like
from treadle.data.feed import Feed
from treadle.data.fingerprint import Fingerprint
from treadle.data.sampler import batch_count, check_batches, epoch_order
from treadle.errors import UsageError
from treadle.parallel import ALONE, World

_BLOCK = 256
"""Batches whose indices are cut from the order in one call."""


class TensorFeed(Feed):
    """Batches from tensors that share their first dimension: one tensor or array, or a tuple or mapping of them.

    Batches have the same structure and class, and are copies: a step may change them in place. With `shuffle` each
    epoch has its own order; a ragged last batch is kept unless `drop_last`. On a GPU, tensors that fill less than a
    quarter of its free memory are moved there once, and gathered there.

    Raises UsageError for no tensors, no rows, different numbers of rows, or a batch size that gives no batch.

    Example:
        feed = TensorFeed((x, y), 64)
        for x_batch, y_batch in feed.iterate(epoch=0): ...
    """

    def __init__(
        self,
        tensors: Any,
        batch_size: int,
        *,
        shuffle: bool = True,
        drop_last: bool = False,
        seed: int | None = None,
        name: str = "data",
    ) -> None:
        super().__init__(seed)
        named, self._build = _columns(tensors, name)
        self._names = [key for key, _ in named]
        self.tensors = [tensor for _, tensor in named]
        self.n = _rows(named, name)
        check_batches(self.n, batch_size, drop_last, name)
        self.batch_size, self.shuffle, self.drop_last = batch_size, shuffle, drop_last
        self._placed = self.tensors
        self._fingerprint: str | None = None

    @property
    def batches(self) -> int:
        """Batches per epoch."""
        return batch_count(self.n, self.batch_size, self.drop_last)

    @property
    def samples(self) -> int:
        """Rows delivered per epoch."""
        return self.batches * self.batch_size if self.drop_last else self.n

    def bind(self, seed: int, device: torch.device | str, world: World = ALONE) -> None:
        """Take the run's seed, device and world; moves the tensors to a GPU where they fit easily."""
        super().bind(seed, device, world)
        self._placed = self.tensors
        if self.device.type == "cuda":
            size = sum(tensor.numel() * tensor.element_size() for tensor in self.tensors)
            if size <= torch.cuda.mem_get_info(self.device)[0] // 4:
                self._placed = [tensor.to(self.device) for tensor in self.tensors]

    def plan(self, epoch: int) -> Sequence[Tensor]:
        """The rows of each batch, on the device of the tensors."""
        device, order = self._placed[0].device, None
        if self.shuffle:
            order = torch.from_numpy(epoch_order(self.n, self.seed, epoch))
            order = order if device.type == "cpu" else order.to(device)
        return _Cuts(order, self.n, self.batch_size, self.batches, device)

    def gather(self, epoch: int, indices: Tensor) -> Batch:
        """The rows `indices` of each tensor.

        Every batch is freshly allocated, so it is aligned as torch aligns: sums over it come out bit for bit the same
        wherever in an epoch it stands, which views into a larger block would not promise.
        """
        # index_select, not x[index]: the same rows at half the dispatch.
        return self._build([tensor.index_select(0, indices) for tensor in self._placed])

    def fingerprint(self) -> str:
        """SHA-256 over names, shapes, dtypes and every byte of the tensors; computed once."""
        if self._fingerprint is None:
            digest = Fingerprint()
            for key, tensor in zip(self._names, self.tensors, strict=True):
                digest.add(key).add(tensor)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint


class _Cuts(Sequence[Tensor]):
    """An order (None: as the rows are) cut into batches, a block of them at a time: that halves the cost of a cut."""

    def __init__(self, order: Tensor | None, n: int, batch_size: int, count: int, device: torch.device) -> None:
        self._order, self._batch_size, self._count, self._device = order, batch_size, count, device
        self._end = min(n, count * batch_size)
        self._block: Sequence[Tensor] = ()
        self._first = 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, key: Any) -> Any:
        if not 0 <= (place := key - self._first) < len(self._block):
            if not 0 <= key < self._count:
                raise IndexError(key)
            self._first, place = key, 0
            first = key * self._batch_size
            last = min(first + _BLOCK * self._batch_size, self._end)
            block = torch.arange(first, last, device=self._device) if self._order is None else self._order[first:last]
            # No view of an order is ever written to: the split that does not watch for it is half as dear.
            self._block = block.unsafe_split(self._batch_size)
        return self._block[place]


def _columns(tensors: Any, name: str) -> tuple[list[tuple[str, Tensor]], Callable[[list[Tensor]], Batch]]:
    """The tensors with a name each, and the function that builds a batch of the same structure from gathered ones."""
    build: Callable[[list[Tensor]], Batch]
    if isinstance(tensors, Mapping):
        keys = list(tensors)
        entries = [(str(key), value) for key, value in tensors.items()]

        def build(parts: list[Tensor]) -> Batch:
            return like(tensors, dict(zip(keys, parts, strict=True)))

    elif isinstance(tensors, tuple):
        fields = getattr(tensors, "_fields", range(len(tensors)))
        entries = [(str(field), value) for field, value in zip(fields, tensors, strict=True)]
        build = getattr(type(tensors), "_make", tuple)
    else:
        entries, build = [("0", tensors)], itemgetter(0)
    columns = []
    for key, value in entries:
        if isinstance(value, np.ndarray):
            value = _from_numpy(value, f"{name}[{key}]")
        if not isinstance(value, Tensor):
            raise UsageError(f"{name}[{key}] is a {type(value).__name__}: expected a tensor or an array")
        if value.dim() == 0:
            raise UsageError(f"{name}[{key}] has no dimension: expected samples along the first one")
        columns.append((key, value.detach()))
    return columns, build


def _from_numpy(array: np.ndarray[Any, Any], name: str) -> Tensor:
    """`array` as a tensor, without a copy where its strides allow: a memory-mapped file stays one."""
    if any(stride < 0 for stride in array.strides):
        array = np.ascontiguousarray(array)
    try:
        with warnings.catch_warnings():
            # torch warns that a read-only array must not be written to: batches are copies, nothing is.
            warnings.simplefilter("ignore", UserWarning)
            return torch.from_numpy(array)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} is an array of {array.dtype}, which torch has no type for: convert it") from error


def _rows(named: list[tuple[str, Tensor]], name: str) -> int:
    """The common first dimension. Raises UsageError where there is none."""
    if not named:
        raise UsageError(f"{name} holds no tensors: give it at least one")
    first, n = named[0][0], named[0][1].shape[0]
    for key, tensor in named:
        if tensor.shape[0] != n:
            raise UsageError(
                f"{name}[{key}] has {tensor.shape[0]} rows but {name}[{first}] has {n}: "
                "all tensors need the same first dimension"
            )
        if tensor.device != named[0][1].device:
            raise UsageError(f"{name}[{key}] is on {tensor.device} but {name}[{first}] on {named[0][1].device}")
    return n
