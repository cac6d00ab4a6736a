"""The metric log of a run: every logged scalar as a line of JSON, and per-epoch series as NumPy files."""

from __future__ import annotations

import io
import json
import re
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from treadle.errors import RunError
from treadle.files import LineFile, cannot_write, file_name, make_directory, number, raw_lines, write_whole

METRICS = "metrics.jsonl"
ABANDONED = "abandoned.jsonl"
"""The lines of futures that were given up, each with the number of the time that this happened."""
MOST_ABANDONED = 8 << 20
"""Bytes of these that are kept; half of it for one future, of which so many training lines are left out."""
SERIES_SPLITS = ("epoch", "validation", "test")
"""The splits that are also kept as series; "epoch" is the training data's means over each epoch."""
TRAINING = b'{"split": "train"'
"""How the lines begin that are logged most."""
SERIES_PERIOD = 1.0
"""Seconds between two times that series are written while the run goes on: short epochs would write little else."""


class MetricLog:
    """Appends scalars to `metrics.jsonl`, in the same time however long the run is, and keeps `logs/*.npy`.

    A line is `{"split": "train", "step": 50, "epoch": 0, "time": 1e9, "values": {"loss": 0.5}}`; NaN and infinities are
    the strings "NaN", "Infinity" and "-Infinity". `split` is "train" (means over the log interval), "epoch" (means over
    an epoch), "validation" or "test". `logs/epoch.loss.npy` is a float64 array of shape (n, 2) with columns step and
    value, one row per epoch (validation, test). A series is written anew whenever it has grown by a tenth, but not more
    often than once a second, and when the run closes, so its cost stays constant per row; after a kill `metrics.jsonl`
    has what it lacks.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = LineFile(directory / METRICS)
        self._series: dict[str, list[tuple[int, float]]] | None = None
        self._written: dict[str, int] = {}
        self._files: dict[str, Path] = {}
        self._series_due = 0.0
        self._closed = False

    def append(self, split: str, values: Mapping[str, float], *, step: int, epoch: int) -> None:
        """Add a line. Raises RunError when the disk refuses it."""
        if split in SERIES_SPLITS:
            series = self._load()
            for name, value in values.items():
                series.setdefault(f"{split}.{name}", []).append((step, float(value)))
        self.file.append({"split": split, "step": step, "epoch": epoch, "time": time.time(), "values": values})
        if split in SERIES_SPLITS and (self._closed or time.monotonic() >= self._series_due):
            self._series_due = time.monotonic() + SERIES_PERIOD
            self.write_series(least_growth=0.1)

    def abandon(self, step: int) -> None:
        """Keep what was logged after `step` where `read_abandoned` finds it: that future is about to be given up."""
        begin = self.file.end_of(lambda line: parse_line(self.file.path, "near the end", line)["step"] <= step)
        size = self.file.size - begin
        if size <= 0:
            return
        path = self.directory / ABANDONED
        kept = LineFile(path)
        try:
            which = 1 + max((_number_of(line) for line in raw_lines(path)), default=0)
            every = 1 + size // (MOST_ABANDONED // 2)
            lines = [
                b'{"rewind": %d, ' % which + line[1:]
                for count, line in enumerate(raw_lines(self.file.path, begin))
                if count % every == 0 or not line.startswith(TRAINING)
            ]
            kept.extend(b"".join(lines))
        finally:
            kept.close()
        if kept.size > MOST_ABANDONED:
            _drop_oldest(path)

    def rewind(self, step: int) -> None:
        """Drop what was logged after `step`: the run goes on from there, and will log it again."""
        self.file.cut_after(lambda line: parse_line(self.file.path, "near the end", line)["step"] <= step)
        self._series, self._written, self._closed = None, {}, False
        self.write_series()

    def write_series(self, least_growth: float = 0.0) -> None:
        """Write each series that has at least so much more rows, as a fraction, than its file."""
        for name, rows in self._load().items():
            written = self._written.get(name, 0)
            if len(rows) > written * (1 + least_growth):
                buffer = io.BytesIO()
                np.save(buffer, np.array(rows, dtype=np.float64), allow_pickle=False)
                path = self._file_of(name)
                try:
                    make_directory(path.parent)
                    write_whole(path, buffer.getvalue())
                except OSError as error:
                    raise cannot_write(path, error) from error
                self._written[name] = len(rows)

    def close(self) -> None:
        """Write the series and close the file; what is logged after that is written at once."""
        self._closed = True
        try:
            if self._series is not None:
                self.write_series()
        finally:
            self.file.close()

    def _file_of(self, name: str) -> Path:
        """The file of a series; names that differ only in what a file name cannot say are numbered."""
        if name not in self._files:
            taken = {path.name.lower() for path in self._files.values()}
            stem, count = file_name(name), 1
            while f"{stem}{'' if count == 1 else f'-{count}'}.npy".lower() in taken:
                count += 1
            self._files[name] = self.directory / "logs" / f"{stem}{'' if count == 1 else f'-{count}'}.npy"
        return self._files[name]

    def _load(self) -> dict[str, list[tuple[int, float]]]:
        """The series so far; of a run that is continued, from its lines."""
        if self._series is None:
            self._series = {}
            for count, raw in enumerate(raw_lines(self.file.path), 1):
                if raw.startswith(TRAINING):  # nearly all of them, and in no series
                    continue
                line = parse_line(self.file.path, count, raw)
                if line["split"] in SERIES_SPLITS:
                    for name, value in line["values"].items():
                        self._series.setdefault(f"{line['split']}.{name}", []).append((line["step"], number(value)))
        return self._series


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's metric log in order, NaN and infinities as floats; a torn last line is left out.

    Raises RunError naming the file and the line where one is damaged.

    Example:
        losses = [line["values"]["loss"] for line in read_metrics("runs/line/v001") if line["split"] == "train"]
    """
    return [
        line | {"values": {name: number(value) for name, value in line["values"].items()}}
        for line in metric_lines(Path(run) / METRICS)
    ]


