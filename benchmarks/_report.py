"""Tables, gates and the facts of the machine, for the benchmarks."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Gate:
    """A measured value and the most it may be."""

    HEAD: ClassVar[list[str]] = ["promise", "at most", "measured", ""]

    what: str
    value: float
    most: float

    @property
    def held(self) -> bool:
        """Whether it holds."""
        return self.value <= self.most

    def row(self) -> list[str]:
        """Its row in a table."""
        return [self.what, f"{self.most:g}", f"{self.value:.2f}", "held" if self.held else "NOT HELD"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns: it reads well on a terminal too."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    numbers = [column for column in range(len(head)) if all(row[column][:1] in "+-.0123456789" for row in rows)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * (width - 1) + ":") if column in numbers else "-" * width for column, width in enumerate(widths)]
    return "\n".join([line(head), line(rule), *map(line, rows)])


def machine(packages: Iterable[str] = ()) -> str:
    """One paragraph: processor, cores, system and versions."""
    import torch

    names = dict.fromkeys(["torch", "numpy", *packages])
    versions = []
    for name in names:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{name} not installed")
    capability = torch.backends.cpu.get_cpu_capability()
    return (
        f"Machine: {_processor()}, {os.cpu_count()} cores, {capability}; {platform.system()} {platform.machine()}; "
        f"Python {platform.python_version()}; {', '.join(versions)}."
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"
