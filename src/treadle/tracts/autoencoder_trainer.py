"""Whole lines as a few numbers: an autoencoder, trained without a volume, to tell usual lines from unusual ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from treadle.config.settings import require, setting
from treadle.data.batch import to_device
from treadle.engine.lr import LearningRate
from treadle.engine.settings import StartSettings, TrainerConfig
from treadle.errors import UsageError
from treadle.images.display import write_png
from treadle.runs.models import At, find_model
from treadle.tracts import panels
from treadle.tracts.batch import LineBatch
from treadle.tracts.feeds.settings import LinesSettings
from treadle.tracts.feeds.tract_feed import TractFeed
from treadle.tracts.lines_trainer import LinesTrainer
from treadle.tracts.models.autoencoder import AutoencoderSettings, LineAutoencoder
from treadle.tracts.settings import UpdateSettings
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import Subject

OF_DIRECTIONS = ("volume", "neighbourhood", "radius", "rings", "radius_units", "rotate", "pull", "noise_targets")
"""Settings of lines that are about a volume, or about directions to be told."""


@dataclass(kw_only=True)
class LineAutoencoderConfig(AutoencoderSettings, UpdateSettings, StartSettings, LinesSettings, TrainerConfig):
    """Settings of `LineAutoencoderTrainer`."""

    batch_size: int = setting(100, common=True)
    """How much a batch holds at most, in `batch_units`; a line that is longer than that is a batch of its own."""

    def __post_init__(self) -> None:
        """Check types and ranges, and what must fit together; raises UsageError naming the field."""
        super().__post_init__()
        require(self, "drop_last", not self.drop_last, "false, every line comes in every epoch (see max_batches)")
        for name in ("step_size", "compress"):
            require(self, name, getattr(self, name) is None, f"null, lines have points={self.points} here")
        for name in OF_DIRECTIONS:
            default = LineAutoencoderConfig.__dataclass_fields__[name].default
            require(self, name, getattr(self, name) == default, f"{json.dumps(default)}, it sees lines alone")
        if self.nb_points not in (None, self.points):
            raise UsageError(f"nb_points is {self.nb_points}: expected null, or {self.points} as points")
        if self.split > 0:
            raise UsageError(f"split is {self.split}: expected 0, an autoencoder sees whole lines")


@dataclass(frozen=True, eq=False)
class Box:
    """Where lines lie in a volume, in millimetres from its middle, in units of half of its longest side."""

    sizes: np.ndarray
    """(3,): mm of a voxel."""
    middle: np.ndarray
    """(3,): mm from the corner."""

    @property
    def unit(self) -> float:
        """mm."""
        return float(self.middle.max())

    @classmethod
    def of(cls, subjects: Sequence[Subject], lines: str) -> Box:
        """That of all subjects. Raises UsageError where their grids are of several sizes."""
        boxes = {subject.name: cls._of(subject.lines[lines].space) for subject in subjects if lines in subject.lines}
        first = next(iter(boxes.values()))
        for name, box in boxes.items():
            if not (np.allclose(box.sizes, first.sizes) and np.allclose(box.middle, first.middle)):
                raise UsageError(f"{name} has a grid of another size than {next(iter(boxes))}: prepare all alike")
        return first

    @classmethod
    def _of(cls, space: Space) -> Box:
        return cls(space.voxel_sizes, np.array(space.shape) * space.voxel_sizes / 2)

    def enter(self, points: Tensor) -> Tensor:
        """Points (..., 3) of voxel space as the autoencoder sees them."""
        return (points * points.new_tensor(self.sizes) - points.new_tensor(self.middle)) / self.unit

    def leave(self, points: Tensor) -> Tensor:
        """The way back."""
        return (points * self.unit + points.new_tensor(self.middle)) / points.new_tensor(self.sizes)


class LineAutoencoderTrainer(LinesTrainer):
    """Bring whole streamlines to a few numbers and back (FINTA, Legarreta et al. 2021).

    Lines are seen in millimetres from the middle of the volume, in units of half of its longest side; all subjects'
    grids have to be of one size.

    Args:
        data, config, hooks, settings: as for `TractsTrainer`; no volume is read.
    """

    Config: ClassVar[type[TrainerConfig]] = LineAutoencoderConfig
    transient: ClassVar[tuple[str, ...]] = (*LinesTrainer.transient, "box")

    def setup(self) -> None:
        """Build the feeds, the autoencoder and its optimizer."""
        super().setup()
        config = self.config
        self.box = Box.of([*self.tracts.training, *self.tracts.validation, *self.tracts.testing], config.lines)
        self.model = LineAutoencoder(config.points, config.latent, config.channels)
        self.optimizer = config.build_optimizer(self.model)
        self.rate = LearningRate(self.optimizer, config.learning_rate)

    def feed_of(self, subjects: Sequence[Subject], *, training: bool = False) -> TractFeed:
        """The batches of some subjects, lines alone: every point of them."""
        config = replace(self.config, nb_points=self.config.points)
        return TractFeed(
            subjects,
            config,
            training=training,
            ends=True,
            workers=config.workers,
            features=False,
            shuffle=config.shuffle,
        )

    def lines_of(self, batch: LineBatch) -> Tensor:
        """(n, points, 3): the lines of a batch as the autoencoder sees them."""
        return self.box.enter(batch.points).reshape(-1, self.config.points, 3)

    def step(self, batch: LineBatch) -> Mapping[str, Any]:
        """One update on the mean squared error of points."""
        loss = self.model.loss(self.lines_of(batch)).mean()
        self.minimize(loss, self.optimizer)
        return {"loss": loss}

    def elements(self, batch: LineBatch) -> int:
        """Lines."""
        return len(batch.lines)

    def validation_step(self, batch: LineBatch) -> Mapping[str, Any]:
        """The loss, and by how many millimetres points are off."""
        lines = self.lines_of(batch)
        off = self.model(lines) - lines
        return {"loss": off.square().mean(), "distance": off.norm(dim=2).mean() * self.box.unit}

    def views(self) -> dict[str, Any]:
        """Lines as they come back, and as they are."""
        from treadle.tracts.live import tract_views

        return tract_views(self)

    def scenes(self) -> dict[str, Any]:
        """Held-out lines as they come back by direction, and the volume's box, in RAS+ millimetres."""
        from treadle.tracts.live import tract_scenes

        return tract_scenes(self)

    def report(self, directory: Path) -> dict[str, Any]:
        """Write a picture of held-out lines, there and back above as they are; returns figures and its path."""
        found: dict[str, Any] = dict(self.validation_metrics)
        feed = self.test_feed or self.validation_feed
        if feed is None:
            return found
        assert isinstance(feed, TractFeed)
        space = feed.subjects[0].lines[self.config.lines].space
        with self.evaluating():
            batch: LineBatch = to_device(next(feed.iterate(0)), self.device)
            lines = self.lines_of(batch)[batch.subject == 0]
            both = [Streamlines.of(list(self.box.leave(each).cpu().numpy())) for each in (self.model(lines), lines)]
        pictures = [panels.picture(panels.draw(each, space)) for each in both]
        found["picture"] = directory / "lines.png"
        write_png(found["picture"], np.concatenate(pictures, axis=0))
        return found

    @classmethod
    def load_model(cls, run: str | Path, *, at: At | None = None) -> LineAutoencoder:
        """The autoencoder of a run's best state, or `at` another that is kept. Raises UsageError where it has none."""
        found = find_model(run, at, cls.preferred_model)
        config = found.config(cls.Config)
        model = LineAutoencoder(config.points, config.latent, config.channels)
        model.load_state_dict(found.of("model"))
        return model.eval()
