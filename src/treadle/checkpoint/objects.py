"""One attribute's state: what kinds of things have state, how it is read and put back."""

from __future__ import annotations

import enum
import random
import types
from dataclasses import is_dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from treadle.engine.events import Hook
from treadle.engine.lr import LearningRate
from treadle.errors import StateError

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
    LearningRate,
)


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
    if isinstance(value, _STATELESS) or (isinstance(value, Hook) and not hasattr(value, "state_dict")):
        return True
    return is_dataclass(value) and bool(getattr(type(value), "__dataclass_params__").frozen)  # noqa: B009


def order(value: Any) -> int:
    """Restoring goes by this: parameters have their shapes before the optimizers that hold moments of them."""
    if isinstance(value, nn.Module | Tensor):
        return 0
    return 1 if isinstance(value, torch.optim.Optimizer) else 2


def state_of(value: Any) -> Any:
    """The state of one attribute, as nested data with tensors."""
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


def load_entry(owner: Any, name: str, value: Any, state: Any) -> None:
    """Put `state` back into `value`, the object at dotted `name` of `owner`; plain data replaces what is there."""
    try:
        if isinstance(value, nn.Module):
            _load_module(value, state)
        elif isinstance(value, Tensor):
            value.data = state.to(device=value.device, dtype=value.dtype, copy=True)
        elif isinstance(value, torch.Generator):
            value.set_state(state)
        elif isinstance(value, np.random.Generator):
            value.bit_generator.state = state
        elif isinstance(value, random.Random):
            value.setstate(state)
        elif hasattr(value, "load_state_dict"):
            value.load_state_dict(state)
        else:
            _assign(owner, name, state)
    except StateError:
        raise
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise StateError(f"{name!r} does not take the checkpoint's state: {first}") from error


def _load_module(module: nn.Module, state: dict[str, Any]) -> None:
    """Load strictly, but give parameters and buffers the saved shapes first: rows may have come or gone."""
    current = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for name, saved in state["state"].items():
        here = current.get(name)
        if here is not None and isinstance(saved, Tensor) and here.shape != saved.shape:
            here.data = torch.empty_like(saved, dtype=here.dtype, device=here.device)
    module.load_state_dict(state["state"])
    frozen, evaluating = set(state["frozen"]), set(state["eval"])
    for name, p in module.named_parameters():
        p.requires_grad_(name not in frozen)
    for name, submodule in module.named_modules():
        submodule.training = name not in evaluating


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
