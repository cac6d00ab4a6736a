"""The settings of `SplatsTrainer`, in groups, and the parts that they describe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from treadle.cameras.poses import Exposures, Poses
from treadle.config.settings import Settings, setting
from treadle.data.captures import CaptureSettings
from treadle.engine.curves import parse_curve
from treadle.engine.objective import Objective
from treadle.engine.progress import Progress
from treadle.engine.schedule import Every, Span
from treadle.engine.settings import TrainerConfig
from treadle.errors import UsageError, nearest
from treadle.splats.model import Splats
from treadle.splats.strategies.adc import ADC
from treadle.splats.strategies.base import Strategy, Window
from treadle.splats.strategies.mcmc import MCMC

TERMS = ("l1", "ssim", "opacity", "scale", "needles", "depth", "points", "normals")
"""The loss terms that there are."""

PICTURE = {"l1": 0.8, "ssim": 0.2}
"""The weights of the papers for the picture itself; "ssim" is 1 - SSIM."""


@dataclass(kw_only=True)
class SceneSettings(CaptureSettings):
    """The photographs, and what the scene starts from."""

    memory_mb: int = setting(1024, least=0, resumable=True, affects_state=False)
    """Decoded photographs that are kept in memory, in MB; others are read again."""
    background: Literal["auto", "white", "black", "random", "mean"] = setting("auto", common=True)
    """What shows where nothing is. "random": another colour in each step, and in evaluation white where photographs are
    transparent, else black; "auto" is "random" where they are, else black; "mean": their mean colour, for a plain
    backdrop, which splats need not paint then."""
    init: str = setting("auto", common=True)
    """What to start from: "points" (of the data), "random", or a file of splats; "auto" is "points" where the data
    has some, else "random"."""
    random: int | None = setting(None, least=0, common=True)
    """Splats at random places; null takes none beside points, and 5000 alone."""
    random_in: Literal["box", "frusta"] = setting("box")
    """Where: in a box around what the cameras look at, or in what they see, up to three times as far."""
    near: float | None = setting(None, above=0)
    """Splats nearer than this to a camera, in units of the scene, are not drawn: none can hang before it as a fog. null
    takes .6 of the distance at which the data's points begin to be seen, and 0.2 where there are none."""


@dataclass(kw_only=True)
class ModelSettings(Settings):
    """What splats are, and what is learnt beside them."""

    degree: Literal[0, 1, 2, 3] = setting(3, common=True)
    """Degree of the spherical harmonics: how colours depend on the direction."""
    degree_every: str = setting("10%", parse=Span.parse)
    """Colours start without direction; every so often the degree rises by one."""
    antialiased: bool | None = setting(None, common=True)
    """Make splats smaller than a pixel as much fainter as they are drawn larger; recorded in what is exported. null
    does as the PLY says that it starts from, else not."""
    coarse: Literal[1, 2, 4, 8] = setting(1, common=True)
    """Begin with photographs that are smaller by this factor; it is halved every `sharpen_every`."""
    sharpen_every: str = setting("15%", parse=Span.parse)
    """When the photographs' size doubles, until they have their own."""


@dataclass(kw_only=True)
class GrowthSettings(Settings):
    """Which splats multiply and die."""

    strategy: Literal["mcmc", "adc", "none"] = setting("mcmc", common=True)
    """"mcmc": a fixed budget of splats, dead ones move to where they are needed; "adc": clone, split and prune as in
    the first paper; "none": the splats that it starts with."""
    cap: int = setting(10_000, least=1, common=True, live=True)
    """The most splats there may be."""
    grow_every: str = setting("1%", parse=Every, live=True)
    """How often splats are added, moved and removed ..."""
    grow_from: str | None = setting("1.5%", parse=Span.parse, live=True)
    """... after this part of the run ..."""
    grow_until: str | None = setting("80%", parse=Span.parse, live=True)
    """... and before this one."""
    growth: float = setting(0.05, above=0, live=True)
    """mcmc: the share of their number by which splats are added each time."""
    noise: float = setting(5e5, least=0, live=True)
    """mcmc: how far splats tremble, times the learning rate of their centres."""
    pull: float = setting(2e-4, above=0, live=True)
    """adc: the mean gradient in the picture (from -1 to 1) from which a splat multiplies."""
    small: float = setting(0.01, above=0, live=True)
    """adc: what is larger, relative to the scene's extent, is split and not cloned."""
    large: float = setting(0.1, above=0, live=True)
    """adc: what is larger is removed, after the first reset."""
    reset_every: str = setting("10%", parse=Every, live=True)
    """adc: how often opacities are lowered, until `grow_until`."""


@dataclass(kw_only=True)
class LossSettings(Settings):
    """What is minimized, and how fast."""

    weights: dict[str, float | str] = setting(default_factory=dict, common=True, command="LossWeight")
    """Other weights of the loss terms, by name, numbers or curves: l1, ssim, opacity, scale, needles, depth (where the
    photographs have one), points (depths of the data's points), normals. Terms of weight 0 are not computed."""
    position_rate: float | str = setting(
        "log 1.6e-4 to 1.6e-6", parse=parse_curve, common=True, command="LearningRateMultiplier"
    )
    """Learning rate of the centres, times the scene's extent."""
    color_rate: float | str = setting(2.5e-3, parse=parse_curve, command="LearningRateMultiplier")
    """Learning rate of colours, and of the splats' further attributes."""
    harmonics_rate: float | str = setting(1.25e-4, parse=parse_curve, command="LearningRateMultiplier")
    """Learning rate of how colours depend on the direction."""
    scale_rate: float | str = setting(5e-3, parse=parse_curve, command="LearningRateMultiplier")
    """Learning rate of the logarithms of sizes."""
    rotation_rate: float | str = setting(1e-3, parse=parse_curve, command="LearningRateMultiplier")
    """Learning rate of rotations."""
    opacity_rate: float | str = setting(5e-2, parse=parse_curve, command="LearningRateMultiplier")
    """Learning rate of opacities before the sigmoid."""
    pose_rate: float | str | None = setting(None, parse=parse_curve, command="LearningRateMultiplier")
    """Learning rate of the training cameras' poses, such as "log 1e-3 to 1e-5"; null trusts them."""
    exposure_rate: float | str | None = setting(None, parse=parse_curve, command="LearningRateMultiplier")
    """Learning rate of an affine map of colours for each training photograph, such as "log 1e-2 to 1e-3"; null has
    none."""


