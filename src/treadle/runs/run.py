"""A run: the directory that holds all of one training."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from treadle.config.files import dumps, load
from treadle.errors import RunError, UsageError
from treadle.files import (
    NAN_AND_INF,
    LineFile,
    blamed,
    cannot_write,
    near_sibling,
    open_regular,
    read_lines,
    read_regular,
    reason,
    remove_leftovers,
    to_json,
    write_whole,
)
from treadle.runs.metrics import METRICS, MetricLog

CONFIG, ENVIRONMENT, JOURNAL, SUMMARY = "config.yaml", "environment.json", "journal.jsonl", "summary.json"
CHECKPOINTS, BEST, OTHERS, MODELS = "checkpoints", "best_model", "best_models", "models"
WEIGHTS, INFO = "weights.safetensors", "metrics.json"
"""The files of a best model."""
SWEEP = "sweep.yaml"
"""What makes a directory a sweep's, in whose directories the trials' runs are."""
VERSION = re.compile(r"v(\d+)")


class Run:
    """A run's directory: what is written into it, and where.

    `create_run` (in `treadle.runs.aside`) makes a new one, `Run.open` opens an old one. Writing raises RunError when
    the disk refuses; each file is written whole or not at all, and logs grow by whole lines.

    Example:
        run = create_run("runs/line")          # runs/line/v001, the next time runs/line/v002
        run.metrics.append("train", {"loss": 0.5}, step=50, epoch=0)
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = MetricLog(path)
        self.journal = LineFile(path / JOURNAL)

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """The run at `path`, to be continued or read. Raises UsageError where there is none."""
        path = Path(path).expanduser().absolute()
        if not is_run(path):
            raise UsageError(f"{path} is no run: it has neither {CONFIG} nor {ENVIRONMENT}")
        return cls(path)

    @property
    def name(self) -> str:
        """Its name and version, such as "line/v001"; of a sweep's trial "rates/trial-003/v001"."""
        return str(self.path.relative_to(kin_of(self.path).parent))

    def file(self, name: str) -> Path:
        """The path of a file of the run. Raises UsageError for a name that escapes the run's folder.

        It may itself be a link: what is read is where that leads to, what is written takes the link's place.
        """
        path = self.path / name
        inside = os.path.normpath(name)
        folder = os.path.realpath(path.parent) + os.sep
        if (
            not name
            or os.path.isabs(name)
            or inside.split(os.sep)[0] in ("..", ".")
            or not folder.startswith(os.path.realpath(self.path) + os.sep)
        ):
            raise UsageError(
                f"{name!r} is no file of the run {self.path}: give a name inside it, without '..' or links out of it"
            )
        return path

    def write(self, name: str, content: str | bytes, *, sync: bool = False) -> Path:
        """Write a file of the run (folders are made), whole or not at all; returns its path.

        `sync` waits until it is on the disk.
        """
        path = self.file(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content, sync=sync)
        except OSError as error:
            raise cannot_write(path, error) from error
        return path

    def write_config(self, mapping: Mapping[str, Any]) -> None:
        """Write config.yaml: the resolved config, in the shape of a recipe. Synced: a resume needs it."""
        self.write(CONFIG, dumps(mapping), sync=True)

    def write_summary(self, mapping: Mapping[str, Any]) -> None:
        """Write summary.json: what the run came to."""
        self.write(SUMMARY, pretty(mapping))

    def has(self, name: str) -> bool:
        """Whether the run has a file of that name."""
        return self.file(name).is_file()

    def sync_logs(self) -> None:
        """Have the lines written so far on the disk: a checkpoint relies on them, also after a power cut.

        Works on the files by name, so any thread may call it. Raises OSError when the disk refuses.
        """
        for name in (METRICS, JOURNAL):
            path = self.path / name
            if path.exists():
                descriptor = open_regular(path)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def log_sizes(self) -> dict[str, int]:
        """How many bytes have been logged so far, by the log's name."""
        return {METRICS: self.metrics.file.size, JOURNAL: self.journal.size}

    def remove_leftovers(self) -> None:
        """Remove what a process has left that was killed while it wrote; nobody may be training the run now."""
        for folder in (self.path, self.path / "logs", self.path / "examples"):
            remove_leftovers(folder)
        shutil.rmtree(self.path / f".{BEST}.new", ignore_errors=True)

    def close(self) -> None:
        """Close the logs."""
        try:
            self.metrics.close()
        finally:
            self.journal.close()


def is_run(path: Path) -> bool:
    """Whether `path` is a run's directory. The config.yaml of a sweep's is that of its best trial."""
    return ((path / CONFIG).is_file() or (path / ENVIRONMENT).is_file()) and not (path / SWEEP).is_file()


def read_config(run: str | Path) -> dict[str, Any]:
    """A run's config.yaml as plain data; empty where it has none (yet)."""
    path = Path(run) / CONFIG
    return load(path) if path.is_file() else {}


