"""What a report is made of: its rows, what is kept of them, and the summary of each metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Better = Literal["higher", "lower", "near 1"]


@dataclass(frozen=True)
class Row:
    """A test picture.

    Attributes:
        name: what to call it, such as its file.
        pictures: what to show, in this order: "input", "output" and, where there is one, "target"; uint8 (H, W, C).
        metrics: its figures.
    """

    name: str
    pictures: Mapping[str, NDArray[np.uint8]]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Entry:
    """A row whose pictures have been written: paths as seen from the page, and sizes as (width, height)."""

    number: int
    name: str
    files: Mapping[str, str]
    sizes: Mapping[str, tuple[int, int]]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Summary:
    """One metric over the pictures: those without it, or of which it is NaN, are left out and counted in `missing`.

    `better` says which figures are better: "higher" ones, "lower" ones, or those "near 1". `std` is the standard
    deviation over these pictures (divided by their number); `best` and `worst` are None, and the figures NaN, where no
    picture has the metric.
    """

    better: Better
    mean: float
    median: float
    std: float
    best: Entry | None
    worst: Entry | None
    missing: int


def better(metric: str, higher: Collection[str], near_1: Collection[str]) -> Better:
    """Which figures of a metric are better."""
    return "higher" if metric in higher else "near 1" if metric in near_1 else "lower"


def summarize(entries: list[Entry], metric: str, better: Better) -> Summary:
    """Summarize one metric."""
    there = [entry for entry in entries if not math.isnan(entry.metrics.get(metric, math.nan))]
    values = np.array([entry.metrics[metric] for entry in there] or [math.nan])
    ranked = sorted(there, key=rank(metric, better))
    with np.errstate(invalid="ignore"):  # the deviation of infinite figures, such as the PSNR of equal pictures, is NaN
        mean, median, std = float(values.mean()), float(np.median(values)), float(values.std())
    return Summary(
        better=better,
        mean=mean,
        median=median,
        std=std,
        best=ranked[0] if ranked else None,
        worst=ranked[-1] if ranked else None,
        missing=len(entries) - len(there),
    )


def rank(metric: str, better: Better) -> Callable[[Entry], tuple[bool, float, int]]:
    """The key that sorts entries by a metric, best first, those without it last, equal ones in their order."""

    def key(entry: Entry) -> tuple[bool, float, int]:
        value = entry.metrics.get(metric, math.nan)
        return math.isnan(value), 0.0 if math.isnan(value) else _badness(value, better), entry.number

    return key


def _badness(value: float, better: Better) -> float:
    """What is smaller for a better figure: of those near 1, twice and half as much are equally bad."""
    if better == "near 1":
        return abs(math.log(value)) if 0 < value < math.inf else math.inf
    return -value if better == "higher" else value


def printable(text: str) -> str:
    """`text` as UTF-8 can say it: bytes in a file's name that are none become \\udc80 ... \\udcff."""
    return text.encode("utf-8", "backslashreplace").decode()
