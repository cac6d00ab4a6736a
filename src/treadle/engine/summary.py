"""What a run came to, and how far it is: two read-only records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Summary:
    """What `train()` returns, and what `summary.json` holds.

    `status` is "finished", "stopped" (it can go on) or "failed"; `reason` says why it ended before its limit, or is
    empty. `seconds` is the time spent in the loop. `digest` (SHA-256 of the complete state) is given for runs on disk.
    """

    status: str
    reason: str
    step: int
    epoch: int
    metrics: Mapping[str, float]
    validation_metrics: Mapping[str, float]
    best: Mapping[str, Any] | None
    seconds: float
    digest: str | None

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Overview:
    """A trainer's progress at one instant, safe to take and to keep in any thread."""

    status: str
    paused: bool
    epoch: int
    step: int
    batch: int
    max_epochs: int | None
    max_steps: int | None
    total_steps: int | None
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    validation_metrics: Mapping[str, float] = field(default_factory=dict)
    learning_rates: Mapping[str, float] = field(default_factory=dict)
