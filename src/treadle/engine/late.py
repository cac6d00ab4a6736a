"""What came after setup: attributes, replaced objects, hooks. What of it a state can hold, and what it cannot.

A resume calls `setup`, and puts a state into what that has made. So plain data that came later is part of the state,
and so is which object an attribute stands for. An object that came later could not be built again: the first checkpoint
is refused, not the resume. A rewind in the same process puts back the objects themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from treadle.checkpoint.kinds import classes_in
from treadle.checkpoint.plain import Stateless, is_constant, is_frozen, is_plain
from treadle.engine.ema import EMA
from treadle.engine.events import Hook
from treadle.engine.objective import Objective
from treadle.engine.parts import Parts, walk
from treadle.engine.sharing import pairs_in, part, sharers, tensors_of
from treadle.errors import StateError

_REMEDY = (
    "make it in setup (parameters may join an optimizer later, with add_param_group), or name it in the trainer's "
    "`transient` if it has no state"
)


class Frame:
    """Which objects the attributes were at one moment, in lists and dicts too; and which hooks there were."""

    def __init__(self, owner: object, parts: Parts, hooks: Sequence[Hook]) -> None:
        self.owner, self.hooks = owner, list(hooks)
        tensors = tensors_of(parts)
        self.pairs = pairs_in(tensors)
        self.sharers = sharers(self.pairs, tensors, parts)
        self._held = {
            name: _remembered(value)
            for name, value in parts.attributes.items()
            if name not in parts.transient and not is_plain(value)
        }

    def put_back(self, subject: Any, parts: Parts, plain: Collection[str], *, drop: bool) -> None:
        """Let the attributes be these objects again; with `drop`, those that came later go, to nothing if `plain`."""
        for name, value in list(parts.attributes.items()):
            if drop and name not in self._held and name not in parts.transient and not is_plain(value):
                if name in plain:
                    setattr(subject, name, None)
                else:
                    delattr(subject, name)
        for name, (value, inside) in self._held.items():
            if parts.attributes.get(name) is not value or _differs(value, inside):
                setattr(subject, name, _recalled((value, inside)))


class Late:
    """A section of a state: what is no longer as setup left it, and no state of one of its objects.

    Args:
        subject: whose attributes they are.
        parts: the attributes.
        hooks: gives the hooks, those that were given and those that settings ask for.
        adopt: called when attributes have become other objects.
        switched: whether a hook comes and goes with a setting, which is part of the state elsewhere.
    """

    def __init__(
        self,
        subject: Any,
        parts: Parts,
        hooks: Callable[[], list[Hook]],
        adopt: Callable[[], None],
        switched: Callable[[Hook], bool] = lambda hook: False,
    ) -> None:
        self._subject, self._parts, self._hooks, self._adopt = subject, parts, hooks, adopt
        self._switched = switched
        self._first: Frame | None = None
        self._objects: dict[str, Any] = {}
        self._plain: frozenset[str] = frozenset()
        self._constants: dict[str, Any] = {}
        self._places: frozenset[str] = frozenset()
        self._structures: dict[str, dict[str, Any]] = {}
        self._known_hooks: set[int] = set()
        self.classes: tuple[type[Any], ...] = ()
        """The classes of the program's own data that there are in what setup has set."""
        self.frame: Frame | None = None
        """What the next `load_state_dict` goes back to, in the process that the state is of."""

    # What setup has made ------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Take note of what there is: setup has just been called."""
        self._first = self.now()
        self._objects = dict(self._walk(plain=False))
        self._plain = frozenset(name for name, value in self._attributes() if is_plain(value))
        self._constants = {name: value for name, value in self._attributes() if is_constant(value)}
        self._places = frozenset(name for name, _ in self._walk(plain=True))
        self._structures = {
            name: _structure(item) for name, item in self._objects.items() if isinstance(item, nn.Module)
        }
        self.classes = tuple(classes_in(dict(self._attributes())))

    @property
    def is_set_up(self) -> bool:
        """Whether setup has been called."""
        return self._first is not None

    def know_hooks(self, *, stateless: bool = False) -> None:
        """Take note of the hooks: who makes the trainer anew gives the same ones, or at any time the stateless ones."""
        self._known_hooks |= {id(hook) for hook in self._hooks() if not stateless or not hasattr(hook, "state_dict")}

    def holds(self, name: str, value: Any) -> bool:
        """Whether an attribute is in this section: data that came after setup, or in place of a constant."""
        if self._first is None or "." in name:
            return False
        if is_constant(value):
            return not (name in self._constants and _equal(value, self._constants[name]))
        fresh = (name not in self._plain and name not in self._objects) or name in self._constants
        return fresh and (is_plain(value) or _is_by_product(value))

    def first(self, name: str) -> Any:
        """The object that was at dotted `name` after setup; None where there was none."""
        return self._objects.get(name)

    def now(self) -> Frame:
        """Which objects there are now."""
        return Frame(self, self._parts, [hook for hook in self._hooks() if not self._switched(hook)])

    # The section ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Plain data that came later, and which object of setup an attribute stands for; mostly nothing."""
        if self._first is None:
            return {}
        names = {id(item): name for name, item in reversed(self._objects.items()) if not is_constant(item)}
        values: dict[str, Any] = {}
        same: dict[str, str] = {}
        tensors: dict[int, str] = {}
        for name, value in self._attributes():
            if self.holds(name, value):
                values[name] = value
            elif isinstance(value, Tensor) and name in self._plain and id(value) in tensors:
                same[name] = tensors[id(value)]
            elif not is_constant(value) and value is not self._objects.get(name) and id(value) in names:
                same[name] = names[id(value)]
            if isinstance(value, Tensor) and name in self._plain:
                tensors.setdefault(id(value), name)
        apart = [list(pair) for pair in sorted(self._first.pairs - pairs_in(tensors_of(self._parts)))]
        return {key: found for key, found in (("values", values), ("same", same), ("apart", apart)) if found}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave, and delete the plain data that came later still."""
        frame, self.frame = self.frame, None
        if frame is not None and frame.owner is self:
            frame.put_back(self._subject, self._parts, self._plain, drop=True)
            self._put_hooks_back(frame)
        elif self._first is not None:
            self._first.put_back(self._subject, self._parts, self._plain, drop=frame is None)
        if self._first is not None:
            apart = {(first, second) for first, second in saved.get("apart", ())}
            then = frame if frame is not None and frame.owner is self else self._first
            part(self._subject, self._parts, then.pairs - apart, then.sharers)
        values = saved.get("values", {})
        for name, value in self._attributes():
            if name in values or not self.holds(name, value):
                continue
            if name in self._constants:
                setattr(self._subject, name, self._constants[name])
            elif name in self._plain:  # its value is among the attributes
                setattr(self._subject, name, None)
            else:
                delattr(self._subject, name)
        for name, value in values.items():
            setattr(self._subject, name, value)
        for name, other in saved.get("same", {}).items():
            if other not in self._objects and other not in self._plain:
                raise StateError(f"{name!r} was the trainer's {other!r}, which it has not")
            setattr(self._subject, name, self._objects.get(other, self._parts.attributes.get(other)))
        if self._parts.refresh():
            self._adopt()

    def _put_hooks_back(self, frame: Frame) -> None:
        """The critical hooks of then; observers stay, and those of whoever drives the run, or of a setting."""
        hooks = self._hooks()
        kept = [
            hook
            for hook in hooks
            if hook.observer
            or id(hook) in self._known_hooks
            or self._switched(hook)
            or any(hook is there for there in frame.hooks)
        ]
        gone = [hook for hook in frame.hooks if not hook.observer and not any(hook is there for there in kept)]
        if len(kept) != len(hooks) or gone:
            hooks[:] = [*kept, *gone]
            self._adopt()

    # What a resume could not have again -----------------------------------------------------------------------------

    def check(self) -> None:
        """Raise StateError, saying what to do, where a resume could not come back to how things are now."""
        now = dict(self._walk(plain=False))
        known = {id(item) for item in self._objects.values()}
        for name, item in now.items():
            first = self._objects.get(name)
            if is_constant(item) and "." in name and (first is None or not _equal(first, item)):
                raise StateError(
                    f"{name!r} ({_title(item)}) came after setup into a list or dict, where a state does not hold it: "
                    "keep it in an attribute of its own, or as text"
                )
            if item is first or is_constant(item) or _is_by_product(item) or _is_observer(item):
                continue
            if "." not in name and id(item) in known:
                continue  # one of setup's under another name
            if first is None:
                raise StateError(
                    f"attribute {name!r} ({_title(item)}) came after setup, a resume could not make it: {_REMEDY}"
                )
            if id(item) in known:
                raise StateError(f"{name!r} has changed places since setup, a resume could not: leave it where it was")
            self._check_replaced(name, first, item, now)
        for name, first in self._objects.items():
            if name not in now and not is_constant(first) and not _is_observer(first):
                raise StateError(
                    f"attribute {name!r} ({_title(first)}) has gone since setup, a resume would have it again: keep "
                    "it, or name it in the trainer's `transient`"
                )
        for name in sorted(self._plain):
            if name not in self._parts.attributes:
                raise StateError(
                    f"attribute {name!r} was deleted since setup, a resume would have it again: set it to None instead"
                )
        for name, item in now.items():
            if isinstance(item, nn.Module) and name in self._structures:
                self._check_structure(name, item)
        self._check_mixed()
        self._check_views()
        for hook in self._hooks():
            known_here = id(hook) in self._known_hooks or self._switched(hook)
            if not known_here and not hook.observer and not hook.optional_state:
                raise StateError(
                    f"the hook {_title(hook)} came while the run went on, a resume would be without it: give it in "
                    "hooks=[...], or add it in setup"
                )

    def _check_replaced(self, name: str, first: Any, item: Any, now: Mapping[str, Any]) -> None:
        """One that stands where another stood is taken for it, where it is of the same kind and says what it is."""
        if isinstance(item, Stateless | EMA | Objective) or is_frozen(item) or type(item) is not type(first):
            raise StateError(
                f"attribute {name!r} was a {_title(first)} after setup and is another {_title(item)} now, which a "
                f"resume would not build: {_REMEDY}"
            )
        for other, holder in now.items():
            if holder is first or first in (getattr(holder, key, None) for key in ("module", "optimizer")):
                raise StateError(
                    f"attribute {name!r} is another {_title(item)} than after setup, and {other!r} still holds the "
                    "first: keep the first, and change what is in it"
                )
        if callable(item) and not hasattr(item, "state_dict") and not _same_function(first, item):
            raise StateError(
                f"attribute {name!r} is another function than after setup, which a state cannot hold: keep its name "
                "in an attribute, or name it in the trainer's `transient`"
            )
        if isinstance(item, np.random.Generator) and type(item.bit_generator) is not type(first.bit_generator):
            raise StateError(f"attribute {name!r} draws from another generator than after setup: make it in setup")

    def _check_structure(self, name: str, module: nn.Module) -> None:
        first, now = self._structures[name], _structure(module)
        for path in now:
            if path not in first:
                raise StateError(
                    f"{name}.{path} ({_title(now[path])}) came into the module after setup, a resume could not build "
                    f"it: {_REMEDY}"
                )
        for path, kind in first.items():
            if path not in now:
                raise StateError(
                    f"{name}.{path} ({_title(kind)}) has gone from the module since setup, a resume would have it "
                    "again: keep it, and leave it out of the computation"
                )
            if now[path] is not kind and getattr(kind, "cls_to_become", None) is not now[path]:
                raise StateError(
                    f"{name}.{path} is a {_title(now[path])} now and was a {_title(kind)} after setup: make it one in "
                    "setup"
                )

    def _check_mixed(self) -> None:
        """Data beside objects in a list or dict has its place there, or a resume finds none."""
        for attribute, value in self._attributes():
            if not is_plain(value):
                for name, item in walk(value, attribute):
                    if is_plain(item) and "." in name and name not in self._places:
                        raise StateError(
                            f"{name!r} came after setup into {attribute!r}, which holds objects or paths too: keep "
                            "data that grows in an attribute of its own"
                        )

    def _check_views(self) -> None:
        """Tensors that share memory since setup do so by chance, or on purpose: a resume would part them."""
        if self._first is None:
            return
        tensors = tensors_of(self._parts)
        for first, second in sorted(pairs_in(tensors) - self._first.pairs):
            if tensors[first] is not tensors[second] or "." in first or "." in second:
                raise StateError(
                    f"{first!r} and {second!r} share memory since setup, which a resume would part: clone() one of "
                    "them, or make both in setup"
                )

    def _attributes(self) -> list[tuple[str, Any]]:
        transient = self._parts.transient
        return [(name, value) for name, value in self._parts.attributes.items() if name not in transient]

    def _walk(self, *, plain: bool) -> Iterator[tuple[str, Any]]:
        for attribute, value in self._attributes():
            if not is_plain(value):
                yield from ((name, item) for name, item in walk(value, attribute) if plain or not is_plain(item))


def _structure(module: nn.Module) -> dict[str, Any]:
    """The classes of the modules inside it and of its parameters, by dotted name."""
    kinds: dict[str, Any] = {path: type(inner) for path, inner in module.named_modules()}
    return kinds | {path: nn.Parameter for path, _ in module.named_parameters()}


def _remembered(value: Any) -> tuple[Any, Any]:
    """A value and, where it is a list, tuple or dict, what is in it now, down to the objects."""
    if isinstance(value, dict):
        return value, {key: _remembered(item) for key, item in value.items()}
    return value, [_remembered(item) for item in value] if isinstance(value, list | tuple) else None


def _recalled(remembered: tuple[Any, Any]) -> Any:
    """The value, with everything in it that was in it then."""
    value, inside = remembered
    if isinstance(inside, dict):
        items = {key: _recalled(item) for key, item in inside.items()}
        value.clear()
        value.update(items)
    elif inside is not None:
        found = [_recalled(item) for item in inside]
        if isinstance(value, list):
            value[:] = found
    return value


def _differs(value: Any, inside: Any) -> bool:
    """Whether other things are in a list, tuple or dict than then."""
    if inside is None:
        return False
    now = value if isinstance(value, dict) else dict(enumerate(value))
    then = inside if isinstance(inside, dict) else dict(enumerate(inside))
    if list(now) != list(then):
        return True
    return any(now[key] is not item or _differs(item, deeper) for key, (item, deeper) in then.items())


def _equal(first: Any, second: Any) -> bool:
    return first is second or (type(first) is type(second) and bool(first == second))


def _is_by_product(value: Any) -> bool:
    """Whether it is a tensor with a graph, such as a step's loss: its numbers are what can be kept of it."""
    return isinstance(value, Tensor) and not value.is_leaf


def _is_observer(value: Any) -> bool:
    return isinstance(value, Hook) and value.observer


def _same_function(first: Any, now: Any) -> bool:
    if first == now:
        return True
    said = [(getattr(f, "__module__", None), getattr(f, "__qualname__", f), f.__class__) for f in (first, now)]
    return said[0] == said[1] and not getattr(now, "__closure__", None) and not hasattr(now, "__self__")


def _title(value: Any) -> str:
    kind = value if isinstance(value, type) else type(value)
    return kind.__name__
