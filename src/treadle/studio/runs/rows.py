"""A row of the table of runs, and how it is read from the files of a run."""

from __future__ import annotations

import math
import os
import re
import shlex
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from treadle.config.files import loads
from treadle.errors import UsageError
from treadle.files import number
from treadle.runs.lock import LOCK
from treadle.runs.metrics import METRICS
from treadle.runs.run import BEST, CONFIG, ENVIRONMENT, INFO, JOURNAL, SUMMARY
from treadle.studio.runs.filtering import Value
from treadle.studio.runs.inside import (
    as_object,
    json_inside,
    names_inside,
    plain,
    printable,
    read_end,
    read_inside,
)

TAIL = 1 << 14
"""Bytes at the end of a log that are read for the newest values."""
METRICS_SHOWN = 60
"""Metrics of a run that are listed, the more telling ones first."""
SPLITS = ("validation", "test", "epoch", "train")
"""Which split a metric's bare name means: the first of these that has it."""
ALIKE = 3
"""Lines of a split, from the end of a log, that are read: the last has not always all that is logged."""
_TRAINER = re.compile(rb"^trainer:[ ]*([^\n]*)$", re.MULTILINE)
_PLAIN = re.compile(r"[A-Za-z][\w.:-]*[\w]")
_COMMAND = re.compile(r"treadle\S* train +('[^']*'|[^\s'-]\S*)")
_BEST_INFO = f"{BEST}/{INFO}"
WATCHED = (CONFIG, ENVIRONMENT, SUMMARY, METRICS, JOURNAL, LOCK, _BEST_INFO)
"""The files of a run that say whether its row is still right."""
COLUMNS = ("name", "recipe", "trainer", "status", "step", "epoch", "best", "seconds", "started", "parent")


@dataclass(frozen=True)
class Row:
    """What the table says of a run.

    Attributes:
        name: "image/v001"; longer where several are called so.
        recipe: what `treadle train` was given; of other programs the trainer's name.
        status: "finished", "stopped", "failed", "running" (in this process), "running elsewhere" (in another one of
            this machine), or "unfinished": it was killed, or is trained on another machine.
        best: monitor, value and step of what was best; empty where nothing was monitored.
        seconds: of training; None where the run has left no summary.
        started: seconds since 1970; None where that is not known.
        parent: the run that it is a fork of: its name where it is in the table, else its path; empty for no fork.
        metrics: the newest values by "split/name".
    """

    name: str
    recipe: str = ""
    trainer: str = ""
    status: str = "unfinished"
    step: int = 0
    epoch: int = 0
    best: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    started: float | None = None
    parent: str = ""
    fork_step: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    def look(self, name: str) -> Value:
        """What the run has in a column, or of a metric, by its full name or a bare one; None for no such thing."""
        if name in COLUMNS:
            value = self.best.get("value") if name == "best" else getattr(self, name)
            return None if value is None or value == "" else value
        for full in (name, *(f"{split}/{name}" for split in SPLITS)):
            if full in self.metrics:
                return self.metrics[full]
        return None

    def plain(self) -> dict[str, Any]:
        """As the page gets it."""
        best = {key: _finite(value) for key, value in self.best.items()} or None
        metrics = {name: _finite(value) for name, value in self.metrics.items()}
        return plain({**vars(self), "parent": self.parent or None, "best": best, "metrics": metrics})


def read_row(name: str, path: Path, stamp: tuple[tuple[int, int] | None, ...]) -> tuple[Row, int]:
    """A run's row, and the process that says it is training it, or 0."""
    summary, environment = json_inside(path, SUMMARY), json_inside(path, ENVIRONMENT)
    trainer = _trainer(path)
    newest, last = _newest(path, summary)
    first = as_object((read_inside(path, JOURNAL, 1 << 18) or b"").partition(b"\n")[0])
    forked = first.get("event") == "fork"
    row = Row(
        name=name,
        recipe=_recipe(environment) or trainer,
        trainer=trainer,
        status=_text(summary.get("status")) or "unfinished",
        step=max(_count(summary.get("step")), _count(last.get("step"))),
        epoch=max(_count(summary.get("epoch")), _count(last.get("epoch"))),
        best=_best(summary) or _best({"best": json_inside(path, _BEST_INFO)}),
        seconds=_finite(number(summary["seconds"])) if "seconds" in summary else None,
        started=_started(environment.get("time")),
        parent=_text(first.get("parent")) if forked else "",
        fork_step=_count(first.get("step")) if forked else None,
    )
    return replace(row, metrics=_sorted(newest, str(row.best.get("monitor", "")))), holder_of(path, stamp)


