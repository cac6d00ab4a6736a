"""Live views of tractography: lines in space over slices of the volume, and the same as flat pictures."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from treadle.cameras.camera import Camera
from treadle.images.reading import Pixels
from treadle.reports.scene import Scene, scene_of
from treadle.reports.sheets import Cell, Numbers, SheetView
from treadle.reports.views import LiveView, Option, Sample, Shapes, Window
from treadle.tracts.autoencoder_trainer import LineAutoencoderTrainer
from treadle.tracts.live_lines import LinesSource
from treadle.tracts.live_rebuilt import RebuiltLines
from treadle.tracts.live_tracked import TrackedLines
from treadle.tracts.panels import VIEWS
from treadle.tracts.slices import AXES, PAPER, Slice, bounds
from treadle.tracts.space import Space
from treadle.tracts.trainer import TractsTrainer

PLANES = ("all", *AXES, "none")


def tract_views(trainer: TractsTrainer | LineAutoencoderTrainer) -> dict[str, LiveView]:
    """The views of a trainer on streamlines. None where its subject has no line of three points."""
    source: LinesSource
    if isinstance(trainer, TractsTrainer):
        source = TrackedLines(trainer)
    else:
        tracts = trainer.tracts
        source = RebuiltLines(trainer, [*tracts.testing, *tracts.validation, *tracts.training][0])
    return {"tracts": TractsView(source), "slices": SlicesView(source)} if source.names else {}


def tract_scenes(trainer: TractsTrainer | LineAutoencoderTrainer) -> dict[str, Scene]:
    """What the view "tracts" shows at first, as a scene, of as many lines as it can."""
    view = tract_views(trainer).get("tracts")
    if view is None:
        return {}
    most = next(option.high for option in view.options() if option.name == "most")
    return {"tracts": scene_of(view, {"most": most})}


def slice_options(space: Space, channels: int) -> tuple[Option, ...]:
    """Where the three slices are, in RAS+ millimetres, and what is seen on them."""
    low, high = bounds(space)
    step = float(space.voxel_sizes.min()) / 2
    found = [
        Option(name, f"{name.capitalize()} slice, mm", "range", float(low[axis] + high[axis]) / 2,
               low=float(low[axis]), high=float(high[axis]), step=step)
        for name, axis in AXES.items()
    ]  # fmt: skip
    if channels > 1:
        found.append(Option("channel", "Volume's channel", "range", 0.0, low=0.0, high=channels - 1.0, step=1.0))
    return tuple(found)


class TractsView(LiveView):
    """Three slices of the volume seen from anywhere, in RAS+ millimetres; lines are laid over them.

    Args:
        source: the lines.
    """

    title = "Tracts"
    kind = "space"
    laid_over = ("lines",)
    worst = "highest"

    def __init__(self, source: LinesSource) -> None:
        self._source, self._space = source, source.space
        self._kept: tuple[Hashable, Pixels, np.ndarray] | None = None
        self._cameras = cameras_around(source.space)
        slices = slice_options(source.space, source.channels)
        planes = Option("planes", "Slices", "choice", "all", PLANES)
        self._options = (*source.options(), *((planes, *slices) if source.channels else ()))

    def options(self) -> Sequence[Option]:
        """Which lines, and where the slices are."""
        return self._options

    def cameras(self) -> Sequence[Camera]:
        """From a corner, from above, behind and the right."""
        return self._cameras

    def prepare(self, window: Window) -> bool:
        """Track, or judge, some more lines."""
        self._source.volume()
        return self._source.go_on(window.options)

    def draw(self, window: Window) -> Any:
        """The slices, as far as the volume goes. What was drawn is kept: it does not change with the run."""
        camera = window.camera
        assert camera is not None
        key = (
            camera.intrinsics, camera.size, camera.world_to_camera.tobytes(), self._channel(window),
            *(window.options.get(name) for name in ("planes", *AXES)),
        )  # fmt: skip
        if self._kept is None or self._kept[0] != key:
            empty = np.zeros((window.height, window.width, 3), np.uint8), np.zeros((window.height, window.width), bool)
            self._kept = key, *empty
        _, picture, drawn = self._kept
        left, top, right, bottom = window.box
        part = slice(top, bottom), slice(left, right)
        if not drawn[part].all():
            picture[part], drawn[part] = self._drawn(window), True
        return picture[part]

    def _drawn(self, window: Window) -> Pixels:
        width, height = window.size
        left, top, *_ = window.box
        rows, columns = np.mgrid[:height, :width].reshape(2, -1)
        places, hit = self._seen(window, columns + left, rows + top)
        picture = np.tile(PAPER, (height * width, 1))
        volume = self._source.volume()
        if volume is not None and hit.any():
            picture[hit] = volume.shown(places[hit], self._channel(window))
        return picture.reshape(height, width, 3)

    def inspect(self, window: Window, x: int, y: int) -> Mapping[str, float | str]:
        """Where on a slice the pixel is, in millimetres and voxels, and the volume's value there."""
        places, hit = self._seen(window, np.array([x]), np.array([y]))
        volume = self._source.volume()
        if volume is None or not hit[0]:
            return {}
        voxel = np.floor(self._space.from_world(places)[0]).astype(int)
        found: dict[str, float | str] = dict(zip(("x", "y", "z"), places[0].tolist(), strict=True))
        found |= dict(zip(("voxel i", "voxel j", "voxel k"), voxel.tolist(), strict=True))
        return found | {"value": float(volume.at(places, self._channel(window))[0])}

    def shapes(self, window: Window) -> Shapes:
        """The lines by direction (|x| red, |y| green, |z| blue) or error, and the volume's box."""
        lines = self._source.lines(window.options)
        colors = lines.per_point["color"].round().clip(0, 255).astype(np.uint8)
        box = bounds(self._space)[None].astype(np.float32)
        return Shapes(lines=lines.points, line_colors=colors, offsets=lines.offsets, boxes=box)

    def figures(self, window: Window) -> Mapping[str, float]:
        """Those of the lines that are shown."""
        return self._source.figures(window.options)

    def samples(self) -> Iterable[Sample]:
        """Reference lines, with how far the model is off along each."""
        return self._source.samples()

    def _channel(self, window: Window) -> int:
        return int(window.options.get("channel", 0))

    def _seen(self, window: Window, columns: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest place (n, 3) on a slice behind each pixel of the whole picture, and whether there is one."""
        camera = window.camera
        assert camera is not None
        pose = camera.camera_to_world
        ways = np.stack([(columns + 0.5 - camera.cx) / camera.fx, (rows + 0.5 - camera.cy) / camera.fy,
                         np.ones(len(columns))], axis=1) @ pose[:3, :3].T  # fmt: skip
        eye, nearest = pose[:3, 3], np.full(len(columns), np.inf)
        places = np.zeros((len(columns), 3))
        shown = window.options.get("planes", "none")
        for name, axis in AXES.items():
            if shown not in ("all", name):
                continue
            with np.errstate(divide="ignore", invalid="ignore"):
                far = (float(window.options[name]) - eye[axis]) / ways[:, axis]
                there = eye + far[:, None] * ways
            there[:, axis] = float(window.options[name])
            nearer = np.isfinite(far) & (far > 0) & (far < nearest)
            nearer[nearer] = self._space.inside(self._space.from_world(there[nearer]))
            places[nearer], nearest[nearer] = there[nearer], far[nearer]
        return places, np.isfinite(nearest)


class SlicesView(SheetView):
    """The three slices as flat pictures, with the lines that run near them.

    Args:
        source: the lines.
    """

    title = "Slices"
    worst = "highest"

    def __init__(self, source: LinesSource) -> None:
        super().__init__(source.version)
        self._source = source
        self._papers: dict[tuple[str, float, int], Pixels] = {}
        low, high = bounds(source.space)
        longest = float((high - low).max())
        slab = Option("slab", "Lines within, mm", "range", min(longest, 6 * float(source.space.voxel_sizes.max())),
                      low=0.0, high=2 * longest, step=0.5)  # fmt: skip
        self._options = (*source.options(), *slice_options(source.space, source.channels), slab)

    def options(self) -> Sequence[Option]:
        """Which lines, where the slices are, and how near to them lines are shown."""
        return *self._options, *super().options()

    def prepare(self, window: Window) -> bool:
        """Track, or judge, some more lines."""
        whole = self._source.go_on(window.options)
        super().prepare(window)
        return whole

    def cells(self, window: Window) -> Sequence[Cell]:
        """Axial, coronal and sagittal."""
        volume, lines = self._source.volume(), self._source.lines(window.options)
        channel, slab = int(window.options.get("channel", 0)), float(window.options["slab"])
        found = []
        for name in reversed(AXES):
            cut = Slice(self._source.space, AXES[name], float(window.options[name]))

            def numbers(column: int, row: int, cut: Slice = cut) -> Numbers:
                place = cut.places(np.array([column]), np.array([row]))
                told = dict(zip("xyz", place[0].tolist(), strict=True))
                return told if volume is None else told | {"value": float(volume.at(place, channel)[0])}

            key = (name, cut.position, channel)
            if key not in self._papers:  # what the volume holds does not change
                self._papers = {old: paper for old, paper in self._papers.items() if old[0] != name}
                self._papers[key] = cut.paper(volume, channel)
            found.append(Cell(f"{name}, {cut.position:.1f} mm", cut.drawn(self._papers[key], lines, slab), numbers))
        return found

    def figures(self, window: Window) -> Mapping[str, float]:
        """Those of the lines that are shown."""
        return self._source.figures(window.options)

    def samples(self) -> Iterable[Sample]:
        """Reference lines, with how far the model is off along each."""
        return self._source.samples()


def cameras_around(space: Space) -> list[Camera]:
    """Cameras that see all of a grid, named as `panels.VIEWS` are: "corner" first."""
    low, high = bounds(space)
    middle, radius = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
    found = []
    for name in ("corner", *(name for name in VIEWS if name != "corner")):
        azimuth, elevation = (math.radians(angle) for angle in VIEWS[name])
        towards = np.array([math.sin(azimuth) * math.cos(elevation), -math.cos(azimuth) * math.cos(elevation),
                            math.sin(elevation)])  # fmt: skip
        right = np.array([math.cos(azimuth), math.sin(azimuth), 0.0])
        pose = np.eye(4)
        pose[:3, :3] = np.stack([right, -np.cross(towards, right), -towards])
        pose[:3, 3] = -pose[:3, :3] @ (middle + 4 * radius * towards)
        found.append(Camera(512, 512, 950.0, 950.0, 256.0, 256.0, pose, name))
    return found
