"""The state of single objects: how it is read, and put back into the object that there is."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from treadle.checkpoint.kinds import field_values
from treadle.checkpoint.modules import ModuleMemory, load_module, module_state
from treadle.checkpoint.optimizers import Groups, load_optimizer, optimizer_state
from treadle.checkpoint.plain import is_frozen, was_stateless
from treadle.checkpoint.tensors import put_back
from treadle.errors import StateError, nearest, one_line

Optional = Callable[[str], bool]


class Objects:
    """A section of a state: named objects, each with its own state.

    Args:
        kind: what error messages call one of them: "attribute", "hook".
        owner: of whose attributes plain data among them is set when it is restored.
        items: gives the objects by dotted name, as they are now.
        optional: names whose state may be missing, or left over, in a checkpoint.
        remedy: what messages say about one that is missing here.
        memory, groups: what modules and optimizers were at first; without them what modules keep outside of
            `state_dict()`, and which parameters have joined an optimizer, is no part of the state.
    """

    def __init__(
        self,
        kind: str,
        owner: Any,
        items: Callable[[], Mapping[str, Any]],
        optional: Optional = lambda name: False,
        *,
        remedy: str = "",
        memory: ModuleMemory | None = None,
        groups: Groups | None = None,
    ) -> None:
        self._kind, self._owner, self._items, self._optional = kind, owner, items, optional
        self._remedy, self._memory, self._groups = remedy, memory, groups

    def state_dict(self) -> dict[str, Any]:
        """Each object's state, by name."""
        return {name: state_of(item, self._memory, self._groups) for name, item in self._items().items()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave. Raises StateError naming what is here and not there, or the other way."""
        kind, items = self._kind, self._items()
        for name in saved:
            if name not in items and not self._optional(name) and not _was_apart(name, items):
                near = nearest(name, items)
                near = near if "did you mean" in near else self._remedy or near
                raise StateError(f"the checkpoint has {kind} {name!r}, the trainer has not{near}")
        for name, item in items.items():
            if name not in saved and not self._optional(name) and not was_stateless(item):
                raise StateError(f"the trainer has {kind} {name!r}, the checkpoint has not{nearest(name, saved)}")
        for name, item in sorted(items.items(), key=lambda pair: restore_order(pair[1])):
            if name in saved:
                load_object(self._owner, name, item, saved[name], self._memory, self._groups)
        for name in saved:
            if name not in items and _was_apart(name, items):
                assign(self._owner, name, saved[name])


def _was_apart(name: str, items: Mapping[str, Any]) -> bool:
    """Whether version 0.1.0 saved an entry of a container by itself, whose other entries it left out."""
    return any(name.startswith(f"{known}.") and was_stateless(item) for known, item in items.items())


def restore_order(value: Any) -> int:
    """Restoring goes by this: parameters have their shapes before the optimizers that hold moments of them."""
    if isinstance(value, nn.Module | Tensor):
        return 0
    return 1 if isinstance(value, torch.optim.Optimizer) else 2


def state_of(value: Any, memory: ModuleMemory | None = None, groups: Groups | None = None) -> Any:
    """The state of one object, as nested data with tensors; `memory` and `groups` as for `Objects`."""
    if isinstance(value, nn.Module):
        return module_state(value, memory)
    if isinstance(value, torch.optim.Optimizer):
        return optimizer_state(value, groups)
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, nn.Parameter) and not value.requires_grad:
        return {"value": value, "requires_grad": False}
    if not isinstance(value, Tensor) and hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
        return value.state_dict()
    return value


def load_object(
    owner: Any,
    name: str,
    value: Any,
    state: Any,
    memory: ModuleMemory | None = None,
    groups: Groups | None = None,
) -> None:
    """Put `state` back into `value`, the object at dotted `name` of `owner`; plain data replaces what is there.

    Raises StateError where it does not take it.
    """
    try:
        if isinstance(value, nn.Module):
            load_module(value, state, memory)
        elif isinstance(value, torch.optim.Optimizer):
            load_optimizer(value, state, groups)
        else:
            _loader(owner, name, value, state)(state)
    except StateError as error:
        raise StateError(f"{name!r} does not take the checkpoint's state: {error}") from error
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        first = one_line(error).partition(": ")[2] or one_line(error)
        raise StateError(f"{name!r} does not take the checkpoint's state: {first}") from error


def _loader(owner: Any, name: str, value: Any, state: Any) -> Callable[[Any], object]:
    """The function that takes the state of `value`."""
    if isinstance(value, nn.Parameter):
        return partial(_load_parameter, value)
    if isinstance(value, Tensor):
        return lambda saved: assign(owner, name, refilled(value, saved))
    if isinstance(value, torch.Generator):
        return value.set_state
    if isinstance(value, np.random.Generator):
        return partial(setattr, value.bit_generator, "state")
    if isinstance(value, random.Random):
        return value.setstate
    if hasattr(value, "load_state_dict"):
        found: Callable[[Any], object] = value.load_state_dict
        return found
    return lambda saved: assign(owner, name, refilled(value, saved))


def _load_parameter(parameter: nn.Parameter, state: Any) -> None:
    frozen = isinstance(state, dict)
    put_back(parameter, state["value"] if frozen else state)
    parameter.requires_grad_(not frozen)


def assign(owner: Any, name: str, value: Any) -> None:
    """Set the attribute, or the entry of a list, tuple or dict that is one, at dotted `name`."""
    attribute, _, rest = name.partition(".")
    if not rest:
        setattr(owner, attribute, value)
        return
    container = getattr(owner, attribute)
    changed = _with(container, rest, value)
    if changed is None:
        raise StateError(f"there is no {name!r} to restore")
    if changed is not container:
        setattr(owner, attribute, changed)


def _with(container: Any, name: str, value: Any) -> Any:
    """`container` with `value` at dotted `name`, the same one unless it is a tuple; None where there is no such place.

    Keys may have dots in them: the longest that fits is taken.
    """
    entries = list(container.items() if isinstance(container, dict) else enumerate(container))
    for key, item in sorted(entries, key=lambda entry: -len(str(entry[0]))):
        if name == str(key):
            return _replaced(container, key, value)
        if name.startswith(f"{key}.") and isinstance(item, dict | list | tuple):
            changed = _with(item, name[len(str(key)) + 1 :], value)
            if changed is not None:
                return container if changed is item else _replaced(container, key, changed)
    return None


def _replaced(container: Any, key: Any, value: Any) -> Any:
    if not isinstance(container, tuple):
        container[key] = value
        return container
    items = [*container[:key], value, *container[key + 1 :]]
    return container._make(items) if hasattr(container, "_make") else tuple(items)


def refilled(here: Any, saved: Any) -> Any:
    """`here` with the contents of `saved`, where it is of that type and can be changed; else `saved` in its place."""
    if type(here) is not type(saved):
        return saved
    if isinstance(here, dict):
        entries = {key: refilled(here[key], item) if key in here else item for key, item in saved.items()}
        here.clear()
        here.update(entries)
    elif isinstance(here, list) or (isinstance(here, deque) and here.maxlen == saved.maxlen):
        items = [refilled(here[i], item) if i < len(here) else item for i, item in enumerate(saved)]
        here.clear()
        here.extend(items)
    elif isinstance(here, Tensor) and here.is_leaf and isinstance(saved, Tensor):
        put_back(here, saved)
    elif isinstance(here, np.ndarray) and _alike(here, saved):
        here[...] = saved
    elif (inside := field_values(saved)) is not None and not is_frozen(saved):
        for name, item in inside.items():
            setattr(here, name, refilled(getattr(here, name, None), item))
    else:
        return saved
    return here


def _alike(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> bool:
    """Whether the entries of one can be written where those of the other are."""
    if (first.shape, first.dtype, first.strides) != (second.shape, second.dtype, second.strides):
        return False
    return bool(first.flags.writeable)
