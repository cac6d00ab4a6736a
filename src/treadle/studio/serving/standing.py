"""Where the run stands, told by reading its counters 20 times a second while somebody looks: no step pays for it."""

from __future__ import annotations

import math
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from treadle.engine.events import Record
from treadle.engine.lifecycle import Stage
from treadle.errors import one_line
from treadle.studio.protocol import Event, Failed, Journal, State
from treadle.studio.serving.control import Control
from treadle.studio.topics import Client, Live, Topic

RATE_SECONDS = 3.0
"""Over which the steps per second are measured."""
ENTRIES = 500
"""Of the journal, that a new client is told."""
LONGEST_TRACEBACK = 20_000


class Standing(Topic):
    """Tells `State`, the journal's entries and a failure.

    Args:
        live: the run.
        control: who holds control.
    """

    def __init__(self, live: Live, control: Control) -> None:
        self._live, self._control = live, control
        self._metrics: dict[str, float | None] = {}
        # A run that is resumed has logged before this began.
        for split, known in (("train", live.loop.logbook.metrics), ("validation", live.loop.validation_metrics)):
            self._note(split, known)
        self._told: tuple[Any, ...] = ()
        self._pace: deque[tuple[float, int]] = deque()
        self._failed: Failed | None = None

    def greeting(self, client: Client) -> Sequence[Event]:
        """The journal so far, and how the run failed."""
        entries = list(self._live.loop.logbook.journal)[-ENTRIES:]
        failed = [Failed(error=self._failed.error, traceback=self._failed.traceback)] if self._failed else []
        return [*(Journal(entry=entry) for entry in entries), *failed]

    def poll(self) -> None:
        """Tell how it stands, where that has changed."""
        live, lifecycle = self._live, self._live.loop.lifecycle
        counts, now = live.loop.counts, monotonic()
        pace = self._pace
        if pace and counts[1] < pace[-1][1]:
            pace.clear()  # it was rewound
        pace.append((now, counts[1]))
        while now - pace[0][0] > RATE_SECONDS:
            pace.popleft()
        busy = self._busy()
        limits = live.loop.progress.max_steps, live.loop.progress.max_epochs
        control = self._control.changes, self._control.label
        standing = (lifecycle.stage, lifecycle.reason, busy, counts, limits, control)
        told = (*standing, tuple(self._metrics.items()), round(live.drawing, 2))
        if told != self._told:
            self._told = told
            live.publisher.publish_latest(self._state(now))

    def _busy(self) -> str:
        """What ends before a command is obeyed, where that takes longer than a step."""
        under_way = self._live.loop.lifecycle.under_way
        return under_way if under_way in ("validation", "checkpoint", "rewind") else self._live.busy

    def _state(self, now: float) -> State:
        live, loop = self._live, self._live.loop
        epoch, step, batch = loop.counts
        progress, stage = loop.progress, loop.lifecycle.stage
        began, first = self._pace[0]
        rate = (step - first) / (now - began) if stage is Stage.RUNNING and now > began else 0.0
        total = progress.total_steps
        return State(
            stage=stage.value,
            reason=loop.lifecycle.reason,
            busy=self._busy(),
            step=step,
            epoch=epoch,
            batch=batch,
            batches=progress.batches_per_epoch,
            max_steps=progress.max_steps,
            max_epochs=progress.max_epochs,
            rate=rate,
            seconds=loop.lifecycle.seconds,
            seconds_left=(total - step) / rate if total is not None and rate > 0 else None,
            drawing=live.drawing,
            controller=self._control.label,
            metrics=dict(self._metrics),
        )

    def on_log(self, record: Record) -> None:
        """Take note of the newest values."""
        if record.kind == "scalars":
            self._note(record.name, record.value)

    def _note(self, split: str, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            number = float(value)
            self._metrics[f"{split}/{name}"] = number if math.isfinite(number) else None

    def on_journal(self, entry: Mapping[str, Any]) -> None:
        """Tell the entry."""
        if entry.get("event") in ("rewind", "extend"):
            self._failed = None  # the run is open again
        self._live.publisher.publish(Journal(entry=dict(entry)))

    def fail(self, error: BaseException) -> None:
        """The run has failed; may be called from its own thread."""
        text = "".join(traceback.format_exception(error))
        self._failed = Failed(error=one_line(error), traceback=text[-LONGEST_TRACEBACK:])
        self._live.publisher.publish(self._failed)
