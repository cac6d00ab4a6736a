"""What is made of lines to be looked at while a training goes on, piece by piece: no piece holds a run up for long."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

from treadle.reports.views import Option, Sample, Value
from treadle.tracts.panels import direction_colors
from treadle.tracts.slices import Volume
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import Subject

MOST_LINES = 120
"""Reference lines that are looked at: evenly chosen from all of the subject."""
IN_A_PIECE = 16
"""Lines that are judged in one piece."""
ALL = "all"
PALE = np.array([236, 238, 244], np.float32)
"""The colour of a reference line that is shown alone."""

Found = TypeVar("Found")


class Pieces(Generic[Found]):
    """Something that takes long, made piece by piece, of one state of the run; the newest that is whole is at hand.

    While the run goes on a further state's is made, of a copy of that state, and what there was is shown meanwhile.

    Args:
        begin: makes it: yields what there is of it so far, and whether that is all.
        standing: which state the run is in.
    """

    def __init__(self, begin: Callable[[int], Iterator[tuple[Found, bool]]], standing: Callable[[], Hashable]) -> None:
        self._begin, self._standing = begin, standing
        self._work: Iterator[tuple[Found, bool]] | None = None
        self._asked: int | None = None
        self._begun: Hashable = None
        self._whole: Hashable = None
        self.found: Found | None = None
        """What there is; None before the first piece."""
        self.version = 0
        """Another number whenever that is something else."""

    def go_on(self, asked: int = 0) -> bool:
        """Make a piece; whether all is there of the run's present state. `asked` is what `begin` is given."""
        if asked != self._asked:
            self._asked, self._work, self._whole, self.found = asked, None, None, None
        state = self._standing()
        if self._whole == (state,):
            return True
        if self._work is None:
            self._work, self._begun = self._begin(asked), (state,)
        part, whole = next(self._work)
        if whole or self._whole is None:
            self.found, self.version = part, self.version + 1
        if whole:
            self._work, self._whole = None, self._begun
        return self._whole == (state,)

    def afresh(self) -> None:
        """Forget what is there of an earlier state."""
        if self._whole != (self._standing(),):
            self._work, self._whole, self.found = None, None, None


class LinesSource(ABC):
    """Lines to be looked at, in RAS+ millimetres, each point with its "color" from 0 to 255.

    Attributes:
        space: their grid.
        names: the reference lines', by which one is chosen.
        channels: of the volume.
        shows: what can be shown of all lines.
    """

    space: Space
    names: tuple[str, ...]
    channels: int = 0
    shows: tuple[str, ...]

    def options(self) -> Sequence[Option]:
        """What is shown, and of how many lines."""
        return (
            Option("show", "Lines", "choice", self.shows[0], self.shows),
            Option("most", "Lines at most", "range", 200.0, low=10.0, high=1000.0, step=10.0),
            Option("sample", "Held-out line", "choice", ALL, (ALL, *self.names)),
        )

    @abstractmethod
    def go_on(self, options: Mapping[str, Value]) -> bool:
        """Make a piece of what is to be shown; whether all of it is there."""

    @abstractmethod
    def lines(self, options: Mapping[str, Value]) -> Streamlines:
        """What there is of it."""

    @abstractmethod
    def figures(self, options: Mapping[str, Value]) -> dict[str, float]:
        """Its figures."""

    @abstractmethod
    def samples(self) -> Iterator[Sample]:
        """The reference lines, with how far the model is off."""

    @abstractmethod
    def version(self) -> Hashable:
        """Another value whenever `lines` may give others."""

    def volume(self) -> Volume | None:
        """What lies behind the lines; it is read when it is first wanted, and kept."""
        return None

    def chosen(self, options: Mapping[str, Value]) -> int | None:
        """Which of the reference lines is chosen; None where all are shown."""
        name = str(options["sample"])
        return None if name == ALL else self.names.index(name)


def reference_lines(subject: Subject, group: str) -> np.ndarray:
    """(k,) int64: some of a subject's lines of three points or more, evenly chosen."""
    usable = np.flatnonzero(subject.lines[group].lengths >= 3)
    some = np.unique(np.linspace(0, max(len(usable) - 1, 0), min(len(usable), MOST_LINES)).round().astype(np.int64))
    return usable[some] if len(usable) else usable


def colored(lines: Streamlines, space: Space | None, colors: np.ndarray | None = None) -> Streamlines:
    """Lines of the voxel space of a grid (None: in RAS+) in RAS+, coloured by direction, or as `colors` (p, 3) say."""
    world = lines.points if space is None else space.to_world(lines.points)
    if colors is None:
        line = np.repeat(np.arange(len(lines)), lines.lengths)
        steps = np.zeros((len(world), 3))
        same = line[1:] == line[:-1]
        steps[:-1][same] = np.diff(world, axis=0)[same]
        last = lines.offsets[1:][lines.lengths > 1] - 1
        steps[last] = steps[last - 1]
        length = np.linalg.norm(steps, axis=1, keepdims=True)
        colors = direction_colors(np.divide(steps, length, out=np.zeros_like(steps), where=length > 0))
    return Streamlines(world.astype(np.float32), lines.offsets, {}, {"color": np.asarray(colors, np.float32)})


def evenly(lines: Streamlines, most: int) -> Streamlines:
    """At most so many of the lines."""
    if len(lines) <= most:
        return lines
    return lines.select(np.linspace(0, len(lines) - 1, most).round().astype(np.int64))


def none() -> Streamlines:
    """No lines."""
    return Streamlines(np.zeros((0, 3), np.float32), np.zeros(1, np.int64), {}, {"color": np.zeros((0, 3), np.float32)})


class JudgedLines:
    """Reference lines, with where a model errs along them; each has its number among those that are looked at."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.figures: list[dict[str, float]] = []
        self.errors: list[Streamlines] = []
        """The lines, by how far the model is off at each point: cool to hot."""
        self.directions: list[Streamlines] = []
        """What the model says, at each point of each line: short lines, by direction."""
        self.made: list[Streamlines] = []
        """What an autoencoder makes of each line."""


def samples_of(names: Sequence[str], pieces: Pieces[JudgedLines]) -> Iterator[Sample]:
    """The reference lines with their figures, as they are judged: of the run's state when the first is asked for."""
    pieces.afresh()
    done = 0
    while done < len(names):
        pieces.go_on()
        figures = [] if pieces.found is None else pieces.found.figures
        for number in range(done, len(figures)):
            yield Sample(names[number], figures[number])
        done = max(done, len(figures))
