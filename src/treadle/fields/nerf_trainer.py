"""Radiance fields: a scene as density and colour everywhere in space, fitted to photographs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from treadle.cameras.background import Background
from treadle.cameras.capture import Capture, Photographs
from treadle.cameras.poses import Exposures
from treadle.cameras.turntable import around, small_camera
from treadle.data import limit
from treadle.data.batch import to_device
from treadle.data.captures import load_capture
from treadle.data.feed import Feed
from treadle.data.random import derive_seed
from treadle.data.views import View, ViewFeed, spread
from treadle.engine.ema import EMA
from treadle.engine.events import Hook
from treadle.engine.lr import LearningRate
from treadle.engine.means import Means
from treadle.engine.optim import parameter_groups
from treadle.engine.progress import Progress
from treadle.engine.schedule import every
from treadle.engine.settings import TrainerConfig
from treadle.engine.trainer import Trainer
from treadle.errors import UsageError
from treadle.export.look import View as Picture
from treadle.fields.nerf import losses
from treadle.fields.nerf.feed import RayFeed
from treadle.fields.nerf.model import Radiance, build
from treadle.fields.nerf.pixels import Seen
from treadle.fields.nerf.placing import Box, SomePhotographs, find_box, placed
from treadle.fields.nerf.rate import RayRate
from treadle.fields.nerf.rays import CameraMotion
from treadle.fields.nerf.settings import NeRFConfig
from treadle.fields.nerf.sparse import shrink
from treadle.fields.offline import OfflineRenders
from treadle.fields.rays import Rays
from treadle.fields.rendering import render
from treadle.fields.tracer import Traced
from treadle.fields.warming import ask_once, compile_now
from treadle.hooks.examples import Examples
from treadle.hooks.timing import Timing
from treadle.images.display import write_png
from treadle.images.judging import HIGHER, as_pixels, measure
from treadle.images.lpips import lpips_metric
from treadle.images.panels import panel
from treadle.images.strips import STRIP, strip
from treadle.images.video import write_gif
from treadle.kernels.adam import Adam
from treadle.kernels.fields_warmup import STAGES, prepare
from treadle.kernels.threads import left_to_kernels
from treadle.reports.growth import course, growth
from treadle.reports.report import write_report
from treadle.reports.rows import Row
from treadle.reports.scene import cameras_in, scene_of
from treadle.reports.trainer_views import standing_of
from treadle.runs.models import At, find_model


class NeRFTrainer(Trainer):
    """Fit a radiance field to the photographs of a scene.

    Args:
        data: a `Capture`: photographs with their cameras; None takes a scene of our own (`procedural_capture`).
        config, hooks, settings: as for every `Trainer`.

    Example:
        trainer = NeRFTrainer(data=read_capture("lego"), max_steps=3000)
        trainer.train()
        picture = trainer.model.look(trainer.capture.test.cameras[0], torch.ones(3)).image
    """

    Config: ClassVar[type[TrainerConfig]] = NeRFConfig
    transient: ClassVar[tuple[str, ...]] = ("capture", "given")
    one_scene: ClassVar[bool] = True

    def __init__(
        self,
        config: NeRFConfig | None = None,
        *,
        data: Capture | None = None,
        hooks: Sequence[Hook] = (),
        **settings: Any,
    ) -> None:
        self.given = load_capture(None, None) if data is None else data
        super().__init__(config, hooks=hooks, **settings)

    @classmethod
    def load_data(cls, config: Any, path: Path | None) -> dict[str, Any]:
        """The photographs at `path`: COLMAP's, Blender's or nerfstudio's; None takes a scene of our own."""
        return {"data": load_capture(config, path)}

    def setup(self) -> None:
        """Move the scene to where fields are; build field, tracer and optimizer, and what is learnt of photographs."""
        config = self.config
        if len(self.given.train) < 2:
            raise UsageError("there is one photograph to train on: a scene needs two at least, from different places")
        self.capture = settle(config, self.given)
        views = self.capture.train
        self.feed = RayFeed(views, config.batch_size, memory=config.memory_mb << 20, threads=max(2, config.workers))
        self.validation_feed = self.held_out(self.capture.validation, config.validate_views)
        self.test_feed = self.held_out(self.capture.test)
        self.background = Background.of(config.background, views)
        self.model = self.build_model()
        self.exposures = Exposures(len(views)) if config.exposure_rate is not None else None
        self.motion = CameraMotion(views.cameras) if config.pose_rate is not None else None
        self.objective = config.objective()
        self.optimizer = Adam(self.groups(), betas=(0.9, 0.99), eps=1e-15)
        self.rates = self.learning_rates()
        self.ema = EMA(self.model.field, config.ema) if config.ema is not None else None
        self.rate = RayRate(config.samples, config.first_rays, config.batch_size)
        self.timing = Timing()
        if self.device.type == "cpu":
            points = torch.zeros(2, 3)
            compile_now(
                {
                    "rays": partial(prepare, stages=STAGES[:3]),
                    "grid and decoders": partial(ask_once, self.model.field, points, points),
                }
            )
        held_out = self.validation_feed is not None
        self.add_hook_of("examples_every", lambda config: Examples.of(config.examples_every) if held_out else None)
        render: Any = type(self).offline
        self.add_hook_of("render_every", lambda config: OfflineRenders.of(config.render_every, render))

    def held_out(self, views: Photographs, count: int | None = None) -> ViewFeed | None:
        """The photographs that are held out, one after the other, or so many of them; None where there are none."""
        if not len(views):
            return None
        feed = ViewFeed(views if count is None else SomePhotographs(views, count), shuffle=False)
        feed.threads = max(1, self.config.workers)
        return feed

    def build_model(self) -> Radiance:
        """The field and its tracer. Override it for a field of your own."""
        return build(self.config, self.capture.to_input)

    def groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups: grid, decoders, and what is learnt of photographs."""
        config = self.config
        grid = {"name": "grid", "lr_scale": config.grid_rate}
        groups = parameter_groups(self.model.field, {"grid.*": grid, "*": {"name": "decoders"}})
        groups[1]["weight_decay"] = config.decay
        if self.motion is not None:
            groups.append({"name": "poses", "params": list(self.motion.parameters())})
        if self.exposures is not None:
            groups.append({"name": "exposures", "params": list(self.exposures.parameters())})
        return groups

    def learning_rates(self) -> list[LearningRate]:
        """The learning rate of each group."""
        config = self.config
        curves = {"poses": config.pose_rate, "exposures": config.exposure_rate}
        return [
            LearningRate(self.optimizer, curves.get(group["name"], config.learning_rate), group["name"])
            for group in self.optimizer.param_groups
        ]

    def pre_training(self) -> None:
        """Put what is to be known of the data into the journal."""
        super().pre_training()
        for note in self.capture.notes:
            self.note("data", said=note)

    # A step -------------------------------------------------------------------------------------------------------

    @left_to_kernels()
    def step(self, batch: Tensor) -> Mapping[str, Any]:
        """Trace the first rays of a batch, compare what is seen with the photographs, update, and prune when due."""
        count = min(self.rate.rays, len(batch))
        seen, share = self.own_rays(batch[:count])
        background = self.backgrounds(len(seen.origins), seen.before)
        traced = self.trace(seen, background)
        found = self.objective(**self.terms(traced, seen, background))
        loss = found.total
        if loss.requires_grad:
            self.minimize(found, self.optimizer, elements=share)
        elif share is not None:  # all rays go past whatever there is, but perhaps not those of others, who wait
            self.minimize(
                loss + torch.zeros((), device=loss.device, requires_grad=True), self.optimizer, elements=share
            )
        told = [traced.samples, 1.0, 0.0] if share is None else [traced.samples, share, share * loss.item()]
        samples, weight, sum_ = self.once(partial(self.change, count), torch.tensor([told], dtype=torch.float64))
        if share is not None:
            loss = torch.tensor(sum_ / max(weight, 1e-12))
        return {"loss": loss, "rays": count, "samples": samples / max(1, count)}

    def own_rays(self, numbers: Tensor) -> tuple[Seen, float | None]:
        """What this process, or part of the batch, takes of the rays `numbers`: those that are not ignored.

        And which share of all of them that is; None where nobody else has any.
        """
        feed: Any = self.feed
        several, alone = self.config.parts or self.loop.world.size, not self.config.parts and self.loop.world.size == 1
        own = slice(len(numbers) * self.batch_part // several, len(numbers) * (self.batch_part + 1) // several)
        seen: Seen = feed.rays(numbers[own])
        if seen.counts is not None:
            seen = seen.chosen(seen.counts)
        if alone:
            return seen, None
        kept = feed.counted(numbers)
        before, whole = (own.start, len(numbers)) if kept is None else (int(kept[: own.start].sum()), int(kept.sum()))
        return seen._replace(before=before), len(seen.origins) / max(1, whole)

    def change(self, count: int, told: Sequence[Tensor]) -> list[float]:
        """Once for a batch of `count` rays: follow how many samples these took, and prune and shrink when due.

        `told` has (1, 3) of each part of the batch: samples, its share, and its share of the loss. Returns the sums.
        """
        sums: list[float] = torch.cat(list(told)).sum(0).tolist()
        self.rate.tell(count, int(sums[0]))
        if self.finished.step >= self.config.prune_from and every(self.config.prune_every).due_after_step(
            self.finished
        ):
            self.prune()
        if every(self.config.shrink_every).due_after_step(self.finished):
            rows = shrink(self.model.field, self.model.occupancy, self.edit_rows)
            if rows:
                self.note("shrunk", rows=rows)
        return sums

    def backgrounds(self, count: int, before: int = 0) -> Tensor:
        """What is behind each of so many rays, (count, 3): where the background is random, a colour of its own.

        `before` rays of the batch come before them.
        """
        if self.background.trained is None:
            return torch.rand(before + count, 3, generator=self.generator("background"))[before:].to(self.device)
        return torch.tensor(self.background.trained, device=self.device).expand(count, 3)

    def trace(self, seen: Seen, background: Tensor) -> Traced:
        """What is seen along the rays of photographs, from where their cameras are by now taken to be."""
        origins, directions = seen.origins, seen.directions
        if self.motion is not None:
            origins, directions = self.motion(origins, directions, seen.views)
        lod = None
        if self.config.random_lod:
            levels = self.model.field.grid.levels
            chances = 2.0 ** torch.arange(levels)
            lod = int(torch.multinomial(chances, 1, generator=self.generator("lod")))
        generator = self.generator("rays")
        torch.rand(seen.before, generator=generator)  # what those before draw
        traced: Traced = self.model(
            Rays(origins, directions), ("color",), background=background, generator=generator, lod=lod
        )
        return traced

    def terms(self, traced: Traced, seen: Seen, background: Tensor) -> dict[str, Tensor]:
        """The values of the loss terms that this run has, as far as the photographs have what they compare with."""
        config, colors = self.config, traced.channels["color"]
        if self.exposures is not None:
            colors = self.exposures(seen.views, colors)
        found = {"color": losses.COLORS[config.loss](colors, seen.colors(background))}
        wanted = self.objective.terms
        if "opacity" in wanted and config.counts_opacity(self.progress):
            found["opacity"] = losses.opacity(traced.opacity, seen.alpha)
        if "distortion" in wanted:
            found["distortion"] = losses.mean(traced.extra["distortion"])
        if "depth" in wanted and seen.distances is not None:
            found["depth"] = losses.depth(traced.distance, traced.opacity, seen.distances)
        return {name: found[name] for name in wanted if name in found}

    @torch.no_grad()
    def prune(self) -> None:
        """Look where the scene is empty, and say so in the journal where that has changed much."""
        config, occupancy = self.config, self.model.occupancy
        before = occupancy.share
        occupancy.update(
            self.model.field.density,
            self.generator("prune"),
            step=config.step,
            share=1.0 if self.finished.step <= config.prune_after else 0.25,
            decay=config.prune_decay,
            threshold=config.prune_below,
        )
        after = occupancy.share
        if abs(after - before) > 0.1 * before:
            self.note("prune", occupied=round(after, 5), before=round(before, 5))

    @property
    def finished(self) -> Progress:
        """The run's counters, with the step under way as finished."""
        return replace(self.progress, step=self.progress.step + 1)

    def generator(self, purpose: str) -> torch.Generator:
        """A generator on the CPU that is a function of (seed, step, purpose)."""
        return torch.Generator().manual_seed(derive_seed(self.config.seed, purpose, self.progress.step))

    # Evaluation -----------------------------------------------------------------------------------------------------

    def elements(self, batch: Any) -> int:
        """Every view counts as one."""
        return 1

    def validation_step(self, view: View) -> Mapping[str, Any]:
        """PSNR, SSIM and L1 of a held-out view, seen from where its file says, in the colours that the field has."""
        return self.judged(self.look(view), view)

    def look(self, view: View) -> Picture:
        """A view as the field shows it."""
        return self.model.look(view.camera, self.background.in_tests(self.device))

    def judged(self, picture: Picture, view: View) -> dict[str, float]:
        """The figures of a view."""
        wanted = view.target(self.background.in_tests(self.device))
        corrected = self.motion is not None or self.exposures is not None
        return measure(picture.image, wanted.colors, mask=wanted.mask, object=view.object(), corrected=corrected)

    def strip(self, picture: Picture, view: View) -> list[Any]:
        """Target, render, error and depth of a view."""
        colors = view.colors(self.background.in_tests(self.device))
        return strip(picture.image, colors, picture.depth, picture.alpha)

    def rows(self, feed: Feed) -> Iterator[Row]:
        """Every view of `feed`, as far as a test goes: target, render, error, depth, and the figures."""
        distance = None if self.config.lpips_weights is None else lpips_metric(self.config.lpips_weights)
        for view in limit.iterate(feed, 0, limit=self.config.limit_test_batches):
            view = to_device(view, self.device)
            picture = self.look(view)
            figures = self.judged(picture, view)
            if distance is not None:
                colors = view.colors(self.background.in_tests(self.device))
                pair = (image.movedim(2, 0)[None] * 2 - 1 for image in (picture.image.clamp(0, 1), colors))
                (figures["lpips"],) = distance(*pair)
            pictures = dict(zip(STRIP, self.strip(picture, view), strict=True))
            yield Row(view.camera.name or f"{view.number:04d}", pictures, figures)

    def measured(self) -> dict[str, float]:
        """The means over all photographs that are held out for validation, however many are measured on the way."""
        means = Means()
        feed = self.held_out(self.capture.validation)
        for view in () if feed is None else feed.iterate(0):
            view = to_device(view, self.device)
            means.add(self.judged(self.look(view), view), 1.0)
        return means.result()

    def offline(self) -> dict[str, dict[str, Tensor]]:
        """All channels of the first held-out view, or of the first view."""
        feed = self.validation_feed
        camera = (self.capture.train if feed is None else feed.photographs).cameras[0]  # type: ignore[attr-defined]
        background = self.background.in_tests(self.device)
        return {camera.name or "0000": render(self.model, camera, background=background)}

    def examples(self) -> dict[str, Any]:
        """The first held-out view, at most 256 pixels wide and high: such pictures together show the growth."""
        assert isinstance(self.validation_feed, ViewFeed)
        camera = small_camera(self.validation_feed.photographs.cameras[0])
        return {"view": as_pixels(self.model.look(camera, self.background.in_tests(self.device)).image).numpy()}

    def views(self) -> dict[str, Any]:
        """The field from any camera, and held-out views beside their photographs."""
        from treadle.fields.nerf.live import HeldOutRadianceView, RadianceView

        background = self.background.in_tests(self.device)
        found: dict[str, Any] = {"field": RadianceView(self.model, self.capture, background)}
        feed = self.validation_feed or self.test_feed
        if isinstance(feed, ViewFeed):
            found["held out"] = HeldOutRadianceView(
                feed,
                self.model.looking(background),
                self.strip,
                self.judged,
                lambda view: view.colors(background),
                self.device,
                partial(standing_of, self),
            )
        return found

    def scenes(self) -> dict[str, Any]:
        """The cells in which something is, the capture's points, and the cameras that are trained on."""
        from treadle.fields.nerf.live import RadianceView

        view = RadianceView(self.model, self.capture, self.background.in_tests(self.device))
        return {"field": scene_of(view, **cameras_in(self.capture.train.cameras))}

    def report(self, directory: Path) -> dict[str, Any]:
        """Write a strip, a turntable and the growth into `directory`; returns figures and paths."""
        found: dict[str, Any] = {**self.validation_metrics, "step": str(self.timing.steps)}
        found["occupied"] = f"{100 * self.model.occupancy.share:.2f}% of the cells"
        found["parameters"] = str(sum(parameter.numel() for parameter in self.model.parameters()))
        background = self.background.in_tests(self.device)
        with self.evaluating():
            if self.config.validate_views is not None and len(self.capture.validation):
                found |= self.measured()
            if self.validation_feed is not None:
                views = [to_device(view, self.device) for view in spread(self.validation_feed)]
                found["strip"] = directory / "strip.png"
                write_png(found["strip"], panel([self.strip(self.look(view), view) for view in views], STRIP))
            cameras = [small_camera(camera) for camera in around(self.capture, self.config.turntable)]
            if cameras:
                found["turntable"] = directory / "turntable.gif"
                write_gif(found["turntable"], (as_pixels(self.model.look(camera, background).image).numpy()
                                               for camera in cameras), 16)  # fmt: skip
        if self.run is not None:
            found["rays a step"] = course(self.run.path, "rays", self.config.first_rays, self.rate.rays)
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
                description=f"{self.shown_model}: a radiance field over {self.background}",
                sort_by="psnr",
                higher=HIGHER,
            )
        return found

    @classmethod
    def exporters(cls) -> dict[str, Any]:
        """A mesh, videos, and the field made small."""
        from treadle.fields.nerf.exporters import radiance_exporters
        from treadle.fields.nerf.scene import trained_scene

        return radiance_exporters(partial(trained_scene, cls))

    @classmethod
    def load_model(cls, run: str | Path, *, at: At | None = None) -> Radiance:
        """The field and its tracer of a run's best model: `load_model("runs/nerf/v001").look(camera, white)`.

        Its own coordinates are those in which the scene's box is [-1, 1]^3; its `to_input` leads back.
        `at` names another: the step of one that is kept, or "final". Raises UsageError where the run has no such model,
        or none of this trainer's.
        """
        found = find_model(run, at, cls.preferred_model)
        weights = found.of("model")
        if "to_input" not in weights:
            raise UsageError(f"{run} is not the run of a radiance field: its model has no to_input")
        model = build(found.config(cls.Config))
        model.load_state_dict(weights)
        return model.eval()


def settle(config: Any, capture: Capture) -> Capture:
    """Decide what settings leave open about a scene, in `config` itself; the capture with the scene in [-1, 1]^3."""
    if config.box is None:
        box = find_box(capture)
        config.box = (*box.center, box.half)
    if config.bound is None:
        config.bound = 1.0 if capture.train[0].pixels.shape[2] == 4 else 4.0
    alone = config.bound == 1
    if config.background == "auto":
        config.background = "random"
    if config.near is None:
        config.near = 0.0 if alone else 0.1
    if config.cone is None:
        config.cone = 0.0 if alone else 1 / 64
    if config.prune_from is None:
        config.prune_from = 16 if alone else 160
    return placed(capture, Box(config.box[:3], config.box[3]))
