"""Services for the benchmark of loggers: one that is as quick as can be, one that never answers."""

from __future__ import annotations

import time
from collections.abc import Mapping

from treadle.sinks.services.service import Opening, Service


class Quick(Service):
    """Takes everything, and does nothing with it."""


class Hung(Service):
    """Never takes the first scalars."""

    def open(self, opening: Opening) -> str:
        """Begin."""
        return "nowhere"

    def scalars(self, step: int, epoch: int, split: str, values: Mapping[str, float], time_: float) -> None:
        """Hang."""
        time.sleep(1e6)
