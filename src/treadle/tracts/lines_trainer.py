"""What trainers on streamlines share: the subjects, and a feed for each part of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from treadle.engine.events import Hook
from treadle.engine.settings import TrainerConfig
from treadle.engine.trainer import Trainer
from treadle.errors import UsageError
from treadle.tracts.data import load_tracts
from treadle.tracts.feeds.tract_feed import TractFeed
from treadle.tracts.subject import Subject, TractData


class LinesTrainer(Trainer):
    """A trainer whose data are subjects with streamlines.

    Args:
        data: subjects (`open_prepared`, or some `MemorySubject`); None takes phantoms of our own.
        config, hooks, settings: as for every `Trainer`.
    """

    transient: ClassVar[tuple[str, ...]] = ("tracts",)

    def __init__(
        self,
        config: TrainerConfig | None = None,
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

    @abstractmethod
    def feed_of(self, subjects: Sequence[Subject], *, training: bool = False) -> TractFeed:
        """The batches of some subjects; only training changes lines, and draws their order."""

    def setup(self) -> None:
        """Settle which lines are meant, and build the feeds. Raises UsageError without a subject to train on."""
        tracts = self.tracts
        if not tracts.training:
            raise UsageError(f"{tracts.path or 'the data'} has no subject to train on: training_subjs is empty")
        self.config.lines = self.config.lines or tracts.training[0].only("lines")
        self.feed = self.feed_of(tracts.training, training=True)
        self.validation_feed = self.feed_of(tracts.validation) if tracts.validation else None
        self.test_feed = self.feed_of(tracts.testing) if tracts.testing else None
