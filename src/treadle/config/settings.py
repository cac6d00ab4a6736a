"""What a setting says about itself, beside its type, its default and the docstring below it.

    @dataclass(kw_only=True)
    class BlurConfig(TrainerConfig):
        radius: float = setting(1.0, above=0, common=True)
        \"""Standard deviation of the blur, in pixels.\"""

From that alone come the checks, one line each, the flag and its help, and the answer to whether a resume may change it.
A field without `setting` is checked for its type and stays as it is for the whole of a run.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, dataclass
from functools import cache
from types import NoneType
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin, get_type_hints

from treadle.config.fields import convert
from treadle.errors import UsageError, nearest

T = TypeVar("T")

_KEY = "treadle"
"""Where a dataclass field's metadata holds its Rules."""

Live = bool | Literal["unless null"]


@dataclass(frozen=True)
class Rules:
    """What a setting says about itself, as given to `setting`; None where it says nothing."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] | None = None
    parse: Callable[[Any], object] | None = None
    resumable: bool | None = None
    affects_state: bool | None = None
    common: bool | None = None
    command: str | None = None
    live: Live | None = None

    def over(self, base: Rules) -> Rules:
        """These rules, and where they say nothing those of `base`."""
        said = {name: value for name, value in vars(self).items() if value is not None}
        return dataclasses.replace(base, **said)

    def expected(self) -> str:
        """The numbers that are allowed, in words: "0 or more and below 1"."""
        if self.choices is not None:
            return f"one of {', '.join(map(repr, self.choices))}"
        if self.least is not None and self.most is not None:
            return f"between {_number(self.least)} and {_number(self.most)}"
        words = []
        if self.least is not None:
            words.append("0 or more" if self.least == 0 else f"at least {_number(self.least)}")
        for word, bound in (("above", self.above), ("at most", self.most), ("below", self.below)):
            if bound is not None:
                words.append(f"{word} {_number(bound)}")
        return " and ".join(words)

    def allows(self, value: Any) -> bool:
        """Whether `value` is one of the choices, and in the range where it is a number (then it is finite, too)."""
        if self.choices is not None and value not in self.choices:
            return False
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return True
        if (self.least, self.above, self.most, self.below) == (None,) * 4:
            return True
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )


def setting(
    default: Any = MISSING,
    *,
    default_factory: Any = MISSING,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    choices: Iterable[Any] | None = None,
    parse: Callable[[Any], object] | None = None,
    resumable: bool | None = None,
    affects_state: bool | None = None,
    common: bool | None = None,
    command: str | None = None,
    live: Live | None = None,
) -> Any:
    """A dataclass field that says what it is; the string below the field is its help.

    A field that a subclass declares anew keeps what the classes above say about it, unless it says something else:
    `batch_size: int = 8` is still at least 1.

    Args:
        default, default_factory: as for `dataclasses.field`; without either the setting must be given.
        least, above, most, below: the range of a number, or of each in a mapping or a tuple, which then is finite too.
            None is allowed where the type allows it, and a value that is no number is not compared.
        choices: the only values there are; a `Literal` type says the same, where they are known beforehand.
        parse: what reads the value, such as `Every`, `Span.parse` or `parse_curve`: it raises UsageError for what it
            does not understand. The setting keeps what was given, text or an object that `parse` takes.
        resumable: a resume may change it, because what the run has computed so far does not depend on it.
        affects_state: what a run computes from here on does depend on it (a limit that a schedule is a percentage of),
            so that steps before a resume that changed it are verified without the change. By default it does.
        common: it belongs on the short page of help.
        command: what changes it while a run goes on ("LearningRateMultiplier"), said to those who try to assign it.
        live: a person may change it while the run goes on, between two steps (the command `ChangeSetting`), because
            whoever needs it reads it anew each time, or makes anew at `on_settings` what was made of it. "unless null":
            null means that nobody was made who would heed it, so it goes from null, and to it, only where a trainer has
            said who is to be made then (`Trainer.add_hook_of`); else from a value to another.
    """
    rules = Rules(
        least,
        above,
        most,
        below,
        None if choices is None else tuple(choices),
        parse,
        resumable,
        affects_state,
        common,
        command,
        live,
    )
    given = {"default": default, "default_factory": default_factory}
    given = {name: value for name, value in given.items() if value is not MISSING}
    return dataclasses.field(**given, metadata={_KEY: rules})


class Settings:
    """Base of dataclasses whose fields are checked when one is made, and which can be sealed.

    A subclass with a `__post_init__` of its own calls `super().__post_init__()`, and then says with `require` what one
    field cannot say alone. Raises UsageError for a name that is no field, a wrong type, and a value out of range.
    """

    elsewhere: ClassVar[Mapping[str, str]] = {}
    """What other programs call some of these, for the error that says what it is here."""

    def __new__(cls, *args: Any, **given: Any) -> Self:
        """Refuse names that are no settings, with the nearest one: `__init__` would only raise a TypeError."""
        known = getattr(cls, "__dataclass_fields__", {})
        if not all(name in known for name in given):
            taken = inspect.signature(cls.__init__).parameters
            for name in given:
                if name not in taken and all(each.kind is not each.VAR_KEYWORD for each in taken.values()):
                    raise UsageError(f"{name!r} is no setting of {cls.__name__}{_nearest(cls, name, known)}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        """Check types and ranges; raises UsageError naming the field."""
        check(self)

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign, unless the settings are sealed."""
        if "_sealed" in vars(self) and not name.startswith("_"):
            raise UsageError(_refusal(type(self), name))
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy holds: it is not sealed."""
        return {name: value for name, value in vars(self).items() if name != "_sealed"}


def seal(settings: Settings) -> None:
    """Let `settings` refuse every assignment from now on; copies and `dataclasses.replace` are free again."""
    vars(settings)["_sealed"] = True
    for value in list(vars(settings).values()):
        if isinstance(value, Settings):
            seal(value)


def amend(settings: Settings, name: str, value: Any) -> None:
    """Change a setting although `settings` are sealed: for what the run itself carries out and journals."""
    object.__setattr__(settings, name, value)


def with_setting(settings: T, name: str, value: Any, switched: Collection[str] = ()) -> T:
    """A copy of `settings` in which the live setting `name` is `value`, checked as all settings are.

    A dotted name means an entry of a mapping ("clip_norm.optimizer_G"), or a setting of a nested group. Those that are
    live "unless null" go from null and to it where they are among `switched`. Raises UsageError for an unknown name,
    one that is not live, and whatever the settings refuse.
    """
    kind: Any = type(settings)
    first, _, rest = name.partition(".")
    rules = rules_of(kind)
    if first not in rules:
        known = live_settings(kind)
        raise UsageError(f"{name!r} is no setting of {kind.__name__}{_nearest(kind, first, known or rules)}")
    now = getattr(settings, first)
    if rest and dataclasses.is_dataclass(now) and not isinstance(now, type):
        return dataclasses.replace(settings, **{first: with_setting(now, rest, value)})  # type: ignore[type-var]
    live = rules[first].live
    if not live:
        other = f"; the command {rules[first].command} acts on a run that goes on" if rules[first].command else ""
        raise UsageError(
            f"{first} cannot be changed while the run goes on, since what has been made of it stays as it is{other}"
        )
    if live == "unless null" and first not in switched and (value is None or now is None):
        raise UsageError(
            f"{first} is {now!r} and cannot become {value!r} while the run goes on: only another value where there is "
            "one; resume the run with it"
        )
    if rest:
        if not isinstance(now, Mapping):
            raise UsageError(f"{first} is {now!r}, and has no entry {rest!r}: set {first} itself")
        value = {**now, rest: value}
    return dataclasses.replace(settings, **{first: value})  # type: ignore[type-var]


def live_settings(kind: type) -> frozenset[str]:
    """The settings of `kind` that may be changed while a run goes on."""
    return frozenset(name for name, rules in rules_of(kind).items() if rules.live)


def choices_of(kind: Any, name: str) -> list[Any]:
    """The only values that the setting `name` of `kind` can have; empty where there are others."""
    rules, hint = rules_of(kind)[name], _hints(kind).get(name)
    return list(rules.choices or (get_args(hint) if get_origin(hint) is Literal else ()))


def require(settings: Any, name: str, holds: bool, expected: str) -> None:
    """Raise UsageError naming the setting `name`, its value and what was `expected`, unless it `holds`."""
    if not holds:
        raise UsageError(f"{name} is {getattr(settings, name)!r}: expected {expected}")


def check(settings: Any, at: str = "") -> None:
    """Check every field of a dataclass instance by its type and its rules, those of nested dataclasses included.

    What a type accepts in another form (1 for a float, text for a path) is brought to its own. A field whose type
    cannot be in a file, or cannot be resolved here, is left alone, and so is a plain field's own default. `at` begins
    the names in messages. Raises UsageError in one line.
    """
    kind: Any = type(settings)
    hints, rules = _hints(kind), rules_of(kind)
    for field in dataclasses.fields(kind):
        if not field.init:
            continue
        value, rule, name = getattr(settings, field.name), rules[field.name], at + field.name
        checked = _checked(value, hints.get(field.name, Any), rule, name, is_default=value is field.default)
        if checked is not value:
            object.__setattr__(settings, field.name, checked)
        if _is_group(checked):
            check(checked, f"{name}.")


@cache
def rules_of(kind: Any) -> Mapping[str, Rules]:
    """What each field of the dataclass `kind` says about itself, or the classes above it do, by name."""
    found: dict[str, Rules] = {}
    for base in reversed(kind.__mro__):
        for name, field in vars(base).get("__dataclass_fields__", {}).items():
            found[name] = field.metadata.get(_KEY, Rules()).over(found.get(name, Rules()))
    return found


def resumable(kind: type) -> frozenset[str]:
    """The settings of `kind` that a resume may change."""
    return frozenset(name for name, rules in rules_of(kind).items() if rules.resumable)


def resumable_with_effect(kind: type) -> frozenset[str]:
    """The settings of `kind` that a resume may change, and that the state after it depends on."""
    rules = rules_of(kind)
    return frozenset(name for name in resumable(kind) if rules[name].affects_state is not False)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """The types of the fields. Those of a class with a name that only a type checker imports are left out."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        try:
            found |= get_type_hints(base)
        except NameError:
            for name in inspect.get_annotations(base):
                found.pop(name, None)
    return found


