"""The classes of a program's own data: enumerations, named tuples, dataclasses. A state names them, and holds none.

A name in a file is looked up among the classes that the program has at hand anyway. Nothing is imported because a file
says so, and no method of a class is called: an enumeration gives a member that it has, the others are filled with data.
"""

from __future__ import annotations

import enum
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from treadle.errors import StateError

SCALARS = frozenset({type(None), bool, int, float, str})
"""What long lists mostly hold: to ask for the set of their types is quick."""


class Kinds:
    """Finds the classes of data by name (their `__qualname__`).

    Args:
        owner: classes in its class (or a base of it), or in the modules of these, are found.
        others: gives further classes, at any time the same.
    """

    def __init__(self, owner: Any = None, others: Callable[[], Iterable[type[Any]]] = tuple) -> None:
        self._owner, self._others = owner, others
        self._found: dict[str, type[Any]] = {}

    def name(self, kind: type[Any], path: str) -> str:
        """The name by which `find` gives `kind`. Raises StateError, naming `path`, where it does not."""
        name = kind.__qualname__
        if self._look(name) is not kind:
            raise StateError(
                f"{path} is a {kind.__module__}.{name}, a class that a resume would not find: import it where the "
                "trainer's class is written, or have setup set the attribute to one"
            )
        return name

    def find(self, name: str) -> type[Any]:
        """The class of data called `name`. Raises StateError where there is none."""
        kind = self._look(name)
        if kind is None:
            raise StateError(
                f"the checkpoint has data of the class {name!r}, which is not where the trainer's class is written, "
                "nor in what setup sets: import it there"
            )
        return kind

    def _look(self, name: str) -> type[Any] | None:
        if name not in self._found:
            candidates = {kind.__qualname__: kind for kind in self._candidates(name)}
            if name not in candidates:
                return None
            self._found[name] = candidates[name]
        return self._found[name]

    def _candidates(self, name: str) -> Iterator[type[Any]]:
        """Classes of data that might be the one, those that are preferred last."""
        outer = name.rpartition(".")[0]
        for base in reversed(type(self._owner).__mro__):
            places = [vars(sys.modules[base.__module__])] if base.__module__ in sys.modules else []
            places += [vars(value) for value in list(places[0].values()) if _is_class(value, outer)] if places else []
            for place in [*places, vars(base)]:
                yield from (value for value in list(place.values()) if is_kind(value))
        yield from self._others()


def is_kind(value: Any) -> bool:
    """Whether it is a class of data: an enumeration, a named tuple, a dataclass."""
    if not isinstance(value, type):
        return False
    return issubclass(value, enum.Enum) or is_named_tuple(value) or is_dataclass(value)


def is_named_tuple(kind: type[Any]) -> bool:
    """Whether a class was made by `namedtuple` or `NamedTuple`."""
    return issubclass(kind, tuple) and isinstance(getattr(kind, "_fields", None), tuple)


def field_values(value: Any) -> dict[str, Any] | None:
    """The fields of a dataclass's instance, by name; None where it holds more than these, or is none."""
    if not is_dataclass(value) or isinstance(value, type):
        return None
    names = [field.name for field in fields(value)]
    if not all(hasattr(value, name) for name in names) or not set(getattr(value, "__dict__", ())) <= set(names):
        return None
    return {name: getattr(value, name) for name in names}


def member(kind: type[Any], name: Any) -> Any:
    """The member `name` of an enumeration; of flags, the one with that number. Raises StateError for any other."""
    if issubclass(kind, enum.Flag) and isinstance(name, int):
        try:
            return kind(name)
        except ValueError:
            pass
    elif issubclass(kind, enum.Enum) and name in kind.__members__:
        return kind.__members__[name]
    raise StateError(f"the checkpoint has {kind.__qualname__}.{name}, which that enumeration has not")


def filled(kind: type[Any], values: Any) -> Any:
    """A named tuple of a list, or a dataclass's instance of a dict of its fields; nothing of the class is called."""
    if is_named_tuple(kind) and isinstance(values, list) and len(values) == len(kind._fields):
        return tuple.__new__(kind, values)
    if is_dataclass(kind) and isinstance(values, dict) and set(values) == {field.name for field in fields(kind)}:
        instance = object.__new__(kind)
        for name, value in values.items():
            object.__setattr__(instance, name, value)
        return instance
    raise StateError(f"the checkpoint's {kind.__qualname__} has other fields than the class has now")


def _is_class(value: Any, name: str) -> bool:
    return bool(name) and isinstance(value, type) and value.__qualname__ == name


def classes_in(value: Any) -> Iterator[type[Any]]:
    """The classes of data in nested values."""
    if is_kind(type(value)):
        yield type(value)
    if isinstance(value, dict):
        for key, item in value.items():
            yield from classes_in(key)
            yield from classes_in(item)
    elif isinstance(value, list | tuple | deque):
        if not set(map(type, value)) <= SCALARS:
            for item in value:
                yield from classes_in(item)
    elif (inside := field_values(value)) is not None:
        yield from classes_in(inside)
