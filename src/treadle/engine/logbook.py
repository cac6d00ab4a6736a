"""What a run tells: training metrics averaged over the log interval, pictures, text, and the journal."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from treadle.engine.attributes import find
from treadle.engine.events import Record
from treadle.engine.means import Meter
from treadle.engine.objective import Objective
from treadle.engine.schedule import Every

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer

JOURNAL_KEPT = 10_000
"""Journal entries kept in memory; a run on disk keeps all of them in its journal.jsonl."""


class Logbook:
    """Collects what a trainer logs and hands it to whoever listens to `on_log` and `on_journal`.

    Args:
        trainer: whose book it is.
        every: when the training metrics are averaged and logged; None never does, except at the end of an epoch.
    """

    def __init__(self, trainer: Trainer, every: str | None) -> None:
        self._trainer = trainer
        self._every = Every(every) if every else None
        self.meter = Meter()
        self.journal: deque[dict[str, Any]] = deque(maxlen=JOURNAL_KEPT)

    def step(self, outputs: Mapping[str, Any], elements: float) -> None:
        """A step is finished, and returned `outputs`."""
        self.meter.add(outputs, elements)
        if self._every is not None and self._every.due_after_step(self._trainer.progress):
            self.publish()

    def epoch(self) -> None:
        """An epoch is finished: log its means, as the split "epoch"."""
        trainer = self._trainer
        if self._every is not None and self._every.due_after_epoch(trainer.progress):
            self.publish()
        updaters = trainer.minimizer.updaters.values()
        if trainer.progress.epoch == 1 and updaters and not any(u.updates or u.micro_batches for u in updaters):
            print("treadle: no optimizer has updated anything in this epoch: does step call minimize?", file=sys.stderr)
            self.note("no update", {"optimizers": list(trainer.minimizer.updaters)})
        self.scalars("epoch", self.meter.take_epoch())

    def publish(self) -> None:
        """Log the means since the last time, with the applied loss weights and learning rates, as the split "train"."""
        trainer = self._trainer
        trainer.minimizer.check_device()
        means = self.meter.take_interval()
        terms: dict[str, float] = {}
        objectives = find(trainer, Objective)
        for name, objective in objectives.items():
            prefix = f"{name}." if len(objectives) > 1 else ""
            terms |= {prefix + term: value for term, value in objective.flush(trainer.progress).items()}
        if not means and not terms:
            return
        trainer.metrics = terms | means | trainer.minimizer.learning_rates()
        self.scalars("train", trainer.metrics)

    def scalars(self, split: str, metrics: Mapping[str, float]) -> None:
        """Hand out named scalars of "train", "epoch", "validation" or "test"."""
        self._hand_out("scalars", split, dict(metrics))

    def image(self, name: str, image: Any) -> None:
        """Hand out a picture."""
        self._hand_out("image", name, image.detach().cpu().numpy() if isinstance(image, Tensor) else image)

    def text(self, name: str, text: str) -> None:
        """Hand out a text."""
        self._hand_out("text", name, text)

    def _hand_out(self, kind: str, name: str, value: Any) -> None:
        progress = self._trainer.progress
        self._trainer.fire("on_log", Record(kind, name, value, progress.step, progress.epoch))

    def note(self, event: str, fields: Mapping[str, Any]) -> None:
        """Add an entry to the journal."""
        progress = self._trainer.progress
        entry = {"event": event, "step": progress.step, "epoch": progress.epoch, "time": time.time(), **fields}
        self.journal.append(entry)
        self._trainer.fire("on_journal", entry)
