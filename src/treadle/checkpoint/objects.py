"""The state of single objects: what kinds of things have state, how it is read and put back."""

from __future__ import annotations

import enum
import random
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from functools import partial
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from treadle.checkpoint.packing import is_dense
from treadle.errors import StateError, nearest, one_line


class Stateless:
    """A base for things that hold nothing to save, unless they have a `state_dict`."""


_STATELESS = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.ModuleType,
    type,
    PurePath,
    enum.Enum,
    torch.device,
    torch.dtype,
)


class Objects:
    """A section of a state: named objects, each with its own state.

    Args:
        kind: what error messages call one of them: "attribute", "hook".
        owner: of whose attributes plain data among them is set when it is restored.
        items: gives the objects by dotted name, as they are now.
        optional: names whose state may be missing, or left over, in a checkpoint.
    """

    def __init__(
        self,
        kind: str,
        owner: Any,
        items: Callable[[], Mapping[str, Any]],
        optional: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self._kind, self._owner, self._items, self._optional = kind, owner, items, optional

    def state_dict(self) -> dict[str, Any]:
        """Each object's state, by name."""
        return {name: state_of(item) for name, item in self._items().items()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave. Raises StateError naming what is here and not there, or the other way."""
        kind, items = self._kind, self._items()
        for name in saved:
            if name not in items and not self._optional(name):
                raise StateError(f"the checkpoint has {kind} {name!r}, the trainer has not{nearest(name, items)}")
        for name in items:
            if name not in saved and not self._optional(name):
                raise StateError(f"the trainer has {kind} {name!r}, the checkpoint has not{nearest(name, saved)}")
        for name, item in sorted(items.items(), key=lambda pair: restore_order(pair[1])):
            if name in saved:
                load_object(self._owner, name, item, saved[name])


def stateful(attributes: Mapping[str, Any], transient: tuple[str, ...], walk: Walk) -> dict[str, Any]:
    """The attributes that have state, by dotted name; a container of plain data counts as one."""
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for attribute, value in attributes.items():
        if attribute in transient:
            continue
        for name, item in [(attribute, value)] if is_plain(value) else walk(value, attribute):
            if is_stateless(item) or (not is_plain(item) and id(item) in seen):
                continue
            seen.add(id(item))
            found[name] = item
    return found


Walk = Callable[[Any, str], Iterator[tuple[str, Any]]]


def is_plain(value: Any) -> bool:
    """Whether `value` is data all through: numbers, strings, arrays, tensors without gradients, containers of them."""
    if isinstance(value, dict):
        return all(is_plain(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(is_plain(item) for item in value)
    if isinstance(value, Tensor):
        return not value.requires_grad and not isinstance(value, nn.Parameter)
    return value is None or isinstance(value, bool | int | float | str | np.generic | np.ndarray)


def is_stateless(value: Any) -> bool:
    """Whether `value` holds nothing to save: a function, class, path, frozen dataclass, hook without state ..."""
    if isinstance(value, _STATELESS) or (isinstance(value, Stateless) and not hasattr(value, "state_dict")):
        return True
    return is_dataclass(value) and bool(getattr(type(value), "__dataclass_params__").frozen)  # noqa: B009


def restore_order(value: Any) -> int:
    """Restoring goes by this: parameters have their shapes before the optimizers that hold moments of them."""
    if isinstance(value, nn.Module | Tensor):
        return 0
    return 1 if isinstance(value, torch.optim.Optimizer) else 2


def state_of(value: Any) -> Any:
    """The state of one object, as nested data with tensors."""
    if isinstance(value, nn.Module):
        return {
            "state": dict(value.state_dict()),
            "frozen": [name for name, p in value.named_parameters() if not p.requires_grad],
            "eval": [name for name, module in value.named_modules() if not module.training],
        }
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, random.Random):
        return value.getstate()
    if not isinstance(value, Tensor) and hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
        return value.state_dict()
    return value


def load_object(owner: Any, name: str, value: Any, state: Any) -> None:
    """Put `state` back into `value`, the object at dotted `name` of `owner`; plain data replaces what is there."""
    try:
        _loader(owner, name, value)(state)
    except StateError:
        raise
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        first = one_line(error).partition(": ")[2] or one_line(error)
        raise StateError(f"{name!r} does not take the checkpoint's state: {first}") from error


def _loader(owner: Any, name: str, value: Any) -> Callable[[Any], object]:
    """The function that takes the state of `value`."""
    if isinstance(value, nn.Module):
        return partial(_load_module, value)
    if isinstance(value, torch.optim.Optimizer):
        return partial(_load_optimizer, value)
    if isinstance(value, Tensor):
        return partial(put, value)
    if isinstance(value, torch.Generator):
        return value.set_state
    if isinstance(value, np.random.Generator):
        return partial(setattr, value.bit_generator, "state")
    if isinstance(value, random.Random):
        return value.setstate
    if hasattr(value, "load_state_dict"):
        found: Callable[[Any], object] = value.load_state_dict
        return found
    return partial(_assign, owner, name)


def put(tensor: Tensor, saved: Tensor) -> None:
    """Give `tensor` the saved entries, shape and strides, as memory of its own; dtype and device stay what they are.

    The strides too: torch's fused CPU kernels walk a parameter and its moments through raw memory. Only one with gaps
    in its memory, which no checkpoint has, keeps its own: such a parameter gets no fused kernels.
    """
    if _has_gaps(tensor) and tensor.shape == saved.shape:
        tensor.data.copy_(saved)
        return
    tensor.data = saved.to(device=tensor.device, dtype=tensor.dtype, copy=True)


def forget_accumulator(tensor: Tensor) -> None:
    """Make autograd build a new accumulator for the tensor, whose shape is about to change.

    It lives, with the shape that it was made for, as long as any graph holds it, such as the one behind a loss that is
    still in scope; the next backward would then refuse gradients of the new shape. Autograd drops it when the tensor's
    dtype changes, so that is what happens here for a moment.
    """
    if tensor.is_floating_point() or tensor.is_complex():
        other = torch.float32 if tensor.dtype == torch.float16 else torch.float16
        tensor.data = torch.empty(0, dtype=other, device=tensor.device)


def _has_gaps(tensor: Tensor) -> bool:
    """Whether it is part of a larger memory, as every second column is; not where places are there several times."""
    if tensor.layout != torch.strided or is_dense(tensor):
        return False
    return all(stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1)


def _load_module(module: nn.Module, state: dict[str, Any]) -> None:
    """Load strictly, but give parameters and buffers the saved shapes and strides first: rows may have come or gone."""
    current = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for name, saved in state["state"].items():
        here = current.get(name)
        if here is None or not isinstance(saved, Tensor):
            continue
        if here.shape != saved.shape or (here.stride() != saved.stride() and not _has_gaps(here)):
            dtype = here.dtype
            if here.shape != saved.shape:
                forget_accumulator(here)
            here.data = torch.empty_like(saved, dtype=dtype, device=here.device)
    module.load_state_dict(state["state"])
    frozen, evaluating = set(state["frozen"]), set(state["eval"])
    for name, p in module.named_parameters():
        p.requires_grad_(name not in frozen)
    for name, submodule in module.named_modules():
        submodule.training = name not in evaluating


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load, then undo torch's casts: it gives moments the dtype of their parameter, whatever they were kept in."""
    optimizer.load_state_dict(state)
    order = [p for group in optimizer.param_groups for p in group["params"]]
    for index, saved in state.get("state", {}).items():
        p = order[int(index)] if isinstance(index, int) and index < len(order) else None
        loaded = optimizer.state.get(p, {}) if p is not None else {}
        for key, value in saved.items() if isinstance(saved, dict) else ():
            here = loaded.get(key)
            if isinstance(value, Tensor) and isinstance(here, Tensor) and here.dtype != value.dtype:
                loaded[key] = value.to(device=here.device, copy=True)


def _assign(owner: Any, name: str, value: Any) -> None:
    """Set the attribute, or the item of a list or dict attribute, at dotted `name`."""
    first, *rest = name.split(".")
    if not rest:
        setattr(owner, first, value)
        return
    container = getattr(owner, first)
    for key in rest[:-1]:
        container = _item(container, key)
    if isinstance(container, tuple):
        return
    key = rest[-1]
    if isinstance(container, list):
        container[int(key)] = value
    else:
        container[next(k for k in container if str(k) == key)] = value


def _item(container: Any, key: str) -> Any:
    if isinstance(container, dict):
        return next(item for k, item in container.items() if str(k) == key)
    return container[int(key)]
