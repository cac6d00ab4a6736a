"""Numbers as a run's own metrics and the services' records have them: name, step and value, in one order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Point = tuple[str, int, float]
SPLITS = ("train/", "epoch/", "validation/", "test/")


def recorded(run: Path) -> list[Point]:
    """Every number in a run's own metrics, sorted."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return sorted(
        (f"{line['split']}/{name}", line["step"], float(value))
        for line in lines
        for name, value in line["values"].items()
    )


def points(rows: Iterable[tuple[int, Mapping[str, Any]]]) -> list[Point]:
    """Every number of a run in what was logged at steps, sorted; what else is there is left out."""
    return sorted((name, step, float(row[name])) for step, row in rows for name in row if name.startswith(SPLITS))
