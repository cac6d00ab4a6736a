"""Views of a run in another process, seen through its own studio."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from treadle.cameras.camera import Camera
from treadle.errors import RunError, TreadleError
from treadle.reports.views import LiveView, Option, Sample, Shapes, Window, camera_of, numbers_of
from treadle.studio import protocol
from treadle.studio.client import StudioClient
from treadle.studio.protocol import Frame

T = TypeVar("T")

PANES = 4
"""That a client of a studio has."""
IDLE_SECONDS = 2.0
"""After which what nobody has looked at is drawn no more."""
AWAIT_SECONDS = 0.05
"""That a picture is waited for before what there is is shown."""
SAMPLES_SECONDS = 600.0
"""That the other process has to measure all samples."""
SIZE = 1024
"""Pixels along the longer side of a camera whose own size is not told."""


@dataclass(eq=False)
class Pane:
    """One of the other studio's panes: what is watched in it, and the newest frame."""

    number: int
    key: tuple[Any, ...]
    used: float
    frame: Frame | None = None
    picture: NDArray[np.uint8] | None = None
    told: int = -1
    """The number of the frame that was waited for last."""


class RemoteRun:
    """A run in another process as a source of views (`treadle.studio.drawing.sources.Source`).

    It is drawn there, in its own share of time; here the newest picture is shown. `connect` says where, with a client
    whose `on_frame` is this object's.
    """

    trains = False
    hurries = False

    def __init__(self) -> None:
        self._arrived = threading.Condition()
        self._panes: OrderedDict[tuple[Any, ...], Pane] = OrderedDict()
        self._free = list(range(PANES))
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="treadle-branch-views")
        self._views: dict[str, LiveView] = {}
        self._client: StudioClient | None = None
        self.step = 0
        """After which step the newest picture was drawn."""

    def connect(self, client: StudioClient) -> None:
        """Look at the run of this studio from now on."""
        self._client = client
        self._views = {view["name"]: RemoteView(self, view) for view in client.welcome.views}

    def views(self) -> Mapping[str, LiveView]:
        """Those that its studio has told."""
        return self._views

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Have a function called in a thread that may wait for the other process."""
        return self._worker.submit(function)

    def close(self) -> None:
        """Look no more."""
        self._worker.shutdown(wait=False, cancel_futures=True)
        self._views, self._client = {}, None

    # What views ask -------------------------------------------------------------------------------------------------

    def look(self, view: str, window: Window) -> Pane:
        """The pane in which the other studio draws this; it begins to, where it does not yet."""
        camera = None if window.camera is None else numbers_of(window.camera)
        key = (view, window.width, window.height, tuple(camera or ()), tuple(sorted(window.options.items())))
        now = monotonic()
        with self._arrived:
            for old in [each for each in self._panes.values() if now - each.used > IDLE_SECONDS]:
                self._leave(old)
            pane = self._panes.get(key)
            if pane is None:
                if not self._free:
                    self._leave(next(iter(self._panes.values())))
                pane = self._panes[key] = Pane(self._free.pop(), key, now)
                self.client.send(
                    protocol.Watch(
                        id=0,
                        pane=pane.number,
                        view=view,
                        width=window.width,
                        height=window.height,
                        camera=camera,
                        options=dict(window.options),
                        moving=window.moving,
                    )
                )
            pane.used = now
            self._panes.move_to_end(key)
            return pane

    def wait_for(self, pane: Pane) -> bool:
        """Wait a moment for a frame that is new; returns whether the newest is as good as it gets."""
        with self._arrived:
            self._arrived.wait_for(lambda: pane.frame is not None and pane.frame.frame != pane.told, AWAIT_SECONDS)
            if pane.frame is None:
                return False
            pane.told = pane.frame.frame
            return pane.frame.still or pane.frame.step < self.step

    def on_frame(self, frame: Frame, data: bytes | memoryview) -> None:
        """A frame has come."""
        from PIL import Image

        picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        with self._arrived:
            for pane in self._panes.values():
                if pane.number == frame.pane and pane.key[0] == frame.view:
                    pane.frame, pane.picture = frame, picture
                    self.step = max(self.step, frame.step)
            self._arrived.notify_all()

    @property
    def client(self) -> StudioClient:
        """The connection. Raises RunError where the other process has ended."""
        if self._client is None:
            raise RunError("the branch has ended: open its run to look at it")
        return self._client

    def _leave(self, pane: Pane) -> None:
        del self._panes[pane.key]
        self._free.append(pane.number)
        with suppress(TreadleError, OSError):
            self.client.send(protocol.Unwatch(id=0, pane=pane.number))


class RemoteView(LiveView):
    """A view of a run in another process, as its studio has described it."""

    whole = True

    def __init__(self, run: RemoteRun, told: Mapping[str, Any]) -> None:
        self._run, self._name = run, str(told["name"])
        self.title, self.kind, self.worst = told["title"], told["kind"], told["worst"]
        self._size: list[int] | None = told["size"]
        self._options = [Option(**{**option, "choices": tuple(option["choices"])}) for option in told["options"]]
        self._cameras = [_camera(camera) for camera in told["cameras"]]

    def options(self) -> Sequence[Option]:
        """As described."""
        return self._options

    def cameras(self) -> Sequence[Camera]:
        """As described."""
        return self._cameras

    def size(self) -> tuple[int, int] | None:
        """As described."""
        return None if self._size is None else (self._size[0], self._size[1])

    def prepare(self, window: Window) -> bool:
        """Have it drawn there, and wait a moment for it."""
        return self._run.wait_for(self._run.look(self._name, window))

    def draw(self, window: Window) -> Any:
        """The newest picture that has come; grey where none has."""
        picture = self._run.look(self._name, window).picture
        return np.full((window.height, window.width, 3), 128, np.uint8) if picture is None else picture

    def figures(self, window: Window) -> Mapping[str, float]:
        """Those that came with it."""
        frame = self._run.look(self._name, window).frame
        return {} if frame is None else frame.figures

    def inspect(self, window: Window, x: int, y: int) -> Mapping[str, float | str]:
        """Asked there."""
        pane = self._run.look(self._name, window)
        found: dict[str, float | str] = self._run.client.request(protocol.Inspect(id=0, pane=pane.number, x=x, y=y))
        return found

    def samples(self) -> Iterator[Sample]:
        """Asked there, all at once."""
        asked = protocol.Compare(id=0, view=self._name, most=500)
        for told in self._run.client.send(asked).result(SAMPLES_SECONDS):
            yield Sample(told["name"], told["figures"])

    def shapes(self, window: Window) -> Shapes:
        """Asked there."""
        asked = protocol.Overlay(id=0, view=self._name, options=dict(window.options))
        header, data = self._run.client.request(asked)
        return unpacked(header.parts, data)


def unpacked(parts: Sequence[Mapping[str, Any]], data: bytes) -> Shapes:
    """Shapes that `treadle.studio.drawing.asked.packed` has packed."""
    arrays: dict[str, Any] = {}
    at = 0
    for part in parts:
        kind = np.dtype(part["dtype"]).newbyteorder("<")
        count = int(np.prod(part["shape"]))
        array = np.frombuffer(data, kind, count, at).reshape(part["shape"])
        arrays[part["name"]] = array.astype(np.int64) if part["name"] == "offsets" else array
        at += count * kind.itemsize
    return Shapes(**arrays)


def _camera(told: Mapping[str, Any]) -> Camera:
    aspect = float(told["aspect"])
    width, height = (SIZE, round(SIZE / aspect)) if aspect >= 1 else (round(SIZE * aspect), SIZE)
    return replace(camera_of(told["numbers"], width, height), name=str(told["name"]))
