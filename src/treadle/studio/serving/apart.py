"""Random numbers that the studio's libraries draw, apart from those of the run."""

from __future__ import annotations

from random import Random
from types import ModuleType


def draw_apart(module: ModuleType) -> None:
    """Let a module's `random` be a generator of its own.

    Python's global one is lent to the trainer while it trains: what a library draws from it in another thread, such as
    the payload of a ping, would change the run.
    """
    module.random = Random()  # type: ignore[attr-defined]
