"""Whose a name is: what an author may put in the place of a trainer's attributes and methods, and what not."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from types import FunctionType, MappingProxyType, MemberDescriptorType
from typing import Any

from treadle.data.feed import Feed
from treadle.errors import UsageError


@cache
def names_of(base: type) -> Mapping[str, Any]:
    """The public attributes, properties and methods of `base`, but for data that subclasses declare anew."""
    found = {name: inspect.getattr_static(base, name) for cls in base.__mro__[:-1] for name in vars(cls)}
    kinds = (property, MemberDescriptorType, FunctionType, classmethod)
    return MappingProxyType({n: value for n, value in found.items() if n[0] != "_" and isinstance(value, kinds)})


def check_class(kind: type, base: type) -> None:
    """Raise UsageError where the class `kind` declares a name of `base` as something else than it is there.

    Data stay data, properties properties; a method may be overridden by one that can be called in the same way.
    """
    # Those beside the base are looked at with the class that brings them in.
    beside = [each for each in kind.__mro__[: kind.__mro__.index(base)] if each is kind or not issubclass(each, base)]
    for name, value in {name: value for each in reversed(beside) for name, value in vars(each).items()}.items():
        taken = names_of(base).get(name)
        if taken is None:
            continue
        is_method = isinstance(taken, FunctionType | classmethod)
        if is_method and (callable(value) or isinstance(value, classmethod | staticmethod)):
            _check_call(kind, name, value, base, taken)
        elif is_method or not (isinstance(taken, property) and isinstance(value, property)):
            raise UsageError(f"{kind.__name__}.{name} hides what the trainer itself needs: choose another name")


def check_assignment(owner: Any, base: type, name: str, value: Any) -> None:
    """Raise UsageError where `owner.name = value` would put something else in the place of what `base` has there.

    A feed may be set; so may a function in the place of a method that is there to be overridden.
    """
    taken = names_of(base)[name]
    if isinstance(taken, MemberDescriptorType):
        if name.endswith("feed"):
            if value is not None and not isinstance(value, Feed):
                raise UsageError(
                    f"self.{name} is set to a {type(value).__name__}: expected a Feed, as treadle.data.as_feed makes"
                )
            return
        if getattr(owner, name, None) is None or getattr(owner, name) is value:
            return
    elif isinstance(taken, FunctionType) and name not in vars(base) and callable(value):
        return
    raise UsageError(f"{type(owner).__name__} sets self.{name}, which the trainer itself needs: choose another name")


def _check_call(kind: type, name: str, method: Any, base: type, taken: Any) -> None:
    """Raise UsageError where `method` cannot be called with the arguments that `taken` is called with."""
    try:
        mine = inspect.signature(getattr(kind, name))
    except (TypeError, ValueError):  # a builtin that does not say
        return
    theirs = inspect.signature(getattr(base, name))
    parameters = list(theirs.parameters.values())
    if isinstance(taken, FunctionType) and not isinstance(method, FunctionType):
        parameters = parameters[1:]  # without self
    needed = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.default is p.empty]
    positional = [None for p in needed if p.kind is not p.KEYWORD_ONLY]
    keywords = {p.name: None for p in needed if p.kind is p.KEYWORD_ONLY}
    try:
        mine.bind(*positional, **keywords)
    except TypeError as error:
        shown = ", ".join(str(p) if p.annotation is p.empty else p.name for p in parameters)
        raise UsageError(
            f"{kind.__name__}.{name} takes the place of the trainer's {name}({shown}), and cannot be called like "
            f"it ({error}): choose another name"
        ) from None
