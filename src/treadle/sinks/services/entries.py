"""What services share: entries of a run's journal in a line, and how long their end may take."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

LINE = 1_000
"""A longer line is cut."""
SETTINGS = 8
"""Of a value that holds more values than this only their number is told: a run's settings are in its config."""


def details(entry: Mapping[str, Any]) -> str:
    """What an entry says beside its event, step, epoch and time, in one line; "" where that is nothing."""
    told = []
    for name, value in entry.items():
        if isinstance(value, Mapping) and len(value) > SETTINGS:
            value = f"({len(value)} values)"
        if name not in ("event", "step", "epoch", "time") and value != "":
            told.append(f"{name} {value if isinstance(value, str) else json.dumps(value)}")
    line = ", ".join(told)
    return line if len(line) <= LINE else line[: LINE - 1] + "…"


def line(entry: Mapping[str, Any]) -> str:
    """An entry in one line: "edit: field lr, value 0.1"."""
    more = details(entry)
    return f"{entry.get('event')}: {more}" if more else str(entry.get("event"))


def finishing_seconds() -> float:
    """How long an upload may take at the end: what a run waits for its services, less what it takes to say so."""
    return max(0.5, float(os.environ.get("TREADLE_CLOSING_SECONDS") or 5) - 1.5)
