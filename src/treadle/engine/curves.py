"""Curves: a value that changes over the run, and the notation for them ("cosine 1e-2 to 1e-4").

A curve is any callable that takes the run's Progress and returns a float. It is evaluated before a step, at the number
of steps finished so far: the first step has the start value, and the end value belongs to the end of the last step.

    0.01                                               constant
    0.001*3 0.0001                                     one value per epoch, the last held
    linear 1e-2 to 0                                   over the whole run
    cosine 1e-2 to 1e-4 over 30%                       over the first 30 percent, then held
    log 1e-2 to 1e-4 over 20 epochs                    linear in the logarithm
    constant 2e-4 for 100 epochs then linear to 0      held, then down to the end of the run (or "over" a span)
    milestones 1e-2 x0.33 at 50% 75%                   multiplied at each milestone
    warm-up 500 steps then cosine 1e-2 to 1e-4         up from near zero, then any of the others
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import ClassVar

from treadle.engine.progress import Progress
from treadle.engine.schedule import Span, format_number
from treadle.errors import UsageError, nearest

Curve = Callable[[Progress], float]


@dataclass(frozen=True)
class Constant:
    """The same value throughout."""

    value: float

    def __post_init__(self) -> None:
        _check_finite(self, self.value)

    def __call__(self, progress: Progress) -> float:
        return self.value

    def __str__(self) -> str:
        return format_number(self.value)


@dataclass(frozen=True)
class PerEpoch:
    """One value for each epoch; the last is held for all that follow."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise UsageError("PerEpoch needs at least one value")
        _check_finite(self, *self.values)

    def __call__(self, progress: Progress) -> float:
        values = self.values
        return values[progress.epoch] if progress.epoch < len(values) else values[-1]

    def __str__(self) -> str:
        runs = [(format_number(value), len(list(run))) for value, run in groupby(self.values)]
        if len(runs) == 1:  # a lone "0.01" would read as a constant
            return f"{runs[0][0]}*{runs[0][1]}"
        return " ".join(number if count == 1 else f"{number}*{count}" for number, count in runs)


@dataclass(frozen=True)
class Milestones:
    """`value` times the factors of all milestones reached: ((Span(50, "%"), 0.33), (Span(75, "%"), 0.33))."""

    value: float
    factors: tuple[tuple[Span, float], ...]

    def __post_init__(self) -> None:
        if not self.factors:
            raise UsageError("Milestones needs at least one milestone")
        _check_finite(self, self.value, *(factor for _, factor in self.factors))

    def __call__(self, progress: Progress) -> float:
        value = self.value
        for span, factor in self.factors:
            if span.reached(progress):
                value *= factor
        return value

    def __str__(self) -> str:
        groups = groupby(self.factors, key=lambda milestone: milestone[1])
        steps = (f" x{format_number(factor)} at " + " ".join(str(span) for span, _ in run) for factor, run in groups)
        return f"milestones {format_number(self.value)}" + "".join(steps)


@dataclass(frozen=True)
class Ramp(ABC):
    """From `start` to `end` over a span (by default to the end of the run), begun after another; held outside.

    The way between is the subclass's: `Linear`, `Cosine`, `LogLinear`. With `after`, this is constant-then-linear.
    """

    start: float
    end: float
    over: Span | None = None
    after: Span | None = None
    word: ClassVar[str]

    def __post_init__(self) -> None:
        _check_finite(self, self.start, self.end)

    def __call__(self, progress: Progress) -> float:
        step: float = progress.step
        length: float | None
        if self.after is not None:
            begin = self.after.steps(progress)
            step -= begin
        else:
            begin = 0.0
        if self.over is not None:
            length = self.over.steps(progress)
        else:
            length = progress.total_steps
            if length is None:
                raise UsageError(f"'{self}' needs the length of the run; set max_steps, or end it with 'over N steps'")
            length -= begin
        if step < 0 or step == 0 < length:
            return self.start
        # The ends are returned as written, not as arithmetic rounds them.
        return self.end if step >= length else self._between(step / length)

    @abstractmethod
    def _between(self, fraction: float) -> float:
        """Return the value at a fraction of the way, more than 0 and less than 1."""

    def __str__(self) -> str:
        over = "" if self.over is None else f" over {self.over}"
        if self.after is None:
            return f"{self.word} {format_number(self.start)} to {format_number(self.end)}{over}"
        held = f"constant {format_number(self.start)} for {self.after}"
        return f"{held} then {self.word} to {format_number(self.end)}{over}"


@dataclass(frozen=True)
class Linear(Ramp):
    """A straight line."""

    word: ClassVar[str] = "linear"

    def _between(self, fraction: float) -> float:
        return self.start + (self.end - self.start) * fraction


@dataclass(frozen=True)
class Cosine(Ramp):
    """Half a cosine: flat at both ends."""

    word: ClassVar[str] = "cosine"

    def _between(self, fraction: float) -> float:
        return self.end + (self.start - self.end) * 0.5 * (1.0 + math.cos(math.pi * fraction))


@dataclass(frozen=True)
class LogLinear(Ramp):
    """A straight line in the logarithm; both ends must be more than zero."""

    word: ClassVar[str] = "log"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start <= 0 or self.end <= 0:
            raise UsageError(f"'{self}': a log curve needs both ends above zero; use linear to reach zero")

    def _between(self, fraction: float) -> float:
        return self.start * math.pow(self.end / self.start, fraction)


