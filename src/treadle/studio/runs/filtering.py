"""A filter of runs, written as comparisons: `psnr > 30 and recipe = image and not name ~ demo`.

    filter     = and { "or" and }
    and        = not { "and" not }
    not        = "not" not | "(" filter ")" | comparison
    comparison = name ( "=" | "!=" | "<" | "<=" | ">" | ">=" | "~" ) value

A name is a column of the table, or a metric: "validation/psnr", or "psnr" of whichever split. A value is a number, a
date such as 2026-01-31, or text; "~" asks whether it is part of the text. What has a blank or another sign in it stands
in double quotes. Text is compared without regard to capitals. A run without what a comparison is about is not found by
it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from treadle.errors import UsageError

Value = float | str | None
Look = Callable[[str], Value]
"""Gives what a run has under a name; None where it has no such thing."""

_TOKEN = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*")|([()])|(!=|<=|>=|[=<>~])|([^\s()"!=<>~]+)|(\S))')
_WORDS = ("and", "or", "not")
DEEPEST = 50
"""Brackets and "not" within one another."""


@dataclass(frozen=True)
class Token:
    """A word of a filter: what it is, what it says, and at which character it begins, counted from 1."""

    kind: str
    text: str
    at: int


@dataclass(frozen=True)
class Filter:
    """A filter that has been read.

    Attributes:
        holds: whether a run is found, by what it has.
        names: what the filter asks for, and at which character.
    """

    holds: Callable[[Look], bool]
    names: dict[str, int]


def parse(text: str) -> Filter:
    """Read a filter; an empty one finds everything. Raises UsageError that says where it cannot be read."""
    if not text.strip():
        return Filter(lambda look: True, {})
    reader = _Reader(list(_tokens(text)), len(text.rstrip()) + 1)
    holds = reader.either()
    token = reader.next
    if token.kind != "end":
        raise _wrong(token, "'and', 'or' or the end")
    return Filter(holds, reader.names)


def _tokens(text: str) -> list[Token]:
    found = []
    for match in _TOKEN.finditer(text):
        quoted, bracket, sign, word, other = match.groups()
        at = match.start(match.lastindex or 0) + 1
        if quoted is not None:
            found.append(Token("text", re.sub(r"\\(.)", r"\1", quoted[1:-1]), at))
        elif bracket is not None or sign is not None:
            found.append(Token("bracket" if bracket else "sign", bracket or sign, at))
        elif word is not None:
            found.append(Token(word.lower() if word.lower() in _WORDS else "word", word, at))
        else:
            what = "a quotation mark that is not closed" if other == '"' else repr(other)
            raise UsageError(f"filter, character {at}: {what} is not understood")
    return found


class _Reader:
    """Goes through the words of a filter, from left to right."""

    def __init__(self, tokens: list[Token], end: int) -> None:
        self._tokens, self._place, self._depth = [*tokens, Token("end", "", end)], 0, 0
        self.names: dict[str, int] = {}

    @property
    def next(self) -> Token:
        return self._tokens[self._place]

    def take(self) -> Token:
        token = self.next
        self._place += token.kind != "end"
        return token

    def expect(self, what: str, *kinds: str) -> Token:
        token = self.take()
        if token.kind not in kinds:
            raise _wrong(token, what)
        return token

    def either(self) -> Callable[[Look], bool]:
        parts = [self.both()]
        while self.next.kind == "or":
            self.take()
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else lambda look: any(part(look) for part in parts)

    def both(self) -> Callable[[Look], bool]:
        parts = [self.one()]
        while self.next.kind == "and":
            self.take()
            parts.append(self.one())
        return parts[0] if len(parts) == 1 else lambda look: all(part(look) for part in parts)

    def one(self) -> Callable[[Look], bool]:
        token = self.next
        if token.kind != "not" and (token.kind, token.text) != ("bracket", "("):
            return self.comparison()
        self._depth += 1
        if self._depth > DEEPEST:
            raise UsageError(f"filter, character {token.at}: more than {DEEPEST} brackets within one another")
        self.take()
        if token.kind == "not":
            inner = self.one()
            holds: Callable[[Look], bool] = lambda look: not inner(look)  # noqa: E731
        else:
            holds = self.either()
            closing = self.expect("a ')'", "bracket")
            if closing.text != ")":
                raise _wrong(closing, "a ')'")
        self._depth -= 1
        return holds

    def comparison(self) -> Callable[[Look], bool]:
        name = self.expect("a name, such as psnr", "word", "text")
        sign = self.expect("one of = != < <= > >= ~", "sign")
        value = self.expect("a number or text", "word", "text")
        self.names.setdefault(name.text, name.at)
        compare = _COMPARISONS[sign.text]
        wanted = value.text if sign.text == "~" or value.kind == "text" else _number(value.text)

        def holds(look: Look) -> bool:
            return _compared(look(name.text), wanted, compare)

        return holds


def _compared(found: Value, wanted: float | str, compare: Callable[[Any, Any], bool]) -> bool:
    if found is None or found != found:
        return False
    if isinstance(found, str) or isinstance(wanted, str):
        # A number that is compared with text is text too: step ~ 50, name = 7.
        return compare(_text(found).casefold(), _text(wanted).casefold())
    return compare(found, wanted)


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.17g}"


def _number(text: str) -> float | str:
    """The number or date, in seconds since 1970, that `text` says; else itself."""
    try:
        value = float(text)
        return value if math.isfinite(value) else text
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return text


def _wrong(token: Token, expected: str) -> UsageError:
    found = "it ends" if token.kind == "end" else f"{token.text!r} stands there"
    return UsageError(f"filter, character {token.at}: expected {expected}, but {found}")


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda found, wanted: bool(found == wanted),
    "!=": lambda found, wanted: bool(found != wanted),
    "<": lambda found, wanted: bool(found < wanted),
    "<=": lambda found, wanted: bool(found <= wanted),
    ">": lambda found, wanted: bool(found > wanted),
    ">=": lambda found, wanted: bool(found >= wanted),
    "~": lambda found, wanted: wanted in found,
}
