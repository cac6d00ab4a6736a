"""How strong an augmentation is: a number, the most of it, or the least and the most, between which it is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite

from treadle.errors import UsageError, nearest

Range = float | tuple[float, float]
"""How strong something is: the most of it, or the least and the most, between which it is drawn uniformly."""

OCCASIONAL = ("elastic", "distortion", "cutout", "blur", "motion_blur", "jitter", "gamma", "noise", "jpeg")
"""What is done to every picture, or by chance: it has a strength, and may have a probability."""

_FACTORS = ("jitter", "gamma")
"""Strengths around 1, where nothing changes: 0.2 is 0.8 to 1.2."""

_MOST: dict[str, float] = {"jitter": 1, "gamma": 1, "noise": 1, "cutout_size": 1, "jpeg": 100, "distortion": 1}
"""The largest strength there may be, where there is one."""


def ends(name: str, strength: Range) -> tuple[float, float]:
    """The least and the most of a strength."""
    if isinstance(strength, tuple):
        return strength
    if name in _FACTORS:
        return 1 - strength, 1 + strength
    if name == "distortion":
        return -strength, strength
    return (strength, 100.0) if name == "jpeg" else (0.0, strength)


def check_strength(name: str, strength: Range) -> None:
    """Raise UsageError unless a strength is a number, or two, that it can be."""
    numbers = strength if isinstance(strength, tuple) else (strength,)
    two = len(numbers) == 2
    least = -1 if name == "distortion" and two else 0
    most = inf if name in _FACTORS and two else _MOST.get(name, inf)
    if not all(isfinite(number) and least <= number <= most for number in numbers):
        expected = f"{least} to {most}" if isfinite(most) else "0 or more, finite"
        raise UsageError(f"{name} is {strength!r}: expected {expected}")
    if numbers[0] > numbers[-1]:
        raise UsageError(f"{name} is {list(numbers)}: expected the least first, then the most")


def check_chances(chances: Mapping[str, float], strengths: Mapping[str, Range]) -> None:
    """Raise UsageError for a probability of what is none of `OCCASIONAL`, is not done at all, or outside 0 to 1."""
    for name, chance in chances.items():
        if name not in OCCASIONAL:
            raise UsageError(f"chances names {name!r}{nearest(name, OCCASIONAL)}")
        if not 0 <= chance <= 1:
            raise UsageError(f"chances.{name} is {chance!r}: expected 0 to 1")
        if not strengths.get(name):
            raise UsageError(f"chances.{name} is {chance!r}, but {name} is 0, which is never: set {name}, too")
