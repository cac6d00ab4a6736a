"""YAML files and `KEY=VALUE` overrides, read as data and nothing else.

The YAML here is plain data: mappings with unique keys, lists, text, numbers, true, false and null. No tag can build an
object, no alias can grow a document, `1e-3` is a number and `no` is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from treadle.config.fields import FLOAT
from treadle.errors import UsageError, nearest

MISSING: Any = type("Missing", (), {"__repr__": lambda self: "(not there)"})()
"""What `differences` gives for the side that does not have a key."""


def load(path: str | Path) -> dict[str, Any]:
    """Read a YAML file whose document is a mapping. Raises UsageError in one line for everything that can be wrong."""
    path = Path(path)
    if path.is_dir():
        hint = f"; did you mean {str(path / 'config.yaml')!r}?" if (path / "config.yaml").is_file() else ""
        raise UsageError(f"{path} is a directory: expected a YAML file{hint}")
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        tail = nearest(path.name, siblings)
        raise UsageError(f"{path}: no such file{tail if 'did you mean' in tail else ''}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a YAML file: it is not UTF-8 text") from None
    return loads(text, source=str(path))


def loads(text: str, *, source: str) -> dict[str, Any]:
    """Parse YAML text whose document is a mapping; `source` begins every message."""
    value = _parse(text, source)
    if value is None:
        raise UsageError(f"{source} is empty: expected settings as 'key: value'")
    if not isinstance(value, dict):
        found = "a list" if isinstance(value, list) else f"only {value!r:.40}"
        raise UsageError(f"{source}: expected settings as 'key: value', found {found}")
    return value


def dumps(mapping: Mapping[str, Any]) -> str:
    """Return plain data as YAML text, keys in their order; `loads` gives back equal data."""
    return yaml.dump(dict(mapping), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def parse_override(text: str) -> tuple[tuple[str, ...], Any]:
    """Split `a.b=VALUE` into its key and its value, read as YAML: `3`, `1e-3`, `null`, `[1, 2]`, `50 steps`."""
    key, equals, value = text.partition("=")
    names = tuple(key.strip().split("."))
    if not equals or not all(names):
        raise UsageError(f"--set {text}: expected KEY=VALUE, such as max_steps=500")
    parsed = _parse(value, f"--set {text}")
    if parsed is None and value.strip() not in ("null", "Null", "NULL", "~"):
        raise UsageError(f"--set {text}: the value is missing (null means none)")
    return names, parsed


def override(mapping: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return a copy of nested `mapping` with each `a.b=VALUE` put in its place; the last one for a key holds."""
    result: dict[str, Any] = deepcopy(dict(mapping))
    for text in overrides:
        _put(result, *parse_override(text), f"--set {text}: ")
    return result


