"""Live views of a radiance field: from any camera in every channel, and held-out photographs beside their renders."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.cameras.background import BLACK, WHITE
from treadle.cameras.camera import Camera
from treadle.cameras.capture import Capture
from treadle.cameras.naming import cameras_of, names_of
from treadle.data.batch import to_device
from treadle.data.views import View, ViewFeed
from treadle.export.look import View as Picture
from treadle.fields.cropped import cropped
from treadle.fields.nerf.model import Radiance
from treadle.fields.pipeline import Pipeline
from treadle.fields.rays import Rays
from treadle.fields.rendering import render
from treadle.fields.showing import MOST_CELLS, cell_boxes, level_option, lod_of, numbers, with_scale
from treadle.images.depth import shown_depth
from treadle.images.heat import heat
from treadle.images.strips import STRIP
from treadle.kernels.threads import left_to_kernels
from treadle.reports.cropping import crop_of, crop_options
from treadle.reports.sheets import Cell, SheetView
from treadle.reports.views import LiveView, Option, Sample, Shapes, Window, values_at

PIECE = 0.03
"""Seconds after which a piece of a held-out view ends."""
ROWS = 2048
"""Rays after which it is looked at the clock."""
PANES = 4
"""Renders that are kept: as many as a page has panes."""
MOST_POINTS = 5000
"""Points of the capture that are laid over the picture."""


class RadianceView(LiveView):
    """A radiance field from any camera, in the coordinates in which the scene's box is [-1, 1]^3.

    Args:
        model: the field and its tracer.
        capture: what it is fitted to: its cameras are those to snap to.
        background: (3,) from 0 to 1: what held-out views are rendered over.
    """

    title = "Radiance field"
    kind = "space"

    def __init__(self, model: Radiance, capture: Capture, background: Tensor) -> None:
        self.model, self.capture, self.background = model, capture, background
        extent = model.occupancy.extent
        own = [name for name in model.field.channels if name != "color"]
        self._options = (
            Option("channel", "Channel", "choice", "color", ("color", "depth", "opacity", "normal", *own)),
            *level_option(model.field.grid),
            Option("background", "Background", "choice", "of tests", ("of tests", "black", "white")),
            *crop_options([-extent] * 3, [extent] * 3),
        )
        self._cameras = cameras_of(capture)

    def options(self) -> Sequence[Option]:
        """Channel, level, background and crop box."""
        return self._options

    def cameras(self) -> Sequence[Camera]:
        """Those of all photographs: first what is trained on, then what is held out."""
        return self._cameras

    @left_to_kernels()
    def draw(self, window: Window) -> Any:
        """What the camera sees in the window's box, in the chosen channel."""
        channel = str(window.options["channel"])
        names = (channel,) if channel in self.model.field.channels else ()
        found = self._render(window, names)
        opacity = found["opacity"][..., 0]
        if channel == "color":
            return found["color"].numpy()
        if channel == "opacity":
            return opacity.numpy()
        if channel == "normal":
            return self._normals(window, found).numpy()
        if channel == "depth":
            near, far = ends = self._depth_ends(window)
            shown = shown_depth(found["depth"][..., 0], opacity, ends)
            return with_scale(shown, window, f"{near:.2f}", f"{far:.2f}", (1.0, 0.15))
        if self.model.field.channels[channel] == 3:
            return found[channel].numpy()
        # Of a density what it would take to be opaque within a step; of anything else 1.
        end = 1 / self.model.tracer.step if channel == "density" else 1.0
        shown = (heat(found[channel][..., 0].abs().numpy() / end) * 255 + 0.5).astype(np.uint8)
        return with_scale(shown, window, "0", f"{end:.3g} {channel}")

    def inspect(self, window: Window, x: int, y: int) -> Mapping[str, float | str]:
        """All channels, and where what is seen there lies in the mean, here and in the coordinates of the input."""
        pixel = replace(window, box=(x, y, x + 1, y + 1))
        found = self._render(pixel, tuple(self.model.field.channels))
        told: dict[str, float | str] = {}
        for name in ("opacity", *self.model.field.channels):
            told |= numbers(name, found[name].flatten().tolist())
        if float(found["opacity"]) > 0.5:
            place = self._places(pixel, found)[0].double()
            own = self.model.to_input.cpu() @ torch.cat([place, place.new_ones(1)])
            told |= {"depth": float(found["depth"])} | dict(zip("xyz", place.tolist(), strict=True))
            told |= {f"input {axis}": value for axis, value in zip("xyz", own[:3].tolist(), strict=True)}
        return told

    def figures(self, window: Window) -> Mapping[str, float]:
        """The share of the volume's cells that are occupied, in percent."""
        return {"% occupied": 100 * self.model.occupancy.share}

    def shapes(self, window: Window) -> Shapes:
        """Occupied cells, coarser ones where they are many; crop box; the capture's points in their colours."""
        occupancy = self.model.occupancy
        mask = (occupancy.mask & occupancy.counted()).cpu()
        while int(mask.sum()) > MOST_CELLS and mask.shape[1] > 1:
            mask = torch.nn.functional.max_pool3d(mask.float(), 2, ceil_mode=True) > 0
        boxes = []
        for cascade, cells in enumerate(mask):
            half = 2.0**cascade
            boxes.append(cell_boxes(cells.nonzero(), 2.0 / mask.shape[1]) * half)
        crop = crop_of(window.options, self._options)
        if np.isfinite(crop).any():
            boxes.append(np.clip(crop, -occupancy.extent, occupancy.extent)[None].astype(np.float32))
        points, colors = self.capture.points, self.capture.colors
        if points is None:
            return Shapes(boxes=np.concatenate(boxes))
        some = np.linspace(0, len(points) - 1, min(len(points), MOST_POINTS)).astype(int)
        return Shapes(points=points[some].astype(np.float32), colors=None if colors is None else colors[some],
                      boxes=np.concatenate(boxes))  # fmt: skip

    def _render(self, window: Window, names: Sequence[str]) -> dict[str, Tensor]:
        pipeline = Pipeline(cropped(self.model.field, self._crop(window)), self.model.tracer)
        color = {"black": BLACK, "white": WHITE}.get(str(window.options["background"]))
        background = self.background if color is None else self.background.new_tensor(color)
        lod = lod_of(self.model.field.grid, window.options)
        return render(pipeline, window.seen_from, names, background=background, lod=lod)

    def _crop(self, window: Window) -> NDArray[np.float64]:
        return crop_of(window.options, self._options)

    def _places(self, window: Window, found: Mapping[str, Tensor]) -> Tensor:
        """(n, 3) where what is seen lies in the mean."""
        rays = Rays.of(window.seen_from)
        return rays.origins + found["distance"].reshape(-1, 1) * rays.directions

    def _normals(self, window: Window, found: Mapping[str, Tensor]) -> Tensor:
        """(h, w, 3) which way the density falls fastest where something is seen, as colours; white elsewhere."""
        model, lod = self.model, lod_of(self.model.field.grid, window.options)
        there = found["opacity"].flatten() > 0.5
        points = self._places(window, found)[there]
        shown = torch.ones(len(there), 3)
        if len(points):
            spread = model.tracer.step
            shifts = spread * torch.cat([torch.eye(3), -torch.eye(3)])
            around = (points[:, None] + shifts).reshape(-1, 3).to(model.to_input.device)
            density = model.field.density(around, lod).float().cpu().reshape(-1, 2, 3)
            falls = torch.nn.functional.normalize(density[:, 1] - density[:, 0], dim=1)
            shown[there] = falls / 2 + 0.5
        return shown.reshape(*found["opacity"].shape[:2], 3)

    def _depth_ends(self, window: Window) -> tuple[float, float]:
        """The nearest and farthest depth at which the ball around [-1, 1]^3, halved at its corners, can be."""
        assert window.camera is not None
        middle, reach = float(window.camera.world_to_camera[2, 3]), 1.25
        return max(self.model.tracer.near, middle - reach), max(middle + reach, 0.1)


