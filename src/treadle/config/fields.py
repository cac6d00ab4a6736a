"""Dataclasses to plain data and back, strictly: every key known, every type right, every error one line.

The rules are the same for YAML files, `--set` and Python dictionaries. A bool is never an int. An int, or text such as
"1e-3", is accepted where a float is expected. None is accepted only where the type says so. Lists become tuples where
the field is a tuple, text becomes a `Path` or the `Enum` member of that name.
"""

from __future__ import annotations

import dataclasses
import enum
import re
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from treadle.errors import UsageError, nearest

T = TypeVar("T")

FLOAT = re.compile(r"[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
"""Text that means a number: YAML's floats, with or without a point or a sign in the exponent."""


def from_dict(kind: type[T], mapping: Mapping[Any, Any], *, source: str = "config", at: str = "") -> T:
    """Build the dataclass `kind` from plain data.

    `source` (a file's name, say) and `at` (the dotted key of `mapping` inside it) begin every message. Keys left out
    take the field's default. Raises UsageError for an unknown or missing key, a wrong type, or whatever `kind` itself
    refuses.
    """
    where = f"{source}: " if source else ""
    if not isinstance(mapping, Mapping):
        raise _wrong(source, at or "the document", mapping, "a group of settings")
    settings = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    for key in mapping:
        if key not in settings:
            tail = _nearest_key(str(key), kind)
            raise UsageError(f"{where}{_join(at, key)} is not a setting of {kind.__name__}{tail}")
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, field in settings.items():
        if name in mapping:
            values[name] = convert(mapping[name], hints[name], source=source, at=_join(at, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UsageError(f"{where}{_join(at, name)} is missing: expected {describe(hints[name])}")
    try:
        return kind(**values)
    except UsageError as error:  # a range that the dataclass checks itself: its message starts with the field's name
        raise UsageError(f"{where}{_join(at, error)}") from None
    except (TypeError, ValueError) as error:
        raise UsageError(f"{where}{at or kind.__name__}: {error}") from None


def to_dict(config: Any) -> dict[str, Any]:
    """Return a dataclass instance as plain data (dict, list, str, int, float, bool, None), in the order of its fields.

    `from_dict(type(config), to_dict(config))` equals `config`. Raises UsageError for a value that no file can hold.
    """
    found: dict[str, Any] = plain(config, "")
    return found


def convert(value: Any, hint: Any, *, source: str, at: str) -> Any:
    """Return `value` as the type `hint`, or raise UsageError naming `source`, the key `at`, and what was expected.

    Without a `source`, the message begins with the key.
    """
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(value, hint, source, at)
    if origin is Literal:
        for option in get_args(hint):
            if type(option) is type(value) and option == value:
                return value
        raise _wrong(source, at, value, describe(hint), get_args(hint))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else from_dict(hint, value, source=source, at=at)
    if origin in (list, tuple, dict) or hint in (list, tuple, dict):
        return _convert_container(value, hint, source, at)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        if isinstance(value, hint):
            return value
        if isinstance(value, str) and value in hint.__members__:
            return hint[value]
        raise _wrong(source, at, value, describe(hint), list(hint.__members__))
    if hint not in _SCALARS:
        raise TypeError(f"{at}: fields of type {hint} are not supported in configurations")
    try:
        return _SCALARS[hint][1](value)
    except (ValueError, OverflowError):
        raise _wrong(source, at, value, describe(hint)) from None


def describe(hint: Any) -> str:
    """Return what a field of type `hint` takes, in words: "a whole number, or null"."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        words = [describe(argument) for argument in arguments if argument is not types.NoneType]
        return " or ".join(words) + (", or null" if types.NoneType in arguments else "")
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return f"one of {', '.join(hint.__members__)}"
    if _is_group(hint):
        return "a group of settings"
    if (origin or hint) is tuple and arguments and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)} ({', '.join(map(describe, arguments))})"
    if (origin or hint) in (list, tuple):
        return f"a list ({describe(arguments[0])} each)" if arguments else "a list"
    return _SCALARS[hint][0] if hint in _SCALARS else "any value" if hint is Any else str(hint)


def dotted_names(kind: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, type) of every setting of the dataclass `kind`, those of nested dataclasses included."""
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.init:
            name, hint = prefix + field.name, hints[field.name]
            yield name, hint
            for inner in (hint, *get_args(hint)):
                if isinstance(inner, type) and dataclasses.is_dataclass(inner):
                    yield from dotted_names(inner, name + ".")


def _convert_union(value: Any, hint: Any, source: str, at: str) -> Any:
    options = [option for option in get_args(hint) if option is not types.NoneType]
    if value is None and len(options) < len(get_args(hint)):
        return None
    options.sort(key=lambda option: option is not type(value))  # 1 stays an int where int and float are both allowed
    for option in options:
        try:
            return convert(value, option, source=source, at=at)
        except UsageError:
            # What is wrong inside the one group or list that it can be is worth saying; else say all that it can be.
            if len(options) == 1 and isinstance(value, (Mapping, list, tuple)):
                raise
            if isinstance(value, Mapping) and [option] == [each for each in options if _is_group(each)]:
                raise
    choices = next((get_args(option) for option in options if get_origin(option) is Literal), ())
    raise _wrong(source, at, value, describe(hint), choices)


def _is_group(hint: Any) -> bool:
    return dataclasses.is_dataclass(hint) or (get_origin(hint) or hint) is dict


def _convert_container(value: Any, hint: Any, source: str, at: str) -> Any:
    kind, arguments = get_origin(hint) or hint, get_args(hint)
    if kind is dict:
        if not isinstance(value, Mapping):
            raise _wrong(source, at, value, describe(hint))
        key_type, value_type = arguments or (Any, Any)
        return {
            convert(key, key_type, source=source, at=_join(at, key)): convert(
                item, value_type, source=source, at=_join(at, key)
            )
            for key, item in value.items()
        }
    if not isinstance(value, (list, tuple)):
        raise _wrong(source, at, value, describe(hint))
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            raise _wrong(source, at, list(value), describe(hint))
        item_types = list(arguments)
    else:
        item_types = [arguments[0] if arguments else Any] * len(value)
    pairs = zip(value, item_types, strict=True)
    return kind(convert(item, type_, source=source, at=f"{at}[{i}]") for i, (item, type_) in enumerate(pairs))


def _exactly(kind: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError
        return value

    return check


def _to_float(value: Any) -> float:
    if isinstance(value, str) and FLOAT.fullmatch(value):
        value = float(re.sub(r"\.(?=inf|nan)", "", value.lower()).replace("_", ""))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError
    return float(value)


def _to_path(value: Any) -> Path:
    if not isinstance(value, (str, Path)) or not str(value) or "\0" in str(value):
        raise ValueError
    return Path(value)


_SCALARS: dict[Any, tuple[str, Callable[[Any], Any]]] = {
    bool: ("true or false", _exactly(bool)),
    int: ("a whole number", _exactly(int)),
    float: ("a number", _to_float),
    str: ("text", _exactly(str)),
    Path: ("a path", _to_path),
    types.NoneType: ("null", _exactly(types.NoneType)),
}


def plain(value: Any, at: str) -> Any:
    """Return `value` as plain data; subclasses of the plain types (NumPy's float64, say) become the plain type.

    Raises UsageError beginning with `at` for what no file can hold.
    """
    if isinstance(value, enum.Enum):
        return value.name
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name), _join(at, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {plain(key, at): plain(item, _join(at, key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{at}[{i}]") for i, item in enumerate(value)]
    raise UsageError(
        f"{at} is a {type(value).__name__}: expected plain data that a file can hold (numbers, text, lists)"
    )


def _join(at: str, key: Any) -> str:
    return f"{at}.{key}" if at else str(key)


def _wrong(source: str, at: str, value: Any, expected: str, choices: Any = ()) -> UsageError:
    given = "empty" if value is None and source else repr(value)
    given = given if len(given) <= 60 else given[:57] + "..."
    near = nearest(value, [c for c in choices if isinstance(c, str)]) if isinstance(value, str) and choices else ""
    where = f"{source}: " if source else ""
    return UsageError(f"{where}{at} is {given}: expected {expected}{near if 'did you mean' in near else ''}")


def _nearest_key(key: str, kind: type) -> str:
    """The tail of an unknown key's message; a name that stands one level deeper is found too."""
    names = [name for name, _ in dotted_names(kind)]
    deeper = [name for name in names if name.endswith("." + key)]
    return f"; did you mean {deeper[0]!r}?" if deeper else nearest(key, [name for name in names if "." not in name])
