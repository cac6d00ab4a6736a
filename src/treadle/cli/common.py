"""What the commands share: argument parsers that explain themselves, and tables."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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


def add_at(parser: Parser) -> None:
    """Give `parser` the option that says which model of a run is meant, for `at` of `find_model`."""
    parser.add_argument("--at", metavar="STEP|best|final", help="which model: the best by the run's monitor, the "
                        "final one (of its end, or its newest checkpoint), or that of a step that is kept "
                        "(default: best; where networks play against each other, final)")  # fmt: skip


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


def shown(path: Path) -> str:
    """A path as a person here would write it: relative where it lies below the working directory."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def print_results(results: Mapping[str, Any]) -> None:
    """Print names and values in two columns: numbers short, paths as `shown`, everything else as it is."""
    width = max(map(len, results), default=0) + 1
    for name, value in results.items():
        text = f"{value:.4g}" if isinstance(value, float) else shown(value) if isinstance(value, Path) else str(value)
        print(f"  {name + ':':<{width}} {text}")


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[float, int], None]]:
    """A bar on a terminal, gone when it is done; nothing elsewhere. It is told how many of how many are done."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
