"""What a sampler or loader remembers from one pass over it to the next, so that a resumed run can go on from it."""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from treadle.errors import StateError, UsageError

_SCALARS = frozenset({type(None), bool, int, float, str})
_REMEDY = "give it state_dict() and load_state_dict()"


def has_state(item: Any) -> bool:
    """Whether `item` can tell its state and take it back."""
    return all(callable(getattr(item, method, None)) for method in ("state_dict", "load_state_dict"))


class Memory:
    """The state of some objects that passes over them change: what `state_dict()` says, or else their attributes.

    Attributes that hold data (numbers, text, tensors, containers of them, random generators) are compared before and
    after a pass; those that differ are state. What has not changed in any pass is not.

    Args:
        holders: the objects, by a name for messages.
        ignored: names of attributes that hold no state.

    Raises UsageError for an attribute that is an iterator: its position can be neither told nor put back.
    """

    def __init__(self, holders: Mapping[str, Any], ignored: frozenset[str] = frozenset()) -> None:
        self._holders, self._ignored = dict(holders), ignored
        self.own = [name for name, holder in holders.items() if has_state(holder)]
        self._changed: dict[str, set[str]] = {name: set() for name in holders}
        self._iterators = self._held_iterators()
        self._refuse(self._iterators)
        self._before = self._pristine = self._look()

    def titles(self) -> list[str]:
        """The objects that say their state themselves."""
        return [self._title(name) for name in self.own]

    def begin(self) -> None:
        """A pass begins."""
        last, self._iterators = self._iterators, self._held_iterators()
        # One that was made in the last pass may be made anew in each; one that outlives a whole pass is not.
        self._refuse([place for place, value in self._iterators.items() if last.get(place) is value])
        self._before = self._look()

    def end(self) -> None:
        """A pass has ended, or come this far: what differs from its beginning is state from now on."""
        now = self._look()
        for name in self._holders.keys() - set(self.own):
            before, after = self._before[name], now[name]
            for key in before.keys() | after.keys():
                if key not in before or key not in after or not _same(before[key], after[key]):
                    self._changed[name].add(key)

    def state(self) -> dict[str, Any] | None:
        """The state `before` the latest pass, and `now`; None where no pass has changed anything.

        Raises StateError naming an attribute that has changed and cannot be saved.
        """
        if not self.own and not any(self._changed.values()):
            return None
        return {"before": self._of(self._before), "now": self._of(self._look())}

    def load(self, state: Mapping[str, Any]) -> None:
        """Put back the `before` or the `now` of `state`. Raises StateError for objects that are others."""
        if set(state) - set(self._holders):
            raise StateError(f"the state of the data is that of {sorted(state)}, but there is {sorted(self._holders)}")
        for name, holder in self._holders.items():
            values = state.get(name, {})
            if name in self.own:
                if values:
                    holder.load_state_dict(copy.deepcopy(values))
                continue
            self._changed[name] |= set(values)
            for key in self._changed[name]:
                # What was no state then was as it had always been.
                value = values.get(key, self._pristine[name].get(key, _OTHER))
                vars(holder).pop(key, None) if value is _OTHER else _put(holder, key, value)
        self._before = self._look()

    def reset(self) -> None:
        """Put back the state from before the first pass."""
        self.load(self._of(self._pristine))

    def _look(self) -> dict[str, dict[str, Any]]:
        found = {}
        for name, holder in self._holders.items():
            if name in self.own:
                found[name] = copy.deepcopy(holder.state_dict())
            else:
                values = {key: _snapshot(value) for key, value in self._attributes(holder)}
                found[name] = {key: value for key, value in values.items() if value is not _OTHER}
        return found

    def _attributes(self, holder: Any) -> list[tuple[str, Any]]:
        # A torch generator of that name is seeded for every pass.
        return [
            (key, value)
            for key, value in getattr(holder, "__dict__", {}).items()
            if key not in self._ignored and not (key == "generator" and isinstance(value, torch.Generator))
        ]

    def _of(self, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Of what was found, the part that is state."""
        state = {}
        for name, values in found.items():
            if name not in self.own:
                values = {key: values[key] for key in sorted(self._changed[name]) if key in values}
                for key, value in values.items():
                    if not _is_plain(value):
                        raise StateError(
                            f"{self._title(name)} changes its attribute {key!r} ({type(value).__name__}), which cannot "
                            f"be saved: {_REMEDY}"
                        )
            if values:
                state[name] = copy.deepcopy(values)
        return state

    def _held_iterators(self) -> dict[tuple[str, str], Any]:
        return {
            (name, key): value
            for name, holder in self._holders.items()
            if name not in self.own
            for key, value in self._attributes(holder)
            if isinstance(value, Iterator)
        }

    def _refuse(self, iterators: Iterable[tuple[str, str]]) -> None:
        for name, key in iterators:
            raise UsageError(
                f"{self._title(name)} keeps an iterator in its attribute {key!r}, whose position cannot be saved: "
                f"{_REMEDY}, or make the iterator anew in __iter__"
            )

    def _title(self, name: str) -> str:
        return f"the DataLoader's {name} ({type(self._holders[name]).__name__})"


_OTHER = object()
"""Stands for a value that is no data."""


def _snapshot(value: Any) -> Any:
    """A copy of data that later changes do not reach; `_OTHER` for what is no data."""
    if type(value) in _SCALARS or isinstance(value, bytes | np.generic):
        return value
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, torch.Generator):
        return {"state": value.get_state()}
    if isinstance(value, np.random.Generator):
        return copy.deepcopy(value.bit_generator.state)
    if isinstance(value, np.random.RandomState):
        return copy.deepcopy(value.get_state(legacy=False))
    if isinstance(value, random.Random):
        return value.getstate()
    if type(value) in (list, tuple):
        # A long list of numbers, as samplers have, is copied in one go.
        return value[:] if set(map(type, value)) <= _SCALARS else type(value)(map(_snapshot, value))
    if type(value) is dict:
        return {key: _snapshot(entry) for key, entry in value.items()}
    return copy.copy(value) if isinstance(value, dict | list | tuple | set | frozenset | deque) else _OTHER


def _put(holder: Any, key: str, value: Any) -> None:
    """Put a saved attribute back; random generators stay the objects that they are."""
    current = vars(holder).get(key)
    if isinstance(current, torch.Generator):
        current.set_state(value["state"])
    elif isinstance(current, np.random.Generator):
        current.bit_generator.state = value
    elif isinstance(current, np.random.RandomState):
        current.set_state(value)
    elif isinstance(current, random.Random):
        current.setstate(value)
    else:
        vars(holder)[key] = _snapshot(value)


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if type(one) in (list, tuple) and not set(map(type, one)) <= _SCALARS:
        return len(one) == len(other) and all(map(_same, one, other))
    if type(one) is dict:
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)


def _is_plain(value: Any) -> bool:
    """Whether a checkpoint can hold `value`."""
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(map(_is_plain, value.values()))
    return type(value) in _SCALARS or isinstance(value, np.number | np.bool_ | Tensor | np.ndarray)
