"""Pages of help about a recipe's settings: the common ones on a page, or all of them in full."""

from __future__ import annotations

import dataclasses
import enum
import re
import textwrap
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from treadle.cli.flags import is_mixed_mapping
from treadle.config.groups import docstrings, groups
from treadle.config.settings import Rules, rules_of
from treadle.engine.settings import TrainerConfig

INDENT = 27
"""The column in which texts begin on the full page."""

VALUES = 9
"""The width of the values on the short page; longer ones take the room of the words."""


@dataclass(frozen=True)
class Entry:
    """A setting on a page."""

    flag: str
    hint: Any
    value: Any
    said: str
    rules: Rules


def short_page(config: Any, *, lines: int, width: int = 80) -> tuple[str, int]:
    """The settings that matter most, one line each, and how many were left out; at most so many `lines`.

    They are the recipe's own settings, where not all of them have room those that say that they are common, and the
    common ones of every trainer.
    """
    sections = _sections(config)
    engine = [entry for _, shared, entries in sections if shared for entry in entries if entry.rules.common]
    own = [(title, entries) for title, shared, entries in sections if not shared]
    if sum(len(entries) + 1 for _, entries in own) + len(engine) + 1 > lines:
        own = [(title, [entry for entry in entries if entry.rules.common]) for title, entries in own]
    room = max(0, lines - len(engine) - 1)
    kept: list[tuple[str, list[Entry]]] = []
    for title, entries in own:
        fitting = entries[: max(0, room - 1)]
        if fitting:
            kept.append((title, fitting))
            room -= 1 + len(fitting)
    kept.append(("In every recipe", engine[: max(0, lines - 1)]))
    shown = [entry for _, entries in kept for entry in entries]
    flags = min(24, max((len(entry.flag) for entry in shown), default=0))
    airy = room >= len(kept) - 1  # there is room for a blank line between them
    page: list[str] = []
    for title, entries in kept:
        page += [""] if page and airy else []
        page += [_clip(f"{title}:", width), *(_line(entry, flags, width) for entry in entries)]
    return "\n".join(page), sum(len(entries) for _, _, entries in sections) - len(shown)


def full_page(config: Any, *, width: int = 80) -> str:
    """Every setting in its group: flag and type, what it is, what it may be, and its value in `config`."""
    page = []
    for title, _, entries in _sections(config):
        page.append(f"\n{title}:")
        for entry in entries:
            head = f"  {entry.flag}{_alternative(entry)} {_type(entry.hint)}".rstrip()
            notes = [entry.rules.expected(), "resumable" if entry.rules.resumable else ""]
            notes.append("live" if entry.rules.live else "")
            notes.append(f"default: {_value(entry)}")
            text = f"{entry.said} [{'; '.join(note for note in notes if note)}]".strip()
            wrapped = textwrap.wrap(text, max(20, width - INDENT), break_on_hyphens=False)
            if len(head) < INDENT - 1:
                page.append(f"{head:<{INDENT}}{wrapped.pop(0)}")
            else:
                page.append(head)
            page += [" " * INDENT + line for line in wrapped]
    return "\n".join(page).strip("\n")


def _sections(config: Any) -> list[tuple[str, bool, list[Entry]]]:
    """Title, whether every trainer has them, and settings; a recipe's own come first."""
    kind = type(config)
    found = []
    for group in groups(kind):
        entries = [entry for name in group.names for entry in _entries(config, kind, name)]
        shared = issubclass(TrainerConfig, group.owner)
        found.append((group.title.replace("`", ""), shared, entries))
    return sorted(found, key=lambda section: section[1])


def _entries(config: Any, kind: type, name: str, prefix: str = "--") -> Iterator[Entry]:
    """The setting `name`, or those of the group that it is; of a group that is null, with their defaults."""
    hint, value = get_type_hints(kind)[name], getattr(config, name, dataclasses.MISSING)
    inner = next((each for each in (hint, *get_args(hint)) if dataclasses.is_dataclass(each)), None)
    flag = prefix + name.replace("_", "-")
    if isinstance(inner, type):
        for field in dataclasses.fields(inner):
            if field.init:
                source = inner if value is None or value is dataclasses.MISSING else value
                yield from _entries(source, inner, field.name, f"{flag}.")
    else:
        if is_mixed_mapping(hint):
            flag = f"--set {flag.removeprefix('--').replace('-', '_')}.NAME="
        yield Entry(flag, hint, value, docstrings(kind).get(name, "").replace("`", ""), rules_of(kind)[name])


def _line(entry: Entry, flags: int, width: int) -> str:
    """Flag, value and what it is; a long value takes the room of the words."""
    head = _clip(f"  {entry.flag:<{flags}}  {_value(entry):<{VALUES}}  ", width)
    room, choices = width - len(head), _choices(entry.hint)
    if room < 16 and len(_value(entry)) > VALUES:
        return head.rstrip()
    tail = f" ({', '.join(choices)})" if choices and len(", ".join(choices)) < room - 15 else ""
    return f"{head}{clause(entry.said, room - len(tail))}{tail}".rstrip()


def clause(text: str, room: int) -> str:
    """As much of a sentence as there is room for, ended where it can be."""
    text = text.removesuffix(".")
    if len(text) <= room:
        return text
    for separators in (r"[.;:] | \(", ", "):
        parts = [text[: match.start()] for match in re.finditer(separators, text) if 8 <= match.start() <= room]
        whole = [part for part in parts if part.count("(") == part.count(")")]
        if whole:
            return whole[-1]
    return _clip(text, room)


def _clip(text: str, room: int) -> str:
    """The words that there is room for."""
    if len(text) <= room:
        return text
    cut = text[: max(0, room - 3)]
    return (cut[: cut.rfind(" ")] if " " in cut.strip() else cut).rstrip(" ,") + "..."


def _alternative(entry: Entry) -> str:
    """The second flag of a bool."""
    group, dot, last = entry.flag.removeprefix("--").rpartition(".")
    return f", --{group}{dot}no-{last}" if entry.hint is bool else ""


def _choices(hint: Any) -> list[str]:
    if get_origin(hint) is Literal:
        return [str(choice) for choice in get_args(hint)]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return list(hint.__members__)
    return []


def _type(hint: Any) -> str:
    """What a flag takes, as usages have it: "INT|None", "{min,max}"."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is bool:
        return ""
    if _choices(hint):
        return f"{{{','.join(_choices(hint))}}}"
    if origin in (Union, types.UnionType):
        return "|".join("None" if each is types.NoneType else _type(each) for each in arguments)
    if (origin or hint) is dict:
        return f"[{' '.join(map(_type, arguments)) or 'KEY VALUE'} ...]"
    if (origin or hint) in (list, tuple):
        whole = [each for each in arguments if each is not Ellipsis]
        fixed = (origin or hint) is tuple and len(whole) == len(arguments) > 0
        return " ".join(map(_type, whole)) if fixed else f"[{_type(whole[0]) if whole else 'VALUE'} ...]"
    return {int: "INT", float: "FLOAT", str: "TEXT"}.get(hint, getattr(hint, "__name__", "VALUE").upper())


def _value(entry: Entry) -> str:
    """The value as a flag takes it."""
    value = entry.value
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, Mapping):
        return " ".join(f"{key} {item}" for key, item in value.items()) or "-"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "-"
    if value == "" or value is dataclasses.MISSING:
        return "-"
    return str(value)