@dataclass(kw_only=True)
class JudgingSettings(Settings):
    """What is shown and measured."""

    lpips_weights: Path | None = setting(None, resumable=True, affects_state=False)
    """Weights of LPIPS, a safetensors file: tests report it where they are given."""
    examples_every: str | None = setting(
        "4%", parse=Every, resumable=True, affects_state=False, common=True, live="unless null"
    )
    """When a picture of a held-out view is made; together they show the growth."""
    turntable: int = setting(48, least=0, resumable=True, affects_state=False)
    """Frames of the turntable in the report; 0 makes none."""


@dataclass(kw_only=True)
class SplatsConfig(JudgingSettings, LossSettings, GrowthSettings, ModelSettings, SceneSettings, TrainerConfig):
    """Settings of `SplatsTrainer`."""

    max_steps: int | None = 2000
    """Steps to train for; schedules are in percent of them."""
    batch_size: int = 1
    """Photographs per step. Of several, each is one of the `parts` of a batch, or else a process's."""
    validate_every: str | None = "20%"
    """When the held-out photographs are rendered and measured; the final state always is."""
    save_every: str | None = "50%"
    """When a run on disk writes a checkpoint; it also does at its end."""
    monitor: str | None = "psnr"
    """The validation metric that says which model is best."""

    def __post_init__(self) -> None:
        """Check types and ranges, and what must fit together; raises UsageError naming the field."""
        super().__post_init__()
        for name in self.weights:
            if name not in TERMS:
                raise UsageError(f"weights.{name}: there is no such loss term{nearest(name, TERMS)}")
        self.objective()  # weights that are no curves name themselves

    def objective(self) -> Objective:
        """The loss terms with a weight that is not always 0."""
        shy = {"opacity": 0.01, "scale": 0.01} if self.strategy == "mcmc" else {}
        weights: Mapping[str, Any] = PICTURE | shy | self.weights
        objective = Objective()
        for name in TERMS:
            if weights.get(name, 0) != 0:
                objective.add(name, weight=weights[name])
        return objective

    def beginning(self) -> tuple[float, float]:
        """Opacity, and size relative to the distance between neighbours, of splats at the start."""
        return (0.5, 0.1) if self.strategy == "mcmc" else (0.1, 1.0)

    def build_strategy(self, *, over_white: bool = False) -> Strategy:
        """What decides about splats; `over_white` says that it is trained over a white background."""
        start, end = (None if text is None else Span.parse(text) for text in (self.grow_from, self.grow_until))
        grow = Window(Every(self.grow_every), start, end)
        if self.strategy == "mcmc":
            return MCMC(grow, self.cap, self.growth, noise=self.noise)
        if self.strategy == "adc":
            reset = Window(Every(self.reset_every), None, end)
            return ADC(grow, reset, self.pull, self.small, self.large, cap=self.cap, over_white=over_white)
        return Strategy()

    def groups(
        self, model: Splats, extent: float, poses: Poses | None = None, exposures: Exposures | None = None
    ) -> tuple[list[dict[str, Any]], dict[str, float | str]]:
        """The optimizer's groups, named as the splats' parameters are, and the curve of each one's learning rate.

        Attributes that are not the usual ones learn as colours do. `extent` is that of the scene.
        """
        rates = {
            "means": self.position_rate,
            "quaternions": self.rotation_rate,
            "log_scales": self.scale_rate,
            "logits": self.opacity_rate,
            "rest": self.harmonics_rate,
        }
        curves = {name: rates.get(name, self.color_rate) for name in model.rows}
        groups: list[dict[str, Any]] = [{"name": name, "params": [rows]} for name, rows in model.rows.items()]
        if poses is not None and self.pose_rate is not None:
            groups += [
                {"name": "turns", "params": [poses.quaternions]},
                {"name": "shifts", "params": [poses.translations]},
            ]
            curves |= {"turns": self.pose_rate, "shifts": self.pose_rate}
        if exposures is not None and self.exposure_rate is not None:
            groups.append({"name": "exposures", "params": [exposures.affine]})
            curves["exposures"] = self.exposure_rate
        for group in groups:
            if group["name"] in ("means", "shifts"):
                group["lr_scale"] = extent
        return groups, curves

    def degree_at(self, progress: Progress) -> int:
        """The degree of the harmonics that is trained after so many steps."""
        return min(self.degree, int(progress.step // Span.parse(self.degree_every).steps(progress)))

    def factor_at(self, progress: Progress) -> int:
        """How much smaller photographs are after so many steps: `coarse`, halved every so often, at last 1."""
        return max(1, self.coarse >> int(progress.step // Span.parse(self.sharpen_every).steps(progress)))
