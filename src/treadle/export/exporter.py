"""How a trainer class offers files of its own kind to `treadle export`, without the command knowing the kind.

    @classmethod
    def exporters(cls):
        return {"ply": Exporter("as a point cloud", "points.ply", write, options=(CROP,))}

makes `treadle export RUN --ply [--crop BOX] [--out FILE]`, with its help and its errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Option:
    """Something to choose about a format; several formats may share one."""

    name: str
    """On the command line it is --name."""
    help: str
    metavar: str = ""
    """What its value is called; an option without one is a switch: False, or True where it is given."""
    read: Callable[[str], Any] = str
    """Makes the value of its text; raises ValueError, or UsageError with a text of its own."""
    default: Any = None


@dataclass(frozen=True)
class Exporter:
    """A format that the runs of a trainer can be written in."""

    help: str
    """What it is, in a few words: "as a coloured triangle mesh"."""
    file: str
    """The file's name in the run's directory, where --out names no other."""
    write: Callable[[Path, Path, Mapping[str, Any]], Mapping[str, Any]]
    """`write(run, path, values)` writes the file at `path`, and returns what to print about it, by name: text, numbers
    or paths. `values` has each option's by the option's name, and under the format's own name the value given to it."""
    options: Sequence[Option] = ()
    metavar: str = ""
    """What the value given to the format itself is called, where it takes one: --video PATH."""
    endings: Sequence[str] = ()
    """What --out may end in, in lower case; anything where there are none."""
