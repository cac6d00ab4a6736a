"""Lines as a model tracks them at the moment, reference lines, and where it errs along these; see `live_lines`."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from time import perf_counter

import numpy as np
import torch

from treadle.data.batch import to_device
from treadle.reports.trainer_views import standing_of
from treadle.reports.views import Option, Sample, Value
from treadle.tracts.batch import LineBatch
from treadle.tracts.judging import judge
from treadle.tracts.live_lines import (
    IN_A_PIECE,
    PALE,
    JudgedLines,
    LinesSource,
    Pieces,
    colored,
    evenly,
    none,
    reference_lines,
    samples_of,
)
from treadle.tracts.models.direction_model import DirectionModel
from treadle.tracts.panels import heat
from treadle.tracts.slices import Volume
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.tracking.model_propagator import ModelPropagator
from treadle.tracts.tracking.seeds import place_seeds
from treadle.tracts.tracking.settings import TrackingSettings
from treadle.tracts.tracking.tracker import Tracked, tracking
from treadle.tracts.trainer import TractsTrainer

FIRST_SEEDS = 64
"""Seeds that are tracked first, so that there is something to be seen soon."""
PIECE = 0.04
"""Seconds after which tracking pauses."""


class TrackedLines(LinesSource):
    """Lines tracked by the model as it is, the reference beside them, and where it errs along that."""

    shows = ("tracked", "reference", "errors", "directions")

    def __init__(self, trainer: TractsTrainer) -> None:
        config, subject = trainer.config, trainer.shown()
        self._trainer, self._subject = trainer, subject
        info = subject.volumes[config.volume]
        self.space, self.channels = info.space, info.features
        self._chosen = reference_lines(subject, config.lines)
        self.names = tuple(f"line {number}" for number in self._chosen.tolist())
        self._volume: Volume | None = None
        self._feed = trainer.feed_of([subject])
        self._reference: Streamlines | None = None
        standing = partial(standing_of, trainer)
        self._tracked, self._judged = Pieces(self._track, standing), Pieces(self._judge, standing)
        self._single = Pieces(self._track_again, standing)

    def options(self) -> Sequence[Option]:
        """With how many seeds there are."""
        seeds = Option("seeds", "Seeds", "range", 256.0, low=64.0, high=2048.0, step=64.0)
        return *super().options(), seeds

    def volume(self) -> Volume:
        """What the model sees."""
        if self._volume is None:
            self._volume = Volume(self._subject.volume(self._trainer.config.volume), self.space)
        return self._volume

    def reference(self) -> Streamlines:
        """The reference lines, in voxel space."""
        if self._reference is None:
            self._reference = self._subject.streamlines(self._trainer.config.lines, self._chosen)
        return self._reference

    def go_on(self, options: Mapping[str, Value]) -> bool:
        """Track from some more seeds, or judge some more lines."""
        number = self.chosen(options)
        if number is not None:
            return self._judged.go_on() and self._single.go_on(number)
        if options["show"] == "tracked":
            return self._tracked.go_on(int(options["seeds"]))
        return options["show"] == "reference" or self._judged.go_on()

    def lines(self, options: Mapping[str, Value]) -> Streamlines:
        """What is chosen; of one reference line itself (pale), what is tracked from its middle, and what is said."""
        number, judged, show = self.chosen(options), self._judged.found, options["show"]
        if number is not None:
            line = self.reference().select(np.array([number]))
            parts = [colored(line, self.space, np.tile(PALE, (len(line.points), 1)))]
            if judged is not None and number < len(judged.directions):
                parts.append(judged.directions[number])
            if self._single.found is not None:
                parts.append(self._single.found[0])
            return Streamlines.concatenate(parts)
        most = int(options["most"])
        if show == "tracked":
            return none() if self._tracked.found is None else evenly(self._tracked.found[0], most)
        if show == "reference":
            return evenly(colored(self.reference(), self.space), most)
        if judged is None or not judged.errors:
            return none()
        shown = judged.errors if show == "errors" else judged.directions
        return Streamlines.concatenate(shown[:: max(1, -(-len(shown) // most))])

    def figures(self, options: Mapping[str, Value]) -> dict[str, float]:
        """How many lines are shown, and of the model after how many steps; of a chosen line its errors."""
        number, judged = self.chosen(options), self._judged.found
        found: dict[str, float] = {}
        if number is not None and judged is not None and number < len(judged.figures):
            found |= judged.figures[number]
        if number is not None and self._single.found is not None:
            found |= self._single.found[1]
        tracked = self._tracked.found
        if number is None and options["show"] == "tracked" and tracked is not None:
            found = {"lines": float(len(tracked[0])), **tracked[1]}
        return found

    def samples(self) -> Iterator[Sample]:
        """The reference lines, with 1 - cos of the angle by which the model is off, a mean over points."""
        yield from samples_of(self.names, self._judged)

    def version(self) -> Hashable:
        """See `LinesSource`."""
        return self._tracked.version, self._judged.version, self._single.version

    def _frozen(self) -> tuple[DirectionModel, int]:
        """A copy of the model as it is: what is made in pieces is to be of one state, also while the run goes on."""
        return copy.deepcopy(self._trainer.model), self._trainer.progress.step

    def _propagator(self, model: DirectionModel) -> ModelPropagator:
        loaded = self._trainer.tracking_model()
        return ModelPropagator(model, self.volume().tensor, loaded.offsets(self.space))

    def _track(self, count: int) -> Iterator[tuple[tuple[Streamlines, dict[str, float]], bool]]:
        trainer = self._trainer
        model, step = self._frozen()
        ground = trainer.ground
        seeds = place_seeds(ground.seeding, seed=trainer.config.seed, total=count)
        propagator, parts = self._propagator(model), [none()]
        told = {"seeds": 0.0, "of step": float(step)}
        tracked = none()
        for begin, end in pairwise(sorted({0, min(FIRST_SEEDS, count), count})):
            numbers = np.arange(begin, end)
            for made in self._tracking(propagator, seeds, numbers, trainer.tracking()):
                if made is None:
                    yield (tracked, told), False
                else:
                    parts.append(colored(made.lines, self.space))
            tracked, told = Streamlines.concatenate(parts), told | {"seeds": float(end)}
            yield (tracked, told), end == count

    def _tracking(
        self, propagator: ModelPropagator, seeds: np.ndarray, numbers: np.ndarray, settings: TrackingSettings
    ) -> Iterator[Tracked | None]:
        """None for each piece of a batch, then what has been tracked."""
        trainer = self._trainer
        steps = tracking(
            propagator, seeds, numbers, self.space, trainer.ground.mask, settings, seed=trainer.config.seed
        )
        while True:
            until = perf_counter() + PIECE
            with trainer.quiet():
                while perf_counter() < until:
                    try:
                        next(steps)
                    except StopIteration as end:
                        yield end.value
                        return
            yield None

    def _track_again(self, number: int) -> Iterator[tuple[tuple[Streamlines, dict[str, float]], bool]]:
        trainer = self._trainer
        model, _ = self._frozen()
        line = self.reference()[number]
        middle = line[[len(line) // 2]]
        settings = replace(trainer.tracking(), shortest=0.0)
        for made in self._tracking(self._propagator(model), middle, np.arange(1), settings):
            if made is None:
                yield (none(), {}), False
                continue
            lines = colored(made.lines, self.space)
            yield (lines, {"endpoint_distance": self._ends_off(made.lines, line)}), True

    def _ends_off(self, made: Streamlines, line: np.ndarray) -> float:
        """Millimetres from the ends of a line to those of what was tracked from its middle, the way round that fits."""
        middle = line[[len(line) // 2]]
        ends = made[0][[0, -1]] if len(made) else np.repeat(middle, 2, axis=0)
        off = [np.linalg.norm((way - line[[0, -1]]) * self.space.voxel_sizes, axis=1).mean()
               for way in (ends, ends[::-1])]  # fmt: skip
        return float(min(off))

    def _judge(self, _: int) -> Iterator[tuple[JudgedLines, bool]]:
        trainer = self._trainer
        model, step = self._frozen()
        model, getter = model.eval(), copy.deepcopy(model.getter).cpu()
        found = JudgedLines(step)
        info = self._subject.volumes[trainer.config.volume]
        said: list[np.ndarray] = []

        def call(batch: LineBatch) -> torch.Tensor:
            moved = to_device(batch, trainer.device)
            parameters: torch.Tensor = model(moved.features, moved.previous, moved.offsets).cpu()
            said.append(getter.direction(parameters).numpy())
            return parameters

        for begin in range(0, len(self._chosen), IN_A_PIECE):
            some = self._chosen[begin : begin + IN_A_PIECE]
            with trainer.quiet(), torch.no_grad():
                batch: LineBatch = self._feed.gather(0, some)
                judged = judge(call, getter, [batch], info.features, info.kind)
            self._add(found, judged.angle, judged.loss, judged.offsets, judged.points, said.pop(), batch)
            yield found, begin + len(some) == len(self._chosen)

    def _add(
        self, found: JudgedLines, angle: np.ndarray, loss: np.ndarray, offsets: np.ndarray, points: np.ndarray,
        said: np.ndarray, batch: LineBatch,
    ) -> None:  # fmt: skip
        """Add lines, whose numbers rise, as those of the batch do."""
        assert (np.diff(batch.lines.numpy()) > 0).all()
        world = self.space.to_world(points)
        ahead = self.space.to_world(points + said / self.space.voxel_sizes) - world
        ahead /= np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-9)
        reach = self.space.voxel_sizes.mean()
        for begin, end in pairwise(offsets.tolist()):
            rows = slice(begin, end)
            known = angle[rows][~np.isnan(angle[rows])]
            own = loss[rows][~np.isnan(loss[rows])]
            found.figures.append(
                {"angle": float(known.mean()) if len(known) else 0.0, "loss": float(own.mean()) if len(own) else 0.0}
            )
            hot = heat(np.nan_to_num(angle[rows]) / 0.15) * 255  # 1 - cos of 32 degrees
            found.errors.append(colored(Streamlines.of([world[rows]]), None, hot))
            pairs = np.stack([world[rows], world[rows] + reach * ahead[rows]], axis=1)
            found.directions.append(colored(Streamlines.of(list(pairs)), None))
