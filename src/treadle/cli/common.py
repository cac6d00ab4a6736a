"""What the commands share: argument parsers that explain themselves, and finding runs."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from treadle.errors import UsageError, nearest


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are UsageErrors in one line, and whose help keeps the examples' layout."""

    def __init__(self, command: str, description: str, examples: str, usage: str | None = None) -> None:
        super().__init__(
            prog=f"treadle {command}",
            usage=usage,
            description=description,
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise a UsageError instead of printing the usage and leaving."""
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown:
            options = [option for action in self._actions for option in action.option_strings]
            raise UsageError(f"{self.prog}: unknown argument {unknown[1]!r}{nearest(unknown[1], options)}")
        raise UsageError(f"{self.prog}: {message} ({self.prog} --help explains)")


def find_run(text: str) -> Path:
    """Return the run directory that `text` names: `runs/image/v001`, or `runs/image` for its newest version.

    Raises UsageError where there is none.
    """
    path = Path(text)
    if (path / "config.yaml").is_file():
        return path
    if path.is_file():
        raise UsageError(f"{text} is a file: expected a run directory, such as runs/image/v001")
    versions = [p for p in path.glob("v*") if re.fullmatch(r"v\d+", p.name) and (p / "config.yaml").is_file()]
    if versions:
        return max(versions, key=lambda p: int(p.name[1:]))
    if path.is_dir():
        raise UsageError(f"{text} is not a run: it has no config.yaml (treadle runs lists the runs)")
    siblings = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    tail = nearest(path.name, siblings)
    raise UsageError(f"no run {text}{tail if 'did you mean' in tail else ' (treadle runs lists the runs)'}")


def show(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print a table that fits the terminal; the columns named in `right` are aligned to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def print_results(results: Mapping[str, Any]) -> None:
    """Print names and values in two columns: numbers short, everything else (paths, say) as it is."""
    width = max(map(len, results), default=0) + 1
    for name, value in results.items():
        print(f"  {name + ':':<{width}} {f'{value:.4g}' if isinstance(value, float) else value}")
