"""Tables of what a run logs, as CSV files: one for each split, with a row for each step."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from treadle.config.files import dumps
from treadle.errors import UsageError
from treadle.files import LineFile, cannot_write, encoded, file_name, raw_lines, text_cell, to_json, write_whole
from treadle.images.display import png
from treadle.runs.metrics import read_metrics
from treadle.runs.run import pretty, read_journal
from treadle.sinks.base import Sink

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer

FIRST_COLUMNS = ("step", "epoch", "time")
"""What each row begins with; time is in seconds since 1970."""
COLUMNS = 2000
"""How many a table has at most: each new one writes it anew. What would be one more is counted instead."""
STEP_OF_FILE = re.compile(r"step-(\d+)-")


class CSV(Sink):
    """Writes `train.csv`, `epoch.csv`, `validation.csv` and `test.csv`: a row for each step, a column for each metric.
    And `events.csv`: what the journal says, with its details as JSON.

    The columns are step, epoch, time and the metrics in the order in which they first came; a cell is empty where that
    metric was not logged, "nan" or "inf" where it was no finite number. A metric that appears late adds a column. Each
    row is there whole the moment it is logged, whatever kills the run; after a resume, a rewind and in a fork each step
    is there once, with what the run had logged before. `pandas.read_csv` and Python's `csv` read it.

    In a place of its own (`directory`) pictures, texts, config, environment and summary are written too, as files.

    Args:
        directory: where the run's tables go, in a folder named after it: `directory/line/v001/train.csv`, or after its
            trainer's class for a run that is not on disk. What an older run of this name has left there is replaced. By
            default `csv/` in the run's directory, whose `examples/` has the pictures and texts.

    Example:
        Trainer(..., run_dir="runs/line", hooks=[CSV()])     # then: pandas.read_csv("runs/line/v001/csv/train.csv")
    """

    hands_over: ClassVar[bool] = True

    def __init__(self, directory: str | Path | None = None) -> None:
        self.directory = None if directory is None else Path(directory).expanduser().absolute()
        self._tables: dict[str, Table] = {}
        self._place: Path | None = None
        self._trainer: Trainer | None = None
        self._events: LineFile | None = None

    @property
    def _apart(self) -> bool:
        """Whether the rest of the run is elsewhere."""
        return self.directory is not None

    def open(self, trainer: Trainer) -> None:
        """Begin the tables, with what a run that goes on has logged before."""
        self._trainer = trainer
        if self._place is not None:
            return  # a test after the end adds to them
        if self.directory is not None:
            self._place = self.directory / (type(trainer).__name__ if trainer.run is None else trainer.run.name)
        elif trainer.run is not None:
            self._place = trainer.run.path / "csv"
        else:
            raise UsageError("CSV has nowhere to write: give it a directory, or the trainer a run_dir")
        self._place.mkdir(parents=True, exist_ok=True)
        for old in self._place.glob("*.csv"):
            old.unlink()
        self._events = LineFile(self._place / "events.csv")
        self._remove_files(after=trainer.progress.step)
        if trainer.run is not None:
            self._begin_with(trainer.run.path)

    def close(self) -> None:
        """Close the files, and say what had no place in them."""
        left_out = 0
        if self._events is not None:
            self._events.close()
        for table in self._tables.values():
            table.close()
            left_out += table.left_out
            table.left_out = 0
        if left_out and self._trainer is not None:
            self._trainer.note("not written by CSV", counts={"values of too many metrics": left_out})

    def cut(self, step: int) -> None:
        """Take back what was logged after this step."""
        for table in self._tables.values():
            table.cut(step)
        self._remove_files(after=step)

    def config(self, values: Mapping[str, Any]) -> None:
        """Write config.yaml, where the run's directory does not have it."""
        self._write("config.yaml", dumps(json.loads(to_json(values))))

    def environment(self, values: Mapping[str, Any]) -> None:
        """Write environment.json, where the run's directory does not have it."""
        self._write("environment.json", pretty(values))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Write summary.json, where the run's directory does not have it."""
        self._write("summary.json", pretty(values))

    def event(self, entry: Mapping[str, Any]) -> None:
        """Add a row to events.csv."""
        assert self._events is not None
        if not self._events.size:
            self._events.extend(_line(["step", "epoch", "time", "event", "details"]))
        self._events.extend(_event(entry))

    def scalars(self, step: int, values: Mapping[str, float], split: str) -> None:
        """Add a row, or to the last one where it is of the same step."""
        assert self._trainer is not None
        self._table(split).add(step, self._trainer.epoch, time.time(), values)

    def image(self, step: int, name: str, picture: Any) -> None:
        """Write a picture, where the run's directory does not have it."""
        if self._apart:
            self._write(f"pictures/step-{step:08d}-{file_name(name)}.png", png(picture, name))

    def text(self, step: int, name: str, text: str) -> None:
        """Write a text, where the run's directory does not have it."""
        self._write(f"texts/step-{step:08d}-{file_name(name)}.txt", f"{text}\n")

    def _table(self, split: str) -> Table:
        if split not in self._tables:
            assert self._place is not None
            self._tables[split] = Table(self._place / f"{file_name(split)}.csv")
        return self._tables[split]

    def _begin_with(self, run: Path) -> None:
        """Write what the run has logged so far; what it is going to take again has been cut off there."""
        lines = read_metrics(run)
        for split in dict.fromkeys(line["split"] for line in lines):
            self._table(split).begin([line for line in lines if line["split"] == split])
        for entry in read_journal(run):
            self.event(entry)

    def _write(self, name: str, content: str | bytes) -> None:
        if self._apart and self._place is not None:
            path = self._place / name
            path.parent.mkdir(exist_ok=True)
            write_whole(path, content)

    def _remove_files(self, *, after: int) -> None:
        if self._apart and self._place is not None:
            for path in [*self._place.glob("pictures/step-*"), *self._place.glob("texts/step-*")]:
                step = STEP_OF_FILE.match(path.name)
                if step is not None and int(step[1]) > after:
                    path.unlink()