def holder_of(path: Path, stamp: tuple[tuple[int, int] | None, ...]) -> int:
    """The process of this machine that has the run, or had it and left no summary; 0 where there is none."""
    lock, summary = stamp[WATCHED.index(LOCK)], stamp[WATCHED.index(SUMMARY)]
    if lock is None or (summary is not None and summary[0] >= lock[0]):
        return 0
    holder = json_inside(path, LOCK)
    return _count(holder.get("pid")) if holder.get("host") == os.uname().nodename else 0


def _trainer(path: Path) -> str:
    """The trainer's name: of the config, which takes long to be read, only that line."""
    found = _TRAINER.search(read_inside(path, CONFIG, 1 << 14) or b"")
    if found is None:
        return ""
    text = found[1].decode(errors="replace")
    if _PLAIN.fullmatch(text):
        return text
    with suppress(UsageError):
        return _text(loads(f"trainer: {text}", source=CONFIG).get("trainer"))
    return ""


def _recipe(environment: Mapping[str, Any]) -> str:
    """What `treadle train` was told to train, as the command line says."""
    typed = environment.get("command")
    found = _COMMAND.search(typed[:4096]) if isinstance(typed, str) else None
    if found is None:
        return ""
    with suppress(ValueError):
        return re.sub(r"\.ya?ml$", "", shlex.split(found[1])[0].rpartition("/")[2])
    return ""


def _newest(path: Path, summary: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """The newest values by "split/name", and the last line of the log; of each split the last `ALIKE` lines count."""
    values: dict[str, float] = {}
    end = read_end(path, METRICS, TAIL) or b""
    lines = end[: end.rfind(b"\n") + 1].split(b"\n")[:-1]
    if len(end) == TAIL:
        del lines[:1]  # it may be cut off
    last: dict[str, Any] = {}
    taken: dict[bytes, int] = {}
    for raw in reversed(lines):
        begin = raw[: raw.find(b",")]
        taken[begin] = taken.get(begin, 0) + 1
        line = as_object(raw) if taken[begin] <= ALIKE else {}
        found = line.get("values")
        if isinstance(found, dict):
            last = last or line
            for name, value in found.items():
                values.setdefault(f"{line.get('split')}/{name}", number(value))
    for split, key in (("train", "metrics"), ("validation", "validation_metrics")):
        there = summary.get(key)
        for name, value in (there if isinstance(there, dict) else {}).items():
            values.setdefault(f"{split}/{name}", number(value))
    if not any(name.startswith("validation/") for name in values):
        values |= _kept_validations(path)
    return values, last


def _kept_validations(path: Path) -> dict[str, float]:
    """The last validation's values, where it is far from the end of the log: of the series that are kept beside it."""
    found = {}
    for file in names_inside(path, "logs"):
        if file.startswith("validation.") and file.endswith(".npy"):
            end = read_end(path, f"logs/{file}", 16) or b""
            if len(end) == 16:
                found[f"validation/{file[11:-4]}"] = struct.unpack("<2d", end)[1]
    return found


def _sorted(values: Mapping[str, float], monitor: str) -> dict[str, float]:
    """The more telling metrics first: what is monitored, then validation, test, epochs, and training."""

    def place(name: str) -> tuple[bool, int, bool]:
        split, _, rest = name.partition("/")
        rate = rest == "lr" or rest.startswith("lr.") or ".lr" in rest
        return rest != monitor, SPLITS.index(split) if split in SPLITS else len(SPLITS), rate

    return {printable(name): values[name] for name in sorted(values, key=place)[:METRICS_SHOWN]}


def _best(summary: Mapping[str, Any]) -> dict[str, Any]:
    best = summary.get("best")
    if not isinstance(best, dict) or not isinstance(best.get("monitor"), str):
        return {}
    return {"monitor": best["monitor"], "value": number(best.get("value")), "step": _count(best.get("step"))}


def _started(text: Any) -> float | None:
    with suppress(ValueError, TypeError, OverflowError, OSError):
        return datetime.fromisoformat(text).timestamp()
    return None


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: Any) -> str:
    return printable(value) if isinstance(value, str) else ""


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 2**53 else 0
