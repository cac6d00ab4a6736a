"""A subject's folder: its files by patterns, and its one grid."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from treadle.errors import UsageError
from treadle.tracts.space import Space
from treadle.tracts.volumes import differing


@dataclass(frozen=True)
class SubjectFolder:
    """Where a subject's files are."""

    path: Path

    def find(self, patterns: Sequence[str], endings: Sequence[str] = ("",)) -> list[Path]:
        """The files that the patterns mean, pattern by pattern; of those that a `*` means, in the order of their
        names, only such as end in one of `endings`."""
        found: list[Path] = []
        for pattern in patterns:
            path = self.path / pattern
            if "*" in pattern:
                # In a file's name, brackets are brackets.
                names = sorted(glob.glob("*".join(map(glob.escape, str(path).split("*")))))
                found += [Path(name) for name in names if name.lower().endswith(tuple(endings))]
            elif path.is_file():
                found.append(path)
        return found

    def one(self, pattern: str, endings: Sequence[str] = ("",)) -> Path:
        """The one file that a pattern means. Raises UsageError where there are none or several."""
        found = self.find([pattern], endings)
        if len(found) != 1:
            raise UsageError(f"{self.path / pattern} means {len(found)} files: expected one")
        return found[0]


class Grid:
    """The one grid of a subject: the first file's, which all others must have."""

    def __init__(self) -> None:
        self.space: Space | None = None
        self._first: Path | None = None

    def check(self, path: Path, space: Space) -> None:
        """Take the grid of a file. Raises UsageError where it is not that of the files before."""
        if self.space is None:
            self.space, self._first = space, path
        elif not self.space.same(space):
            raise UsageError(f"{path} has another grid than {self._first}: {differing(space, self.space)}")