Points = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Steps and values, both of shape (n,)."""


def all_series(run: str | Path) -> dict[str, Points]:
    """All that a run has logged, by "split/name"."""
    return collect(metric_lines(Path(run) / METRICS))


def read_abandoned(run: str | Path) -> dict[int, dict[str, Points]]:
    """What rewinds and rollbacks have given up, by their numbers, the first is 1, and then by "split/name".

    Only so much is kept (`MOST_ABANDONED` bytes): the newest, and of a long one only some of the training lines. Empty
    for a run that never went back, and for one of before 0.4.
    """
    lines: dict[int, list[dict[str, Any]]] = {}
    for line in metric_lines(Path(run) / ABANDONED):
        if type(line.get("rewind")) is int:
            lines.setdefault(line["rewind"], []).append(line)
    return {number: collect(found) for number, found in sorted(lines.items())}


def series(run: str | Path, name: str, split: str = "train") -> Points:
    """One metric of a run; empty where it was never logged."""
    return all_series(run).get(f"{split}/{name}", (np.empty(0, np.int64), np.empty(0, np.float64)))


def collect(lines: Iterable[Mapping[str, Any]]) -> dict[str, Points]:
    """What is in `lines`, by "split/name"."""
    found: dict[str, tuple[array[int], array[float]]] = {}
    for line in lines:
        for name, value in line["values"].items():
            points = found.get(f"{line['split']}/{name}")
            if points is None:
                points = found[f"{line['split']}/{name}"] = array("q"), array("d")
            points[0].append(line["step"])
            points[1].append(number(value))
    return {name: (np.array(steps, np.int64), np.array(values, np.float64)) for name, (steps, values) in found.items()}


def metric_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a metric log, one after the other; raises RunError for one that lacks what every line has."""
    for count, line in enumerate(raw_lines(path), 1):
        yield parse_line(path, count, line)


def parse_line(path: Path, number: int | str, line: bytes) -> dict[str, Any]:
    """The content of a line of the metric log at `path`. Raises RunError naming it by `number`."""
    try:
        entry = json.loads(line)
        counts = entry["step"], entry.setdefault("epoch", 0)
        named = type(entry["split"]) is str and type(entry["values"]) is dict
        if named and all(type(count) is int and abs(count) < 2**53 for count in counts):
            return cast(dict[str, Any], entry)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise RunError(f"{path}, line {number} is damaged: it lacks step, split or values; delete it to read the rest")


def _number_of(line: bytes) -> int:
    """Of which time that a future was given up a line is; they begin with it."""
    found = re.match(rb'\{"rewind": (\d{1,9}),', line)
    return int(found[1]) if found else 0


def _drop_oldest(path: Path) -> None:
    """Keep the newest half of the bytes that there may be, of whole futures."""
    lines = list(raw_lines(path))
    sizes: dict[int, int] = {}
    for line in lines:
        sizes[_number_of(line)] = sizes.get(_number_of(line), 0) + len(line)
    room = MOST_ABANDONED // 2
    kept: set[int] = set()
    for newest in sorted(sizes, reverse=True):
        room -= sizes[newest]
        if room < 0 and kept:
            break
        kept.add(newest)
    try:
        write_whole(path, b"".join(line for line in lines if _number_of(line) in kept))
    except OSError as error:
        raise cannot_write(path, error) from error
