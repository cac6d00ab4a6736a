"""Whole lines as a few numbers: an autoencoder, trained without a volume, to tell usual lines from unusual ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from treadle.config.settings import require, setting
from treadle.engine.events import Hook
from treadle.engine.lr import LearningRate
from treadle.engine.settings import TrainerConfig
from treadle.engine.trainer import Trainer
from treadle.errors import UsageError
from treadle.images.display import write_png
from treadle.runs.best import best_config, read_best
from treadle.tracts import panels
from treadle.tracts.batch import LineBatch
from treadle.tracts.data import load_tracts
from treadle.tracts.feeds.settings import LinesSettings
from treadle.tracts.feeds.tract_feed import TractFeed
from treadle.tracts.models.autoencoder import AutoencoderSettings, LineAutoencoder
from treadle.tracts.settings import UpdateSettings
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import Subject, TractData


@dataclass(kw_only=True)
class LineAutoencoderConfig(AutoencoderSettings, UpdateSettings, LinesSettings, TrainerConfig):
    """Settings of `LineAutoencoderTrainer`."""

    batch_size: int = setting(100, common=True)
    """How much a batch holds at most, in `batch_units`; a line that is longer than that is a batch of its own."""

    def __post_init__(self) -> None:
        """Check types and ranges, and what must fit together; raises UsageError naming the field."""
        super().__post_init__()
        require(self, "drop_last", not self.drop_last, "false, every line comes in every epoch (see max_batches)")
        for name in ("step_size", "compress"):
            if getattr(self, name) is not None:
                raise UsageError(
                    f"{name} is {getattr(self, name)}: expected null, lines have {self.points} points here"
                )
        if self.nb_points not in (None, self.points):
            raise UsageError(f"nb_points is {self.nb_points}: expected null, or {self.points} as points")
        if self.split > 0:
            raise UsageError(f"split is {self.split}: expected 0, an autoencoder sees whole lines")


class LineAutoencoderTrainer(Trainer):
    """Bring whole streamlines to a few numbers and back (FINTA, Legarreta et al. 2021).

    Lines are seen in millimetres from the middle of the volume, in units of half of its longest side.

    Args:
        data, config, hooks, settings: as for `TractsTrainer`; no volume is read.
    """

    Config: ClassVar[type[TrainerConfig]] = LineAutoencoderConfig
    transient: ClassVar[tuple[str, ...]] = ("tracts",)

    def __init__(
        self,
        config: LineAutoencoderConfig | None = None,
        *,
        data: TractData | None = None,
        hooks: Sequence[Hook] = (),
        **settings: Any,
    ) -> None:
        self.tracts = load_tracts(None) if data is None else data
        super().__init__(config, hooks=hooks, **settings)

    @classmethod
    def load_data(cls, config: Any, path: Path | None) -> dict[str, Any]:
        """The subjects of a file that `treadle tracts prepare` wrote; None takes phantoms of our own."""
        return {"data": load_tracts(path)}

    def setup(self) -> None:
        """Build the feeds, the autoencoder and its optimizer."""
        config, tracts = self.config, self.tracts
        if not tracts.training:
            raise UsageError(f"{tracts.path or 'the data'} has no subject to train on: training_subjs is empty")
        config.lines = config.lines or tracts.training[0].only("lines")
        self.feed = self.feed_of(tracts.training, training=True)
        self.validation_feed = self.feed_of(tracts.validation) if tracts.validation else None
        self.test_feed = self.feed_of(tracts.testing) if tracts.testing else None
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
        first = self.tracts.training[0].lines[self.config.lines].space
        sizes, shape = first.voxel_sizes, np.array(first.shape)
        points = batch.points * batch.points.new_tensor(sizes) - batch.points.new_tensor(shape * sizes / 2)
        return points.reshape(-1, self.config.points, 3) / float((shape * sizes).max() / 2)

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
        found = self.model(lines)
        first = self.tracts.training[0].lines[self.config.lines].space
        unit = float((np.array(first.shape) * first.voxel_sizes).max() / 2)
        return {"loss": (found - lines).square().mean(), "distance": (found - lines).norm(dim=2).mean() * unit}

    def report(self, directory: Path) -> dict[str, Any]:
        """Write a picture of held-out lines, there and back above as they are; returns figures and its path."""
        found: dict[str, Any] = dict(self.validation_metrics)
        feed = self.test_feed or self.validation_feed
        if feed is None:
            return found
        assert isinstance(feed, TractFeed)
        subject = feed.subjects[0]
        space = subject.lines[self.config.lines].space
        with self.evaluating():
            batch: LineBatch = next(feed.iterate(0))
            mine = (batch.subject == 0).numpy()
            lines = self.lines_of(batch)
            sizes, shape = space.voxel_sizes, np.array(space.shape)
            unit = float((shape * sizes).max() / 2)
            pictures = []
            for each in (self.model(lines), lines):
                points = (each.cpu().numpy()[mine] * unit + shape * sizes / 2) / sizes
                drawn = panels.draw(Streamlines.of(list(points)), space)
                pictures.append(panels.picture(drawn))
        found["picture"] = directory / "lines.png"
        write_png(found["picture"], np.concatenate(pictures, axis=0))
        return found

    @classmethod
    def load_model(cls, run: str | Path) -> LineAutoencoder:
        """The autoencoder of a run's best state. Raises UsageError where the run has none."""
        config = best_config(run, cls.Config)
        model = LineAutoencoder(config.points, config.latent, config.channels)
        model.load_state_dict(read_best(run).of("model"))
        return model.eval()
