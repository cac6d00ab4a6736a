"""Live views: pictures for whoever looks, drawn between the trainer's steps within a share of its time."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from itertools import count
from time import perf_counter
from typing import Any

from treadle.errors import UsageError, nearest, one_line
from treadle.reports.views import LiveView, Window, chosen, described
from treadle.studio.drawing.asked import packed, resized, window_of
from treadle.studio.drawing.calls import Calls, where
from treadle.studio.drawing.comparing import Comparing, late
from treadle.studio.drawing.painting import Pace, Painting, encoded
from treadle.studio.drawing.panes import Pane
from treadle.studio.drawing.share import Budget
from treadle.studio.drawing.sources import LiveSource, Source, Sources
from treadle.studio.protocol import (
    Compare,
    Frame,
    Inspect,
    Notice,
    Overlay,
    Request,
    Share,
    Unwatch,
    Views,
    Watch,
)
from treadle.studio.topics import Client, Handler, Live, Publisher, Topic

AFRESH = 0.15
"""Seconds of drawing from which on a new picture is shown coarse before it is shown fine."""
IN_PAUSE = 0.05
"""Seconds that are drawn at once while the run pauses, or when nothing is saved up: a command waits no longer."""
RETRY, RETRY_MOST = 1.0, 30.0
"""Seconds after which a view that has raised is tried again; twice as many each time, up to the second."""


class Frames(Topic):
    """Draws what clients watch. Nothing is drawn, and nothing costs anything, while nobody has a credit for a frame.

    All drawing is asked for by a thread of its own, a turn at a time: in its turn a view is asked for tiles until the
    time that drawing has saved up is used, or something else waits for the run.

    Args:
        live: the run.
        views: makes its views (see `treadle.reports.trainer_views.views_of`); called once, now.
        sources: finds other runs and kept states to look at; None knows the run alone.
        clock: gives seconds.
    """

    features = ("views",)

    def __init__(
        self,
        live: Live,
        views: Callable[[], Mapping[str, LiveView]],
        sources: Sources | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self._live, self._sources, self._clock = live, sources, clock
        self._publisher: Publisher = live.publisher
        self.budget = Budget(clock=clock)
        self._calls = Calls(live, self.budget, clock)
        self.most_frames = 0.0
        """Frames a second of a pane while the run trains, at most; 0 is no bar."""
        self._panes: dict[tuple[str, int], Pane] = {}
        self._comparing: list[Comparing] = []
        self._drew = False
        """Whether the last turn was a pane's."""
        self._numbers = count(1)
        self._wake = threading.Event()
        self._starting = threading.Lock()
        self._closed = False
        self._thread: threading.Thread | None = None
        found: Mapping[str, LiveView] = {}
        try:
            found = views()
        except Exception as error:  # no reason for a run to end, nor for its studio
            self._tell(f"there are no views: {one_line(error)}{where(error)}")
        self.own = LiveSource(live, found)
        self._options = {name: tuple(view.options()) for name, view in found.items()}
        """What clients were told can be chosen."""

    # On the server's event loop ---------------------------------------------------------------------------------------

    def handlers(self) -> Mapping[type[Request], Handler]:
        """Everything about pictures."""
        return {
            Watch: self._watch,
            Unwatch: self._unwatch,
            Share: self._share,
            Overlay: self._overlay,
            Inspect: self._inspect,
            Compare: self._compare,
        }

    def welcome(self) -> Mapping[str, list[Any]]:
        """The views there are."""
        return {"views": [described(name, view) for name, view in self.own.views().items()]}

    def poll(self) -> None:
        """See whether the run has gone on."""
        self._live.drawing = self.budget.measured()
        if self._panes or self._comparing:
            self._wake.set()

    def on_drawn(self, client: Client) -> None:
        """It may be sent another frame."""
        self._wake.set()

    def on_leave(self, client: Client) -> None:
        """What it watched is not drawn any more; it asks anew when it comes back."""
        for key in [key for key, pane in self._panes.items() if pane.client is client]:
            del self._panes[key]

    def close(self) -> None:
        """Draw nothing any more."""
        self._closed = True
        self._wake.set()

    def _source(self, run: str | None, state: int | None) -> Source:
        if run is None and state is None:
            return self.own
        if self._sources is None:
            raise UsageError("this studio shows the run as it is now, no other run and no other state")
        return self._sources(run, state)

    def _find(self, source: Source, name: str) -> LiveView:
        views = source.views()
        if name not in views:
            raise UsageError(f"there is no view {name!r}{nearest(name, views)}")
        return views[name]

    def _watch(self, watch: Watch, client: Client) -> None:
        source = self._source(watch.run, watch.state)
        view, key = self._find(source, watch.view), (client.id, watch.pane)
        before = self._panes.get(key)
        pane = Pane(client, watch, source, view, window_of(view, watch), Pace())
        if before is not None:
            pane.begun = before.begun  # the bar on frames a second is not passed by asking often
            pane.shown, pane.shown_size = before.shown, before.shown_size
            if before.view is view:
                pane.pace, pane.retry, pane.failures = before.pace, before.retry, before.failures
        self._panes[key] = pane
        self._start()

    def _unwatch(self, request: Unwatch, client: Client) -> None:
        self._panes.pop((client.id, request.pane), None)

    def _share(self, request: Share, client: Client) -> dict[str, float]:
        if client.role != "control":
            raise UsageError("this address may only view: how much time goes into drawing is not yours to say")
        self.budget.share, self.most_frames = request.share, request.frames
        self._wake.set()
        return {"share": request.share, "frames": request.frames}

    def _overlay(self, request: Overlay, client: Client) -> Future[bytes]:
        source = self._source(request.run, request.state)
        view = self._find(source, request.view)
        window = Window(1, 1, (0, 0, 1, 1), options=chosen(view.options(), request.options))
        return self._calls.charged(source, lambda: packed(request.id, view.shapes(window)))

    def _inspect(self, request: Inspect, client: Client) -> Future[dict[str, float | str]]:
        pane = self._panes.get((client.id, request.pane))
        if pane is None or pane.shown is None:
            raise UsageError("nothing is shown in this pane: watch a view first")
        source, view, window = pane.shown
        width, height = pane.shown_size
        if request.x >= width or request.y >= height:
            raise UsageError(f"the picture has {width} x {height} pixels: there is none at {request.x}, {request.y}")
        # A view that gives a whole picture gives it of any size: the middle of its pixel is meant.
        x, y = (2 * request.x + 1) * window.width // (2 * width), (2 * request.y + 1) * window.height // (2 * height)
        return self._calls.charged(source, lambda: dict(view.inspect(window, x, y)))

    def _compare(self, request: Compare, client: Client) -> Future[list[dict[str, Any]]]:
        source = self._source(request.run, request.state)
        view = self._find(source, request.view)
        answer: Future[list[dict[str, Any]]] = Future()
        self._comparing.append(Comparing(client, source, late(view), view, request.most, answer))
        self._start()
        return answer

    def _start(self) -> None:
        with self._starting:
            if not self._closed and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name="treadle-studio-drawing", daemon=True)
                self._thread.start()
        self._wake.set()

    # On the thread that asks for drawing ------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closed:
            self._wake.clear()
            pause = self._take_turn()
            if pause > 0:
                self._wake.wait(None if math.isinf(pause) else pause)

    def _take_turn(self) -> float:
        """Have something drawn, where something is due; returns seconds until the next may be."""
        self._comparing = [one for one in self._comparing if one.client.connected]
        now = self._clock()
        panes = list(self._panes.values())
        due = {id(pane): self._due(pane) for pane in panes}
        ready = [pane for pane in panes if due[id(pane)] <= now]
        self.budget.wanted(bool(ready or self._comparing))
        if not ready and not self._comparing:
            return min((due[id(pane)] - now for pane in panes), default=math.inf)
        pane = min(ready, key=lambda pane: pane.drawn, default=None)
        comparing = self._comparing[0] if self._comparing else None
        turns = [each for each in (pane, comparing) if each is not None]
        if self._drew:  # panes of a run that trains are always ready: what is compared would never have its turn
            turns.reverse()
        waits = [self.budget.wait() if each.source.trains else 0.0 for each in turns]
        chosen = turns[waits.index(0.0)] if 0.0 in waits else None
        if chosen is None:
            return min(waits)
        self._drew = chosen is pane
        if isinstance(chosen, Pane):
            self._draw(chosen)
        elif chosen.go_on(self._calls):
            self._comparing.remove(chosen)
        return 0.0

    def _due(self, pane: Pane) -> float:
        """From when on something is to be drawn in a pane; infinite where nothing is."""
        if not pane.client.connected or pane.client.credits <= 0:
            return math.inf
        if pane.painting is not None:
            return -math.inf
        # While the run trains another step will be there by the time that the view is asked.
        if pane.fine and pane.shown_step == pane.source.step and not pane.source.trains:
            return math.inf
        bar = pane.begun + 1 / self.most_frames if self.most_frames and pane.source.trains else -math.inf
        return max(pane.retry, bar)

    def _draw(self, pane: Pane) -> None:
        """A turn: go on with the picture of a pane, and send it when all of it is there."""
        pane.drawn = self._clock()
        if pane.painting is None:
            pane.begun = pane.drawn
            pane.painting = self._begin(pane)
        painting = pane.painting
        error = self._calls.ask(pane.source, lambda: self._paint(pane, painting))
        if error is not None:
            pane.painting = None
            self._report(pane, error)
        elif painting.whole:
            pane.painting, pane.failures = None, 0
            self._send(pane, painting)

    def _begin(self, pane: Pane) -> Painting:
        """The next picture of a pane: coarse where it moves, or where a fine one would be long in coming."""
        window, pace, view = pane.window, pane.pace, pane.view
        late = pane.shown_step is None and pace.total(window.width * window.height) > AFRESH
        if (pane.watch.moving or late) and not view.whole:
            window = resized(window, *pace.coarse(window.width, window.height))
        at_once = window.moving and pace.cost(window.width * window.height) < 2 * IN_PAUSE
        return Painting(view, window, pace, at_once=at_once)

    def _paint(self, pane: Pane, painting: Painting) -> None:
        """What is called where views may be asked: pieces of a picture until time is up."""
        until = self._clock() + max(IN_PAUSE / 2, self.budget.allowed() if pane.source.trains else IN_PAUSE)
        while not painting.whole:
            painting.go_on(pane.source.step)
            if painting.at_once:
                continue  # it is over soon; and who drags a picture must see it, however often the camera changes
            if self._clock() >= until or pane.source.hurries or pane not in self._panes.values():
                return

    def _send(self, pane: Pane, painting: Painting) -> None:
        picture, window = painting.picture, painting.window
        kind, data = encoded(picture, lossless=painting.view.lossless)
        height, width = picture.shape[:2]
        pane.shown, pane.shown_step = (pane.source, painting.view, window), painting.last_step
        pane.shown_size = width, height
        pane.fine = painting.ready and (pane.watch.moving or not window.moving)
        frame = Frame(
            frame=next(self._numbers),
            pane=pane.watch.pane,
            view=pane.watch.view,
            step=painting.last_step,
            since=painting.first_step,
            width=width,
            height=height,
            format=kind,
            still=pane.fine and not pane.watch.moving,
            seconds=painting.seconds,
            state=pane.watch.state,
            figures={name: value for name, value in painting.figures.items() if math.isfinite(value)},
        )
        self._publisher.soon(lambda: pane.client.show(frame, data))
        self._tell_options(pane)

    def _tell_options(self, pane: Pane) -> None:
        """Tell what can be chosen, where that is something else since the view was drawn: names of examples, say."""
        name = pane.watch.view
        if pane.source is self.own and self._options[name] != (options := tuple(pane.view.options())):
            self._options[name] = options
            self._publisher.publish_latest(Views(views=list(self.welcome()["views"])))

    def _report(self, pane: Pane, error: BaseException) -> None:
        """Say that a view cannot be drawn, once, and try again later and later."""
        if pane.failures == 0:
            self._tell(f"the view {pane.watch.view!r} cannot be drawn: {one_line(error)}{where(error)}")
        pane.failures += 1
        pane.retry = self._clock() + min(RETRY_MOST, RETRY * 2 ** (pane.failures - 1))

    def _tell(self, text: str) -> None:
        self._publisher.publish(Notice(text=text, level="warning"))
