"""Which of two values of a monitored metric is better, and where the value is found."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Literal

from treadle.errors import UsageError, nearest

Mode = Literal["min", "max"]


def is_better(value: float, best: float | None, mode: Mode, by: float = 0.0) -> bool:
    """Whether `value` improves on `best` by more than `by`.

    NaN never improves on anything; any other value improves on None (nothing yet) and on NaN.

    Example:
        >>> is_better(0.5, 0.6, "min"), is_better(float("nan"), 0.6, "min"), is_better(0.5, None, "max")
        (True, False, True)
    """
    if math.isnan(value):
        return False
    if best is None or math.isnan(best):
        return True
    return (best - value if mode == "min" else value - best) > by


def monitored(metrics: Mapping[str, float], name: str, occasional: Collection[str] = ()) -> float | None:
    """The value of the metric `name`; None where it is one of the `occasional` ones, and this validation had it not.

    Raises UsageError, with the nearest name, where no validation gives it.
    """
    if name not in metrics:
        if name in occasional:
            return None
        tail = nearest(name, [*metrics, *occasional])
        raise UsageError(f"monitor is {name!r}, which validation_step does not return{tail} (set monitor=)")
    return float(metrics[name])


def check_mode(mode: str) -> None:
    """Raise UsageError for anything but "min" and "max"."""
    if mode not in ("min", "max"):
        raise UsageError(f"mode is {mode!r}: expected 'min' or 'max'")
