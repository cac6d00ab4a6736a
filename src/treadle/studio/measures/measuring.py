"""What is measured of a run when somebody asks: histograms, and where the time goes."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from treadle.errors import RunError
from treadle.studio import protocol
from treadle.studio.measures.histograms import Gradients, of_parameters
from treadle.studio.measures.timing import Clock
from treadle.studio.topics import Client, Handler, Live, Topic


class Measuring(Topic):
    """Answers `Histograms` and `Timing`."""

    features = ("histograms", "timing")

    def __init__(self, live: Live) -> None:
        self._live = live
        self._clock = Clock(live.loop)
        self._gradients: dict[int, Gradients] = {}

    def handlers(self) -> Mapping[type[protocol.Request], Handler]:
        """One for each request."""
        return {protocol.Histograms: self._histograms, protocol.Timing: self._timing}

    def _histograms(self, asked: protocol.Histograms, client: Client) -> object:
        loop, bins = self._live.loop, asked.bins
        if asked.of == "parameters":
            return self._live.commands.call(lambda: of_parameters(loop, bins))
        if loop.lifecycle.ended or not self._is_trained:
            raise RunError("the run is not trained here now: it takes no step whose gradients could be shown")
        waiting = self._gradients.get(bins)
        if waiting is None or waiting.found.done():
            waiting = self._gradients[bins] = Gradients(loop, bins)
            return _then(self._live.commands.call(waiting.attach), waiting.found)
        return waiting.found

    def _timing(self, asked: protocol.Timing, client: Client) -> object:
        clock = self._clock
        clock.ask()
        if clock.attached or self._live.loop.lifecycle.ended or not self._is_trained:
            return clock.report()

        def begin() -> dict[str, Any]:
            clock.attach()
            return clock.report()

        return self._live.commands.call(begin)

    @property
    def _is_trained(self) -> bool:
        """Whether the run is trained in this process, and not only looked at."""
        return self._live.path is None or self._live.loop.archive is not None


def _then(first: Future[Any], second: Future[Any]) -> Future[Any]:
    """What `second` comes to, or the error of `first`."""
    result: Future[Any] = Future()

    def done(future: Future[Any]) -> None:
        error = future.exception()
        if error is not None:
            if not result.done():
                result.set_exception(error)
        elif future is second:
            result.set_result(future.result())

    for future in (first, second):
        future.add_done_callback(done)
    return result