@dataclass(eq=False)
class Render:
    """A held-out view that is rendered piece by piece."""

    name: str
    state: Hashable
    view: View
    rows: int = 0
    parts: list[Picture] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether all of its rows are there."""
        return self.rows >= self.view.camera.height

    def picture(self) -> Picture:
        """What there is of it; black below."""
        width, left = self.view.camera.width, self.view.camera.height - self.rows
        rest = Picture(torch.zeros(left, width, 3), torch.zeros(left, width), torch.zeros(left, width))
        image, depth, alpha = (torch.cat([part[k] for part in (*self.parts, rest)]) for k in range(3))
        return Picture(image, depth, alpha)


class HeldOutRadianceView(SheetView):
    """Held-out photographs beside what the field shows from there: target, render, error and depth.

    A render is made in pieces between steps. While the run goes on, the last that is whole is shown.

    Args:
        feed: the photographs.
        look: what a camera sees.
        strip: the pictures of a view (see `NeRFTrainer.strip`).
        judge: its figures.
        target: (H, W, 3) what it should be.
        device: where views are wanted.
        standing: see `SheetView`.
    """

    title = "Held-out views"
    aligned = True

    def __init__(
        self,
        feed: ViewFeed,
        look: Callable[[Camera], Picture],
        strip: Callable[[Picture, View], list[Any]],
        judge: Callable[[Picture, View], dict[str, float]],
        target: Callable[[View], Tensor],
        device: torch.device,
        standing: Callable[[], Hashable],
    ) -> None:
        super().__init__(lambda: None)  # what is shown is said by `asked`
        self._feed, self._look, self._strip, self._judge, self._target = feed, look, strip, judge, target
        self._device, self._stands = device, standing
        self._numbers = {name: number for number, name in enumerate(names_of(feed.photographs.cameras))}
        self._under_way: dict[str, Render] = {}
        self._whole: dict[str, Render] = {}
        self._judged: tuple[Render | None, dict[str, float]] = (None, {})

    def options(self) -> Sequence[Option]:
        """Which view."""
        names = tuple(self._numbers)
        return (Option("sample", "View", "choice", names[0], names), *super().options())

    def asked(self, window: Window) -> Hashable:
        """The render, and how far it is."""
        render = self._render_of(window)
        return render, render.rows

    def prepare(self, window: Window) -> bool:
        """Render some more rows of the chosen view."""
        name = str(window.options["sample"])
        render = self._under_way.pop(name, None) or self._whole.get(name)
        if render is None or (render.whole and render.state != self._stands()):
            render = self._begin(name)
        self._go_on(render)
        (self._whole if render.whole else self._under_way)[name] = render
        for kept in (self._under_way, self._whole):
            while len(kept) > PANES:
                del kept[next(iter(kept))]
        return render.whole

    def cells(self, window: Window) -> Sequence[Cell]:
        """Target, render, error and depth of the chosen view."""
        render = self._render_of(window)
        picture, wanted = render.picture(), self._target(render.view).cpu().numpy()
        seen, depth, alpha = (values.numpy() for values in picture)

        def far(column: int, row: int) -> dict[str, float | str]:
            return {"depth": float(depth[row, column]), "alpha": float(alpha[row, column])}

        told = (
            lambda column, row: values_at(wanted, column, row),
            lambda column, row: values_at(seen, column, row),
            lambda column, row: values_at(seen - wanted, column, row),
            far,
        )
        pictures = zip(STRIP, self._strip(self._moved(picture), render.view), told, strict=True)
        return [Cell(name, shown, exact) for name, shown, exact in pictures]

    def figures(self, window: Window) -> Mapping[str, float]:
        """PSNR, SSIM and L1 of the view that is shown, when all of it is there."""
        render = self._render_of(window)
        if not render.whole:
            return {}
        if self._judged[0] is not render:
            self._judged = render, self._judge(self._moved(render.picture()), render.view)
        return self._judged[1]

    def samples(self) -> Iterable[Sample | None]:
        """All held-out views with their figures; None after each piece of one."""
        for name in self._numbers:
            render = self._begin(name)
            while not render.whole:
                self._go_on(render)
                yield None
            yield Sample(name, self._judge(self._moved(render.picture()), render.view))

    def _render_of(self, window: Window) -> Render:
        """What is shown: the last that is whole, else what there is of one."""
        name = str(window.options["sample"])
        if name not in self._whole and name not in self._under_way:
            self.prepare(window)
        return self._whole.get(name) or self._under_way[name]

    def _begin(self, name: str) -> Render:
        view: View = to_device(self._feed.gather(0, [self._numbers[name]]), self._device)
        return Render(name, self._stands(), view)

    @left_to_kernels()
    def _go_on(self, render: Render) -> None:
        """Render rows until a piece's time is over."""
        camera, until = render.view.camera, perf_counter() + PIECE
        while not render.whole:
            rows = min(camera.height - render.rows, max(1, ROWS // camera.width))
            part = replace(camera, height=rows, cy=camera.cy - render.rows)
            render.parts.append(self._look(part))
            render.rows += rows
            if perf_counter() >= until:
                return

    def _moved(self, picture: Picture) -> Picture:
        return Picture(*(values.to(self._device) for values in picture))