def read_summary(run: str | Path) -> dict[str, Any]:
    """A run's summary; empty while it goes on, and where it was killed."""
    return read_json(Path(run) / SUMMARY)


def read_environment(run: str | Path) -> dict[str, Any]:
    """A run's environment; empty where it has none."""
    return read_json(Path(run) / ENVIRONMENT)


def read_journal(run: str | Path) -> list[dict[str, Any]]:
    """What happened to a run, in order. Raises RunError naming a line that does not say what happened, or when."""
    path, entries = Path(run) / JOURNAL, []
    for count, entry in enumerate(read_lines(path), 1):
        if type(entry.get("event")) is not str or type(entry.get("step")) is not int:
            raise RunError(f"{path}, line {count} is damaged: it lacks event or step; delete it to read the rest")
        entries.append(entry)
    return entries


def run_id(first: Mapping[str, Any] | bytes) -> str:
    """The id of a run, 16 hexadecimal digits, from the first entry of its journal, or the line that says it.

    It is the same after every kill, move and resume. A fork begins with an entry of its own, and has an id of its own;
    a copy of a run's directory is the same run.
    """
    line = first if isinstance(first, bytes) else to_json(first).encode(errors="backslashreplace")
    return hashlib.sha256(line.rstrip(b"\n")).hexdigest()[:16]


def recorded_settings(path: Path, journal: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that the run at `path` has been trained with, empty where nothing says.

    They are those of its journal: config.yaml might have been edited since.
    """
    settings: dict[str, Any] = {}
    with blamed(path / JOURNAL):
        for entry in journal:
            if isinstance(entry.get("settings"), dict):
                settings = dict(entry["settings"])
            elif entry.get("event") in ("resume", "extend") and settings and isinstance(entry.get("changed"), dict):
                settings |= {name: pair[-1] for name, pair in entry["changed"].items()}
    if not settings:
        settings = read_config(path).get("config", {})
    if not isinstance(settings, dict):
        raise UsageError(f"{path / CONFIG}: config is damaged, it is no mapping: restore the file")
    return settings


def check_info(path: Path, info: Mapping[str, Any]) -> Mapping[str, Any]:
    """`info` if it is what a best model says of itself; else raises RunError naming the file at `path`."""
    known = {"monitor", "value", "step", "epoch", "metrics"} <= info.keys()
    counts = known and all(type(info[name]) is int for name in ("step", "epoch"))
    value = info.get("value")
    if not (
        counts
        and isinstance(info["monitor"], str | None)
        and isinstance(info["metrics"], dict)
        and (value is None or (value in NAN_AND_INF if type(value) is str else type(value) in (int, float)))
    ):
        raise RunError(f"{path} is damaged: expected monitor, value, step, epoch and metrics; restore it from a copy")
    return info


def find_run(path: str | Path) -> Path:
    """The run directory that `path` names: `runs/image/v001`, or `runs/image` for its newest version.

    Raises UsageError where there is none.
    """
    text, path = path, Path(path).expanduser()
    if (path / SWEEP).is_file():
        raise UsageError(f"{text} is a sweep, and no run: name a trial of it, such as {text}/trial-001")
    if (path / CONFIG).is_file():
        return path
    if path.is_file():
        raise UsageError(f"{text} is a file: expected a run directory, such as runs/image/v001")
    started = [version for version in versions(path) if (version / CONFIG).is_file()]
    if started:
        return started[-1]
    if path.is_dir():
        raise UsageError(f"{text} is not a run: it has no {CONFIG} (treadle runs lists the runs)")
    tail = near_sibling(path) or " (treadle runs lists the runs)"
    raise UsageError(f"no run {text}{tail}")


def kin_of(run: Path) -> Path:
    """The directory of what belongs together with a run: its other versions, or the sweep that it is of."""
    above = run.parent.parent
    return above if (above / SWEEP).is_file() else run.parent


def newest_run(path: str | Path) -> Path | None:
    """The run at `path`, or else the newest of its versions; None where there is neither."""
    path = Path(path).expanduser()
    found = [version for version in [path, *reversed(versions(path))] if is_run(version)]
    return found[0] if found else None


def versions(directory: Path) -> list[Path]:
    """The versions in `directory`, in the order of their numbers."""
    if not directory.is_dir():
        return []
    found = [path for path in directory.iterdir() if VERSION.fullmatch(path.name)]
    return sorted(found, key=lambda path: (int(path.name[1:]), path.name))


def pretty(mapping: Mapping[str, Any]) -> str:
    """A JSON file for people to read."""
    return json.dumps(json.loads(to_json(mapping)), indent=2, ensure_ascii=False) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no file. Raises RunError for a file that cannot be read."""
    try:
        value = json.loads(read_regular(path))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RunError(f"{path} cannot be read: {reason(error)}") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise RunError(f"{path} cannot be read: expected a JSON object")
    return value
