"""The table of runs below a directory: a row for each, made from the small files of a run and the end of its log."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from treadle.errors import UsageError, nearest
from treadle.runs.run import CONFIG, ENVIRONMENT, SWEEP
from treadle.studio.runs.filtering import parse
from treadle.studio.runs.inside import (
    find_runs_inside,
    printable,
    stamps,
)
from treadle.studio.runs.rows import COLUMNS, WATCHED, Row, read_row

DEEPEST, MOST_FOLDERS = 6, 20_000
"""How far below the directory, and in how many folders, runs are looked for."""


class Listing:
    """The runs below a directory. What is known of one is read again when one of its files has changed.

    A run that is deleted, or half written, while it is looked at is left out or has what there is of it. Not for
    several threads at once.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()
        self.known: dict[str, Path] = {}
        """The runs there were when rows were asked for, by name."""
        self._known: dict[Path, tuple[Any, Row, int]] = {}

    def paths(self) -> dict[str, Path]:
        """The directories of the runs there are, by name."""
        found = list(find_runs_inside(self.root, (CONFIG, ENVIRONMENT), DEEPEST, MOST_FOLDERS, unless=SWEEP))
        return {printable(name): path for name, path in zip(_names(self.root, found), found, strict=True)}

    def rows(self) -> dict[str, Row]:
        """A row for each run, by name."""
        paths = self.known = self.paths()
        known: dict[Path, tuple[Any, Row, int]] = {}
        for name, path in paths.items():
            stamp = stamps(path, WATCHED)
            before = self._known.get(path)
            if before is not None and before[0] == (name, stamp):
                known[path] = before
            elif any(stamp):  # else it has just been deleted
                known[path] = ((name, stamp), *read_row(name, path, stamp))
        self._known = known
        names = {str(path): name for name, path in paths.items()}
        rows = {}
        for _, row, process in known.values():
            status = row.status
            if process and is_alive(process):
                status = "running" if process == os.getpid() else "running elsewhere"
            rows[row.name] = replace(row, status=status, parent=names.get(row.parent, row.parent))
        return rows


def select(rows: Iterable[Row], where: str, sort: str, *, down: bool) -> list[Row]:
    """The rows that a filter finds, sorted by a column or metric; those without it come last.

    Raises UsageError for a filter that cannot be read, and for a name that no run knows.
    """
    wanted, rows = parse(where), list(rows)
    for name, at in wanted.names.items():
        _check_known(rows, name, f"filter, character {at}")
    _check_known(rows, sort, "sort")
    found = [row for row in rows if wanted.holds(row.look)]
    found.sort(key=lambda row: natural(row.name))
    values = [(row.look(sort), row) for row in found]
    there = [(value, row) for value, row in values if value is not None and value == value]
    there.sort(key=lambda pair: _order(pair[0]), reverse=down)
    missing = [row for value, row in values if value is None or value != value]
    return [row for _, row in there] + missing


def natural(text: str) -> list[tuple[int, str]]:
    """A text as people sort it: v9 before v10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]{1,18})", text.casefold())]


def is_alive(process: int) -> bool:
    """Whether there is a process of that number on this machine."""
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _order(value: Any) -> tuple[int, float, list[tuple[int, str]]]:
    return (1, 0.0, natural(value)) if isinstance(value, str) else (0, float(value), [])


def _check_known(rows: list[Row], name: str, where: str) -> None:
    if name in COLUMNS or not rows or any(row.look(name) is not None for row in rows):
        return
    known = {full.partition("/")[2] for row in rows for full in row.metrics} | set(COLUMNS)
    raise UsageError(f"{where}: no run has {name!r}{nearest(name, known)}")


def _names(root: Path, paths: list[Path]) -> list[str]:
    """Short names that tell runs apart: "image/v001", and the way to them from the root where that is not enough."""
    short = [f"{path.absolute().parent.name}/{path.name or path.absolute().name}" for path in paths]
    return [
        name if short.count(name) == 1 else str(path.relative_to(root)) for name, path in zip(short, paths, strict=True)
    ]
