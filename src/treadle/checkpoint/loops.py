"""Exact states of any loop: captured from named objects, and restored into the same ones.

    objects = {"model": model, "optimizer": optimizer, "position": position}
    state = capture(objects, random=True)
    restore(objects, state)

The objects take the place of a trainer's attributes; what is saved of each is what a trainer saves of it.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from treadle.checkpoint import state as sections
from treadle.checkpoint.kinds import Kinds, classes_in
from treadle.checkpoint.modules import ModuleMemory
from treadle.checkpoint.objects import load_object, refilled, restore_order, state_of
from treadle.checkpoint.optimizers import Groups
from treadle.checkpoint.packing import Packer
from treadle.checkpoint.plain import is_constant, is_plain, is_stateless
from treadle.checkpoint.state import Section, State, Value
from treadle.data.feed import Feed
from treadle.data.random import program_state, set_program_state
from treadle.errors import DataChanged, StateError, TreadleError, nearest, one_line

_NOTHING_TO_SAVE = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.ModuleType,
    type,
)

_OF_THE_PLACE = (PurePath, torch.device)
"""Constants that say where a program runs, and may be others where it goes on."""
_RESTORED_IN_PLACE = (nn.Module, torch.optim.Optimizer, Tensor, torch.Generator, np.random.Generator, Random)
_PROGRAM = type("Program", (), {"__module__": "__main__"})()
"""Stands for the program: classes of data are looked up beside it, and in what the objects hold."""
_MEMORY = ModuleMemory()
"""Has seen no module before it changed: so all that modules keep outside of `state_dict()` is saved."""


def capture(objects: Mapping[str, Any], *, random: bool = False) -> State:
    """The complete state of `objects`; its `digest` is the SHA-256 of it all, equal for equal states.

    Tensors are references, of which the digest is made when it is first asked for: `capture(objects).copy()` is a state
    in memory that stays as it is, to go back to.

    Args:
        objects: by name: modules, parameters, optimizers, torch's schedulers, random generators, feeds, EMAs,
            Objectives, whatever else has `state_dict()` and `load_state_dict()`; numbers, text, arrays and tensors;
            lists, tuples and dicts of all these. Gradients are saved where there are any.
        random: whether the global generators of Python, NumPy and torch belong to it.

    Raises:
        StateError: for what cannot be restored exactly, by name: an object without a state to save, an optimizer
            whose parameters are in none of the objects, a scheduler whose optimizer is none of them.
    """
    found = _Found(dict(objects))
    found.check()
    parts: dict[str, Section] = {"attributes": found}
    if gradients := found.gradients():
        parts["gradients"] = Value(lambda: gradients, found.set_gradients)
    if feeds := found.feeds():
        prints = {name: feed.recorded_fingerprint() for name, feed in feeds.items()}
        parts["data"] = Value(lambda: prints, found.check_data)
    if random:
        parts["random"] = Value(program_state, set_program_state)
    return sections.capture(parts, found.kinds)


def restore(objects: dict[str, Any], state: State) -> dict[str, Any]:
    """Put `objects`, named and made as those were that `state` is of, into that state; returns them.

    Each stays the object it is, with memory of its own; parameters take the saved shapes, dicts and lists the saved
    entries. Numbers and text, which cannot be changed, are replaced in `objects`. Gradients are the saved ones, or
    none. The global generators go on where they were, if they were captured.

    Raises:
        StateError: it is not a state of these objects; the message names what is here and not there, or the other way
            round, or what does not take its part.
    """
    found = _Found(objects)
    parts: dict[str, Section] = {
        "data": Value(dict, found.check_data),
        "attributes": found,
        "gradients": Value(dict, found.set_gradients),
        "random": Value(dict, set_program_state),
    }
    if other := sorted(set(state.values) - {"format", *parts}):
        raise StateError(f"the state is a trainer's (it has {other[0]!r}): restore it with such a trainer")
    try:
        sections.restore({name: part for name, part in parts.items() if name in state.values}, state, found.kinds)
    except TreadleError:
        raise
    except Exception as error:
        raise StateError(f"the state is damaged, or not one of such objects: {one_line(error)}") from error
    return objects


class _Found:
    """The objects that have a state, found in `objects` and the containers in it, by dotted name: a section."""

    def __init__(self, objects: dict[str, Any]) -> None:
        self.items: dict[str, Any] = {}
        self.kinds = Kinds(_PROGRAM, lambda: classes_in(objects))
        self._groups = Groups(self._named_parameters)
        self._replace: dict[str, Callable[[Any], None]] = {}
        for name, value in objects.items():
            if not isinstance(name, str):
                raise StateError(f"the objects are named by text, not by {name!r}")
            for path, given, replace in _walk(objects, name, value, name):
                item = _unwrapped(given)
                if isinstance(item, _NOTHING_TO_SAVE):
                    what = type(item).__name__
                    raise StateError(f"{path!r} is a {what}, which has no state: give what it makes, or leave it out")
                if isinstance(item, DataLoader) and not hasattr(item, "state_dict"):
                    raise StateError(
                        f"{path!r} is a DataLoader, whose position is not saved: make it a feed, with "
                        "treadle.data.as_feed, iterate `for batch in feed.epoch(n)`, and give the feed"
                    )
                if is_stateless(item) and (not is_constant(item) or isinstance(item, _OF_THE_PLACE)):
                    continue
                if path in self.items:
                    raise StateError(f"two of the objects are called {path!r}: give one of them another name")
                self.items[path], self._replace[path] = item, replace

    def state_dict(self) -> dict[str, Any]:
        """Each object's state, by name."""
        return {name: self._state_of(item) for name, item in self.items.items()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave. Raises StateError where names differ, before anything is changed."""
        for name in saved:
            if name not in self.items:
                raise StateError(f"the state has {name!r}, the objects have not{nearest(name, self.items)}")
        for name in self.items:
            if name not in saved:
                raise StateError(f"the objects have {name!r}, the state has not{nearest(name, saved)}")
        self.set_gradients({})  # whose shapes may not be those of what comes
        for name, item in sorted(self.items.items(), key=lambda pair: restore_order(pair[1])):
            if not is_plain(item) and (isinstance(item, _RESTORED_IN_PLACE) or hasattr(item, "load_state_dict")):
                load_object(None, name, item, saved[name], _MEMORY, self._groups)
            else:
                self._replace[name](refilled(item, saved[name]))

    def check(self) -> None:
        """Raise StateError for an optimizer or scheduler that would come back without what it works on."""
        held = {id(p) for parameters in self._parameters().values() for p in parameters.values()}
        held |= {id(item) for item in self.items.values()}
        updated: set[int] = set()
        for name, optimizer in self._of(torch.optim.Optimizer):
            for p in _parameters_of(optimizer):
                updated.add(id(p))
                if id(p) not in held:
                    raise StateError(
                        f"{name!r} updates a parameter of shape {tuple(p.shape)} that is in none of the objects: give "
                        "the module that has it, too"
                    )
        for name, scheduler in self._of(torch.optim.lr_scheduler.LRScheduler):
            if not all(id(p) in updated for p in _parameters_of(scheduler.optimizer)):
                raise StateError(f"{name!r} schedules an optimizer that is none of the objects: give that, too")

    def feeds(self) -> dict[str, Feed]:
        """The feeds, by name."""
        return dict(self._of(Feed))

    def check_data(self, saved: Mapping[str, str]) -> None:
        """Raise DataChanged where a feed's data is not what it was."""
        for name, feed in self.feeds().items():
            if name in saved and not feed.accept_fingerprint(saved[name]):
                raise DataChanged(f"the data of {name!r} is not what it was: restore it, or start anew")

    def gradients(self) -> dict[str, dict[str, Tensor]]:
        """The gradients that there are, by object and parameter."""
        found = {
            name: {inner: p.grad for inner, p in parameters.items() if p.grad is not None}
            for name, parameters in self._parameters().items()
        }
        return {name: gradients for name, gradients in found.items() if gradients}

    def set_gradients(self, saved: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Give parameters the saved gradients, and the others none."""
        for name, parameters in self._parameters().items():
            for inner, p in parameters.items():
                gradient = saved.get(name, {}).get(inner)
                p.grad = None if gradient is None else gradient.to(p.device)

    def _state_of(self, item: Any) -> Any:
        """Its state; of a module's attributes those that a state can hold: what it cannot is some library's."""
        state = state_of(item, _MEMORY, self._groups)
        if isinstance(item, nn.Module) and "kept" in state:
            found = {
                path: {name: value for name, value in kept.items() if self._can_be_saved(value)}
                for path, kept in state["kept"].items()
            }
            state["kept"] = {path: kept for path, kept in found.items() if kept}
        return state

    def _can_be_saved(self, value: Any) -> bool:
        try:
            Packer(self.kinds).pack(value, "")
        except StateError:
            return False
        return True

    def _of(self, kind: type[Any]) -> list[tuple[str, Any]]:
        return [(name, item) for name, item in self.items.items() if isinstance(item, kind)]

    def _parameters(self) -> dict[str, dict[str, Tensor]]:
        """What may have gradients, by object and name in it; of a lone parameter, ""."""
        found: dict[str, dict[str, Tensor]] = {name: dict(m.named_parameters()) for name, m in self._of(nn.Module)}
        found |= {name: {"": tensor} for name, tensor in self._of(Tensor) if tensor.requires_grad and tensor.is_leaf}
        return found

    def _named_parameters(self) -> dict[str, Tensor]:
        """The same by dotted names: by these an optimizer's groups come back, those that were added late, too."""
        return {
            f"{name}.{inner}" if inner else name: p
            for name, parameters in self._parameters().items()
            for inner, p in parameters.items()
        }


def _parameters_of(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    return (p for group in optimizer.param_groups for p in group["params"])


def _unwrapped(item: Any) -> Any:
    """The optimizer inside of what wraps it: Lightning's wrapper would keep a state that its optimizer never sees."""
    inner = getattr(item, "optimizer", None) if isinstance(item, torch.optim.Optimizer) else None
    return _unwrapped(inner) if isinstance(inner, torch.optim.Optimizer) else item


def _walk(holder: Any, key: Any, value: Any, path: str) -> Iterator[tuple[str, Any, Callable[[Any], None]]]:
    """Yield (dotted name, object, what replaces it) for `value`, the entry `key` of `holder`, and all that is in it."""
    if not is_plain(value) and isinstance(value, dict | list | tuple):
        for inner, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _walk(value, inner, item, f"{path}.{inner}")
        return

    def replace(new: Any) -> None:
        if new is not value and isinstance(holder, tuple):
            if repr(new) != repr(value):
                raise StateError(f"{path!r} is in a tuple, which cannot be changed: put it into a list or a dict")
        elif new is not value:
            holder[key] = new

    yield path, value, replace
