"""Parallel coordinates: an axis for each setting and one for the metric, and each trial a line across them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from treadle.sweeps.search import Choices, parse_dimension
from treadle.sweeps.trials import Sweep, Trial, words

BEST_COLOR, GOOD_COLOR, OTHER_COLOR = 10, 14, 8
"""Of the best trial, of the better half of the others, and of the rest: codes of the 256 colours of terminals."""
ROWS = 14


@dataclass(frozen=True)
class Axis:
    """One axis, from 0 (below) to 1.

    Attributes:
        name: the setting, or the metric.
        ticks: places and what stands there.
        places: where each trial crosses it.
    """

    name: str
    ticks: Sequence[tuple[float, str]]
    places: Sequence[float]


def shown_trials(sweep: Sweep) -> list[Trial]:
    """The trials that a picture shows: those that have finished with a finite value, the best first."""
    return [
        trial
        for trial in sweep.trials
        if trial.state == "finished" and trial.value is not None and math.isfinite(trial.value)
    ]


def axes(sweep: Sweep) -> list[Axis]:
    """The axes of all settings, in the order of the search, and of the metric, whose best value is at the top."""
    trials = shown_trials(sweep)
    plan = sweep.planned.plan
    found = []
    for name, values in plan.search.items():
        domain = parse_dimension(name, values).domain
        drawn = [trial.drawn[name] for trial in trials]
        if isinstance(domain, Choices):
            count = len(domain.values)
            at = {label: index / max(1, count - 1) for index, label in enumerate(domain.values)}
            ticks = [(place, label) for label, place in at.items()]
            found.append(Axis(name, ticks, [at[str(value)] for value in drawn]))
        else:
            numbers = [float(value) for value in drawn]
            found.append(_scaled(name, numbers, domain.low, domain.high, logarithmic=domain.log))
    figures = [trial.value for trial in trials if trial.value is not None]
    low, high = min(figures), max(figures)
    axis = _scaled(plan.metric, figures, low, high, logarithmic=low > 0 and high / low > 100)
    if plan.direction == "min":
        ticks = [(1 - place, label) for place, label in axis.ticks]
        axis = Axis(axis.name, sorted(ticks), [1 - place for place in axis.places])
    return [*found, axis]


def _scaled(name: str, values: Sequence[float], low: float, high: float, *, logarithmic: bool) -> Axis:
    def place(value: float) -> float:
        if high <= low:
            return 0.5
        if logarithmic:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)

    ends = [(0.5, words(low))] if high <= low else [(0.0, words(low)), (1.0, words(high))]
    return Axis(name, ends, [min(1.0, max(0.0, place(value))) for value in values])


def draw(sweep: Sweep, width: int, *, color: bool = False) -> str:
    """The picture as lines of text, at most `width` columns wide; empty for fewer than two finished trials.

    With `color` the best trial and the better half stand out, else the best alone is drawn strong, the others dotted.
    """
    if len(shown_trials(sweep)) < 2:
        return ""
    found = axes(sweep)
    canvas = _Canvas(max(width, 12 * len(found)) if len(found) < 3 else width, ROWS)
    # Room for what stands beside the last axis.
    room = 2 + max(len(label) for _, label in found[-1].ticks)
    left, right = 1, canvas.columns - 1 - room
    columns = [round(left + (right - left) * index / (len(found) - 1)) for index in range(len(found))]
    count = len(shown_trials(sweep))
    for rank in reversed(range(count)):
        code = BEST_COLOR if rank == 0 else GOOD_COLOR if rank < (count + 1) // 2 else OTHER_COLOR
        points = [(column, axis.places[rank]) for column, axis in zip(columns, found, strict=True)]
        for (x, y), (next_x, next_y) in pairwise(points):
            canvas.line(x, y, next_x, next_y, code, dotted=not color and rank > 0)
    for column, axis in zip(columns, found, strict=True):
        canvas.axis(column, axis.ticks)
    names = [" "] * (canvas.columns + 1)
    for index, (column, axis) in enumerate(zip(columns, found, strict=True)):
        until = columns[index + 1] if index + 1 < len(columns) else canvas.columns
        text = axis.name if len(axis.name) < until - column else axis.name[: max(1, until - column - 2)] + "…"
        names[column : column + len(text)] = text
    return "\n".join(["".join(names).rstrip(), *canvas.lines(color)])


class _Canvas:
    """Characters of 2 x 4 dots (Braille), each with a colour, and text over them."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self._dots = [[0] * columns for _ in range(rows)]
        self._codes = [[0] * columns for _ in range(rows)]
        self._text = [[""] * columns for _ in range(rows)]

    def line(self, x: int, y: float, next_x: int, next_y: float, code: int, *, dotted: bool) -> None:
        """From a column and a height (0 to 1) to another."""
        height = 4 * self.rows - 1
        first, last = 2 * x, 2 * next_x
        for column in range(first, last):
            if dotted and column % 4:
                continue
            share = (column - first) / (last - first)
            row = round((1 - (y + (next_y - y) * share)) * height)
            self._dots[row // 4][column // 2] |= _DOTS[row % 4][column % 2]
            self._codes[row // 4][column // 2] = code

    def axis(self, x: int, ticks: Sequence[tuple[float, str]]) -> None:
        """A vertical line with its marks."""
        for row in range(self.rows):
            self._text[row][x] = "│"
        for place, label in ticks:
            row = round((1 - place) * (self.rows - 1))
            self._text[row][x] = "┤"
            for offset, character in enumerate(label[:14], 1):
                if x + offset < self.columns:
                    self._text[row][x + offset] = character

    def lines(self, color: bool) -> list[str]:
        """The rows, with colours where they are asked for."""
        rows = []
        for dots, codes, text in zip(self._dots, self._codes, self._text, strict=True):
            cells = []
            for pattern, code, character in zip(dots, codes, text, strict=True):
                if character or not pattern:
                    cells.append(character or " ")
                else:
                    braille = chr(0x2800 + pattern)
                    cells.append(f"\x1b[38;5;{code}m{braille}\x1b[0m" if color else braille)
            rows.append("".join(cells).rstrip())
        return rows


_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