def _is_group(value: Any) -> bool:
    """Whether it is a nested dataclass with rules that has not checked them itself."""
    if isinstance(value, (type, Settings)) or not dataclasses.is_dataclass(value):
        return False
    kind: Any = type(value)
    return any(rules != Rules() for rules in rules_of(kind).values())


def _checked(value: Any, hint: Any, rules: Rules, name: str, *, is_default: bool) -> Any:
    """`value` as the type `hint`; raises UsageError."""
    if rules.parse is not None and value is not None:
        try:
            rules.parse(value)
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from None
        if not isinstance(value, (bool, int, float, str)):
            return value
    try:
        value = convert(value, hint, source="", at=name)
    except TypeError:  # a type that no file can hold is its author's business
        return value
    except UsageError:
        if is_default and rules == Rules():
            return value
        raise
    if isinstance(value, Mapping):  # a number for each name
        for key, item in value.items():
            if not rules.allows(item):
                raise UsageError(f"{name}.{key} is {item!r}: expected {rules.expected()}")
    if isinstance(value, tuple) and rules.choices is None and not all(map(rules.allows, value)):
        raise UsageError(f"{name} is {list(value)!r}: expected numbers, each {rules.expected()}")
    if value is not None and not rules.allows(value):
        null = ", or null" if NoneType in get_args(hint) else ""
        raise UsageError(f"{name} is {value!r}: expected {rules.expected()}{null}")
    return value


def _number(value: float) -> str:
    """A number as people write it: 2**63 - 1."""
    power = int(value).bit_length() if math.isfinite(value) else 0
    return f"2**{power} - 1" if power > 31 and value == 2**power - 1 else str(value)


def _nearest(kind: type, name: str, known: Iterable[str]) -> str:
    """What `name` is here, where other programs call it so; else the nearest name."""
    here = getattr(kind, "elsewhere", {}).get(name)
    return f"; here it is {here}" if here else nearest(name, known)


def _refusal(kind: type, name: str) -> str:
    """Why a sealed setting cannot be assigned, and what to do instead."""
    rules = rules_of(kind)
    if name not in rules:
        return f"{name!r} is no setting of {kind.__name__}{_nearest(kind, name, rules)}"
    if rules[name].resumable:
        later = f"or continue the run with another (treadle resume RUN --set {name}=...)"
    else:
        later = f"or branch the run with another (treadle fork RUN --at STEP --set {name}=...)"
    now = f"; the command {rules[name].command} acts on a run that goes on" if rules[name].command else ""
    return f"{name} cannot be assigned, the run has been set up: give {name}= when the trainer is made, {later}{now}"
