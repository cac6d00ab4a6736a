"""What a batch is made of: moving it to a device, counting its elements, joining samples into one."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from copy import copy
from dataclasses import fields, is_dataclass
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

    Looks into mappings, lists, tuples and dataclasses, each of which stays what it is: an OrderedDict, a named tuple,
    a Hugging Face `BatchEncoding`. Other objects with a `to(device)` method are asked to move, and what has none
    (strings, numbers, arrays) stays as it is. Copies from pinned memory do not wait for the device.
    """
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=str(device) != "cpu")  # to a CPU nobody would wait for it
    if type(batch) not in (dict, tuple, list) and callable(getattr(batch, "to", None)):
        # The `to` of these works in place: the original would stay on the device, with every batch of a list of them.
        own: Any = copy(batch) if isinstance(batch, UserDict) else batch
        moved = own.to(device)
        return batch if moved is None else moved
    return rebuild(batch, lambda entry: to_device(entry, device))


def rebuild(batch: Batch, change: Callable[[Any], Any]) -> Batch:
    """A container like `batch`, of the same class, with `change(entry)` for each entry; anything else as it is."""
    if isinstance(batch, Mapping):
        return like(batch, {key: change(value) for key, value in batch.items()})
    if isinstance(batch, tuple):
        build: Callable[[list[Any]], Batch] = getattr(type(batch), "_make", type(batch))
        return build([change(value) for value in batch])
    if isinstance(batch, list):
        if type(batch) is list:
            return [change(value) for value in batch]
        changed = copy(batch)
        changed[:] = [change(value) for value in batch]
        return changed
    if is_dataclass(batch) and not isinstance(batch, type):
        # Field by field into a copy: neither `__init__` nor `__post_init__` of a batch is to be run a second time.
        made: Any = copy(batch)
        for field in fields(batch):
            if hasattr(batch, field.name):
                object.__setattr__(made, field.name, change(getattr(batch, field.name)))
        return made
    return batch


def like(batch: Mapping[Any, Any], entries: dict[Any, Any]) -> Mapping[Any, Any]:
    """A mapping of the class of `batch`, and with its other attributes, that holds `entries`."""
    kind: Any = type(batch)
    if kind is dict:
        return entries
    if isinstance(batch, MutableMapping):
        changed = copy(batch)
        for key, value in entries.items():
            changed[key] = value
        return changed
    made: Mapping[Any, Any] = kind(entries)
    return made


def tensors_of(batch: Batch) -> Iterator[Tensor]:
    """The tensors in `batch`, in order: through mappings, lists, tuples and dataclasses."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors_of(value)
    elif isinstance(batch, tuple | list):
        for value in batch:
            yield from tensors_of(value)
    elif is_dataclass(batch) and not isinstance(batch, type):
        for field in fields(batch):
            yield from tensors_of(getattr(batch, field.name, None))


def batch_elements(batch: Batch) -> int:
    """What a mean over `batch` is weighted by: the elements of a `Padded`, else the first tensor's first dimension.

    A tensor without dimensions counts as one, and so does a batch that is a number. Raises UsageError where there is no
    tensor.
    """
    # A tensor, or a tuple that begins with one, is nearly every batch there is: no generator for those.
    first = batch[0] if type(batch) is tuple and batch else batch
    if not isinstance(first, Tensor):
        if isinstance(batch, Padded):
            return batch.elements
        first = next(tensors_of(batch), None)
        if first is None:
            if isinstance(batch, int | float):
                return 1
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
    if isinstance(batch, Tensor | np.ndarray):
        return batch[part] if batch.ndim and len(batch) == count else batch
    if isinstance(batch, list) and not any(isinstance(value, Tensor | Mapping | tuple | list) for value in batch):
        return batch[part] if len(batch) == count else batch
    return rebuild(batch, lambda entry: cut(entry, count, part))


def collate(samples: Sequence[Any]) -> Batch:
    """Join samples into a batch: tensors and arrays stacked, numbers as a tensor, dicts and tuples entry by entry.

    torch's `default_collate`, which knows no dataclasses: these are joined field by field. The error for samples of
    different shapes says what to do about them.
    """
    first = samples[0]
    if is_dataclass(first) and not isinstance(first, Mapping | type):
        joined = {field.name: collate([getattr(sample, field.name) for sample in samples]) for field in fields(first)}
        batch = copy(first)
        for name, value in joined.items():
            object.__setattr__(batch, name, value)
        return batch
    try:
        return default_collate(list(samples))
    except RuntimeError as error:
        if "equal size" in str(error) or "each element in list of batch" in str(error):
            raise UsageError(
                "samples of different shapes cannot be stacked: give the feed collate=pad_collate, or a collate "
                "function of your own"
            ) from error
        raise


def ready_batch(samples: Sequence[Any]) -> Batch:
    """The batch that the only one of `samples` is, in memory of its own: a step may change it in place."""
    return _copied(samples[0])


def _copied(batch: Batch) -> Batch:
    if isinstance(batch, Tensor):
        return batch.detach().clone()
    return batch.copy() if isinstance(batch, np.ndarray) else rebuild(batch, _copied)
