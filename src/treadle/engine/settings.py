"""The settings every trainer has, in groups. A trainer's own settings subclass `TrainerConfig`."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, Self

from treadle.config.settings import Settings, require, setting
from treadle.engine.elsewhere import SETTINGS_ELSEWHERE
from treadle.engine.schedule import Every, Span
from treadle.errors import UsageError, nearest


@dataclass(kw_only=True)
class RunLimits(Settings):
    """How long a run goes on."""

    max_epochs: int | None = setting(None, least=1, resumable=True, common=True)
    """Epochs to train for; None where `max_steps` alone ends the run."""
    max_steps: int | None = setting(None, least=1, resumable=True, common=True)
    """Steps to train for; with `max_epochs`, whichever comes first."""
    min_steps: int | None = setting(None, least=1, resumable=True)
    """Steps before which early stopping, a time limit or `finish` do not end the run; null: it may end anywhere."""
    max_time: float | None = setting(None, above=0, resumable=True, affects_state=False)
    """Seconds after which the run stops, resumable."""


@dataclass(kw_only=True)
class DataSettings(Settings):
    """Batches, and their order."""

    batch_size: int | None = setting(32, least=1, common=True)
    """Samples per batch; null where the data gives ready batches."""
    shuffle: bool = setting(True)
    """Draw the training samples in a new order each epoch, a function of (seed, epoch)."""
    drop_last: bool = setting(False)
    """Leave out an epoch's last batch when it is short."""
    limit_batches: int | None = setting(None, least=1)
    """Batches after which an epoch ends; with `shuffle` these are other ones in each epoch. Null takes all. A stream
    that has a state goes on in the next epoch where it was."""
    workers: int = setting(0, least=0, resumable=True, affects_state=False, common=True)
    """Processes that load map-style data; 0 loads in the training process."""
    seed: int = setting(0, least=0, most=2**63 - 1, common=True)
    """Determines initial weights, order and augmentation."""


@dataclass(kw_only=True)
class DeviceSettings(Settings):
    """Where and how exactly is computed."""

    device: str = setting("auto", common=True)
    """"auto" (a GPU where there is one), "cpu", "cuda" or "cuda:1". Of several processes each takes its own GPU."""
    precision: Literal["fp32", "bf16", "fp16", "auto"] = setting("fp32", common=True)
    """Autocast dtype of `step`: fp16 scales gradients, one scaler per optimizer; "auto" is bf16 where that is fast."""
    deterministic: bool = setting(False, resumable=True, affects_state=False)
    """On a GPU, allow only deterministic kernels (slower; raises where torch has none)."""
    keep_memory: bool = setting(True, resumable=True, affects_state=False)
    """On a CPU, let the process keep the memory that a step frees, for the next one (where it runs on glibc)."""


@dataclass(kw_only=True)
class OptimizationSettings(Settings):
    """How gradients become updates."""

    accumulate: int = setting(1, least=1, common=True)
    """Micro-batches per update; gradients are averaged over their elements."""
    clip_norm: float | dict[str, float] | None = setting(None, above=0, common=True, live=True)
    """Largest gradient norm of an optimizer's parameters, L2: one for all, or by their names ({"optimizer_G": 1.0})."""
    clip_value: float | None = setting(None, above=0, live=True)
    """Largest absolute value of a gradient's entry, applied before `clip_norm`."""
    parts: int | None = setting(None, least=1)
    """Parts into which each batch is cut, for the same bits in any number of processes that divides it; null cuts none.
    Each part is a pass of its own, so it costs time: see docs/more_than_one_process.md."""
    fused: bool = setting(True)
    """Use torch's fused kernels for optimizers built without an explicit choice."""

    def clip_norm_of(self, optimizer: str) -> float | None:
        """The largest gradient norm of the optimizer that is the trainer's attribute of that name; None clips none."""
        return self.clip_norm.get(optimizer) if isinstance(self.clip_norm, dict) else self.clip_norm


@dataclass(kw_only=True)
class BadStepSettings(Settings):
    """What is done about NaN, Inf and spikes."""

    finite_check: bool = setting(True)
    """Stop at a loss or gradient that is NaN or Inf, before it reaches a parameter."""
    on_bad_step: Literal["stop", "skip", "rollback"] = setting("stop")
    """After a NaN, an Inf or a spike: stop, skip the batch, or go back to the last good state and pass over it."""
    max_recoveries: int = setting(3, least=0, resumable=True)
    """Bad steps after which the run stops all the same."""
    spike: float | None = setting(None, above=0)
    """Standard deviations above the mean of the last 100 losses that make a loss a bad step; null does not look."""
    snapshot_every: str | None = setting(None, parse=Every, resumable=True, affects_state=False, live=True)
    """When the state is kept in memory, to roll back or rewind to without the disk."""
    keep_snapshots: int = setting(3, least=1, resumable=True, affects_state=False)
    """States kept in memory."""


@dataclass(kw_only=True)
class LoggingSettings(Settings):
    """What is logged when."""

    log_every: str | None = setting("50 steps", parse=Every, resumable=True, common=True, live=True)
    """When training metrics are averaged and logged."""


