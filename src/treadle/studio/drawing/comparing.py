"""Held-out samples measured one at a time, for whoever asks which are the worst."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from treadle.errors import TreadleError, UsageError, one_line
from treadle.reports.views import LiveView, Sample
from treadle.studio.drawing.asked import ranked
from treadle.studio.drawing.calls import Calls, where
from treadle.studio.drawing.sources import Source
from treadle.studio.topics import Client


@dataclass(eq=False)
class Comparing:
    """Samples that are being measured, one at a time."""

    client: Client
    source: Source
    samples: Iterator[Sample | None]
    view: LiveView
    most: int
    answer: Future[list[dict[str, Any]]]
    found: list[Sample] = field(default_factory=list)

    def go_on(self, calls: Calls) -> bool:
        """Measure one more sample, and answer when there is no other; returns whether it has been answered."""
        ended = False

        def measure() -> None:
            nonlocal ended
            try:
                sample = next(self.samples)
            except StopIteration:
                ended = True
                return
            if sample is not None:
                self.found.append(sample)

        error = calls.ask(self.source, measure)
        if error is None and not ended:
            return False
        if not self.answer.set_running_or_notify_cancel():
            return True
        if error is not None:
            known = isinstance(error, TreadleError)
            self.answer.set_exception(error if known else UsageError(f"{one_line(error)}{where(error)}"))
        else:
            self.answer.set_result(ranked(self.found, self.view)[: self.most])
        return True


def late(view: LiveView) -> Iterator[Sample | None]:
    """The samples of a view, of which none is asked for before somebody wants it."""
    yield from view.samples()
