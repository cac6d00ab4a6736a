"""Live views: what a trainer shows of itself between two steps, at a size, a camera and options that somebody chose.

A trainer offers them by one method, `views()`: by name either a `LiveView` or a plain function of a `Window` that
returns a picture. Whatever `examples()` gives is a view without a line of code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from treadle.cameras.camera import Camera
from treadle.errors import UsageError, nearest

Value = str | float | bool
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are the first that are outside."""

MOST_CAMERAS = 300
"""Cameras of a view that a page is told of: of more, so many, evenly from the first to the last."""


@dataclass(frozen=True)
class Option:
    """Something to choose about a view: a channel, a level, a slice, a crop box's edge.

    Attributes:
        name: by which `Window.options` has it.
        label: what people read; with its unit, where it has one.
        kind: "choice" (one of `choices`), "range" (`low` to `high` in steps of `step`) or "switch".
        default: the value where nobody chose.
    """

    name: str
    label: str
    kind: Literal["choice", "range", "switch"]
    default: Value
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0
    step: float = 0.0


@dataclass(frozen=True)
class Window:
    """What is to be drawn: a part of a picture of `width` x `height` pixels.

    Attributes:
        width, height: of the whole picture.
        box: left, top, right, bottom in pixels of the part that is wanted: pictures are drawn in tiles, between steps.
        camera: from where, for views in space, with a picture of `width` x `height`; None for flat views.
        options: the view's options by name, all of them, checked against their ranges.
        moving: whether a coarse picture now is better than a fine one later.
    """

    width: int
    height: int
    box: Box
    camera: Camera | None = None
    options: Mapping[str, Value] = field(default_factory=dict)
    moving: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the part that is wanted."""
        left, top, right, bottom = self.box
        return right - left, bottom - top

    @property
    def seen_from(self) -> Camera:
        """The camera of the part alone: its rays are those of the whole picture's pixels. For views in space."""
        if self.camera is None:
            raise UsageError("this window has no camera: a view with cameras is of kind 'space'")
        left, top, _, _ = self.box
        width, height = self.size
        return replace(self.camera, width=width, height=height, cx=self.camera.cx - left, cy=self.camera.cy - top)

    def places(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where the centres of the part's columns (w,) and rows (h,) are in a flat view, as shares of it from 0 to 1.

        The options "zoom", "x" and "y" (see `zooming`) count, where the view has them.
        """
        zoom = float(self.options.get("zoom", 1.0))
        left, top, right, bottom = self.box
        shares = []
        for first, end, whole, name in ((left, right, self.width, "x"), (top, bottom, self.height, "y")):
            middle = min(max(float(self.options.get(name, 0.5)), 0.5 / zoom), 1 - 0.5 / zoom)
            shares.append(middle + ((np.arange(first, end) + 0.5) / whole - 0.5) / zoom)
        return shares[0], shares[1]


@dataclass(frozen=True)
class Shapes:
    """What is laid over a view in space, in world coordinates: few enough to be sent to a browser.

    Attributes:
        points: (N, 3) float32; colors: (N, 3) uint8.
        lines: (M, 3) float32 points of polylines, of which polyline i has those from `offsets[i]` to `offsets[i + 1]`.
        line_colors: (M, 3) uint8, of each of those points.
        boxes: (B, 2, 3) float32: lower and upper corners.
    """

    points: NDArray[np.float32] | None = None
    colors: NDArray[np.uint8] | None = None
    lines: NDArray[np.float32] | None = None
    line_colors: NDArray[np.uint8] | None = None
    offsets: NDArray[np.int64] | None = None
    boxes: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Sample:
    """A held-out sample that a view can show beside its truth: its name, and its figures ({"psnr": 31.2})."""

    name: str
    figures: Mapping[str, float]


class LiveView:
    """A view that a browser can look at while training goes on. Override `draw`; the rest is optional.

    Methods are called between two steps, as validation is: eval mode, averaged weights, no gradients, random streams of
    their own.
    """

    title: str = ""
    """What people read above it; its name where that is empty."""
    kind: Literal["flat", "space"] = "flat"
    """"space" is seen from a camera that the browser moves."""
    lossless: bool = False
    """Whether no value may change on the way to the browser (PNG), as in a map of labels; others may be JPEG."""
    whole: bool = False
    """Whether `draw` gives all of a picture, of whatever size it likes: then it is not drawn in tiles."""

    laid_over: Sequence[Literal["points", "lines", "boxes"]] = ()
    """Kinds of its shapes that a page lays over it at once; the others where somebody asks for them."""
    worst: Literal["lowest", "highest"] = "lowest"
    """Which value of the first figure of `samples` is the worst."""

    def options(self) -> Sequence[Option]:
        """What can be chosen. As `cameras` and `size`, it may be asked at any time, by any thread."""
        return ()

    def cameras(self) -> Sequence[Camera]:
        """Cameras to snap to, the first of them the one it opens with: those that were trained on, by name."""
        return ()

    def size(self) -> tuple[int, int] | None:
        """Width and height of a flat view's own pixels; None where it has any size."""
        return None

    def prepare(self, window: Window) -> bool:
        """Do some of what `draw`, `shapes` and `figures` need and takes long, about 50 ms of it; whether all is done.

        It is called before each picture. Until it returns True pictures show what there is so far, and others follow.
        """
        return True

    def draw(self, window: Window) -> Any:
        """The part `window.box` of the picture: array or tensor (H, W) or (H, W, 3); uint8, or float from 0 to 1."""
        raise NotImplementedError

    def inspect(self, window: Window, x: int, y: int) -> Mapping[str, float | str]:
        """Exact numbers under the pixel at column x, row y of the whole picture."""
        return {}

    def shapes(self, window: Window) -> Shapes:
        """What is laid over the picture under these options; neither size, box nor camera matter."""
        return Shapes()

    def figures(self, window: Window) -> Mapping[str, float]:
        """Figures of what the window shows, where there is a truth to compare it with."""
        return {}

    def samples(self) -> Iterable[Sample | None]:
        """Held-out samples with their figures, in any order; each name is a choice of the option "sample".

        They may be yielded one by one: others are measured between later steps. So may None, after a piece of the work
        for one: each should take 50 ms at most.
        """
        return ()


Views = Mapping[str, LiveView | Callable[[Window], Any]]
"""What a trainer's `views()` returns, by name."""


class FunctionView(LiveView):
    """A plain function of a `Window` as a view: what it returns is the whole picture, of any size."""

    whole = True

    def __init__(self, function: Callable[[Window], Any]) -> None:
        self._function = function

    def draw(self, window: Window) -> Any:
        """What the function returns."""
        return self._function(window)

    def inspect(self, window: Window, x: int, y: int) -> Mapping[str, float | str]:
        """Column and row of what it returns, and the values there, under a pixel of a picture of the window's size."""
        picture = self._function(window)
        array = np.asarray(picture.detach().cpu() if hasattr(picture, "detach") else picture)
        column, row = x * array.shape[1] // window.width, y * array.shape[0] // window.height
        return {"column": column, "row": row} | values_at(array, column, row)


class CameraView(LiveView):
    """A function of a camera as a view in space: it returns what the camera sees, (H, W) or (H, W, 3).

    Args:
        see: the function; it is called with cameras of parts of a picture, too.
        cameras: to snap to; the first of them is the one it opens with.
    """

    kind = "space"

    def __init__(self, see: Callable[[Camera], Any], cameras: Sequence[Camera]) -> None:
        self._see, self._cameras = see, cameras

    def cameras(self) -> Sequence[Camera]:
        """Those that were given."""
        return self._cameras

    def draw(self, window: Window) -> Any:
        """What the function returns for the part's camera."""
        return self._see(window.seen_from)


def as_view(name: str, value: Any) -> LiveView:
    """What a trainer's `views()` has under a name, as a view. Raises UsageError for what is none."""
    if isinstance(value, LiveView):
        return value
    if isinstance(value, type) or not callable(value):
        what = f"the class {value.__name__}: make one of it" if isinstance(value, type) else f"{type(value).__name__}"
        raise UsageError(f"views(): {name!r} is {what}; expected a LiveView, or a function of a Window")
    return FunctionView(value)


def values_at(picture: NDArray[Any], column: int, row: int) -> dict[str, float | str]:
    """The values of a picture (H, W) or (H, W, C) at a pixel, by the colours' names; of other C "channel 1" ..."""
    values = np.atleast_1d(picture[row, column])
    colours = ("red", "green", "blue", "alpha")
    names = {1: ("value",), 3: colours[:3], 4: colours}.get(len(values))
    names = names or tuple(f"channel {number}" for number in range(1, len(values) + 1))
    return {name: value.item() for name, value in zip(names, values, strict=True)}


def zooming(most: float = 64.0) -> tuple[Option, Option, Option]:
    """Options "zoom", "x" and "y" of a flat view: a page turns wheel and dragging into them, `Window.places` obeys.

    `x` and `y` are where the middle of what is shown is, as shares of the whole view's width and height.
    """
    return (
        Option("zoom", "Zoom", "range", 1.0, low=1.0, high=most),
        Option("x", "Middle, share of the width", "range", 0.5),
        Option("y", "Middle, share of the height", "range", 0.5),
    )


def chosen(options: Sequence[Option], given: Mapping[str, Value]) -> dict[str, Value]:
    """The options of a view by name, with what was chosen; those left out have their default.

    Raises:
        UsageError: an option that the view has not, or a value that it does not take.
    """
    known = {option.name: option for option in options}
    for name, value in given.items():
        if name not in known:
            raise UsageError(f"the view has no option {name!r}{nearest(name, known)}")
        _check(known[name], value)
    return {name: given.get(name, option.default) for name, option in known.items()}


def _check(option: Option, value: Value) -> None:
    if option.kind == "switch":
        if not isinstance(value, bool):
            raise UsageError(f"option {option.name!r} is {value!r}: expected true or false")
    elif option.kind == "choice":
        if not isinstance(value, str) or value not in option.choices:
            raise UsageError(f"option {option.name!r} has no choice {value!r}{nearest(str(value), option.choices)}")
    elif isinstance(value, bool | str) or not math.isfinite(value) or not option.low <= value <= option.high:
        raise UsageError(f"option {option.name!r} is {value!r}: expected {option.low:g} to {option.high:g}")


def camera_of(numbers: Sequence[float], width: int, height: int) -> Camera:
    """The camera that a page means by fx and fy as a share of the height, and `world_to_camera` row by row.

    Its picture has `width` x `height` pixels, the principal point in the middle. Raises UsageError for what is none.
    """
    if len(numbers) != 18:
        raise UsageError(f"a camera has 18 numbers, not {len(numbers)}")
    pose = np.asarray(numbers[2:], np.float64).reshape(4, 4)
    return Camera(width, height, numbers[0] * height, numbers[1] * height, width / 2, height / 2, pose)


def numbers_of(camera: Camera) -> list[float]:
    """The 18 numbers of a camera, the way back from `camera_of`; where its principal point is, is lost."""
    return [camera.fx / camera.height, camera.fy / camera.height, *camera.world_to_camera.flatten().tolist()]


def described(name: str, view: LiveView) -> dict[str, Any]:
    """What a page has to know of a view: plain data.

    "name", "title", "kind", "size" (width and height, or None), "options", "cameras" (each with "name", "numbers"
    and "aspect", width by height), and of what it "has": "shapes", "samples", "inspect";
    of the shapes those that are "laid_over" it at once, and which value of a sample's first figure is the "worst".
    """
    cameras = list(view.cameras())
    if len(cameras) > MOST_CAMERAS:
        cameras = [cameras[index] for index in np.linspace(0, len(cameras) - 1, MOST_CAMERAS).astype(int)]
    own = [method for method in ("shapes", "samples", "inspect")
           if getattr(type(view), method) is not getattr(LiveView, method)]  # fmt: skip
    return {
        "name": name,
        "title": view.title or name,
        "kind": view.kind,
        "size": view.size(),
        "options": [asdict(option) for option in view.options()],
        "cameras": [
            {"name": camera.name, "numbers": numbers_of(camera), "aspect": camera.width / camera.height}
            for camera in cameras
        ],
        "has": own,
        "laid_over": list(view.laid_over),
        "worst": view.worst,
    }


def tile(width: int, height: int, done: int, pixels: int) -> Box:
    """The next part of a picture of which `done` pixels are drawn, row by row: at most `pixels`, but one at least.

    Tiles are bands of whole rows, or where a row has more pixels, parts of one.
    """
    top, left = divmod(done, width)
    rows = max(1, pixels) // width
    if left or not rows:
        return left, top, min(left + max(1, pixels), width), top + 1
    return 0, top, width, min(top + rows, height)