@dataclass(kw_only=True)
class ValidationSettings(Settings):
    """Validation, and what follows from it."""

    validate_every: str | None = setting("1 epoch", parse=Every, common=True, live=True)
    """When the validation data is evaluated, such as "1 epoch" or "0.25 epochs"; the final state always is."""
    limit_validation_batches: int | None = setting(None, least=1, live=True)
    """Batches of the validation data that are evaluated, from its beginning; null takes all."""
    limit_test_batches: int | None = setting(None, least=1, resumable=True, affects_state=False)
    """Batches of the test data that `test` evaluates, from its beginning; null takes all."""
    monitor: str | None = setting("loss")
    """The validation metric that says which model is best; null leaves that open, and the final one is the best."""
    monitor_mode: Literal["min", "max"] | None = setting(None)
    """Whether a smaller or a larger `monitor` is better; null follows the metric: larger for psnr, ssim, iou, accuracy
    and what else the trainer's Config names in `higher_is_better`, smaller for all others."""
    patience: int | None = setting(None, least=1, resumable=True, common=True, live="unless null")
    """Validations without improvement after which the run ends; None never ends it."""
    min_improvement: float = setting(0.0, least=0, resumable=True, live=True)
    """What counts as an improvement of `monitor`, absolute."""
    patience_warm_up: str | None = setting(None, parse=Span.parse, resumable=True, live=True)
    """The part of the run in which patience is not counted."""

    higher_is_better: ClassVar[Collection[str]] = ("psnr", "ssim", "iou", "accuracy")
    """The metrics of which more is better, where `monitor_mode` leaves it to the metric."""

    @classmethod
    def mode_of(cls, monitor: str | None, mode: Literal["min", "max"] | None) -> Literal["min", "max"]:
        """Whether a smaller or a larger `monitor` is better, as `mode` says or leaves to the metric: to its last part,
        where the set that it is of has a name ("hard/psnr")."""
        if mode is not None:
            return mode
        return "max" if monitor is not None and monitor.rpartition("/")[2] in cls.higher_is_better else "min"


@dataclass(kw_only=True)
class CheckpointSettings(Settings):
    """What is kept on disk."""

    save_every: str | None = setting(
        "1 epoch", parse=Every, resumable=True, affects_state=False, common=True, live=True
    )
    """When a run on disk writes a checkpoint; it also does at its end."""
    keep_checkpoints: int = setting(3, least=1, resumable=True, affects_state=False, live=True)
    """The newest checkpoints that are kept on disk; besides them the best models' and those that a fork needs."""
    keep_best: int = setting(1, least=1, resumable=True)
    """The best models by `monitor` that are kept, as weights, and with them the checkpoints of the same steps."""
    keep_every: str | None = setting(None, parse=Span.parse, resumable=True, affects_state=False, live=True)
    """Keep one checkpoint for each such part of the run for good."""
    save_patience: float = setting(900.0, above=0, resumable=True, affects_state=False)
    """Seconds for which failing checkpoint writes are put up with before they fail the run."""


@dataclass(kw_only=True)
class StartSettings(Settings):
    """What the networks begin with.

    A base beside `TrainerConfig` for the settings of a trainer whose modules may begin with other weights than those
    that `setup` draws. They are put there by name before the first step, averages (EMA) begin with them too, and the
    run's state tells them by their SHA-256.

    Example:
        class MineConfig(StartSettings, TrainerConfig): ...
        Mine(data=data, max_epochs=5, init={"encoder": "runs/big@best"}).train()
    """

    init: str | dict[str, str] | None = setting(None, common=True)
    """Weights to begin with: a run or a safetensors file for all networks, or {network: one}. RUN@STEP, RUN@best and
    RUN@final choose among a run's models, and RUN:NETWORK takes the weights of a network that is called so there."""
    init_mapping: dict[str, str | None] = setting(default_factory=dict)
    """How names in `init` begin, and how they begin here, network first: {"generator.old.": "generator."}; null leaves
    those tensors out."""
    init_partial: bool = setting(False)
    """Take of `init` what fits by name and shape. Else all names have to be the same, and all shapes."""

    def __post_init__(self) -> None:
        """Check types; relative paths are those of the working directory."""
        super().__post_init__()
        if isinstance(self.init, str):
            self.init = _absolute(self.init)
        elif self.init is not None:
            require(self, "init", bool(self.init), "a run or file, or one for each network named")
            self.init = {network: _absolute(source) for network, source in self.init.items()}
        if self.init is None:
            require(self, "init_mapping", not self.init_mapping, "none without init")
            require(self, "init_partial", not self.init_partial, "false without init")

    def without_init(self) -> Self:
        """A copy that begins with weights drawn at random: for whom other weights come anyway."""
        return replace(self, init=None, init_mapping={}, init_partial=False)


def _absolute(source: str) -> str:
    return os.path.abspath(os.path.expanduser(source))


@dataclass(kw_only=True)
class TrainerConfig(
    CheckpointSettings,
    ValidationSettings,
    LoggingSettings,
    BadStepSettings,
    OptimizationSettings,
    DeviceSettings,
    DataSettings,
    RunLimits,
):
    """What a run is determined by, besides its data. Schedules are written "500 steps", "2 epochs" or "30%".

    The groups are inherited, not nested: keywords, flags and files stay flat (`clip_norm`, not
    `optimization.clip_norm`), and a part of the engine that takes `OptimizationSettings` takes the whole config too.
    Fields are in the order of the bases from the last to the first.
    """

    elsewhere: ClassVar[Mapping[str, str]] = SETTINGS_ELSEWHERE


def settings_from(kind: type[TrainerConfig], config: TrainerConfig | None, given: dict[str, Any]) -> TrainerConfig:
    """Return a `kind` made of `config` (or defaults) overridden by `given`; a name it has not raises UsageError."""
    if config is None:
        return kind(**given)
    if not isinstance(config, kind):
        raise UsageError(f"config is a {type(config).__name__}: expected a {kind.__name__}")
    known = [field.name for field in fields(kind) if field.init]
    made = kind(**{name: getattr(config, name) for name in known} | given)
    for name in sorted(vars(config).keys() - vars(made).keys()):
        if not (name.startswith("_") or hasattr(type(config), name) or name in type(config).__dataclass_fields__):
            raise UsageError(f"config.{name} was assigned, but is no setting of {kind.__name__}{nearest(name, known)}")
    return made
