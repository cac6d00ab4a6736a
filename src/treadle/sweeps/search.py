"""The notation of what a sweep searches: ranges and choices of a recipe's settings.

    learning_rate=log:1e-4..1e-1                 a number from a range, evenly in its logarithm
    dropout=0..0.5                               evenly; whole numbers, where the setting takes no others
    width=16..128..16                            with a step; with log: it is a factor (log:16..128..2)
    levels=8|12|16                               one of these, each read as YAML: numbers, text, null, lists
    learning_rate=cosine {log:1e-4..1e-1} to 0   a number within text, as schedules have them
    feed.neighbours=1..9                         dots reach into groups

From Python a sequence means choices as well: `{"levels": [8, 12, 16]}`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from treadle.config.files import parse_override
from treadle.errors import UsageError, nearest
from treadle.files import to_json

_NUMBER = r"[-+]?(?:\d[\d_]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"(log:)?({_NUMBER})\.\.({_NUMBER})(?:\.\.({_NUMBER}))?")
_WITHIN = re.compile(rf"\{{(\s*{_RANGE.pattern}\s*)\}}")
_MOST_POINTS = 100_000
"""Values of one setting, or points of a grid, beyond which nobody means it."""

Drawn = int | float | str
"""What is drawn for a setting: a number from a range, or the words of a choice."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Attributes:
        log: even in the logarithm.
        step: only `low`, `low + step` and so on; None: any.
        whole: only whole numbers.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    @property
    def ends(self) -> tuple[Drawn, Drawn]:
        """Its first and last number."""
        if self.step is None:
            return self._number(self.low), self._number(self.high)
        return self._number(self.low), self._number(self.low + (self._steps - 1) * self.step)

    def draw(self, stream: random.Random) -> Drawn:
        """A number of it."""
        if self.step is not None:
            return self._number(self.low + stream.randrange(self._steps) * self.step)
        low, high = (self.low - 0.5, self.high + 0.5) if self.whole else (self.low, self.high)
        value = math.exp(stream.uniform(math.log(low), math.log(high))) if self.log else stream.uniform(low, high)
        return self._number(min(max(round(value) if self.whole else value, self.low), self.high))

    def points(self) -> list[Drawn]:
        """All its numbers. Raises UsageError where nothing says which they are."""
        if self.step is None and (self.log or not self.whole):
            how = "a factor: log:1e-4..1e-1..10" if self.log else "a step: 0..1..0.25"
            raise UsageError(f"a grid needs {how}, or choices: 1|2|5")
        count = self._steps
        if count > _MOST_POINTS:
            raise UsageError(f"it has {count} values, at most {_MOST_POINTS} make a grid")
        return [self._number(self.low + index * (self.step or 1)) for index in range(count)]

    @property
    def _steps(self) -> int:
        return math.floor((self.high - self.low) / (self.step or 1) * (1 + 1e-12) + 1e-9) + 1

    def _number(self, value: float) -> Drawn:
        if self.whole:
            return int(value)
        return float(f"{value:.12g}") if self.step is not None else float(value)


@dataclass(frozen=True)
class Choices:
    """Some values, by the words that stand for them."""

    values: Mapping[str, Any]

    @property
    def ends(self) -> tuple[Drawn, ...]:
        """All of them: each has to be checked."""
        return tuple(self.values)

    def draw(self, stream: random.Random) -> Drawn:
        """One of them."""
        return stream.choice(list(self.values))

    def points(self) -> list[Drawn]:
        """All of them."""
        return list(self.values)


@dataclass(frozen=True)
class Dimension:
    """One setting that is searched.

    Attributes:
        name: the setting's, with dots.
        domain: what is drawn for it.
        template: the text around a number, with "{}" in its place; empty for the number itself.
    """

    name: str
    domain: Range | Choices
    template: str = ""

    def value(self, drawn: Drawn) -> Any:
        """What the setting becomes."""
        if isinstance(self.domain, Choices):
            return self.domain.values[str(drawn)]
        return self.template.replace("{}", f"{drawn!r}") if self.template else drawn


class Configured(Protocol):
    """What takes settings and checks them: a recipe."""

    def with_settings(self, settings: Mapping[str, Any], /) -> Any:
        """A copy with these settings. Raises UsageError."""


def parse_search(texts: Iterable[str]) -> dict[str, str]:
    """`NAME=VALUES` as given to `--search`, by name. Raises UsageError for another form, or a name that comes twice."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not name.strip() or not values.strip():
            raise UsageError(
                f"--search {text}: expected NAME=VALUES, such as learning_rate=log:1e-4..1e-1 or 'levels=8|12|16'"
            )
        if name.strip() in found:
            raise UsageError(f"--search {text}: {name.strip()} is searched twice")
        found[name.strip()] = values.strip()
    return found


def dimensions(search: Mapping[str, str | Sequence[Any]], recipe: Configured) -> list[Dimension]:
    """The dimensions of a search, each checked against the settings of `recipe`, so that no trial begins in vain.

    Raises UsageError in one line for an unknown name, what the notation does not know, and a value that the setting
    does not take.
    """
    if not search:
        raise UsageError("nothing is searched: name a setting and its values, such as learning_rate=log:1e-4..1e-1")
    return [_fitted(parse_dimension(name, values), recipe) for name, values in search.items()]


def parse_dimension(name: str, values: str | Sequence[Any]) -> Dimension:
    """One setting's values, as text or as a sequence of choices. Raises UsageError for what is no such notation."""
    said = f"search {name}={values if isinstance(values, str) else list(values)}"
    if not isinstance(values, str):
        return Dimension(name, _choices({_label(value): value for value in values}, len(values), said))
    text = values.strip()
    whole = _RANGE.fullmatch(text)
    if whole is not None:
        return Dimension(name, _range(whole, said))
    parts = _split(text, said)
    if len(parts) == 1:
        within = list(_WITHIN.finditer(text))
        if len(within) == 1 and within[0][0] != text:
            inner = _RANGE.fullmatch(within[0][1].strip())
            assert inner is not None
            domain = _range(inner, said)
            if isinstance(domain, Range):
                return Dimension(name, domain, f"{text[: within[0].start()]}{{}}{text[within[0].end() :]}")
            texts = {within[0].re.sub(lambda _: label, text, count=1): None for label in domain.values}  # noqa: B023
            return Dimension(name, Choices({label: label for label in texts}))
        if ".." in text:
            raise UsageError(
                f"{said}: expected a range such as 0..0.5, 16..128..16 or log:1e-4..1e-1, or choices such as 8|12|16"
            )
        raise UsageError(f"{said}: one value is no search: give a range or choices (8|12|16), or --set {name}={text}")
    return Dimension(name, _choices({part: _read(name, part, said) for part in parts}, len(parts), said))


