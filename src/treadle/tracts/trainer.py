"""Tractography: a network learns, from streamlines and what a scanner saw along them, where a line goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from treadle.engine.events import Hook
from treadle.engine.lr import LearningRate
from treadle.engine.settings import TrainerConfig
from treadle.engine.trainer import Trainer
from treadle.errors import UsageError
from treadle.kernels.threads import left_to_kernels
from treadle.tracts.batch import LineBatch
from treadle.tracts.data import load_tracts
from treadle.tracts.feeds.tract_feed import TractFeed
from treadle.tracts.judging import disagreement
from treadle.tracts.models.direction_model import build_direction_model
from treadle.tracts.settings import OF_GENERATION, TractsConfig
from treadle.tracts.subject import Subject, TractData

SMALL = 256
"""Neurons of a layer up to which a step takes one thread: two would mostly wait for each other."""


class TractsTrainer(Trainer):
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
    transient: ClassVar[tuple[str, ...]] = ("tracts",)
    occasional_metrics = tuple(OF_GENERATION)

    def __init__(
        self,
        config: TractsConfig | None = None,
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
        """Build the feeds, the network with its direction getter, and the optimizer."""
        config, tracts = self.config, self.tracts
        if not tracts.training:
            raise UsageError(f"{tracts.path or 'the data'} has no subject to train on: training_subjs is empty")
        config.volume = config.volume or tracts.training[0].only("volumes")
        config.lines = config.lines or tracts.training[0].only("lines")
        self.feed = self.feed_of(tracts.training, training=True)
        self.validation_feed = self.feed_of(tracts.validation) if tracts.validation else None
        self.test_feed = self.feed_of(tracts.testing) if tracts.testing else None
        self.model = build_direction_model(config, config, self.feed.inputs, config.neighbours)
        self.optimizer = config.build_optimizer(self.model)
        self.rate = LearningRate(self.optimizer, config.learning_rate)

    def feed_of(self, subjects: Sequence[Subject], *, training: bool = False) -> TractFeed:
        """The batches of some subjects; only training changes lines, and draws their order."""
        config = self.config
        return TractFeed(subjects, config, training=training, ends=config.ends, workers=config.workers)

    # A step -------------------------------------------------------------------------------------------------------

    def quiet(self) -> AbstractContextManager[None]:
        """Within, a small network takes one thread."""
        return left_to_kernels() if max(self.config.sizes) <= SMALL else nullcontext()

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
