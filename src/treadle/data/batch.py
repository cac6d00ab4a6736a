"""What a batch is made of: moving it to a device, counting its elements, joining samples into one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from treadle.errors import UsageError

Batch = Any
Collate = Callable[[Sequence[Any]], Batch]


class Padded(NamedTuple):
    """Samples of different lengths, padded to the longest of the batch (see `pad_collate`)."""

    values: Any
    """As one sample is (tensor, tuple or dict), with tensors of shape (batch, longest, ...)."""
    lengths: Tensor
    """(batch,), int64: the length of each sample."""
    mask: Tensor
    """(batch, longest), bool: True where `values` holds data and not padding."""
    elements: int
    """Sum of the lengths: what a loss over this batch is weighted by, known without asking the device."""


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """`batch` with every tensor in it on `device`; what is there already is not copied.

    Looks into dicts, lists, tuples and named tuples; other objects with a `to(device)` method are asked to move, and
    what has none (strings, numbers) stays as it is. Copies from pinned memory do not wait for the device.
    """
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if callable(getattr(batch, "to", None)):
        return batch.to(device)
    if isinstance(batch, tuple):
        build: Callable[[list[Any]], Batch] = getattr(type(batch), "_make", tuple)
        return build([to_device(value, device) for value in batch])
    if isinstance(batch, list):
        return [to_device(value, device) for value in batch]
    return batch


def tensors_of(batch: Batch) -> Iterator[Tensor]:
    """The tensors in `batch`, in order: through dicts, lists, tuples and named tuples."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors_of(value)
    elif isinstance(batch, tuple | list):
        for value in batch:
            yield from tensors_of(value)


def batch_elements(batch: Batch) -> int:
    """What a mean over `batch` is weighted by: the elements of a `Padded`, else the first tensor's first dimension.

    A tensor without dimensions counts as one. Raises UsageError where there is no tensor.
    """
    # A tensor, or a tuple that begins with one, is nearly every batch there is: no generator for those.
    first = batch[0] if type(batch) is tuple and batch else batch
    if not isinstance(first, Tensor):
        if isinstance(batch, Padded):
            return batch.elements
        first = next(tensors_of(batch), None)
        if first is None:
            raise UsageError(
                f"cannot count the elements of a batch that holds no tensor ({type(batch).__name__}): "
                "override elements(batch) in the trainer"
            )
    return first.shape[0] if first.dim() else 1


def sample_count(batch: Batch) -> int:
    """How many samples `batch` holds: its first tensor's first dimension. Raises UsageError where there is none."""
    return len(batch.lengths) if isinstance(batch, Padded) else batch_elements(batch)


def cut(batch: Batch, count: int, part: slice) -> Batch:
    """The samples `part` of a batch of `count`: tensors, arrays and lists of that length are cut, the rest is kept."""
    if isinstance(batch, Padded):
        values, lengths, mask = (cut(entry, count, part) for entry in batch[:3])
        return Padded(values, lengths, mask, int(lengths.sum()))
    if isinstance(batch, Mapping):
        return {key: cut(value, count, part) for key, value in batch.items()}
    if isinstance(batch, tuple):
        build: Callable[[list[Any]], Batch] = getattr(type(batch), "_make", tuple)
        return build([cut(value, count, part) for value in batch])
    if isinstance(batch, list) and any(isinstance(value, Tensor | Mapping | tuple | list) for value in batch):
        return [cut(value, count, part) for value in batch]
    if isinstance(batch, Tensor | np.ndarray):
        return batch[part] if batch.ndim and len(batch) == count else batch
    return batch[part] if isinstance(batch, list) and len(batch) == count else batch


def collate(samples: Sequence[Any]) -> Batch:
    """Join samples into a batch: tensors and arrays stacked, numbers as a tensor, dicts and tuples entry by entry.

    torch's `default_collate`, with an error that says what to do about samples of different shapes.
    """
    try:
        return default_collate(list(samples))
    except RuntimeError as error:
        if "equal size" in str(error) or "each element in list of batch" in str(error):
            raise UsageError(
                "samples of different shapes cannot be stacked: give the feed collate=pad_collate, or a collate "
                "function of your own"
            ) from error
        raise
