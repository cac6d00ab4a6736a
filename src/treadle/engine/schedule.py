"""The notation for "when" and "how long", and the one value type that decides it: "500 steps", "2 epochs", "30%"."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from treadle.engine.progress import Progress
from treadle.errors import UsageError, nearest

Unit = Literal["steps", "epochs", "%"]

_TEXT = re.compile(r"\s*([-+]?(?:\d+(?:_\d+)*)?(?:\.\d*)?(?:e[-+]?\d+)?)\s*(%|[a-z]*)\s*", re.IGNORECASE)
_SINGULAR = {"step": "steps", "epoch": "epochs"}


def format_number(value: float) -> str:
    """Write a number the short way, exactly: 0.001, 1e-05, 3 (not 3.0)."""
    return str(int(value)) if value == int(value) and abs(value) < 1e16 else repr(float(value))


@dataclass(frozen=True)
class Span:
    """A stretch of training, from its start: whole steps, epochs, or a percentage of the run.

    Args:
        value: more than zero; whole for steps; at most 100 for a percentage. "2.5%" means exactly 2.5 percent.
        unit: "steps", "epochs" or "%".

    Raises:
        UsageError: the value or the unit is not one of these.

    Example:
        >>> str(Span.parse("1_000 steps"))
        '1000 steps'
    """

    value: float
    unit: Unit
    # The value as an exact fraction (numerator, denominator): decisions are made in integers, never in floats.
    _exact: tuple[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise UsageError(f"unknown unit {self.unit!r} in a schedule{nearest(str(self.unit), get_args(Unit))}")
        if not (math.isfinite(self.value) and self.value > 0):
            raise UsageError(f"schedule {self.value} {self.unit}: the number must be more than zero and finite")
        if self.unit == "steps" and self.value != int(self.value):
            raise UsageError(f"schedule '{self}': steps are whole; write a whole number, or a percentage")
        if self.unit == "%" and self.value > 100:
            raise UsageError(f"schedule '{self}': a percentage of the run is at most 100%")
        object.__setattr__(self, "_exact", _as_written(float(self.value)))

    @classmethod
    def parse(cls, text: str | Span) -> Span:
        """Read "500 steps", "1 epoch", "2.5%" or "1_000 steps"; a Span is returned as it is.

        Raises:
            UsageError: a number without a unit, an unknown unit, or a value out of range.
        """
        if isinstance(text, Span):
            return text
        if isinstance(text, (int, float)) or (isinstance(text, str) and _is_number(text)):
            raise UsageError(f"schedule {text} has no unit; write '{text} steps', '{text} epochs' or '{text}%'")
        match = _TEXT.fullmatch(text) if isinstance(text, str) else None
        if match is None or not _is_number(match[1]):
            raise UsageError(f"schedule {text!r} is not understood; write for example '500 steps', '2 epochs' or '30%'")
        unit = match[2].lower()
        unit = _SINGULAR.get(unit, unit)
        if unit not in get_args(Unit):
            raise UsageError(f"schedule {text!r}: unknown unit {match[2]!r}{nearest(unit, get_args(Unit))}")
        return cls(float(match[1]), cast(Unit, unit))

    def __str__(self) -> str:
        number = format_number(self.value)
        if self.unit == "%":
            return f"{number}%"
        return f"{number} {self.unit[:-1] if self.value == 1 else self.unit}"

    def steps(self, progress: Progress) -> float:
        """Return the length in steps of this run, not rounded.

        Raises:
            UsageError: the run's length, or the length of an epoch, is not known.
        """
        if self.unit == "steps":
            return self.value
        numerator, denominator = self._exact
        if self.unit == "%":
            return self._total(progress) * numerator / (100 * denominator)
        return self._epoch_steps(progress) * numerator / denominator

    def reached(self, progress: Progress) -> bool:
        """Whether this much of the run is finished; a whole number of epochs is counted by finished epochs.

        Raises:
            UsageError: the run's length, or, for a part of an epoch, the length of an epoch, is not known.
        """
        numerator, denominator = self._exact
        if self.unit == "steps":
            return progress.step >= numerator
        if self.unit == "%":
            return progress.step * 100 * denominator >= self._total(progress) * numerator
        if denominator == 1:
            return progress.epoch >= numerator
        return progress.step * denominator >= self._epoch_steps(progress) * numerator

    def _total(self, progress: Progress) -> int:
        total = progress.total_steps
        if total is None:
            raise UsageError(f"'{self}' needs the length of the run; set max_steps or max_epochs, or give steps")
        return total

    def _epoch_steps(self, progress: Progress) -> int:
        if progress.batches_per_epoch is None:
            raise UsageError(f"'{self}' needs the length of an epoch, which this data does not tell; write it in steps")
        return progress.batches_per_epoch


@dataclass(frozen=True, init=False)
class Every:
    """Something periodic: `Every("500 steps")`, `Every("2 epochs")`, `Every("0.25 epochs")`, `Every("10%")`.

    It has no state: whether it is due follows from the counters of what is finished, so it never fires twice for the
    same step or epoch, in a resumed run either. A period of whole epochs is due after epochs; one in steps, percent or
    parts of an epoch after steps. A percentage p of a run of n steps fires 100 / p times, rounded down (at most once a
    step), and with the last step where p divides 100; so does a part of an epoch: "0.25 epochs" of 10 steps each after
    steps 3, 5, 8, 10, 13 and so on.

    Raises:
        UsageError: the notation is not understood.
    """

    span: Span
    _steps: int  # the period in steps, or 0
    _epochs: int  # the period in whole epochs, or 0

    def __init__(self, when: str | Span) -> None:
        span = Span.parse(when)
        whole = span.value == int(span.value)
        object.__setattr__(self, "span", span)
        object.__setattr__(self, "_steps", int(span.value) if span.unit == "steps" else 0)
        object.__setattr__(self, "_epochs", int(span.value) if span.unit == "epochs" and whole else 0)

    def __str__(self) -> str:
        return str(self.span)

    def __repr__(self) -> str:
        return f"Every({str(self.span)!r})"

    def due_after_step(self, progress: Progress) -> bool:
        """Whether it is due now that `progress.step` steps are finished; asked once after each step.

        Raises:
            UsageError: a percentage, and the run's length is not known; or a part of an epoch, and its length is not.
        """
        step = progress.step
        if self._steps:
            return step > 0 and step % self._steps == 0
        if self._epochs:
            return False
        numerator, denominator = self.span._exact
        # A period is numerator / scale of the run, or of an epoch: compare how many are complete after the step and
        # before it.
        if self.span.unit == "%":
            period, scale = self.span._total(progress) * numerator, 100 * denominator
        else:
            period, scale = self.span._epoch_steps(progress) * numerator, denominator
        return step > 0 and period > 0 and step * scale // period > (step - 1) * scale // period

    def due_after_epoch(self, progress: Progress) -> bool:
        """Whether it is due now that `progress.epoch` epochs are finished; asked once after each epoch."""
        return self._epochs > 0 and progress.epoch > 0 and progress.epoch % self._epochs == 0

    def due_between_steps(self, progress: Progress) -> bool:
        """Whether it is due once a step, and the epoch that it may have ended, are finished; asked once per step."""
        return self.due_after_step(progress) or (progress.batch == 0 and self.due_after_epoch(progress))


class Never:
    """A period that is never due, with the methods of `Every`."""

    def due_after_step(self, progress: Progress) -> bool:
        """False."""
        return False

    due_after_epoch = due_between_steps = due_after_step


NEVER = Never()


def every(when: str | None) -> Every | Never:
    """`Every(when)`, or what is never due, for None."""
    return Every(when) if when else NEVER


def _as_written(value: float) -> tuple[int, int]:
    """Numerator and denominator of the number as a person writes it: .1 is 1/10, not what a double makes of it.

    What `fractions.Fraction(repr(value))` is, without the two modules that it imports.
    """
    digits, _, exponent = repr(value).partition("e")
    whole, _, decimals = digits.partition(".")
    power = int(exponent or 0) - len(decimals)
    numerator, denominator = int(whole + decimals) * 10 ** max(power, 0), 10 ** max(-power, 0)
    common = math.gcd(numerator, denominator)
    return numerator // common, denominator // common


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
