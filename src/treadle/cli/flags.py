"""Typed flags from a Config dataclass, by tyro: `--max-steps 100`, `--no-shuffle`, `--grid.levels 8`."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import types
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, Union, get_args, get_origin

from treadle.config.fields import describe, dotted_names
from treadle.errors import UsageError, nearest

T = TypeVar("T")


def parse_flags(default: T, arguments: Sequence[str], prog: str) -> T:
    """Return a copy of the dataclass instance `default` with the flags in `arguments` applied.

    Raises UsageError in one line for an unknown flag, a missing or wrong value, and what the dataclass refuses.
    """
    if not arguments:
        return default
    known = dict(flag_names(type(default)))
    given = [re.sub(r"^--[^=]+", lambda match: match[0].replace("_", "-"), argument) for argument in arguments]
    for argument in given:
        name = argument.partition("=")[0]
        if name.startswith("-") and not re.fullmatch(r"-\.?\d.*", name) and name not in known:
            tail = nearest(name, known)
            tail = tail if "did you mean" in tail else f" ({prog} --help lists them)"
            raise UsageError(f"{prog}: unknown flag {name}{tail}")
        if is_mixed_mapping(known.get(name)):
            setting = name.removeprefix("--").replace("-", "_")
            raise UsageError(f"{prog}: {name} holds values by name: give one with --set {setting}.NAME=VALUE")
    import tyro

    settings = (tyro.conf.AvoidSubcommands,)  # a group that may be null is flags all the same
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint), contextlib.redirect_stdout(complaint):
            return tyro.cli(type(default), default=default, args=given, prog=prog, config=settings)
    except SystemExit:
        raise UsageError(_one_line(complaint.getvalue(), given, known, prog)) from None
    except UsageError as error:
        raise UsageError(f"flags: {error}") from None


def flag_names(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield (flag, type) for every field of the dataclass `kind`; a bool has two flags."""
    for name, hint in dotted_names(kind):
        if any(dataclasses.is_dataclass(inner) for inner in (hint, *get_args(hint))):
            continue
        group, _, last = name.replace("_", "-").rpartition(".")
        group = f"{group}." if group else ""
        yield f"--{group}{last}", hint
        if hint is bool:
            yield f"--{group}no-{last}", hint


def is_mixed_mapping(hint: Any) -> bool:
    """Whether a setting holds values of several types by name, which no flag can say: they are given with --set."""
    mappings = [each for each in (hint, *get_args(hint)) if get_origin(each) is dict]
    return any(get_origin(get_args(mapping)[1]) in (types.UnionType, Union) for mapping in mappings)


def _one_line(page: str, arguments: Sequence[str], known: dict[str, Any], prog: str) -> str:
    """Say in one line what tyro says in a framed page."""
    text = " ".join(re.sub(r"[\u2500-\u257f]+|-{4,}", " ", page).split())
    flag = next((name for name in re.findall(r"--[\w.-]*\w", text) if name in known), None)
    if "Unrecognized" in text or flag is None:
        loose = re.search(r"Unrecognized options: (.+?)(?: Perhaps| Arguments| For full|$)", text)
        return f"{prog}: {loose[1]!r} belongs to no flag" if loose else f"{prog}: {text[:200]}"
    values = []
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == flag:
            values = [value] if equals else []
            for following in arguments[place + 1 :]:
                if following.startswith("--"):
                    break
                values.append(following)
    given = f"is {' '.join(values)!r}" if values else "has no value"
    return f"{flag} {given}: expected {describe(known[flag]).replace(', or null', ', or None')}"
