"""Tractography: a network learns, from streamlines and what a scanner saw along them, where a line goes on."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from treadle.data import limit
from treadle.data.batch import to_device
from treadle.data.feed import Feed
from treadle.engine.lr import LearningRate
from treadle.engine.schedule import every
from treadle.engine.settings import TrainerConfig
from treadle.errors import UsageError
from treadle.hooks.examples import Examples
from treadle.kernels.threads import left_to_kernels
from treadle.reports.growth import growth
from treadle.reports.report import write_report
from treadle.runs.models import At, find_model
from treadle.tracts import panels
from treadle.tracts.batch import LineBatch
from treadle.tracts.data import Ground, ground_of
from treadle.tracts.extras import extra
from treadle.tracts.feeds.tract_feed import TractFeed
from treadle.tracts.files import read_streamlines
from treadle.tracts.generation import Held, generate, hold
from treadle.tracts.judging import Judged, disagreement, groups_of, judge
from treadle.tracts.lines_trainer import LinesTrainer
from treadle.tracts.loaded import Facts, TrackingModel
from treadle.tracts.models.direction_model import build_direction_model
from treadle.tracts.report import report_tracking, rows_of, write_judged
from treadle.tracts.resampling import compress
from treadle.tracts.settings import OF_GENERATION, TractsConfig
from treadle.tracts.subject import MemorySubject, Subject
from treadle.tracts.tracking.model_propagator import ModelPropagator
from treadle.tracts.tracking.seeds import place_seeds
from treadle.tracts.tracking.settings import TrackingSettings
from treadle.tracts.tracking.tracker import track

SMALL = 256
"""Neurons of a layer up to which a step takes one thread: two would mostly wait for each other."""


class TractsTrainer(LinesTrainer):
    """Learn the next direction along streamlines.

    Args:
        data: subjects with volumes and streamlines (`open_prepared`, or some `MemorySubject`); None takes phantoms of
            our own.
        config, hooks, settings: as for every `Trainer`.

    Example:
        trainer = TractsTrainer(data=open_prepared("brains.h5"), max_epochs=20, model="gru")
        trainer.train()
    """

    Config: ClassVar[type[TrainerConfig]] = TractsConfig
    transient: ClassVar[tuple[str, ...]] = (*LinesTrainer.transient, "generation", "held", "ground")
    occasional_metrics = tuple(OF_GENERATION)

    @classmethod
    def load_data(cls, config: Any, path: Path | None) -> dict[str, Any]:
        """The subjects of a file that `treadle tracts prepare` wrote; None takes phantoms of our own."""
        if config.track_seeds:
            extra("nibabel", "tracks.trk")  # now, and not when a run has ended
        return super().load_data(config, path)

    def setup(self) -> None:
        """Build the feeds, the network with its direction getter, and the optimizer."""
        config, tracts = self.config, self.tracts
        if tracts.training:
            config.volume = config.volume or tracts.training[0].only("volumes")
        super().setup()
        assert isinstance(self.feed, TractFeed)
        self.model = build_direction_model(config, config, self.feed.inputs, config.neighbours)
        self.facts = Facts(self.feed.inputs, self.mean_step())
        self.optimizer = config.build_optimizer(self.model)
        self.rate = LearningRate(self.optimizer, config.learning_rate)
        self.generation = every(config.generate_every)
        self.held: list[Held] = []
        if config.generate_every is not None:
            self.held = hold(tracts.validation, config.lines, config.volume, config.generate_lines, config.regions)
        if config.monitor in OF_GENERATION and not self.held:
            raise UsageError(f"monitor is {config.monitor!r}, and there is no line to validate on: set monitor=loss")
        self.add_hook_of("examples_every", lambda config: Examples.of(config.examples_every))

    def feed_of(self, subjects: Sequence[Subject], *, training: bool = False) -> TractFeed:
        """The batches of some subjects; only training changes lines, and draws their order."""
        config = self.config
        return TractFeed(
            subjects, config, training=training, ends=config.ends, workers=config.workers, shuffle=config.shuffle
        )

    def mean_step(self) -> float:
        """mm from point to point of the lines that are trained on."""
        config = self.config
        if config.step_size is not None:
            return float(config.step_size)
        if config.compress is not None:  # only the lines themselves tell how many points are left: some of them do
            subject = self.tracts.training[0]
            info = subject.lines[config.lines]
            some = np.unique(np.linspace(0, len(info.lengths) - 1, min(len(info.lengths), 1000)).astype(np.int64))
            lines = compress(subject.streamlines(config.lines, some), config.compress, info.space.voxel_sizes)
            steps = int(np.maximum(lines.lengths - 1, 0).sum())
            return max(float(lines.millimetres(info.space.voxel_sizes).sum()) / max(steps, 1), 1e-3)
        infos = [subject.lines[config.lines] for subject in self.tracts.training]
        points = [info.lengths if config.nb_points is None else np.full_like(info.lengths, config.nb_points)
                  for info in infos]  # fmt: skip
        steps = sum(int(np.maximum(count - 1, 0).sum()) for count in points)
        return max(sum(float(info.millimetres.sum()) for info in infos) / max(steps, 1), 1e-3)

    # A step -------------------------------------------------------------------------------------------------------

    def quiet(self) -> AbstractContextManager[None]:
        """Within, a small network takes one thread."""
        return left_to_kernels() if self.model.model.width <= SMALL else nullcontext()

    def step(self, batch: LineBatch) -> Mapping[str, Any]:
        """One update on what the getter finds wrong, a mean over points."""
        with self.quiet():
            parameters = self.model(batch.features, batch.previous, batch.offsets)
            found = self.losses(parameters, self.targets(parameters, batch), batch.last)
            self.minimize(found["loss"], self.optimizer)
        return found

    def targets(self, parameters: Tensor, batch: LineBatch) -> Tensor:
        """(p, 3): the directions to be told; where a line begins, with the sense that is told, if either is right."""
        if self.config.first_direction == "as_is":
            return batch.targets
        with torch.no_grad():
            at = batch.offsets[:-1].to(batch.targets.device)
            along = (self.model.getter.direction(parameters[at]) * batch.targets[at]).sum(dim=1, keepdim=True)
        targets = batch.targets.clone()
        targets[at] *= torch.where(along < 0, -1.0, 1.0)
        return targets

    def losses(self, parameters: Tensor, targets: Tensor, last: Tensor) -> dict[str, Tensor]:
        """The loss of a batch; where ends are learnt apart, its parts, too."""
        direction, end = self.model.getter.loss(parameters, targets, last)
        if end is None:
            return {"loss": direction.mean()}
        return {"loss": direction.mean() + end.mean(), "direction": direction.mean(), "end": end.mean()}

    def elements(self, batch: LineBatch) -> int:
        """Points: the losses of batches are weighted by them."""
        return len(batch.points)

    def validation_step(self, batch: LineBatch) -> Mapping[str, Any]:
        """The loss, and by how much the likeliest direction misses the line's: `angle`, 1 - cos."""
        with self.quiet():
            parameters = self.model(batch.features, batch.previous, batch.offsets)
            targets = self.targets(parameters, batch)
            found = self.losses(parameters, targets, batch.last)
            angle = disagreement(self.model.getter.direction(parameters), targets)[~batch.last]
        return found | {"angle": angle.mean()}

    def post_epoch(self) -> None:
        """Tell the journal how often a volume was still there: no metric, for a process that resumes has read none."""
        super().post_epoch()
        assert isinstance(self.feed, TractFeed)
        if self.feed.hits is not None:
            self.note("volume cache", hits=round(self.feed.hits, 3))

    # Tracking ------------------------------------------------------------------------------------------------------

    def post_validation(self, metrics: dict[str, float]) -> None:
        """Where it is due, and in the run's final state, see where tracked lines end."""
        super().post_validation(metrics)
        progress = self.progress
        final = progress.at_limit or progress.step == progress.total_steps  # the epoch may not be counted yet
        if self.held and (final or self.generation.due_between_steps(progress)):
            settings = replace(self.tracking(), shortest=0.0)
            with self.quiet():
                metrics |= generate(self.held, self.propagator, settings, seed=self.config.seed)

    def tracking(self) -> TrackingSettings:
        """How lines are tracked here."""
        config = self.config
        step = float(self.facts.step) if config.track_step is None else config.track_step
        return TrackingSettings(
            step=step, theta=config.track_theta, shortest=config.track_shortest, total=max(1, config.track_seeds)
        )

    def propagator(self, subject: Subject) -> ModelPropagator:
        """The model in a subject's volume."""
        loaded = self.tracking_model()
        volume = torch.from_numpy(np.ascontiguousarray(subject.volume(self.config.volume)))
        return ModelPropagator(loaded.model, volume, loaded.offsets(subject.volumes[self.config.volume].space))

    def tracking_model(self) -> TrackingModel:
        """The model as it is now, as `load_model` returns the best one."""
        return TrackingModel(self.model, self.config, float(self.facts.step))

    # What it came to -----------------------------------------------------------------------------------------------

    def shown(self) -> Subject:
        """The subject that pictures are of: one that nothing was learnt from, where there is one."""
        return [*self.tracts.testing, *self.tracts.validation, *self.tracts.training][0]

    @cached_property
    def ground(self) -> Ground:
        """Where that one is tracked."""
        return ground_of(self.shown(), self.config.volume, self.config.lines)

    def examples(self) -> dict[str, Any]:
        """Lines tracked in the subject that is shown, from a tenth of the seeds."""
        subject, ground = self.shown(), self.ground
        space = subject.volumes[self.config.volume].space
        seeds = place_seeds(ground.seeding, seed=self.config.seed, total=max(50, self.config.track_seeds // 10))
        tracked = track(self.propagator(subject), seeds, space, ground.mask, self.tracking(), seed=self.config.seed)
        return {"view": panels.picture(panels.draw(tracked.lines, space, views=("axial", "corner"), size=256))}

    def views(self) -> dict[str, Any]:
        """Tracked lines, reference lines and errors, in space and over slices of the volume."""
        from treadle.tracts.live import tract_views

        return tract_views(self)

    def scenes(self) -> dict[str, Any]:
        """Lines tracked from some seeds by direction, and the volume's box, in RAS+ millimetres."""
        from treadle.tracts.live import tract_scenes

        return tract_scenes(self)

    def report(self, directory: Path) -> dict[str, Any]:
        """Track the subject that is shown; write `tracks.trk`, a picture, scores where the truth is known."""
        found: dict[str, Any] = dict(self.validation_metrics)
        if self.config.track_seeds:
            subject = self.shown()
            volume, lines = self.config.volume, self.config.lines
            space = subject.volumes[volume].space
            with self.evaluating(), self.quiet():
                found |= report_tracking(
                    directory, self.propagator(subject), space, self.ground, self.tracking(),
                    real=subject.streamlines(lines), behind=subject.volume(volume)[..., 0], seed=self.config.seed,
                )  # fmt: skip
        if self.run is not None:
            grown = growth(directory / "growth.gif", self.run.path / "examples")
            found |= {} if grown is None else {"growth": grown}
        return found

    def judge(self, feed: Feed) -> Judged:
        """Every point of `feed`, as far as a test goes, beside copying and the principal axis of diffusion."""
        subject, name = self.tracts.training[0], self.config.volume
        info = subject.volumes[name]

        def call(batch: LineBatch) -> Tensor:
            moved = to_device(batch, self.device)
            parameters: Tensor = self.model(moved.features, moved.previous, moved.offsets)
            return parameters.cpu()

        with self.evaluating(), self.quiet():
            batches = limit.iterate(feed, 0, limit=self.config.limit_test_batches)
            return judge(call, copy.deepcopy(self.model.getter).cpu(), batches, info.features, info.kind)

    def test_report(self, directory: Path, feed: Feed) -> dict[str, Any]:
        """Judge every point of `feed`; writes tables, a page, and the lines with their errors as TRK."""
        assert isinstance(feed, TractFeed)
        subjects = feed.subjects
        spaces = [subject.volumes[self.config.volume].space for subject in subjects]
        judged = self.judge(feed)
        names = [subject.name for subject in subjects]
        with self.evaluating():
            found: dict[str, Any] = write_report(
                directory,
                rows_of(judged, spaces, groups_of(judged, subjects, self.config.lines)),
                title=f"Test of {directory.parent.parent.name}/{directory.parent.name}",
                description=f"{self.shown_model}; 1 - cos of the angle to the line's next step: the model's, that of "
                "going straight on (copying), and that of the principal axis of diffusion",
                sort_by="angle",
                overall=judged.figures,
            )
        write_judged(directory, judged, spaces, names)
        return found | {"lines": len(judged.lines)}

    def feed_of_lines(self, path: Path) -> TractFeed:
        """The streamlines of a file, in the subject that is shown, to be judged by `test_report`."""
        subject = self.shown()
        given, space = read_streamlines(path, subject.volumes[self.config.volume].space)
        if not (given.lengths >= 2).any():
            raise UsageError(f"{path} has no streamlines of two points or more: there is nothing to judge")
        volume = subject.volume(self.config.volume), subject.volumes[self.config.volume].kind
        return self.feed_of(
            [MemorySubject(subject.name, space, {self.config.volume: volume}, {self.config.lines: given})]
        )

    @classmethod
    def load_model(cls, run: str | Path, *, at: At | None = None) -> TrackingModel:
        """The model of a run's best state, to track with (`treadle track` does).

        `at` names another: the step of one that is kept, or "final". Raises UsageError where the run has no such model,
        or none of this trainer's.
        """
        found = find_model(run, at, cls.preferred_model)
        return TrackingModel.of(found.config(cls.Config), found.of("model"), found.of("facts"))
