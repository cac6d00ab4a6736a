"""The state of a module: its parameters and buffers, and what it keeps where `state_dict()` does not look.

That is: buffers that are not persistent, tensors and random generators that are plain attributes (the sums of a metric,
the memory of a recurrent cell), and plain attributes that have changed since the module was made (`self.calls += 1`).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from treadle.checkpoint.plain import has_tensors, is_plain
from treadle.checkpoint.tensors import give, has_gaps, put_back
from treadle.errors import StateError

_OF_TORCH = frozenset(vars(nn.Module()))
_GENERATORS = (torch.Generator, np.random.Generator, random.Random)


class ModuleMemory:
    """Tells what modules keep besides parameters and persistent buffers, by what they were when it first saw them."""

    def __init__(self) -> None:
        self._first: WeakKeyDictionary[nn.Module, dict[str, Any]] = WeakKeyDictionary()
        self._buffers: WeakKeyDictionary[nn.Module, dict[str, bool]] = WeakKeyDictionary()
        """Which buffers there were, and whether they were filled."""

    def look(self, module: nn.Module, like: nn.Module | None = None) -> None:
        """Remember what `module` and those inside it are, where they have not been seen yet, or take them for others.

        These are at the same places in `like`, which has been seen.
        """
        others = dict(like.named_modules()) if like is not None else {}
        for path, inner in module.named_modules():
            if inner in self._first:
                continue
            if path in others and others[path] in self._first:
                self._first[inner], self._buffers[inner] = self._first[others[path]], self._buffers[others[path]]
            else:
                self._first[inner] = {
                    name: value if has_tensors(value) else deepcopy(value) for name, value in _attributes(inner)
                }
                self._buffers[inner] = {name: kept is not None for name, kept in inner._buffers.items()}

    def state_dict(self, module: nn.Module) -> dict[str, Any]:
        """What is kept, by dotted name of the inner module and then of the attribute; mostly nothing.

        Of a module that has not been looked at that is everything.
        """
        found: dict[str, Any] = {}
        for path, inner in module.named_modules():
            first = self._first.get(inner, {})
            kept = {
                name: _state(value)
                for name, value in _attributes(inner)
                if has_tensors(value) or name not in first or not _equal(value, first[name])
            }
            if kept:
                found[path] = kept
        return found

    def go_back(self, module: nn.Module, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Let what `state_dict` did not give be what it was at first: before the module loads its own state, which may
        change it."""
        for path, inner in module.named_modules():
            saved, first = state.get(path, {}), self._first.get(inner)
            for name, value in list(_attributes(inner)) if first is not None else ():
                assert first is not None
                if name not in saved and name not in first:
                    delattr(inner, name)
                elif name not in saved and not has_tensors(first[name]) and not _equal(value, first[name]):
                    setattr(inner, name, deepcopy(first[name]))

    def take_over(self, module: nn.Module, state: Mapping[str, Mapping[str, Any]]) -> None:
        """What the module has changed while it loaded its own state, after `go_back`, follows from that state."""
        for path, inner in module.named_modules():
            saved, first = state.get(path, {}), self._first.get(inner)
            for name, value in _attributes(inner) if first is not None else ():
                assert first is not None
                if name in first and name not in saved and not has_tensors(value) and not _equal(value, first[name]):
                    first[name] = deepcopy(value)

    def load_state_dict(self, module: nn.Module, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Restore what `state_dict` gave."""
        for path, inner in module.named_modules():
            for name, value in state.get(path, {}).items():
                _put_into(inner, name, value)

    def late_buffers(self, module: nn.Module) -> list[str]:
        """The buffers that have come, or been filled, since the modules that hold them were looked at."""
        return [
            _joined(path, name)
            for path, inner in module.named_modules()
            for name, kept in inner._buffers.items()
            if kept is not None and inner in self._buffers and not self._buffers[inner].get(name)
        ]

    def arrange_buffers(
        self, module: nn.Module, saved: Mapping[str, Any], beside: Mapping[str, Any], late: Collection[str]
    ) -> None:
        """Make the `late` buffers that are not there, and take away those that came later still.

        `saved` and `beside` have the persistent buffers and the others.
        """
        inside = dict(module.named_modules())
        for name in self.late_buffers(module):
            if name not in late:
                path, _, last = name.rpartition(".")
                inside[path].register_buffer(last, None)
                if last not in self._buffers[inside[path]]:
                    delattr(inside[path], last)
        for name in late:
            path, _, last = name.rpartition(".")
            if path in inside and inside[path]._buffers.get(last) is None:
                kept = saved.get(name, beside.get(name))
                inside[path].register_buffer(last, torch.empty_like(kept), persistent=name in saved)


def buffers_beside(module: nn.Module) -> dict[str, Tensor]:
    """The buffers that are not persistent, by dotted name."""
    return {
        _joined(path, name): kept
        for path, inner in module.named_modules()
        for name in sorted(inner._non_persistent_buffers_set)
        if (kept := inner._buffers.get(name)) is not None
    }


def module_state(module: nn.Module, memory: ModuleMemory | None = None) -> dict[str, Any]:
    """The state of a module: "state" (as `state_dict()` gives it), what is frozen, evaluates, is kept, came late."""
    beside = buffers_beside(module)
    kept = memory.state_dict(module) if memory is not None else {}
    late = memory.late_buffers(module) if memory is not None else []
    return {
        "state": dict(module.state_dict()),
        "frozen": [name for name, p in module.named_parameters() if not p.requires_grad],
        "eval": [name for name, inner in module.named_modules() if not inner.training],
        **({"beside": beside} if beside else {}),
        **({"kept": kept} if kept else {}),
        **({"late": late} if late else {}),
    }


def load_module(module: nn.Module, state: Mapping[str, Any], memory: ModuleMemory | None = None) -> None:
    """Restore what `module_state` gave.

    Strictly, but parameters and buffers take the saved shapes, strides and dtypes first (rows may have come or gone),
    and buffers that came late are made.
    """
    values: Mapping[str, Any] = state["state"]
    beside: Mapping[str, Any] = state.get("beside", {})
    if memory is not None:
        memory.arrange_buffers(module, values, beside, state.get("late", ()))
        memory.go_back(module, state.get("kept", {}))
    current = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for name, saved in values.items():
        here = current.get(name)
        if here is None or not isinstance(saved, Tensor):
            continue
        if is_lazy(saved) and not is_lazy(here):
            raise StateError(f"its {name!r} had no shape then, and has one now: run a batch through it in setup")
        elif not is_lazy(here) and not is_lazy(saved):
            other_strides = here.stride() != saved.stride() and not has_gaps(here)
            if here.shape != saved.shape or here.dtype != saved.dtype or other_strides:
                give(here, saved)
    module.load_state_dict(values)
    if memory is not None:
        memory.take_over(module, state.get("kept", {}))
    current = dict(module.named_buffers())
    for name, saved in beside.items():
        if name in current:
            put_back(current[name], saved)
    frozen, evaluating = set(state["frozen"]), set(state["eval"])
    for name, p in module.named_parameters():
        if p.requires_grad == (name in frozen):  # else a lazy one, which cannot be told anything, is left alone
            p.requires_grad_(name not in frozen)
    for name, inner in module.named_modules():
        inner.training = name not in evaluating
    if memory is not None:
        memory.load_state_dict(module, state.get("kept", {}))


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """The plain attributes and random generators of one module. A tensor with a graph is a step's by-product.

    Not so in what a metric of torchmetrics says is its state: it may have been updated with scores that had one.
    """
    for name, value in vars(module).items():
        if name not in _OF_TORCH and (isinstance(value, _GENERATORS) or is_plain(value)):
            yield name, value
    metric_state = getattr(module, "metric_state", None)
    for name, value in metric_state.items() if isinstance(metric_state, dict) else ():
        if isinstance(value, list) and not is_plain(value):
            yield name, [item.detach() for item in value]


def _state(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    return value.getstate() if isinstance(value, random.Random) else value


def _put_into(module: nn.Module, name: str, saved: Any) -> None:
    here = getattr(module, name, None)
    if isinstance(here, torch.Generator):
        here.set_state(saved)
    elif isinstance(here, np.random.Generator):
        here.bit_generator.state = saved
    elif isinstance(here, random.Random):
        here.setstate(saved)
    elif isinstance(here, Tensor) and isinstance(saved, Tensor):
        put_back(here, saved)
    elif is_plain(here):  # not an object that a library has put in the place meanwhile
        vars(module)[name] = saved


def _equal(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
