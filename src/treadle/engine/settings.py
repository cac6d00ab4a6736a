"""The settings every trainer has. A trainer's own settings subclass this dataclass."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, get_type_hints

from treadle.config.fields import convert, describe
from treadle.engine.schedule import Every, Span
from treadle.errors import UsageError, nearest

SCHEDULES: dict[str, Callable[[str], object]] = {
    "log_every": Every,
    "validate_every": Every,
    "save_every": Every,
    "snapshot_every": Every,
    "patience_warm_up": Span.parse,
    "keep_every": Span.parse,
}
"""The settings in the notation of schedules, and what reads them."""


@dataclass(kw_only=True)
class TrainerConfig:
    """What a run is determined by, besides its data. Schedules are written "500 steps", "2 epochs" or "30%"."""

    max_epochs: int | None = None
    """Epochs to train for; None where `max_steps` alone ends the run."""
    max_steps: int | None = None
    """Steps to train for; with `max_epochs`, whichever comes first."""
    max_time: float | None = None
    """Seconds after which the run stops, resumable."""
    batch_size: int = 32
    """Samples per batch."""
    shuffle: bool = True
    """Draw the training samples in a new order each epoch, a function of (seed, epoch)."""
    drop_last: bool = False
    """Leave out an epoch's last batch when it is short."""
    workers: int = 0
    """Processes that load map-style data; 0 loads in the training process."""
    seed: int = 0
    """Determines initial weights, order and augmentation."""
    device: str = "auto"
    """"auto" (a GPU where there is one), "cpu", "cuda" or "cuda:1"."""
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    """Autocast dtype of `step`: fp16 scales gradients, one scaler per optimizer; "auto" is bf16 where that is fast."""
    deterministic: bool = False
    """On a GPU, allow only deterministic kernels (slower; raises where torch has none)."""
    accumulate: int = 1
    """Micro-batches per update; gradients are averaged over their elements."""
    clip_norm: float | None = None
    """Largest gradient norm of an optimizer's parameters, L2."""
    clip_value: float | None = None
    """Largest absolute value of a gradient's entry, applied before `clip_norm`."""
    finite_check: bool = True
    """Stop at a loss or gradient that is NaN or Inf, before it reaches a parameter."""
    on_bad_step: Literal["stop", "skip", "rollback"] = "stop"
    """After a NaN, an Inf or a spike: stop, skip the batch, or go back to the last good state and pass over it."""
    max_recoveries: int = 3
    """Bad steps after which the run stops all the same."""
    spike: float | None = None
    """Standard deviations above the mean of the last 100 losses that make a loss a bad step; null does not look."""
    snapshot_every: str | None = None
    """When the state is kept in memory, to roll back or rewind to without the disk."""
    keep_snapshots: int = 3
    """States kept in memory."""
    fused: bool = True
    """Use torch's fused kernels for optimizers built without an explicit choice."""
    keep_memory: bool = True
    """On a CPU, let the process keep the memory that a step frees, for the next one (where it runs on glibc)."""
    log_every: str | None = "50 steps"
    """When training metrics are averaged and logged."""
    validate_every: str | None = "1 epoch"
    """When the validation data is evaluated; the final state always is."""
    save_every: str | None = "1 epoch"
    """When a run on disk writes a checkpoint; it also does at its end."""
    keep_checkpoints: int = 3
    """The newest checkpoints that are kept on disk; besides them the best model's and those that a fork needs."""
    keep_every: str | None = None
    """Keep one checkpoint for each such part of the run for good."""
    save_patience: float = 900.0
    """Seconds for which failing checkpoint writes are put up with before they fail the run."""
    monitor: str = "loss"
    """The validation metric that says which model is best."""
    monitor_mode: Literal["min", "max"] = "min"
    """Whether a smaller or a larger `monitor` is better."""
    patience: int | None = None
    """Validations without improvement after which the run ends; None never ends it."""
    min_improvement: float = 0.0
    """What counts as an improvement of `monitor`, absolute."""
    patience_warm_up: str | None = None
    """The part of the run in which patience is not counted."""

    def __post_init__(self) -> None:
        """Check types and ranges; raises UsageError naming the field."""
        self._check_types()
        for name in ("batch_size", "accumulate", "keep_checkpoints", "keep_snapshots"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("max_epochs", "max_steps", "patience"):
            self._require(name, getattr(self, name) is None or getattr(self, name) >= 1, "at least 1, or null")
        for name in ("max_time", "clip_norm", "clip_value", "save_patience", "spike"):
            value = getattr(self, name)
            self._require(name, value is None or (math.isfinite(value) and value > 0), "above 0, or null")
        self._require("max_recoveries", self.max_recoveries >= 0, "0 or more")
        self._require("workers", self.workers >= 0, "0 or more")
        self._require("seed", 0 <= self.seed < 2**63, "between 0 and 2**63 - 1")
        self._require("min_improvement", 0 <= self.min_improvement < math.inf, "0 or more")
        for name, parse in SCHEDULES.items():
            self._check_schedule(name, parse)

    def _check_types(self) -> None:
        """Check the fields that every trainer has, unless a subclass declares them anew; schedules are parsed later."""
        hints = get_type_hints(TrainerConfig)
        own = {field.name: field.type for field in fields(TrainerConfig)}
        for field in fields(self):
            if own.get(field.name) != field.type or field.name in SCHEDULES:
                continue
            value = getattr(self, field.name)
            try:
                setattr(self, field.name, convert(value, hints[field.name], source="config", at=field.name))
            except UsageError:
                expected = describe(hints[field.name])
                raise UsageError(f"{field.name} is {value!r}: expected {expected}") from None

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise UsageError(f"{name} is {getattr(self, name)!r}: expected {expected}")

    def _check_schedule(self, name: str, parse: Any) -> None:
        value = getattr(self, name)
        if value is not None:
            try:
                parse(value)
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from None


def settings_from(kind: type[TrainerConfig], config: TrainerConfig | None, given: dict[str, Any]) -> TrainerConfig:
    """Return a `kind` made of `config` (or defaults) overridden by `given`; a name it has not raises UsageError."""
    known = [field.name for field in fields(kind)]
    for name in given:
        if name not in known:
            raise UsageError(f"{name!r} is no setting of {kind.__name__}{nearest(name, known)}")
    if config is None:
        return kind(**given)
    if not isinstance(config, kind):
        raise UsageError(f"config is a {type(config).__name__}: expected a {kind.__name__}")
    return kind(**{name: getattr(config, name) for name in known} | given)
