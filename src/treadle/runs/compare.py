"""Several runs side by side: a table of all, and what differs between some."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from treadle.config.files import MISSING, differences
from treadle.errors import TreadleError, UsageError
from treadle.files import blamed, number
from treadle.runs.glance import glance_series, last_line
from treadle.runs.lock import LOCK
from treadle.runs.metrics import Points
from treadle.runs.run import (
    BEST,
    INFO,
    SUMMARY,
    VERSION,
    is_run,
    read_config,
    read_environment,
    read_json,
    read_summary,
)

SAME_MACHINE = ("python", "packages", "hardware", "threads", "variables", "git")
"""What of the environment is compared; time, directory and command differ always."""


@dataclass(frozen=True)
class RunInfo:
    """What is known about a run. `status` is "finished", "stopped", "failed", "running" or "unfinished": it was killed,
    or is trained on another machine.

    `best` has the keys monitor, value and step, or is empty; `seconds` is None where the run has left no summary;
    `problem` says what of its files cannot be read.
    """

    path: Path
    name: str
    trainer: str
    status: str
    step: int
    epoch: int
    best: Mapping[str, Any]
    seconds: float | None
    started: str
    problem: str = ""

    @cached_property
    def series(self) -> Mapping[str, Points]:
        """What it has logged, at a glance; read when it is asked for. Raises RunError for a damaged log."""
        return glance_series(self.path)

    @property
    def values(self) -> Mapping[str, float]:
        """Its last metrics by "split/name"."""
        return {name: float(values[-1]) for name, (_, values) in self.series.items()}


@dataclass(frozen=True)
class Comparison:
    """What differs between runs: rows of (dotted key, a value per run); `MISSING` stands where a run has none."""

    runs: list[RunInfo]
    names: list[str]
    config: list[tuple[str, list[Any]]]
    environment: list[tuple[str, list[Any]]]
    results: list[tuple[str, list[Any]]]


def find_runs(directory: str | Path) -> list[Path]:
    """The runs in a directory, at any depth, by name and then by number; a run itself is the only one found.

    What is in a hidden folder, or is one, is left out: a fork that is being made is no run yet.

    Raises UsageError where the directory is not there.
    """
    root = Path(directory)
    if not root.is_dir():
        raise UsageError(f"{root} is no directory: give one that holds runs, such as runs")
    if is_run(root):
        return [root]
    found = []
    for here, folders, _ in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        runs = [name for name in folders if is_run(Path(here, name))]
        found += [Path(here, name) for name in runs]
        folders[:] = [name for name in folders if name not in runs]
    return sorted(found, key=_numerically)


def describe(path: str | Path) -> RunInfo:
    """What is known about the run at `path`; whatever state its files are in, it is described."""
    path = Path(path)
    problems: list[str] = []

    def read(reader: Any, otherwise: Any) -> Any:
        try:
            return reader(path)
        except TreadleError as error:
            problems.append(str(error))
            return otherwise

    summary, environment = read(read_summary, {}), read(read_environment, {})
    last = read(last_line, {})
    best = read(lambda run: _best(run, summary), {})
    config = read(read_config, {})

    def count(name: str) -> int:
        with blamed(path / SUMMARY):
            return int(summary.get(name, last.get(name, 0)))

    seconds = summary.get("seconds")
    return RunInfo(
        path=path,
        name=f"{path.absolute().parent.name}/{path.absolute().name}",
        trainer=str(config.get("trainer", "")),
        status=str(summary.get("status", "")) or ("running" if is_running(path) else "unfinished"),
        step=read(lambda _: count("step"), 0),
        epoch=read(lambda _: count("epoch"), 0),
        best=best,
        seconds=None if seconds is None else number(seconds),
        started=str(environment.get("time", "")),
        problem="; ".join(problems),
    )


def _best(run: Path, summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was best in a run, by its summary or its best model; empty where nothing was monitored."""
    path = run / SUMMARY if summary.get("best") else run / BEST / INFO
    info = summary.get("best") or read_json(path)
    with blamed(path):
        if info and info["monitor"] is not None:
            return {"monitor": str(info["monitor"]), "value": number(info["value"]), "step": int(info["step"])}
    return {}


def is_running(path: Path) -> bool:
    """Whether the process that trains the run at `path`, on this machine, is alive."""
    try:
        holder = read_json(path / LOCK)
        os.kill(int(holder["pid"]), 0)
    except PermissionError:
        return True
    except (OSError, TreadleError, KeyError, TypeError, ValueError):
        return False
    return holder.get("host") == os.uname().nodename


def table(runs: Sequence[RunInfo]) -> tuple[list[str], list[list[str]]]:
    """A header and a row of text per run; a column in which no run has anything is left out."""
    header = ["run", "trainer", "status", "step", "epoch", "best", "at step", "time", "started", "problem"]
    rows = []
    for run in runs:
        best = f"{run.best['monitor']} {run.best['value']:.4g}" if run.best else ""
        time = "" if run.seconds is None else f"{run.seconds:.1f} s"
        at_step = str(run.best["step"]) if run.best else ""
        started = run.started[:16].replace("T", " ")
        rows.append(
            [
                run.name,
                run.trainer,
                run.status,
                str(run.step),
                str(run.epoch),
                best,
                at_step,
                time,
                started,
                run.problem,
            ]
        )
    used = [index for index in range(len(header)) if any(row[index] for row in rows)]
    return [header[index] for index in used], [[row[index] for index in used] for row in rows]


def compare(paths: Sequence[str | Path]) -> Comparison:
    """What differs between two or more runs in config, environment and results. Raises UsageError for fewer."""
    if len(paths) < 2:
        raise UsageError("give at least two runs to compare")
    for path in paths:
        if not is_run(Path(path)):
            raise UsageError(f"{path} is no run: give its directory, such as runs/image/v001")
    infos = [describe(path) for path in paths]
    environments = [{key: read_environment(path).get(key) for key in SAME_MACHINE} for path in paths]
    results = [
        {
            "status": info.status,
            "step": info.step,
            "epoch": info.epoch,
            "seconds": info.seconds,
            "best": info.best,
            **info.values,
        }
        for info in infos
    ]
    return Comparison(
        runs=infos,
        names=distinct_names([info.path for info in infos]),
        config=_differing([read_config(path) for path in paths]),
        environment=_differing(environments),
        results=_differing(results),
    )


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Short names that tell runs apart: "v001" where the rest is common, else "image/v001", else the path."""
    for take in (1, 2, 3):
        names = ["/".join(path.absolute().parts[-take:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _differing(mappings: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """(dotted key, a value per mapping) where not all are the same, in the order of keys."""
    against_first = [{key: pair for key, *pair in differences(mappings[0], other)} for other in mappings[1:]]
    firsts = {key: pair[0] for pairs in against_first for key, pair in pairs.items()}
    return [
        (key, [first, *(pairs[key][1] if key in pairs else first for pairs in against_first)])
        for key, first in firsts.items()
    ]


def _numerically(path: Path) -> tuple[tuple[str, int, str], ...]:
    keys = []
    for part in path.parts:
        match = VERSION.fullmatch(part)
        keys.append(("v", int(match[1]), part) if match else (part, -1, part))
    return tuple(keys)


__all__ = ["MISSING", "Comparison", "RunInfo", "compare", "describe", "distinct_names", "find_runs", "table"]
