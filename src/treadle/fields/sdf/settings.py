"""The settings of `SDFTrainer`, in groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from treadle.config.settings import Settings, require, setting
from treadle.engine.curves import parse_curve
from treadle.engine.objective import Objective
from treadle.engine.schedule import Every, Span
from treadle.engine.settings import StartSettings, TrainerConfig
from treadle.errors import UsageError, nearest
from treadle.fields.sdf.losses import DISTANCE
from treadle.fields.sdf.pool import Mixture
from treadle.fields.settings import GridSettings

TERMS = (*DISTANCE, "eikonal", "color")
"""The loss terms that there are."""


@dataclass(kw_only=True)
class SampleSettings(Settings):
    """The mesh, and where it is sampled."""

    texture: Path | None = setting(None)
    """The picture on the mesh, where its file names none; null looks for FILE_texture.png or FILE.png beside it."""
    pool: int = setting(300_000, least=1, common=True)
    """Samples around the mesh that are drawn together; an epoch is each of them once."""
    pool_epochs: int = setting(8, least=1, common=True)
    """Epochs after which the pool is drawn anew."""
    uniform: int = setting(1, least=0)
    """Samples are made of so many parts of points anywhere in the box ..."""
    near: int = setting(2, least=0)
    """... so many of points near the surface ..."""
    surface: int = setting(2, least=0)
    """... and so many of points on it."""
    spread: float = setting(0.01, above=0, common=True)
    """How far points near the surface are from it along each axis: the standard deviation; the mesh has radius .9."""

    @property
    def mixture(self) -> Mixture:
        """The parts of the samples."""
        return Mixture(self.uniform, self.near, self.surface)


@dataclass(kw_only=True)
class DistanceSettings(Settings):
    """What is minimized, and how fast."""

    loss: Literal["l1", "l2", "huber", "mape"] = setting("l1", common=True)
    """How distances are compared: by magnitude, square, Huber's mixture, or magnitude relative to the distance, as
    instant-ngp does (edges become a little sharper; with few steps, stray surfaces stay far from the mesh)."""
    weights: dict[str, float | str] = setting(default_factory=dict, common=True, command="LossWeight")
    """Other weights of the loss terms, by name, numbers or curves: l1, l2, huber, mape (the chosen one has 1), eikonal
    (gradients of length 1; 0 unless given), color (3 beside mape, else 0.1). Terms of weight 0 are not computed."""
    eikonal_points: int = setting(2048, least=1)
    """Of how many samples per step the gradient's length is taken, by differences: each asks the field six times."""
    eikonal_step: float = setting(0.004, above=0)
    """How far apart these are taken, to either side."""
    learning_rate: float | str = setting(
        "cosine 3e-3 to 1e-5", parse=parse_curve, common=True, command="LearningRateMultiplier"
    )
    """Learning rate of the decoder."""
    grid_rate: float = setting(1.0, above=0, common=True)
    """The grid's learning rate, relative to the decoder's."""
    ema: float | None = setting(None, above=0, below=1)
    """Judge and keep a moving average of the weights with this decay; null the weights themselves."""
    random_lod: bool = setting(False, common=True)
    """Train with features up to a random level in each step, a finer one twice as often as the next coarser: the field
    can be shown at every level of detail then."""


@dataclass(kw_only=True)
class PruningSettings(Settings):
    """Which cells of an octree stay (grid: octree or codebook); at first those at the mesh and beside them."""

    prune_every: str | None = setting(None, parse=Every, live=True)
    """When cells are taken away that the surface is nowhere near to; null keeps all."""
    prune_from: str | None = setting("25%", parse=Span.parse, live=True)
    """Not before this much of the run is over: until then the field does not know where its surface is."""
    prune_beyond: float = setting(2.0, above=0, live=True)
    """Cells go whose middles are farther from the surface than this many times the way to their own corners; from 1 on
    none does that the surface runs through, where the field is right."""


@dataclass(kw_only=True)
class ShowingSettings(Settings):
    """What is shown and measured."""

    validation_points: int = setting(100_000, least=1, resumable=True, affects_state=False)
    """Uniform points in the box on which validation compares insides and distances; none of them is trained on."""
    test_points: int = setting(1_000_000, least=1, resumable=True, affects_state=False)
    """The same at the end and in tests."""
    resolution: int = setting(256, least=8, most=1024, resumable=True, affects_state=False)
    """Voxels along each side of the mesh that is judged and written at the end."""
    picture: int = setting(400, least=16, most=4096, resumable=True, affects_state=False)
    """Width and height of pictures, in pixels."""
    examples_every: str | None = setting(
        "10%", parse=Every, resumable=True, affects_state=False, common=True, live="unless null"
    )
    """When a picture of the surface is made; together they show how it came to be."""
    render_every: str | None = setting(
        None, parse=Every, resumable=True, affects_state=False, common=True, live="unless null"
    )
    """When all channels are rendered into the run's `renders`, as PNG for the eye and EXR for programs."""


@dataclass(kw_only=True)
class SDFConfig(
    ShowingSettings, PruningSettings, DistanceSettings, SampleSettings, StartSettings, GridSettings, TrainerConfig
):
    """Settings of `SDFTrainer`."""

    max_steps: int | None = 2000
    """Steps to train for; with `max_epochs`, whichever comes first."""
    batch_size: int = 12_000
    """Samples per step."""
    validate_every: str | None = "20%"
    """When the field is compared with the mesh on held-out points; the final state always is."""
    save_every: str | None = "50%"
    """When a run on disk writes a checkpoint; it also does at its end."""
    monitor: str | None = "iou"
    """The validation metric that says which model is best."""

    def __post_init__(self) -> None:
        """Check types and ranges, and what must fit together; raises UsageError naming the field."""
        super().__post_init__()
        require(self, "batch_size", self.batch_size <= self.pool, f"at most {self.pool}, the samples of the pool")
        require(self, "surface", sum(self.mixture) > 0, "some samples: uniform, near and surface are all 0")
        sparse = self.grid in ("octree", "codebook")
        require(self, "prune_every", sparse or self.prune_every is None, f"null: a grid {self.grid!r} has no cells")
        for name in self.weights:
            if name not in TERMS:
                raise UsageError(f"weights.{name}: there is no such loss term{nearest(name, TERMS)}")
        self.objective()  # weights that are no curves name themselves

    def objective(self, *, colored: bool = True) -> Objective:
        """The loss terms with a weight that is not always 0."""
        weights: Mapping[str, Any] = {self.loss: 1.0, "color": 3.0 if self.loss == "mape" else 0.1} | self.weights
        objective = Objective()
        for name in TERMS:
            if weights.get(name, 0) != 0 and (colored or name != "color"):
                objective.add(name, weight=weights[name])
        return objective
