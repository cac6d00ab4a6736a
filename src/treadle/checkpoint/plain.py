"""Which values are data, which are handles without state of their own, and which are objects with state."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from treadle.checkpoint.kinds import SCALARS, field_values
from treadle.errors import StateError


class Stateless:
    """A base for things that hold nothing to save, unless they have a `state_dict`."""


_HANDLES = (
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, type),
    *(PurePath, torch.device, torch.dtype, Enum),
)
_SCALARS = (bool, int, float, str, complex, bytes, np.generic, Enum, torch.dtype)

Walk = Callable[[Any, str], Iterator[tuple[str, Any]]]
"""Yields (dotted name, object) for a value of that name, looking into lists, tuples and dicts."""


def stateful(attributes: Mapping[str, Any], transient: tuple[str, ...], walk: Walk) -> dict[str, Any]:
    """The attributes that have state, by dotted name; a container of plain data counts as one.

    Raises StateError for a name that two of them share, as `{1: ..., "1": ...}` and `{"a.b": ..., "a": {"b": ...}}` do.
    """
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for attribute, value in attributes.items():
        if attribute in transient:
            continue
        for name, item in [(attribute, value)] if is_plain(value) else walk(value, attribute):
            if is_stateless(item) or (not is_plain(item) and id(item) in seen):
                continue
            if name in found:
                raise StateError(f"two entries of {attribute!r} go by the name {name!r}: give one another key")
            seen.add(id(item))
            found[name] = item
    return found


def is_plain(value: Any) -> bool:
    """Whether `value` is data all through: numbers, text, arrays, tensors without gradients, members of enumerations,
    containers and dataclasses of them."""
    if value is None or isinstance(value, _SCALARS):
        return True
    if isinstance(value, dict):
        return all(map(is_plain, value.values()))
    if isinstance(value, list | tuple | deque):
        return set(map(type, value)) <= SCALARS or all(map(is_plain, value))
    if isinstance(value, Tensor):
        return not value.requires_grad and not isinstance(value, nn.Parameter)
    if isinstance(value, np.ndarray):
        return True
    # One that holds tensors is a handle: a scene, say, that a training does not change.
    inside = None if hasattr(value, "load_state_dict") else field_values(value)
    return inside is not None and not has_tensors(inside) and is_plain(inside)


def is_stateless(value: Any) -> bool:
    """Whether `value` holds nothing to save: a function, class, hook without state, or a constant that setup gives."""
    if isinstance(value, _HANDLES) or (isinstance(value, Stateless) and not hasattr(value, "state_dict")):
        return True
    return is_constant(value) or is_frozen(value)


def is_constant(value: Any) -> bool:
    """Whether it is a value that setup gives and that cannot change, but may be replaced: a member of an enumeration,
    a path, device or dtype, a frozen dataclass of plain data."""
    return isinstance(value, Enum | PurePath | torch.device | torch.dtype) or (is_frozen(value) and is_plain(value))


def was_stateless(value: Any) -> bool:
    """Whether version 0.1.0 saved nothing of `value`, which is data: enumerations, dtypes, frozen dataclasses."""
    if isinstance(value, dict):
        return any(map(was_stateless, value.values()))
    if isinstance(value, list | tuple):
        return not set(map(type, value)) <= SCALARS and any(map(was_stateless, value))
    return isinstance(value, Enum | torch.dtype) or is_frozen(value)


def is_frozen(value: Any) -> bool:
    """Whether it is an instance of a frozen dataclass."""
    parameters = getattr(type(value), "__dataclass_params__", None)
    return parameters is not None and bool(parameters.frozen) and not hasattr(value, "load_state_dict")


def has_tensors(value: Any) -> bool:
    """Whether there is a tensor or array in data."""
    if isinstance(value, dict):
        return any(map(has_tensors, value.values()))
    if isinstance(value, list | tuple | deque):
        return not set(map(type, value)) <= SCALARS and any(map(has_tensors, value))
    return isinstance(value, Tensor | np.ndarray)