class Table:
    """A CSV file that grows by whole rows, and is written anew, whole, where it needs another column.

    Args:
        path: the file. One that is there is replaced by the first row.

    Attributes:
        left_out: how many values had no place, since their metrics were too many.
    """

    def __init__(self, path: Path) -> None:
        self.left_out = 0
        self._file = LineFile(path)
        self._columns: dict[str, int] = {}  # metrics, in the order of their columns
        self._last: tuple[int, Mapping[str, float]] | None = None

    def begin(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Be the table of these lines of a metric log."""
        rows: dict[int, tuple[int, float, dict[str, float]]] = {}
        for line in lines:
            before = rows.pop(line["step"], (0, 0.0, {}))[2]
            rows[line["step"]] = (line["epoch"], line.get("time", 0.0), before | line["values"])
            self._learn(line["values"])
        self._replace(_row(step, epoch, at, self._cells(values)) for step, (epoch, at, values) in rows.items())
        step = next(reversed(rows), None)
        self._last = None if step is None else (step, rows[step][2])

    def add(self, step: int, epoch: int, at: float, values: Mapping[str, float]) -> None:
        """Add a row. Raises RunError when the disk refuses it, with the table as it was before."""
        known = len(self._columns)
        if self._learn(values) or known == 0:
            commas = b"," * (len(self._columns) - known)
            self._replace(line[:-1] + commas + b"\n" for line in list(raw_lines(self._file.path))[1:])
        if self._last is not None and self._last[0] > step:  # the run began again: nothing could be restored
            self.cut(step - 1)
        if self._last is not None and self._last[0] == step:
            values = {**self._last[1], **values}
            self.cut(step - 1)
        self._file.extend(_row(step, epoch, at, self._cells(values)))
        self._last = (step, dict(values))

    def cut(self, step: int) -> None:
        """Drop the rows after `step`."""
        self._file.cut_after(lambda line: line.startswith(b"step,") or int(line.partition(b",")[0]) <= step)
        if self._last is not None and self._last[0] > step:
            self._last = None

    def close(self) -> None:
        """Close the file; what comes after that is added to it."""
        self._file.close()

    def _learn(self, names: Mapping[str, Any]) -> bool:
        """Give new metrics a column, as long as there are not too many; whether there was any."""
        new = [name for name in names if name not in self._columns]
        if not new:
            return False
        for name in new[: COLUMNS - len(self._columns)]:
            self._columns[name] = len(self._columns)
        self.left_out += sum(name not in self._columns for name in new)
        return any(name in self._columns for name in new)

    def _cells(self, values: Mapping[str, float]) -> list[str]:
        return [repr(float(values[name])) if name in values else "" for name in self._columns]

    def _replace(self, rows: Iterator[bytes]) -> None:
        """Write the file anew with the columns there are now."""
        self._file.close()
        titles = [text_cell(" ".join(name.split())) for name in self._columns]  # a row is a line
        try:
            write_whole(self._file.path, _line([*FIRST_COLUMNS, *titles]) + b"".join(rows))
        except OSError as error:
            raise cannot_write(self._file.path, error) from error


def _row(step: int, epoch: int, at: float, cells: Sequence[str]) -> bytes:
    return ",".join([str(step), str(epoch), f"{at:.3f}", *cells]).encode() + b"\n"


def _event(entry: Mapping[str, Any]) -> bytes:
    details = {name: value for name, value in entry.items() if name not in (*FIRST_COLUMNS, "event")}
    first = [
        str(entry["step"]),
        str(entry.get("epoch", "")),
        f"{entry.get('time', 0.0):.3f}",
        text_cell(entry["event"]),
    ]
    return _line([*first, to_json(details) if details else ""])


def _line(cells: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return encoded(text.getvalue())
