"""What a run tells: training metrics averaged over the log interval, pictures, text, and the journal."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from treadle.engine.events import Record
from treadle.engine.means import Meter, over
from treadle.engine.minimize import Minimizer
from treadle.engine.parts import Parts
from treadle.engine.progress import Progress
from treadle.engine.schedule import every as schedule
from treadle.parallel import ALONE, World
from treadle.terminal import say

JOURNAL_KEPT = 10_000
"""Journal entries kept in memory; a run on disk keeps all of them in its journal.jsonl."""


class Logbook:
    """Collects what a run logs and hands it to whoever listens to `on_log` and `on_journal`.

    Args:
        progress: the run's counters, noted with everything.
        parts: whose objectives are logged with the training metrics.
        fire: hands out, as `fire("on_log", record)`.
        minimizer: whose learning rates are logged too, and whose verdicts on gradients are read before they are.
        every: when the training metrics are averaged and logged; None never does, except at the end of an epoch.
        world: the processes whose metrics are logged together, all of them at the same steps.
    """

    def __init__(
        self,
        progress: Progress,
        parts: Parts,
        fire: Callable[..., None],
        minimizer: Minimizer,
        every: str | None,
        world: World = ALONE,
    ) -> None:
        self._progress, self._parts, self._fire, self._minimizer = progress, parts, fire, minimizer
        self.publish_every(every)
        self._published_at = -1
        self._asking = threading.local()  # after a run's end several threads may have something done
        self.meter = Meter()
        self._world = world
        self.metrics: dict[str, float] = {}
        """The newest training metrics."""
        self.journal: deque[dict[str, Any]] = deque(maxlen=JOURNAL_KEPT)

    def publish_every(self, every: str | None) -> None:
        """Log the training metrics so often from now on; None never does, except at the end of an epoch."""
        self._every = schedule(every)

    def add(self, outputs: Mapping[str, Any], elements: float) -> None:
        """A step is finished, and returned `outputs`."""
        self.meter.add(outputs, elements)

    def publish_if_due(self) -> None:
        """A step is finished and everybody has logged: log the means, where they are due."""
        if self._every.due_after_step(self._progress):
            self.publish()

    def end_epoch(self) -> None:
        """An epoch is finished: log its means, as the split "epoch"."""
        if self._every.due_after_epoch(self._progress):
            self.publish()
        updaters = self._minimizer.updaters
        if self._progress.epoch == 1 and updaters and not any(u.updates or u.micro_batches for u in updaters.values()):
            say("treadle: no optimizer has updated anything in this epoch: does step call minimize?")
            self.note("no update", optimizers=list(updaters))
        self.scalars("epoch", over(self._world, self.meter.take_epoch()).result())

    def publish(self) -> None:
        """Log the means since the last time, with the applied loss weights and learning rates, as the split "train"."""
        self._minimizer.check_device()
        means = over(self._world, self.meter.take_interval()).result()
        terms: dict[str, float] = {}
        objectives = self._parts.objectives
        for name, objective in objectives.items():
            prefix = f"{name}." if len(objectives) > 1 else ""
            terms |= {prefix + term: value for term, value in objective.flush(self._progress, self._world).items()}
        if not means and not terms:
            return
        # What is logged after the last step adds to that step's metrics instead of taking their place.
        before = self.metrics if self._published_at == self._progress.step else {}
        self._published_at = self._progress.step
        record = terms | means | self._minimizer.learning_rates()
        self.metrics = before | record
        self.scalars("train", record)

    def scalars(self, split: str, metrics: Mapping[str, float]) -> None:
        """Hand out named scalars of "train", "epoch", "validation" or "test"."""
        self._hand_out("scalars", split, dict(metrics))

    def image(self, name: str, image: Any) -> None:
        """Hand out a picture."""
        self._hand_out("image", name, image.detach().cpu().numpy() if isinstance(image, Tensor) else image)

    def text(self, name: str, text: str) -> None:
        """Hand out a text."""
        self._hand_out("text", name, text)

    def scene(self, name: str, scene: Any) -> None:
        """Hand out things in space."""
        self._hand_out("scene", name, scene)

    def _hand_out(self, kind: str, name: str, value: Any) -> None:
        self._fire("on_log", Record(kind, name, value, self._progress.step, self._progress.epoch))

    @property
    def client(self) -> str | None:
        """Who has asked for what is being done, in this thread; None where it is the run's own."""
        return getattr(self._asking, "client", None)

    @contextmanager
    def asked_by(self, client: str | None) -> Iterator[None]:
        """Within the block `client` is who asked: the entries say so. None says that the run does it by itself."""
        before, self._asking.client = self.client, client
        try:
            yield
        finally:
            self._asking.client = before

    def note(self, event: str, **fields: Any) -> None:
        """Add an entry to the journal, with step, epoch and time, and who asked for it."""
        client = self.client
        if client is not None:
            fields.setdefault("client", client)
        entry = {
            "event": event,
            "step": self._progress.step,
            "epoch": self._progress.epoch,
            "time": time.time(),
            **fields,
        }
        self.journal.append(entry)
        self._fire("on_journal", entry)