@dataclass(frozen=True)
class WarmUp:
    """Rise from near zero to full within `span`, then follow `curve`; the span's last step already has the full value.

    A ramp without its own `after` begins where the warm-up ends, so the peak is its start value. Any other curve is
    counted from the start of the run as always, and multiplied.
    """

    span: Span
    curve: Curve
    _followed: Curve = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        followed = self.curve
        if isinstance(followed, Ramp) and followed.after is None:
            followed = replace(followed, after=self.span)
        object.__setattr__(self, "_followed", followed)

    def __call__(self, progress: Progress) -> float:
        length = self.span.steps(progress)
        value = self._followed(progress)
        done = progress.step + 1
        return value if done >= length else value * (done / length)

    def __str__(self) -> str:
        return f"warm-up {self.span} then {self.curve}"


def parse_curve(value: float | str | Curve) -> Curve:
    """Make a curve of a number, of text in the notation of curves, or of any callable of Progress (returned as it is).

    `str()` of a curve made from text is text again, and reads back as an equal curve.

    Raises:
        UsageError: text that is not understood, or a number that is not finite.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Constant(float(value))
    if isinstance(value, str):
        return _parse(value, " ".join(value.lower().split()))
    if callable(value):
        return value
    raise UsageError(f"{value!r} is not a curve; give a number, text such as {_FORMS['cosine'][1]!r}, or a callable")


_N = r"[-+]?(?:\d+(?:_\d+)*(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?"
_COUNT = r"(?: ?\* ?\d{1,6})?"
_S = rf"{_N} ?(?:%|[a-z]+)"
_RAMP = rf"(linear|cosine|log) ({_N}) to ({_N})(?: over ({_S}))?"
_VALUES = rf"{_N}{_COUNT}(?: {_N}{_COUNT})*"

# For each first word: the form, and what an error shows as an example of it. Compiled when first needed (`re` keeps
# them): many a run has no curve, and together they take 5 ms.
_FORMS: dict[str, tuple[str, str]] = {
    "constant": (
        rf"constant ({_N})(?: for ({_S}) then (linear|cosine|log) to ({_N})(?: over ({_S}))?)?",
        "constant 2e-4 for 100 epochs then linear to 0",
    ),
    "linear": (_RAMP, "linear 1e-2 to 0"),
    "cosine": (_RAMP, "cosine 1e-2 to 1e-4"),
    "log": (_RAMP, "log 1e-2 to 1e-4 over 30%"),
    "milestones": (
        rf"milestones ({_N})((?: x ?{_N} at {_S}(?: {_S})*)+)",
        "milestones 1e-2 x0.33 at 50% 75%",
    ),
    "warm-up": (rf"warm-up ({_S}) then (.+)", "warm-up 500 steps then cosine 1e-2 to 1e-4"),
}
_RAMPS: dict[str, type[Ramp]] = {"linear": Linear, "cosine": Cosine, "log": LogLinear}


def _parse(text: str, words: str) -> Curve:
    """Read `words`, a part of `text` in lower case with single blanks."""
    if re.fullmatch(_VALUES, words):
        return _parse_values(words)
    first = words.partition(" ")[0]
    if first not in _FORMS:
        tail = nearest(first, _FORMS) if first else f"; write for example {_FORMS['cosine'][1]!r}"
        raise UsageError(f"curve {text!r} starts with {first!r}, neither a number nor a kind of curve{tail}")
    form, example = _FORMS[first]
    match = re.fullmatch(form, words)
    if match is None:
        raise UsageError(f"curve {text!r} is not understood; write it like {example!r}")
    if first == "constant":
        value, held, word, end, over = match.groups()
        if held is None:
            return Constant(float(value))
        return _RAMPS[word](float(value), float(end), _span(over), _span(held))
    if first == "milestones":
        return Milestones(float(match[1]), tuple(_parse_milestones(match[2])))
    if first == "warm-up":
        return WarmUp(Span.parse(match[1]), _parse(text, match[2]))
    word, start, end, over = match.groups()
    return _RAMPS[word](float(start), float(end), _span(over))


def _parse_values(words: str) -> Curve:
    """Read "0.001*3 0.0001"; a single number without a count is a constant."""
    values: list[float] = []
    items = re.findall(rf"({_N})(?: ?\* ?(\d+))?", words)
    if len(items) == 1 and not items[0][1]:
        return Constant(float(words))
    for number, count in items:
        values.extend([float(number)] * int(count or 1))
    return PerEpoch(tuple(values))


def _parse_milestones(words: str) -> Iterator[tuple[Span, float]]:
    for factor, spans in re.findall(rf"x ?({_N}) at ({_S}(?: {_S})*)", words):
        for span in re.findall(_S, spans):
            yield Span.parse(span), float(factor)


def _span(text: str | None) -> Span | None:
    return None if text is None else Span.parse(text)


def _check_finite(curve: object, *values: float) -> None:
    for value in values:
        if not math.isfinite(value):
            raise UsageError(f"{type(curve).__name__}: {value} is not a finite number")
