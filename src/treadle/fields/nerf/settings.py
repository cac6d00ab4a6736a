"""The settings of `NeRFTrainer`, in groups, and the parts that they describe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from treadle.config.settings import Settings, require, setting
from treadle.data.captures import CaptureSettings
from treadle.engine.curves import parse_curve
from treadle.engine.objective import Objective
from treadle.engine.progress import Progress
from treadle.engine.schedule import Every, Span
from treadle.engine.settings import StartSettings, TrainerConfig
from treadle.errors import UsageError, nearest
from treadle.fields.settings import DEFAULTS, GridSettings

TERMS = ("color", "opacity", "distortion", "depth")
"""The loss terms that there are."""

WEIGHTS: Mapping[str, Any] = {"color": 1.0}
"""Their weights where the settings say nothing; terms that are not named are not computed."""

DIAGONAL = 2 * 3**0.5
"""Of the cube [-1, 1]^3."""


@dataclass(kw_only=True)
class PhotographSettings(CaptureSettings):
    """The photographs."""

    memory_mb: int = setting(1024, least=0, resumable=True, affects_state=False)
    """Pixels that are kept in memory, in MB; more than that lies in a temporary file, which is mapped."""
    background: Literal["auto", "white", "black", "random", "mean"] = setting("auto", common=True)
    """What shows where nothing is. "random": another colour behind each ray, so that nothing solid is left
    transparent, and in evaluation white where photographs are transparent, else black; "auto" is "random"; "mean":
    their mean colour."""


@dataclass(kw_only=True)
class SpaceSettings(Settings):
    """Where the scene is."""

    box: tuple[float, float, float, float] | None = setting(None)
    """The cube that is seen best, in the coordinates of the photographs' cameras: its middle (x, y, z) and half its
    side. null takes what the photographs show as opaque, or else a cube around what they look at."""
    bound: float | None = setting(None, least=1, common=True)
    """How many times as large as `box` is all there is: 1, 2, 4, 8 ...; beyond it nothing is seen. null takes 1 where
    photographs are transparent, else 4."""
    contracted: bool = setting(False, common=True)
    """Draw in what is outside `box`, so that it has half of the grid however large `bound` is. With a `bound` of 4 the
    grid as it is fits photographs as well, and finds more of space to be empty."""
    near: float | None = setting(None, least=0)
    """Nothing is seen nearer than this to a camera, in half sides of `box`. null: 0 where `bound` is 1, else 0.1."""


@dataclass(kw_only=True)
class MarchSettings(Settings):
    """Where rays are sampled."""

    occupancy: int = setting(64, least=4, most=512, common=True)
    """Cells along each side of the grid that says where nothing is."""
    steps: int = setting(256, least=8, most=8192, common=True)
    """A ray's samples lie so far apart that this many would go through `box` from corner to corner."""
    cone: float | None = setting(None, least=0, below=1)
    """Samples farther away lie farther apart: at a distance t, at least this much of t. null takes 0 where `bound` is
    1, else 1/64."""
    stop: float = setting(1e-4, above=0, below=1)
    """A ray ends where less than this of what is behind would be seen."""
    prune_every: str = setting("16 steps", parse=Every, common=True, live=True)
    """How often empty space is looked for."""
    prune_from: int | None = setting(None, least=0)
    """The first steps leave all space occupied: what nobody has learnt yet is not to be taken for empty. null takes 16
    where `bound` is 1, else 160."""
    prune_after: int = setting(256, least=0, live=True)
    """Up to this step all cells are looked at, from then on a quarter of all, and as many of the occupied ones."""
    prune_decay: float = setting(0.95, above=0, most=1, live=True)
    """What is left of the density that a cell is remembered with, each time."""
    prune_below: float = setting(0.01, above=0, live=True)
    """Cells with less than this optical thickness along one step are empty."""
    shrink_every: str | None = setting("20%", parse=Every)
    """octree, codebook: how often cells that are empty by then, and their features, are taken out; null keeps all."""
    random_lod: bool = setting(False)
    """Train in each step a random level of detail and those below it, finer ones twice as often as the next coarser."""


@dataclass(kw_only=True)
class RaySettings(Settings):
    """How many rays a step takes, and what is minimized."""

    samples: int | None = setting(16_384, least=64, common=True)
    """Samples that a step is to take: the number of rays follows from how many a ray takes. null takes `batch_size`
    rays in every step."""
    first_rays: int = setting(512, least=1)
    """Rays of the first step."""
    loss: Literal["l2", "l1", "huber", "mape"] = setting("l2", common=True)
    """How colours are compared. "huber" is quadratic below 0.1; "mape" is relative to the colour in the photograph."""
    weights: dict[str, float | str] = setting(default_factory=dict, common=True, command="LossWeight")
    """Other weights of the loss terms, by name, numbers or curves: color, opacity (rays that are neither solid nor
    empty; with alpha, other than the photograph), distortion (rays that see several surfaces), depth (where photographs
    have one). Terms of weight 0 are not computed."""
    opacity_until: str | None = setting(None, parse=Span.parse)
    """The part of the run in which the term "opacity" counts; null: all of it."""


