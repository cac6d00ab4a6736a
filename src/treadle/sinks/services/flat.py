"""Nested plain data as the flat tables of settings that services have: {"optimizer": {"lr": 0.1}} is "optimizer.lr"."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of `data` by their dotted names, in its order; lists are texts of JSON, empty mappings "{}"."""
    return dict(_leaves(data, prefix))


def _leaves(data: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{name}.")
        elif isinstance(value, Mapping | list | tuple):
            yield name, json.dumps(value, ensure_ascii=False, default=str)
        else:
            yield name, value


def all_entries(directory: Path | None, told: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A run's journal as far as its file goes, and what was told of it beside that, in order of time."""
    path = None if directory is None else directory / "journal.jsonl"
    written: list[Mapping[str, Any]] = []
    if path is not None and path.is_file():
        lines = path.read_bytes().split(b"\n")[:-1]  # behind the last newline is a line that is not whole yet
        written = [entry for entry in map(json.loads, lines) if isinstance(entry, dict)]
    found = {(entry.get("time"), entry.get("event"), entry.get("step")): entry for entry in [*written, *told]}
    return sorted(found.values(), key=lambda entry: float(entry.get("time", 0)))
