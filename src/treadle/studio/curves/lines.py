"""A run's metric log, followed as it grows: each line is read once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from treadle.errors import RunError
from treadle.files import number, open_regular, reason
from treadle.runs.metrics import ABANDONED, METRICS, parse_line

if TYPE_CHECKING:
    from treadle.studio.curves.series import RunSeries

BLOCK = 1 << 18
"""Bytes that are read at a time."""
TAIL = 512
"""Bytes before the place where reading goes on: others than then say that the log was cut, and has grown again."""

Count = Annotated[int, msgspec.Meta(gt=-(2**53), lt=2**53)]


class Line(msgspec.Struct):
    """A line of the log; see `treadle.runs.metrics.MetricLog`."""

    split: str
    step: Count
    values: dict[str, Any]
    epoch: Count = 0
    time: float = 0.0


class GivenUp(Line, kw_only=True):
    """A line of what was given up."""

    rewind: int
    """Which rewind did, counted from 1."""


_decoder = msgspec.json.Decoder(Line)
_given_up = msgspec.json.Decoder(GivenUp)


@dataclass(frozen=True)
class _Place:
    """A place in the log: bytes and lines before it, the bytes right before it, and how much of each split that is."""

    at: int = 0
    lines: int = 0
    tail: bytes = b""
    sizes: Mapping[str, int] = field(default_factory=dict)


class Follower:
    """Reads what has been appended to a run's metric log since the last time, into `series`; and what was given up.

    After a rewind, which cuts the log, what has been cut is read again. Links are not followed: a run may be somebody
    else's.

    Args:
        run: its directory.
        series: where the values go.
    """

    def __init__(self, run: Path, series: RunSeries) -> None:
        self.path, self._abandoned, self.series = run / METRICS, run / ABANDONED, series
        self._here = _Place()
        self._places = [self._here]  # some of them, to come back to
        self._lost: tuple[int, int] | None = None

    @property
    def behind(self) -> int:
        """Bytes that have not been read."""
        try:
            return abs(os.lstat(self.path).st_size - self._here.at)
        except OSError:
            return self._here.at

    def read(self) -> None:
        """Read what there is. Raises RunError naming the file and a line that is damaged."""
        descriptor = _open(self.path)
        if descriptor is None:
            self._go_back(_Place())
            return
        try:
            if not self._is_there(descriptor, self._here):
                self._go_back(next(place for place in reversed(self._places) if self._is_there(descriptor, place)))
            self._read_on(descriptor)
        finally:
            os.close(descriptor)
        self._read_lost()

    @staticmethod
    def _is_there(descriptor: int, place: _Place) -> bool:
        return os.pread(descriptor, len(place.tail), place.at - len(place.tail)) == place.tail

    def _go_back(self, place: _Place) -> None:
        if place.at < self._here.at:
            self._here = place
            self._places = [earlier for earlier in self._places if earlier.at <= place.at]
            self.series.cut(place.sizes)

    def _read_on(self, descriptor: int) -> None:
        """Take in whole lines, some `BLOCK` bytes at a time."""
        held = b""
        while read := os.pread(descriptor, BLOCK, self._here.at + len(held)):
            held += read
            end = held.rfind(b"\n") + 1
            if end:
                block, held, here = held[:end], b"", self._here
                self.series.add(decoded(self.path, here.lines, block))
                self._here = _Place(here.at + end, here.lines + block.count(b"\n"), block[-TAIL:], self.series.sizes)
                if self._here.at - self._places[-1].at >= BLOCK:
                    self._places.append(self._here)

    def _read_lost(self) -> None:
        """Read what was given up, where that is another than the last time; damaged lines are left out."""
        try:
            found = os.lstat(self._abandoned)
            stamp = found.st_mtime_ns, found.st_size
        except OSError:
            return
        if stamp == self._lost:
            return
        self._lost = stamp
        try:
            descriptor = _open(self._abandoned)
        except RunError:
            return
        if descriptor is None:
            return
        with os.fdopen(descriptor, "rb") as file:
            stretches: dict[int, list[Line]] = {}
            for raw in file:
                with suppress(msgspec.MsgspecError, UnicodeError, RecursionError):
                    line = _given_up.decode(raw)
                    stretches.setdefault(line.rewind, []).append(line)
        for which, lines in sorted(stretches.items()):
            self.series.give_up(which, lines)


def decoded(path: Path, before: int, block: bytes) -> list[Line]:
    """The lines in `block`, which come after `before` others. Raises RunError naming one that is damaged."""
    try:
        return _decoder.decode_lines(block)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        pass
    lines = []
    for count, raw in enumerate(block.split(b"\n")[:-1], before + 1):
        entry = parse_line(path, count, raw)
        lines.append(Line(entry["split"], entry["step"], entry["values"], entry["epoch"], number(entry.get("time", 0))))
    return lines


def _open(path: Path) -> int | None:
    """A descriptor of the log; None where there is none. Raises RunError where it is no file of the run's own."""
    try:
        return open_regular(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {reason(error)}") from None