@dataclass(kw_only=True)
class LearningSettings(Settings):
    """How fast is learnt."""

    activation: Literal["exp", "softplus", "relu"] = setting("exp")
    """What makes a density of the decoder's output."""
    learning_rate: float | str = setting(
        "log 1e-2 to 1e-3", parse=parse_curve, common=True, command="LearningRateMultiplier"
    )
    """Learning rate of the decoders, and of the grid times `grid_rate`."""
    grid_rate: float = setting(10.0, above=0, common=True)
    """The grid's learning rate, relative to the decoders'."""
    decay: float = setting(0.0, least=0)
    """Weight decay of the decoders."""
    ema: float | None = setting(0.95, above=0, below=1)
    """Decay of the average of the weights that is evaluated and kept; null evaluates the weights themselves."""
    pose_rate: float | str | None = setting(None, parse=parse_curve, command="LearningRateMultiplier")
    """Learning rate of the training cameras' poses, such as "log 1e-3 to 1e-5"; null trusts them."""
    exposure_rate: float | str | None = setting(None, parse=parse_curve, command="LearningRateMultiplier")
    """Learning rate of an affine map of colours for each training photograph, such as "log 1e-2 to 1e-3"; null has
    none."""


@dataclass(kw_only=True)
class ShowingSettings(Settings):
    """What is shown and measured."""

    lpips_weights: str | None = setting(None, resumable=True, affects_state=False)
    """Weights of LPIPS, a safetensors file: tests report it where they are given."""
    validate_views: int | None = setting(None, least=1)
    """How many of the held-out photographs are measured during training, spread evenly; null: all. The report at the
    end, and `treadle test`, measure all."""
    examples_every: str | None = setting(
        "10%", parse=Every, resumable=True, affects_state=False, common=True, live="unless null"
    )
    """When a picture of a held-out view is made; together they show the growth."""
    render_every: str | None = setting(None, parse=Every, resumable=True, affects_state=False, live="unless null")
    """When the first held-out view is rendered with all channels, as PNG and EXR, into the run's folder."""
    turntable: int = setting(32, least=0, resumable=True, affects_state=False)
    """Frames of the turntable in the report; 0 makes none."""


@dataclass(kw_only=True)
class NeRFConfig(
    ShowingSettings,
    LearningSettings,
    RaySettings,
    MarchSettings,
    StartSettings,
    GridSettings,
    SpaceSettings,
    PhotographSettings,
    TrainerConfig,
):
    """Settings of `NeRFTrainer`."""

    grid_defaults: ClassVar[Mapping[str, Mapping[str, int]]] = {
        **DEFAULTS,
        "hash": {"levels": 8, "features": 4, "log2_size": 17, "n_min": 16, "n_max": 512},
    }

    max_steps: int | None = 1000
    """Steps to train for; schedules are in percent of them."""
    batch_size: int = 16_384
    """Rays per step at most."""
    validate_every: str | None = "50%"
    """When the held-out photographs are rendered and measured; the final state always is."""
    save_every: str | None = "50%"
    """When a run on disk writes a checkpoint; it also does at its end."""
    monitor: str | None = "psnr"
    """The validation metric that says which model is best."""

    def __post_init__(self) -> None:
        """Check types and ranges, and what must fit together; raises UsageError naming the field."""
        super().__post_init__()
        require(self, "box", self.box is None or self.box[3] > 0, "a cube whose half side, the last number, is above 0")
        require(self, "decoder", self.decoder == "mlp", "'mlp'")
        for name in self.weights:
            if name not in TERMS:
                raise UsageError(f"weights.{name}: there is no such loss term{nearest(name, TERMS)}")
        self.objective()  # weights that are no curves name themselves

    def objective(self) -> Objective:
        """The loss terms with a weight that is not always 0."""
        weights: dict[str, Any] = {**WEIGHTS, **self.weights}
        objective = Objective()
        for name in TERMS:
            if weights.get(name, 0) != 0:
                objective.add(name, weight=weights[name])
        return objective

    @property
    def step(self) -> float:
        """How far apart the samples of a ray are, in half sides of `box`."""
        return DIAGONAL / self.steps

    @property
    def cascades(self) -> int:
        """Nested occupancy grids, each twice as large as the one before: as many as reach `bound`."""
        bound, count = self.bound or 1.0, 1
        while 2 ** (count - 1) < bound:
            count += 1
        return count

    def counts_opacity(self, progress: Progress) -> bool:
        """Whether the term "opacity" counts in the coming step."""
        return self.opacity_until is None or not Span.parse(self.opacity_until).reached(progress)
