"""Gaussian splatting: a scene as soft ellipsoids that are fitted to photographs, and multiply and die on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from treadle.cameras.background import WHITE, Background
from treadle.cameras.bounds import Bounds
from treadle.cameras.capture import Capture
from treadle.cameras.poses import Exposures, Poses
from treadle.cameras.turntable import around, small_camera
from treadle.data import limit
from treadle.data.batch import to_device
from treadle.data.captures import load_capture
from treadle.data.feed import Feed
from treadle.data.random import derive_seed
from treadle.data.views import Target, View, ViewFeed, spread
from treadle.engine.events import Hook
from treadle.engine.lr import LearningRate
from treadle.engine.progress import Progress
from treadle.engine.rows import RowEdit
from treadle.engine.settings import TrainerConfig
from treadle.engine.trainer import Trainer
from treadle.errors import UsageError
from treadle.hooks.examples import Examples
from treadle.hooks.timing import Timing
from treadle.images.display import write_png
from treadle.images.judging import HIGHER, as_pixels, measure
from treadle.images.lpips import lpips_metric
from treadle.images.strips import STRIP
from treadle.kernels.splatting_warmup import prepare
from treadle.kernels.ssim import ssim_l1
from treadle.kernels.threads import left_to_kernels
from treadle.parallel import this_world
from treadle.reports.growth import course, growth
from treadle.reports.report import write_report
from treadle.reports.rows import Row
from treadle.reports.trainer_views import standing_of
from treadle.runs.models import At, find_model
from treadle.splats import losses, panels
from treadle.splats.cloud import Cloud
from treadle.splats.model import Splats
from treadle.splats.ply import write_cloud
from treadle.splats.rendering import Rendered, render
from treadle.splats.settings import SplatsConfig
from treadle.splats.start import nearest, start
from treadle.splats.strategies.base import Strategy, added, pull_of
from treadle.terminal import tell_when_slow


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
    one_scene: ClassVar[bool] = True

    def __init__(
        self,
        config: SplatsConfig | None = None,
        *,
        data: Capture | None = None,
        hooks: Sequence[Hook] = (),
        **settings: Any,
    ) -> None:
        self.capture = load_capture(None, None) if data is None else data
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
        return {"data": load_capture(config, path)}

    def setup(self) -> None:
        """Build the splats, their optimizer, what decides about them, and what is learnt of single photographs."""
        config, views = self.config, self.capture.train
        if len(views) < 2:
            raise UsageError("there is one photograph to train on: a scene needs two at least, from different places")
        for feed in self.feeds.values():
            feed.threads = max(1, config.workers)  # type: ignore[attr-defined]
        self.feed.batch_size = self.views_in_a_step()  # type: ignore[union-attr]
        self.extent = Bounds.of(views.cameras).extent
        self.near = nearest(self.capture) if config.near is None else config.near
        self.background = Background.of(config.background, views)
        self.model = Splats(self.start(), self.capture.to_input)
        self.begun_with = len(self.model)
        config.antialiased = self.model.antialiased  # what a PLY says is from now on a setting of this run
        self.poses = Poses(len(views)) if config.pose_rate is not None else None
        self.exposures = Exposures(len(views)) if config.exposure_rate is not None else None
        self.objective = config.objective()
        groups, curves = config.groups(self.model, self.extent, self.poses, self.exposures)
        self.optimizer = torch.optim.Adam(groups, eps=1e-15)
        self.rates = [LearningRate(self.optimizer, curve, name) for name, curve in curves.items()]
        self.strategy = self.build_strategy()
        self.timing = Timing()
        held_out = self.validation_feed is not None
        self.add_hook_of("examples_every", lambda config: Examples.of(config.examples_every) if held_out else None)
        if self.device.type == "cpu":
            prepare(tell_when_slow("compiling the kernels, once for this machine"))

    def views_in_a_step(self) -> int:
        """The photographs of a batch. Raises UsageError where a call of `step` would get several, but renders one."""
        count, calls = self.config.batch_size, self.config.parts or this_world().size
        if count > calls:
            raise UsageError(
                f"batch_size is {count} photographs, of which each call of step renders one: set parts={count}, or "
                f"batch_size=1 and accumulate={count}"
            )
        return int(count)

    def start(self) -> Cloud:
        """The splats to begin with. Override it to begin otherwise, or to give them attributes of your own."""
        return start(self.config, self.capture)

    def build_strategy(self) -> Strategy:
        """What decides which splats multiply and die. Override it for a strategy of your own."""
        strategy: Strategy = self.config.build_strategy(over_white=self.background.trained == WHITE)
        return strategy

    def on_settings(self) -> None:
        """Let the strategy have what the settings say by now; what it remembers stays."""
        super().on_settings()
        made = self.build_strategy()
        if type(made) is type(self.strategy) and is_dataclass(made):
            for each in fields(made):
                if each.init:
                    setattr(self.strategy, each.name, getattr(made, each.name))

    def pre_training(self) -> None:
        """Put what is to be known of the data into the journal."""
        super().pre_training()
        for note in self.capture.notes:
            self.note("data", said=note)

    # A step -------------------------------------------------------------------------------------------------------

    @left_to_kernels()
    def step(self, view: View) -> Mapping[str, Any]:
        """Render a view, compare it with its photograph, update the splats, and let some multiply or die."""
        background = self.background.in_training(self.generator("background"), self.device)
        target = view.target(background, self.config.factor_at(self.progress))
        rendered = self.render_training(view, target, background)
        found = self.objective(**self.terms(rendered, view, target))
        self.minimize(found, self.optimizer)
        pulled = pull_of(rendered) if self.strategy.pulls else ()
        after = self.once(partial(self.change, rendered), *pulled)
        return {"loss": found.total, "splats": after}

    def change(self, rendered: Rendered, *pulled: Sequence[Tensor]) -> int:
        """Let the strategy change which splats there are, once for all views of a batch; returns how many there are.

        `pulled` is what `pull_of` gives for the views; processes and parts that have none of their own give no rows.
        """
        before = len(self.model)
        if pulled:
            own = [[rows for rows in some if len(rows) == before] for some in pulled]
            rendered.pulled = added(own[0]), added(own[1])
        self.strategy.after_update(self, rendered)
        after = len(self.model)
        if after != before:
            self.note("densify" if after > before else "prune", splats=after, before=before)
        return after

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
            near=self.near,
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

    # Evaluation -----------------------------------------------------------------------------------------------------

    def elements(self, batch: Any) -> int:
        """Every view counts as one."""
        return 1

    def validation_step(self, view: View) -> Mapping[str, Any]:
        """PSNR, SSIM and L1 of a held-out view, seen from where its file says, in the colours that the splats have."""
        return self.judged(*self.seen(view), view)

    @left_to_kernels()
    def seen(self, view: View, *, depth: bool = False) -> tuple[Rendered, Target]:
        """A held-out view as the splats show it, with all their harmonics, and what it should be."""
        background = self.background.in_tests(self.device)
        rendered = render(self.model.cloud(), view.camera, background=background, depth=depth, near=self.near)
        return rendered, view.target(background)

    def judged(self, rendered: Rendered, target: Target, view: View) -> dict[str, float]:
        """The figures of a view."""
        corrected = self.poses is not None or self.exposures is not None
        return measure(rendered.image, target.colors, mask=target.mask, object=view.object(), corrected=corrected)

    def rows(self, feed: Feed) -> Iterator[Row]:
        """Every view of `feed`, as far as a test goes: target, render, error, depth, and the figures."""
        distance = None if self.config.lpips_weights is None else lpips_metric(self.config.lpips_weights)
        for view in limit.iterate(feed, 0, limit=self.config.limit_test_batches):
            view = to_device(view, self.device)
            rendered, target = self.seen(view, depth=True)
            figures = self.judged(rendered, target, view)
            if distance is not None:
                pair = (image.movedim(2, 0)[None] * 2 - 1 for image in (rendered.image.clamp(0, 1), target.colors))
                (figures["lpips"],) = distance(*pair)
            pictures = dict(zip(STRIP, panels.strip_of(rendered, target), strict=True))
            yield Row(view.camera.name or f"{view.number:04d}", pictures, figures)

    def examples(self) -> dict[str, Any]:
        """The first held-out view, at most 256 pixels wide and high: such pictures together show the growth."""
        if not isinstance(self.validation_feed, ViewFeed):
            return {}
        camera = small_camera(self.validation_feed.photographs.cameras[0])
        background = self.background.in_tests(self.device)
        return {"view": as_pixels(render(self.model.cloud(), camera, background=background).image).numpy()}

    def views(self) -> dict[str, Any]:
        """The splats from any camera, and held-out views beside their photographs."""
        from treadle.splats.live import HeldOutView, SplatsView

        background = self.background.in_tests(self.device)
        found: dict[str, Any] = {
            "splats": SplatsView(self.model, self.capture, background, self.near, partial(standing_of, self))
        }
        feed = self.validation_feed or self.test_feed
        if isinstance(feed, ViewFeed):
            see = partial(self.seen, depth=True)
            found["held out"] = HeldOutView(feed, see, self.judged, self.device, partial(standing_of, self))
        return found

    def scenes(self) -> dict[str, Any]:
        """The splats in their colours without harmonics, and the cameras that they are trained on."""
        from treadle.splats.live import scene_of

        return {"splats": scene_of(self.model.cloud().detached(), self.capture.train.cameras)}

    def report(self, directory: Path) -> dict[str, Any]:
        """Write `splats.ply`, a strip, a turntable and the growth into `directory`; returns figures and paths."""
        cloud = self.model.cloud()
        found: dict[str, Any] = {**self.validation_metrics, "splats": str(len(cloud)), "step": str(self.timing.steps)}
        found["ply"] = directory / "splats.ply"
        write_cloud(found["ply"], cloud.detached())
        if self.validation_feed is not None:
            with self.evaluating():
                views = (to_device(view, self.device) for view in spread(self.validation_feed))
                found["strip"] = directory / "strip.png"
                write_png(found["strip"], panels.strips(self.seen(view, depth=True) for view in views))
        flight = around(self.capture, self.config.turntable)
        if flight:
            background = self.background.in_tests(self.device)
            found["turntable"] = panels.turntable(directory / "turntable.gif", cloud, flight, background)
        if self.run is not None:
            found["splats"] = course(self.run.path, "splats", self.begun_with, len(cloud))
            grown = growth(directory / "growth.gif", self.run.path / "examples")
            found |= {} if grown is None else {"growth": grown}
        return found

    def test_report(self, directory: Path, feed: Feed) -> dict[str, Any]:
        """Render every view of `feed`; writes tables and a page (`write_report`), returns means and paths."""
        run = directory.parent
        with self.evaluating():
            found = write_report(
                directory,
                self.rows(feed),
                title=f"Test of {run.parent.name}/{run.name}",
                description=f"{self.shown_model}: {len(self.model)} splats over {self.background}",
                sort_by="psnr",
                higher=HIGHER,
            )
        return found | {"splats": len(self.model)}

    @classmethod
    def exporters(cls) -> dict[str, Any]:
        """Splats as PLY and compressed, a mesh, and videos."""
        from treadle.splats.exporters import splat_exporters
        from treadle.splats.scene import trained_scene

        return splat_exporters(partial(trained_scene, cls))

    @classmethod
    def load_model(cls, run: str | Path, *, at: At | None = None) -> Cloud:
        """The splats of a run's best model: `render(SplatsTrainer.load_model("runs/splats/v001"), camera).image`.

        `at` names another: the step of one that is kept, or "final". Raises UsageError where the run has no such model,
        or none of this trainer's.
        """
        found = find_model(run, at, cls.preferred_model)
        antialiased = bool(found.config(cls.Config).antialiased)
        return Splats.from_weights(found.of("model"), antialiased=antialiased).cloud().detached()
