"""Curves for the page: the points of a series, the difference of two runs, and tables of values.

Nothing is kept before somebody asks. The values of a run on disk are read from its log, as it grows; those of one that
is not on disk are kept as they are logged.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.engine.events import Record
from treadle.errors import UsageError
from treadle.runs.expressions import Call, Name, evaluate
from treadle.runs.metrics import Points
from treadle.studio import protocol
from treadle.studio.curves.axes import Drawn
from treadle.studio.curves.lines import Follower, Line
from treadle.studio.curves.pyramid import Pyramid
from treadle.studio.curves.series import RunSeries
from treadle.studio.curves.smoothing import Smoothed
from treadle.studio.topics import Client, Handler, Live, Topic, later
from treadle.studio.wire import pack

BOOKS = 6
"""Runs whose values are held besides the one that is trained: those that were asked for last."""
DIFFERENCES = 4
"""Differences of two runs that are kept."""
AT_ONCE = 1 << 16
"""Bytes of a log that are read before an answer; more are read in a thread of their own."""
WAITING = 1000
"""Logged values that wait to be put in their curves."""


class Book:
    """The curves of one run, for one thread at a time.

    Args:
        path: the run's directory; None where it is not on disk, and `waiting` has what it logs.
    """

    def __init__(self, path: Path | None) -> None:
        self.series = RunSeries(spill=path is not None)  # a run that writes nothing has nothing written
        self.lock = Lock()
        self.in_memory = path is None
        self._follower = None if path is None else Follower(path, self.series)
        self.waiting: deque[Line | int] = deque()
        """Lines that were logged, and the steps that the run went back to."""

    @property
    def far_behind(self) -> bool:
        """Whether there is so much to read that nobody should wait for it."""
        return self._follower is not None and self._follower.behind > AT_ONCE

    def read(self) -> None:
        """Take in what has been logged. Raises RunError for a damaged log."""
        if self._follower is not None:
            self._follower.read()
        lines: list[Line] = []
        while self.waiting:
            entry = self.waiting.popleft()
            if isinstance(entry, Line):
                lines.append(entry)
            else:
                self.series.add(lines)
                self.series.rewind(entry)
                lines = []
        self.series.add(lines)


class Curves(Topic):
    """Answers `Curves` and `Table`.

    Args:
        live: the run that is trained here, if any.
        find: the directory of another run by its name; raises UsageError for one that there is not.
    """

    features = ("curves",)

    def __init__(self, live: Live | None, find: Callable[[str], Path]) -> None:
        self._live, self._find = live, find
        self._own: Book | None = None
        if live is not None:
            self._own = Book(live.path)
            self._begin(live)
        self._books: OrderedDict[Path, Book] = OrderedDict()
        self._differences: OrderedDict[tuple[Any, ...], Pyramid] = OrderedDict()

    def handlers(self) -> Mapping[type[protocol.Request], Handler]:
        """One for each request."""
        return {protocol.Curves: self._answer, protocol.Table: self._table}

    def _begin(self, live: Live) -> None:
        """What a run that is not on disk has logged last: the rest was before anybody listened."""
        assert self._own is not None
        logbook, (epoch, step, _) = live.loop.logbook, live.loop.counts
        if live.path is None and step > 0:
            for split, values in (("train", logbook.metrics), ("validation", live.loop.validation_metrics)):
                if values:
                    self._own.waiting.append(Line(split, step, dict(values), epoch, time.time()))

    # What the run tells -------------------------------------------------------------------------------------------

    def on_log(self, record: Record) -> None:
        """Keep the values of a run that is not on disk."""
        if self._own is not None and self._own.in_memory and record.kind == "scalars":
            self._own.waiting.append(Line(record.name, record.step, dict(record.value), record.epoch, time.time()))
            self._tidy(self._own)

    def on_journal(self, entry: Mapping[str, Any]) -> None:
        """Give up the values of a stretch that the run has gone back over."""
        went_back = entry.get("event") in ("rewind", "rollback") and type(entry.get("restored")) is int
        if self._own is not None and self._own.in_memory and went_back:
            self._own.waiting.append(entry["restored"])

    @staticmethod
    def _tidy(book: Book) -> None:
        if len(book.waiting) > WAITING and book.lock.acquire(blocking=False):
            try:
                book.read()
            finally:
                book.lock.release()

    # Answers --------------------------------------------------------------------------------------------------------

    def _answer(self, asked: protocol.Curves, client: Client) -> object:
        book = self._book(asked.run)
        other = None if asked.minus is None else self._book(asked.minus)
        slow = other is not None or asked.smoothing > 0 or book.far_behind
        if slow or not book.lock.acquire(blocking=False):
            return later(lambda: self._drawn_later(asked, book, other))
        try:
            return self._drawn(asked, book)
        finally:
            book.lock.release()

    def _drawn_later(self, asked: protocol.Curves, book: Book, other: Book | None) -> bytes:
        if other is None:
            with book.lock:
                return self._drawn(asked, book)
        subtracted: Points = np.empty(0, np.int64), np.empty(0)
        if other is not book:
            with other.lock:
                other.read()
                subtracted = other.series.steps_and_values(asked.key)
        with book.lock:
            book.read()
            if other is book:
                subtracted = book.series.steps_and_values(asked.key)
            return self._subtracted(asked, book, subtracted)

    def _drawn(self, asked: protocol.Curves, book: Book) -> bytes:
        book.read()
        self._know_batches(book)
        drawn = book.series.draw(
            asked.key,
            asked.x,
            asked.low,
            asked.high,
            asked.points,
            log_x=asked.log_x,
            smoothing=asked.smoothing,
        )
        return packed(asked.id, drawn, book.series.axes.start)

    def _subtracted(self, asked: protocol.Curves, book: Book, subtracted: Points) -> bytes:
        """The difference of two runs where both have values: see `treadle.runs.expressions`."""
        own = book.series.steps_and_values(asked.key)
        known = (asked.key, id(book), asked.minus, _mark(own), _mark(subtracted))
        curve = self._differences.pop(known, None)
        if curve is None:
            curve = _difference(own, subtracted, lambda steps: book.series.place_in_time(steps, asked.key))
        self._differences[known] = curve
        if len(self._differences) > DIFFERENCES:
            self._differences.popitem(last=False)
        self._know_batches(book)
        smooth = Smoothed(curve, asked.smoothing) if asked.smoothing > 0 else None
        axes = book.series.axes
        drawn = axes.draw(curve, asked.x, asked.low, asked.high, asked.points, asked.log_x, smooth)
        return packed(asked.id, drawn, axes.start)

    def _know_batches(self, book: Book) -> None:
        if book is self._own and self._live is not None:
            book.series.axes.batches = self._live.loop.progress.batches_per_epoch

    def _table(self, asked: protocol.Table, client: Client) -> object:
        book = self._book(asked.run)

        def written() -> str:
            with book.lock:
                book.read()
                return book.series.table(asked.keys, asked.rows)

        return later(written)

    def _book(self, run: str | None) -> Book:
        if self._own is not None and self._live is not None and run in (None, self._live.name):
            return self._own
        if run is None:
            raise UsageError("no run is trained here: say which run's curves, by its name")
        path = self._find(run)
        if self._own is not None and self._live is not None and path == self._live.path:
            return self._own
        book = self._books.pop(path, None) or Book(path)
        self._books[path] = book
        if len(self._books) > BOOKS:
            self._books.popitem(last=False)
        return book


def packed(id: int, drawn: Drawn, start: float | None = None) -> bytes:
    """Points as the answer to request `id`; `start` is when the run's axis of time begins, by the clock."""
    points = drawn.points
    marks = [[x, kind] for x, kind in zip(drawn.marks_x.tolist(), points.marks[:, 1].tolist(), strict=True)]
    header = protocol.Series(id=id, points=len(points), total=drawn.total, exact=points.exact, marks=marks, start=start)
    rows = (np.ascontiguousarray(row, "<f8").tobytes() for row in (drawn.x, points.low, points.high, points.last))
    return pack(header, *rows)


def _difference(own: Points, subtracted: Points, clock: Callable[[NDArray[np.int64]], NDArray[np.float64]]) -> Pyramid:
    curves = {"own": own, "subtracted": subtracted}
    call = Call("diff", (Name("own", "", ""), Name("subtracted", "", "")))
    found = evaluate(call, lambda name: curves[name.run])
    assert not isinstance(found, float)
    steps, values = found
    return Pyramid.of(steps, values, clock(steps) if len(steps) else None)


def _mark(points: Points) -> tuple[Any, ...]:
    """What tells whether there is more of a curve than there was."""
    steps, values = points
    return (len(steps), *(int(step) for step in steps[-1:]), *(str(value) for value in values[-1:]))
