"""The settings of `TractsTrainer`, in groups."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from treadle.config.settings import Settings, require, setting
from treadle.engine.curves import parse_curve
from treadle.engine.schedule import Every
from treadle.engine.settings import StartSettings, TrainerConfig
from treadle.errors import UsageError
from treadle.tracts.feeds.settings import LinesSettings
from treadle.tracts.getters.settings import GetterSettings
from treadle.tracts.models.settings import ModelSettings

OF_GENERATION: dict[str, Literal["min", "max"]] = {"endpoint_distance": "min", "connectivity": "max"}
"""What generation-validation measures, and which way is better."""


@dataclass(kw_only=True)
class UpdateSettings(Settings):
    """How the network is updated."""

    optimizer: Literal["adam", "radam", "sgd"] = setting("adam", common=True)
    """Adam (Kingma and Ba), RAdam (rectified: it needs no warm-up) or SGD with Nesterov's momentum."""
    learning_rate: float | str = setting(1e-3, parse=parse_curve, common=True, command="LearningRateMultiplier")
    """Learning rate, a curve: "0.001*3 0.0001" takes the first value for three epochs and holds the last."""
    weight_decay: float = setting(0.0, least=0)
    """L2 penalty, as torch's optimizers have it."""
    momentum: float = setting(0.9, least=0)
    """sgd: Nesterov's."""

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of a model's parameters."""
        if self.optimizer == "sgd":
            moving = {"momentum": self.momentum, "nesterov": self.momentum > 0}
            return torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=self.weight_decay, **moving)  # type: ignore[arg-type]
        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.RAdam
        return kind(model.parameters(), weight_decay=self.weight_decay)


@dataclass(kw_only=True)
class GenerationSettings(Settings):
    """Validation by tracking: what the loss of points does not tell is whether whole lines get there."""

    generate_every: str | None = setting(None, parse=Every, common=True)
    """When a validation also tracks ("5 epochs"), from the middle of held-out lines, and compares where the new lines
    end; so does that of the run's final state. null never tracks. It measures `endpoint_distance` (mm) and
    `connectivity` (the share that link the same two regions), which `monitor` may name."""
    generate_lines: int = setting(200, least=1)
    """How many held-out lines are tracked anew."""
    regions: int = setting(4, least=1)
    """Regions along each axis, where the data has no connectivity of its own."""


@dataclass(kw_only=True)
class ReportSettings(Settings):
    """What is tracked to be looked at, and how."""

    track_step: float | None = setting(None, above=0)
    """Step of tracking in mm; null takes the mean step of the lines."""
    track_theta: float = setting(30.0, above=0, most=180)
    """Largest angle, in degrees, from one step of tracking to the next."""
    track_shortest: float = setting(10.0, least=0)
    """Tracked lines shorter than this, in mm, are dropped."""
    track_seeds: int = setting(2000, least=0, resumable=True, affects_state=False, common=True)
    """Seeds of the tracking when the run ends; 0 tracks nothing."""
    examples_every: str | None = setting(
        None, parse=Every, resumable=True, affects_state=False, common=True, live="unless null"
    )
    """When a picture of tracked lines is made; together they show the learning."""


@dataclass(kw_only=True)
class TractsConfig(
    ReportSettings,
    GenerationSettings,
    UpdateSettings,
    StartSettings,
    GetterSettings,
    ModelSettings,
    LinesSettings,
    TrainerConfig,
):
    """Settings of `TractsTrainer`."""

    batch_size: int = setting(100, common=True)
    """How much a batch holds at most, in `batch_units`; a line that is longer than that is a batch of its own."""
    first_direction: Literal["axis", "as_is"] = setting("axis", common=True)
    """What is right at a line's first point, to which nothing leads: either sense of its direction ("axis": tracking
    goes both ways from a seed), or the one that the line happens to have."""
    max_epochs: int | None = setting(100, least=1, resumable=True, common=True)
    """Epochs to train for; with `max_steps`, whichever comes first."""

    higher_is_better: ClassVar[Collection[str]] = (*TrainerConfig.higher_is_better, "connectivity")

    def __post_init__(self) -> None:
        """Check types and ranges, and what must fit together; raises UsageError naming the field."""
        super().__post_init__()
        require(self, "drop_last", not self.drop_last, "false, every line comes in every epoch (see max_batches)")
        if self.monitor in OF_GENERATION:
            if self.generate_every is None:
                raise UsageError(f"monitor is {self.monitor!r}, which only tracking measures: set generate_every")
            mode = OF_GENERATION[self.monitor]
            fits = self.monitor_mode in (None, mode)
            require(self, "monitor_mode", fits, f"null or {mode!r}, for {self.monitor!r}")