def changed(mapping: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of nested `mapping` with each value of `settings` put at its dotted key."""
    result: dict[str, Any] = deepcopy(dict(mapping))
    for key, value in settings.items():
        _put(result, key.split("."), value, "")
    return result


def _put(mapping: dict[str, Any], names: Sequence[str], value: Any, source: str) -> None:
    for depth, name in enumerate(names[:-1], 1):
        if mapping.get(name) is None:
            mapping[name] = {}
        if not isinstance(mapping[name], dict):
            raise UsageError(f"{source}{'.'.join(names[:depth])} is a single value, not a group of settings")
        mapping = mapping[name]
    mapping[names[-1]] = value


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (dotted key, first's value, second's value) where two nested mappings differ, in the order of keys."""
    left, right = dict(_leaves(first)), dict(_leaves(second))
    keys = {**left, **right}
    rows = [(key, left.get(key, MISSING), right.get(key, MISSING)) for key in keys]
    return [(key, a, b) for key, a, b in rows if not _same(a, b) and not _is_emptied(key, a, b, keys)]


def _is_emptied(key: str, a: Any, b: Any, keys: Mapping[str, Any]) -> bool:
    """Whether a group is empty on one side only: the other side's keys below it say so already."""
    empty = {} in (a, b) and MISSING in (a, b)
    return empty and any(other.startswith(f"{key}.") for other in keys)


def _leaves(mapping: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value


def _same(a: Any, b: Any) -> bool:
    """Equal and of one kind (True is not 1); NaN equals itself."""
    numbers = isinstance(a, (int, float)) and isinstance(b, (int, float))
    kinds = isinstance(a, bool) == isinstance(b, bool) if numbers else type(a) is type(b)
    return kinds and (a == b or (a != a and b != b))


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f", line {mark.line + 1}" if mark and "\n" in text.strip() else ""
        problem = error.problem or str(error)
        if problem.startswith("but ") and error.context:
            problem = f"{error.context}, {problem}"
        raise UsageError(f"{source}{line}: {_one_line(problem)}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{source}: not readable as YAML: {_one_line(error)}") from None
    except RecursionError:
        raise UsageError(f"{source}: nested too deeply") from None
    except (ValueError, KeyError, OverflowError) as error:  # an explicit tag on text that does not fit it
        raise UsageError(f"{source}: a value does not fit its tag: {_one_line(error)}") from None


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


class _Loader(yaml.SafeLoader):
    """Reads plain data: no aliases, no tags beyond the plain types, no key twice."""

    yaml_constructors = {}  # SafeLoader's own are not inherited: _PLAIN_TYPES below are all there is
    yaml_implicit_resolvers = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases: a few lines of them can stand for gigabytes, or for a document that contains itself."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            problem = f"alias *{event.anchor}: aliases are not supported, write the value out"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)

    def construct_plain_mapping(self, node: Any) -> Iterator[dict[Any, Any]]:
        """Build a dict, refusing a key given twice."""
        result: dict[Any, Any] = {}
        yield result
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(None, None, "expected 'key: value'", node.start_mark)
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float)):
                problem = "a key must be text or a number"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if key in result:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
            result[key] = self.construct_object(value_node, deep=True)

    def refuse(self, node: Any) -> None:
        """Refuse every other tag: files are data."""
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        raise yaml.constructor.ConstructorError(
            None, None, f"the tag {tag} is not supported: files are plain data", node.start_mark
        )


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads; text that either YAML 1.1 or `_Loader` would read as something else is quoted."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal objects out each time: `_Loader` knows no aliases."""
        return True

    def represent_text(self, data: str) -> Any:
        """Text with line breaks of any kind is escaped: in the other styles YAML folds some of them into spaces."""
        style = '"' if any(character in data for character in "\n\r\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    def represent_short_list(self, data: list[Any]) -> Any:
        """Lists of plain values on one line, others with a line each."""
        flat = not any(isinstance(item, (list, dict)) for item in data)
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flat)


# An implicit float has a point or an exponent: 010 is neither a float nor an int, so it stays text.
_IMPLICIT_FLOAT = re.compile(rf"(?=[^.eE]*[.eE])(?:{FLOAT.pattern})")
_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)|0x[0-9a-fA-F_]+")
_PLAIN_TYPES = (
    ("null", re.compile(r"(~|null|Null|NULL|)"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"(true|True|TRUE|false|False|FALSE)"), list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _IMPLICIT_FLOAT, list("-+.0123456789")),
)
for _name, _pattern, _first in _PLAIN_TYPES:
    _whole = re.compile(f"^(?:{_pattern.pattern})$")
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _whole, _first)
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _whole, _first)
for _name in ("null", "bool", "int", "float", "str", "seq"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_name}", getattr(_Loader, f"construct_yaml_{_name}"))
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_plain_mapping)
_Loader.add_constructor(None, _Loader.refuse)
_Dumper.add_representer(list, _Dumper.represent_short_list)
_Dumper.add_representer(str, _Dumper.represent_text)
