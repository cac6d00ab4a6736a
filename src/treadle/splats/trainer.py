"""Gaussian splatting: a scene as soft ellipsoids that are fitted to photographs, and multiply and die on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from treadle.cameras.capture import Capture
from treadle.data.random import derive_seed
from treadle.engine.events import Hook
from treadle.engine.lr import LearningRate
from treadle.engine.progress import Progress
from treadle.engine.rows import RowEdit
from treadle.engine.settings import TrainerConfig
from treadle.engine.trainer import Trainer
from treadle.errors import UsageError
from treadle.hooks.examples import Examples
from treadle.kernels.ssim import ssim_l1
from treadle.splats import losses
from treadle.splats.cloud import Cloud
from treadle.splats.feed import Target, View, ViewFeed
from treadle.splats.judging import measure
from treadle.splats.model import Splats
from treadle.splats.poses import Exposures, Poses
from treadle.splats.rendering import Rendered, render
from treadle.splats.settings import SplatsConfig
from treadle.splats.start import Bounds, start
from treadle.splats.strategies.base import Strategy


class SplatsTrainer(Trainer):
    """Fit splats to the photographs of a scene.

    Args:
        data: a `Capture`: photographs with their cameras; None takes a scene of our own (`procedural_capture`).
        config, hooks, settings: as for every `Trainer`.

    Example:
        trainer = SplatsTrainer(data=read_capture("garden"), max_steps=7000, cap=200_000)
        trainer.train()
        picture = render(trainer.model.cloud(), trainer.capture.test.cameras[0]).image
    """

    Config: ClassVar[type[TrainerConfig]] = SplatsConfig
    transient: ClassVar[tuple[str, ...]] = ("capture",)

    def __init__(
        self,
        config: SplatsConfig | None = None,
        *,
        data: Capture | None = None,
        hooks: Sequence[Hook] = (),
        **settings: Any,
    ) -> None:
        self.capture = procedural() if data is None else data
        validation, test = (
            ViewFeed(views, shuffle=False) if len(views) else None
            for views in (self.capture.validation, self.capture.test)
        )
        super().__init__(
            config,
            data=ViewFeed(self.capture.train),
            validation_data=validation,
            test_data=test,
            hooks=hooks,
            **settings,
        )

    @classmethod
    def load_data(cls, config: Any, path: Path | None) -> dict[str, Any]:
        """The photographs at `path`: COLMAP's, Blender's or nerfstudio's; None takes a scene of our own."""
        if path is None:
            return {"data": procedural()}
        from treadle.cameras.reading import read_capture

        options = {"factor": config.factor, "every": config.every, "memory": config.memory_mb << 20}
        return {"data": read_capture(path, lists=config.lists or None, **options)}

    def setup(self) -> None:
        """Build the splats, their optimizer, what decides about them, and what is learnt of single photographs."""
        config, views = self.config, self.capture.train
        if len(views) < 2:
            raise UsageError("there is one photograph to train on: a scene needs two at least, from different places")
        for feed in self.feeds.values():
            feed.threads = max(1, config.workers)  # type: ignore[attr-defined]
        self.extent = Bounds.of(views.cameras).extent
        self.background, self.background_in_tests = self.backgrounds()
        self.model = Splats(self.start(), self.capture.to_input)
        self.poses = Poses(len(views)) if config.pose_rate is not None else None
        self.exposures = Exposures(len(views)) if config.exposure_rate is not None else None
        self.objective = config.objective()
        self.optimizer = torch.optim.Adam(list(self.groups()), eps=1e-15)
        self.rates = [
            LearningRate(self.optimizer, group.pop("curve"), group["name"]) for group in self.optimizer.param_groups
        ]
        self.strategy = self.build_strategy()
        if config.examples_every is not None and self.validation_feed is not None:
            self.add_hook(Examples(config.examples_every))

    def start(self) -> Cloud:
        """The splats to begin with. Override it to begin otherwise, or to give them attributes of your own."""
        return start(self.config, self.capture)

    def build_strategy(self) -> Strategy:
        """What decides which splats multiply and die. Override it for a strategy of your own."""
        strategy: Strategy = self.config.build_strategy(over_white=self.background == "white")
        return strategy

    def groups(self) -> Iterator[dict[str, Any]]:
        """The optimizer's groups, each with the curve of its learning rate."""
        config, model = self.config, self.model
        curves = {
            "means": config.position_rate,
            "quaternions": config.rotation_rate,
            "log_scales": config.scale_rate,
            "logits": config.opacity_rate,
            "rest": config.harmonics_rate,
        }
        for name, rows in model.rows.items():
            scale = self.extent if name == "means" else 1.0
            curve = curves.get(name, config.color_rate)
            yield {"name": name, "params": [rows], "lr_scale": scale, "curve": curve}
        if self.poses is not None:
            turns, shifts = [self.poses.quaternions], [self.poses.translations]
            yield {"name": "turns", "params": turns, "curve": config.pose_rate}
            yield {"name": "shifts", "params": shifts, "lr_scale": self.extent, "curve": config.pose_rate}
        if self.exposures is not None:
            yield {"name": "exposures", "params": list(self.exposures.parameters()), "curve": config.exposure_rate}

    # A step -------------------------------------------------------------------------------------------------------

    def step(self, view: View) -> Mapping[str, Any]:
        """Render a view, compare it with its photograph, update the splats, and let some multiply or die."""
        background = self.color_behind()
        target = view.target(background, self.config.factor_at(self.progress))
        rendered = self.render_training(view, target, background)
        found = self.objective(**self.terms(rendered, view, target))
        self.minimize(found, self.optimizer)
        with torch.no_grad():
            self.strategy.after_update(self, rendered)
        return {"loss": found.total, "splats": len(self.model)}

    def render_training(self, view: View, target: Target, background: Tensor) -> Rendered:
        """The view with all that the loss terms need, from where its camera is by now taken to be."""
        terms, pose = self.objective.terms, None
        if self.poses is not None:
            pose = self.poses(view.number, torch.as_tensor(view.camera.world_to_camera).to(background))
        depth = ("depth" in terms and target.depth is not None) or ("points" in terms and len(target.points) > 0)
        rendered = render(
            self.model.cloud(),
            target.camera,
            degree=self.config.degree_at(self.progress),
            background=background,
            depth=depth,
            normals="normals" in terms and target.normals is not None,
            pose=pose,
        )
        rendered.projection.centers.retain_grad()
        return rendered

    def terms(self, rendered: Rendered, view: View, target: Target) -> dict[str, Tensor]:
        """The values of the loss terms that this run has, as far as the view has what they compare with."""
        image = rendered.image if self.exposures is None else self.exposures(view.number, rendered.image)
        mask = None if target.mask is None else target.mask.to(image.dtype)
        l1, ssim = ssim_l1(image, target.colors, mask)
        found = {"l1": l1, "ssim": 1 - ssim}
        for name in self.objective.terms.keys() - found.keys():
            if name in ("opacity", "scale", "needles"):
                found[name] = getattr(losses, name)(self.model)
        if rendered.depth is not None and target.depth is not None and "depth" in self.objective.terms:
            found["depth"] = losses.depth(rendered, target, self.extent)
        if rendered.depth is not None and len(target.points) and "points" in self.objective.terms:
            found["points"] = losses.points(rendered, target, self.extent)
        if rendered.normals is not None:
            found["normals"] = losses.normals(rendered, target)
        return {name: found[name] for name in self.objective.terms if name in found}

    # What a strategy uses (see `Scene`) -----------------------------------------------------------------------------

    @property
    def finished(self) -> Progress:
        """The run's counters, with the step under way as finished."""
        return replace(self.progress, step=self.progress.step + 1)

    def edit(self) -> RowEdit:
        """Begin a row edit of all that splats have."""
        return self.edit_rows(self.model.rows)

    def generator(self, purpose: str) -> torch.Generator:
        """A generator on the CPU that is a function of (seed, step, purpose)."""
        return torch.Generator().manual_seed(derive_seed(self.config.seed, purpose, self.progress.step))

    # Backgrounds ----------------------------------------------------------------------------------------------------

    def backgrounds(self) -> tuple[str, str]:
        """What shows where nothing is, in training and in tests: "white", "black" or "random"."""
        transparent = self.capture.train[0].pixels.shape[2] == 4
        chosen = self.config.background
        if chosen == "auto":
            chosen = "random" if transparent else "black"
        return chosen, ("white" if transparent else "black") if chosen == "random" else chosen

    def color_behind(self) -> Tensor:
        """The background (3,) of the step under way."""
        if self.background == "random":
            return torch.rand(3, generator=self.generator("background")).to(self.device)
        return self.plain(self.background)

    def plain(self, name: str) -> Tensor:
        """White or black, (3,)."""
        return torch.full((3,), 1.0 if name == "white" else 0.0, device=self.device)

    # Evaluation -------------------------------------------------------------------------------------------------------

    def elements(self, batch: Any) -> int:
        """Every view counts as one."""
        return 1

    def validation_step(self, view: View) -> Mapping[str, Any]:
        """PSNR, SSIM and L1 of a held-out view, seen from where its file says, in the colours that the splats have."""
        image, target = self.seen(view)[0].image, view.target(self.plain(self.background_in_tests))
        return self.judged(image, target, view)

    def judged(self, image: Tensor, target: Target, view: View) -> dict[str, float]:
        """The figures of a rendered view."""
        corrected = self.poses is not None or self.exposures is not None
        return measure(image, target.colors, mask=target.mask, object=view.object(), corrected=corrected)

    def seen(self, view: View, *, depth: bool = False) -> tuple[Rendered, Target]:
        """A held-out view as it is rendered in tests, and what it should be."""
        background = self.plain(self.background_in_tests)
        with torch.no_grad():
            rendered = render(self.model.cloud(), view.camera, background=background, depth=depth)
        return rendered, view.target(background)


def procedural() -> Capture:
    """The scene that is trained on where no data is given."""
    from treadle.cameras.procedural import procedural_capture

    return procedural_capture()
