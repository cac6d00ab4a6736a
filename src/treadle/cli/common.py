"""What the commands share: argument parsers that explain themselves, and finding runs."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
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
            description=textwrap.fill(description, 78),
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
    from treadle.runs.run import CONFIG, versions

    path = Path(text)
    if (path / CONFIG).is_file():
        return path
    if path.is_file():
        raise UsageError(f"{text} is a file: expected a run directory, such as runs/image/v001")
    started = [version for version in versions(path) if (version / CONFIG).is_file()]
    if started:
        return started[-1]
    if path.is_dir():
        raise UsageError(f"{text} is not a run: it has no {CONFIG} (treadle runs lists the runs)")
    tail = _near_sibling(path) or " (treadle runs lists the runs)"
    raise UsageError(f"no run {text}{tail}")


def existing(text: str, option: str) -> Path:
    """Return the absolute path of a file or directory that exists; raises UsageError with the nearest name."""
    path = Path(text).expanduser()
    if path.exists():
        return path.resolve()
    raise UsageError(f"{option} {text}: no such file or directory{_near_sibling(path)}")


def _near_sibling(path: Path) -> str:
    siblings = [str(path.with_name(sibling.name)) for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
    tail = nearest(str(path), siblings)
    return tail if "did you mean" in tail else ""


def terminal_width() -> int:
    """Columns of the terminal; 80 where there is none."""
    return shutil.get_terminal_size((80, 24)).columns


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
    Console(width=terminal_width()).print(table)


def make_report_directory(directory: Path) -> None:
    """Make the directory of a report in a run. Raises UsageError where that fails, or a link leads out."""
    from treadle.files import make_directory, reason, refuse_links

    try:
        make_directory(directory)
    except OSError as error:
        raise UsageError(f"{directory} cannot be made: {reason(error)}") from None
    refuse_links(directory)


def shown(path: Path) -> str:
    """A path as a person here would write it: relative where it lies below the working directory."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def print_results(results: Mapping[str, Any]) -> None:
    """Print names and values in two columns: numbers short, paths as `shown`, everything else as it is."""
    width = max(map(len, results), default=0) + 1
    for name, value in results.items():
        text = f"{value:.4g}" if isinstance(value, float) else shown(value) if isinstance(value, Path) else str(value)
        print(f"  {name + ':':<{width}} {text}")
