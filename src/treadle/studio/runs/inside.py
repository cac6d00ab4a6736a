"""Reading a run that may be somebody else's: no link in it is followed, and what is no plain file is not there."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
DEEPEST = 30
"""Lists and objects within one another; what is in those within is left out."""
MOST = 4 << 20
"""Bytes that are read of a file, where nothing else is said."""


def read_inside(run: Path, name: str, most: int = MOST) -> bytes | None:
    """The beginning of a file of the run, at most `most` bytes; None where it is not there, or by way of a link."""
    return _read(run, name, most, from_end=False)


def read_end(run: Path, name: str, most: int) -> bytes | None:
    """The end of a file of the run, at most `most` bytes; None where it is not there, or by way of a link."""
    return _read(run, name, most, from_end=True)


def json_inside(run: Path, name: str) -> dict[str, Any]:
    """The object in a JSON file of the run; empty where it is not there, or no such thing."""
    return as_object(read_inside(run, name) or b"")


def as_object(text: bytes) -> dict[str, Any]:
    """The object that JSON text says; empty where it says none, as in a line that is being written."""
    with suppress(ValueError, RecursionError):
        value = json.loads(text)
        if isinstance(value, dict):
            return value
    return {}


def plain(value: Any, depth: int = 0) -> Any:
    """Data of a file of somebody else's as it can be sent: names are text, no number is too large, nothing too deep."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, int) and abs(value) >= 2**53:
        return str(value)
    if isinstance(value, dict | list) and depth == DEEPEST:
        return "..."
    if isinstance(value, dict):
        return {printable(str(key)): plain(item, depth + 1) for key, item in value.items()}
    return [plain(item, depth + 1) for item in value] if isinstance(value, list) else value


def printable(text: str) -> str:
    """Text as it can be sent: what is no character, as in a file's name that is none, becomes an escape."""
    return text.encode(errors="backslashreplace").decode()


def names_inside(run: Path, folder: str) -> list[str]:
    """The plain files in a folder of the run, by name; none where it is not there, or by way of a link."""
    with suppress(OSError), _opened(run, folder, _DIRECTORY) as directory, os.scandir(directory.number) as found:
        return sorted(entry.name for entry in found if entry.is_file(follow_symlinks=False))
    return []


def folders_inside(run: Path) -> list[str]:
    """The folders of the run, by name, hidden ones and links left out."""
    with suppress(OSError), os.scandir(run) as found:
        return sorted(e.name for e in found if e.is_dir(follow_symlinks=False) and not e.name.startswith("."))
    return []


def stamps(run: Path, names: tuple[str, ...]) -> tuple[tuple[int, int] | None, ...]:
    """When each of some files was changed, and how long it is; None for what is no plain file."""
    return tuple(_stamp(run, name) for name in names)


def _stamp(run: Path, name: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(f"{run}/{name}")
    except (OSError, ValueError):
        return None
    return (found.st_mtime_ns, found.st_size) if stat.S_ISREG(found.st_mode) else None


def find_runs_inside(
    root: Path, marks: tuple[str, ...], deepest: int, most: int, *, unless: str = ""
) -> Iterator[Path]:
    """The folders below `root`, or itself, that have one of the files `marks`; inside of these is not looked.

    A folder that has the file `unless` is none of them.

    Hidden folders and links are left out; so is what lies deeper than `deepest` folders, or after `most` of them.
    """
    waiting, seen = [(root, 0)], 0
    while waiting:
        here, depth = waiting.pop()
        seen += 1
        if any(_stamp(here, mark) for mark in marks) and not (unless and _stamp(here, unless)):
            yield here
        elif depth < deepest and seen < most:
            waiting += [(here / name, depth + 1) for name in reversed(folders_inside(here))]


class _opened:
    """An open file or folder of a run, reached without a link."""

    def __init__(self, run: Path, name: str, flags: int) -> None:
        *folders, last = name.split("/")
        if any(part in ("", ".", "..") for part in (*folders, last)):
            raise FileNotFoundError(name)
        here = os.open(run, _DIRECTORY)
        try:
            for part in folders:
                here, before = os.open(part, _DIRECTORY, dir_fd=here), here
                os.close(before)
            self.number = os.open(last, flags, dir_fd=here)
        finally:
            os.close(here)

    def __enter__(self) -> _opened:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.number)


def _read(run: Path, name: str, most: int, *, from_end: bool) -> bytes | None:
    with suppress(OSError, ValueError), _opened(run, name, _FILE) as file:
        found = os.fstat(file.number)
        if stat.S_ISREG(found.st_mode):
            with os.fdopen(os.dup(file.number), "rb") as content:
                content.seek(max(0, found.st_size - most) if from_end else 0)
                return content.read(most)
    return None