def grid(dims: Sequence[Dimension]) -> list[dict[str, Drawn]]:
    """All points of a grid, the last dimension's values changing fastest. Raises UsageError where one has no points."""
    columns = []
    for dim in dims:
        try:
            columns.append(dim.domain.points())
        except UsageError as error:
            raise UsageError(f"search {dim.name}: {error}") from None
    count = math.prod(map(len, columns))
    if count > _MOST_POINTS:
        raise UsageError(f"the grid has {count} points: at most {_MOST_POINTS} are taken; search with --sampler random")
    return [dict(zip((dim.name for dim in dims), point, strict=True)) for point in itertools.product(*columns)]


def _range(match: re.Match[str], said: str) -> Range | Choices:
    numbers = [float(text) for text in match.groups()[1:3]]
    low, high = numbers
    step = None if match[4] is None else float(match[4])
    if not all(map(math.isfinite, [*numbers, step or 0.0])):
        raise UsageError(f"{said}: expected finite numbers")
    if low >= high:
        raise UsageError(f"{said}: the range is empty: its end has to be above its beginning")
    whole = all(text is None or re.fullmatch(r"[-+]?[\d_]+", text) for text in match.groups()[1:])
    if not match[1]:
        if step is not None and not 0 < step <= high - low:
            raise UsageError(f"{said}: the step is {match[4]}: expected one above 0 that the range has room for")
        return Range(low, high, step=step, whole=whole)
    if low <= 0:
        raise UsageError(f"{said}: a logarithm needs numbers above 0")
    if step is None:
        return Range(low, high, log=True, whole=whole)
    if not 1 < step <= high / low:
        raise UsageError(f"{said}: the factor is {match[4]}: expected one above 1 that the range has room for")
    count = math.floor(math.log(high / low) / math.log(step) + 1e-9) + 1
    if count > _MOST_POINTS:
        raise UsageError(f"{said}: it has {count} values, at most {_MOST_POINTS} are taken")
    found = [float(f"{low * step**index:.12g}") for index in range(count)]
    values: list[Any] = [int(value) for value in found] if whole else found
    return Choices({f"{value!r}": value for value in values})


def _split(text: str, said: str) -> list[str]:
    """Text at its "|", but for those within quotes and brackets."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        if character == "|" and not quote and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    if len(parts) > 1 and not all(part.strip() for part in parts):
        raise UsageError(f"{said}: a choice is missing (null means none)")
    return [part.strip() for part in parts]


def _read(name: str, text: str, said: str) -> Any:
    try:
        return parse_override(f"{name}={text}")[1]
    except UsageError as error:
        raise UsageError(f"{said}: {text!r} cannot be read: {str(error).rpartition(': ')[2]}") from None


def _label(value: Any) -> str:
    return value if isinstance(value, str) else to_json(value)


def _choices(values: Mapping[str, Any], count: int, said: str) -> Choices:
    if len({to_json(value) for value in values.values()}) < count:
        raise UsageError(f"{said}: a choice is given twice")
    if count < 2:
        raise UsageError(f"{said}: expected two choices or more")
    return Choices(values)


def _fitted(dim: Dimension, recipe: Configured) -> Dimension:
    """The dimension as the setting of that name takes it: whole numbers, others, or numbers as text."""
    domain = dim.domain
    if isinstance(domain, Range) and not dim.template:
        if domain.whole and _takes(recipe, dim, domain.low + 0.5):
            domain = dataclasses.replace(domain, whole=False)
            dim = dataclasses.replace(dim, domain=domain)
        if not _takes(recipe, dim, *domain.ends) and _takes(recipe, dataclasses.replace(dim, template="{}")):
            dim = dataclasses.replace(dim, template="{}")
    for drawn in dim.domain.ends:
        try:
            recipe.with_settings({dim.name: dim.value(drawn)})
        except UsageError as error:
            raise UsageError(f"search: {error}") from None
    return dim


def _takes(recipe: Configured, dim: Dimension, *drawn: Drawn) -> bool:
    try:
        for each in drawn or dim.domain.ends:
            recipe.with_settings({dim.name: dim.value(each)})
    except UsageError:
        return False
    return True


def one_of(name: str, value: str, known: Sequence[str]) -> str:
    """`value`, if it is one of the `known`. Raises UsageError beginning with `name`, with the nearest one."""
    if value not in known:
        raise UsageError(f"{name} is {value!r}: expected {' or '.join(map(repr, known))}{_near(value, known)}")
    return value


def _near(value: str, known: Sequence[str]) -> str:
    tail = nearest(value, known)
    return tail if "did you mean" in tail else ""
