"""The names by which config.yaml and recipes know trainers: entry points, ours like anybody's."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from treadle.config.fields import to_dict

GROUP = "treadle.recipes"
"""The entry point group of trainers and recipes."""


@cache
def registered() -> dict[str, EntryPoint]:
    """The entry points by name; those that come with Treadle cannot be taken over."""
    found = sorted(entry_points(group=GROUP), key=lambda point: comes_with_treadle(point))
    return {point.name: point for point in found}


def comes_with_treadle(point: EntryPoint) -> bool:
    """Whether an entry point is one of Treadle's own."""
    return point.value.startswith("treadle.")


def is_file(point: EntryPoint) -> bool:
    """Whether an entry point names a recipe's file, and not a trainer's class."""
    return point.value.endswith((".yaml", ".yml"))


def trainer_name(trainer_class: type[Any]) -> str | None:
    """Return the name that recipes use for `trainer_class`, or None where it has none."""
    target = f"{trainer_class.__module__}:{trainer_class.__qualname__}"
    return next((name for name, point in registered().items() if point.value.replace(" ", "") == target), None)


def label(trainer_class: type[Any]) -> str:
    """What config.yaml calls `trainer_class`: its registered name, else "module:Class", which nothing can import."""
    return trainer_name(trainer_class) or f"{trainer_class.__module__}:{trainer_class.__qualname__}"


def document(trainer: str, config: Any, data: Path | None) -> dict[str, Any]:
    """Return what config.yaml holds, in the shape of a recipe: `trainer` by name, absolute `data` or None, `config`."""
    return {"trainer": trainer, "data": None if data is None else str(data), "config": to_dict(config)}
