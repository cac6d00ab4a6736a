"""Live views of a distance: its surface from any camera, and slices of it beside the exact one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.cameras.camera import Camera
from treadle.fields.cropped import cropped
from treadle.fields.field import Field
from treadle.fields.grids.octree import cells_at, sparse_grids
from treadle.fields.pipeline import Pipeline
from treadle.fields.rays import Rays
from treadle.fields.rendering import render
from treadle.fields.sdf import panels
from treadle.fields.sdf.field import SDFField
from treadle.fields.sdf.solid import Solid
from treadle.fields.showing import MOST_CELLS, cell_boxes, level_option, lod_of, numbers, with_scale
from treadle.fields.tracers.sphere import SphereTracer
from treadle.images.depth import shown_depth
from treadle.images.heat import heat
from treadle.kernels.threads import left_to_kernels
from treadle.reports.cropping import crop_of, crop_options
from treadle.reports.views import LiveView, Option, Shapes, Value, Window, zooming

SLICE = 1024
"""Pixels along each side of a slice that is not zoomed, at most."""
SLICES = ("x", "y", "z")
WINDOWS = 4
"""Windows of which exact distances are kept: as many as a page has panes."""

_SHADED = ("shaded", "normal", "occlusion", "color", "depth", "opacity")
_AROUND = {**panels.VIEWS, "left": (-1.0, 0.35, 0.1), "right": (1.0, 0.35, -0.1), "below": (0.3, -0.9, 0.6)}


class SurfaceView(LiveView):
    """The surface of a field, in the coordinates in which the solid is in [-1, 1]^3.

    Args:
        field: the distance.
    """

    title = "Surface"
    kind = "space"

    def __init__(self, field: SDFField) -> None:
        self.field = field
        own = [name for name in field.channels if name not in _SHADED]
        shown = [name for name in _SHADED if name != "color" or field.colored]
        self._options = (
            Option("channel", "Channel", "choice", "shaded", (*shown, *own)),
            *level_option(field),
            *crop_options((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0)),
        )

    def options(self) -> Sequence[Option]:
        """Channel, level and crop box: what is cut open shows its inside."""
        return self._options

    def cameras(self) -> Sequence[Camera]:
        """From the front, the back, both sides and below."""
        return [replace(panels.camera_at(place, 512), name=name) for name, place in _AROUND.items()]

    @left_to_kernels()
    def draw(self, window: Window) -> Any:
        """What the camera sees in the window's box, in the chosen channel."""
        channel, camera = str(window.options["channel"]), window.seen_from
        field, lod = self._cut(window.options), lod_of(self.field, window.options)
        if channel not in _SHADED:
            found = render(Pipeline(field, SphereTracer()), camera, (channel,), lod=lod)
            return self._scaled(channel, found[channel].numpy(), found["opacity"].numpy(), window)
        seen = panels.see(field, camera, lod)
        if channel == "opacity":
            return seen.opacity
        if channel == "depth":
            near, far = ends = depth_ends(window)
            shown = shown_depth(torch.from_numpy(seen.depth[..., 0]), torch.from_numpy(seen.opacity[..., 0]), ends)
            return with_scale(shown, window, f"{near:.2f}", f"{far:.2f}", (1.0, 0.15))
        if channel == "shaded":
            return panels.shaded(seen._replace(colors=None))
        normals = seen.normals / 2 + 0.5
        values = {"occlusion": np.repeat(seen.occlusion, 3, 2), "color": seen.colors}.get(channel)
        return np.where(seen.opacity > 0.5, normals if values is None else values, np.float32(1))

    def inspect(self, window: Window, x: int, y: int) -> Mapping[str, float | str]:
        """Where the surface is that is seen there, here and in the mesh's own coordinates, and all its channels."""
        camera = replace(window, box=(x, y, x + 1, y + 1)).seen_from
        names = [*self.field.channels, "normal"]
        lod = lod_of(self.field, window.options)
        found = render(Pipeline(self._cut(window.options), SphereTracer()), camera, names, lod=lod)
        if not float(found["opacity"]):
            return {"seen": "nothing"}
        rays = Rays.of(camera)
        place = (rays.origins + float(found["distance"]) * rays.directions)[0].double()
        own = self.field.to_input.cpu() @ torch.cat([place, place.new_ones(1)])
        told: dict[str, float | str] = dict(zip("xyz", place.tolist(), strict=True))
        told |= {f"mesh {axis}": value for axis, value in zip("xyz", own[:3].tolist(), strict=True)}
        for name in ("depth", *names):
            told |= numbers(name, found[name].flatten().tolist())
        return told

    def shapes(self, window: Window) -> Shapes:
        """The cells at which the field's grid has features, where it is sparse, at the chosen level; the crop box."""
        boxes: list[NDArray[np.float32]] = []
        for grid in sparse_grids(self.field):
            level = grid.base + int(window.options.get("level", grid.levels - 1))
            cells = torch.unique(cells_at(grid.cells, grid.finest, min(level, grid.finest)), dim=0)
            while len(cells) > MOST_CELLS:
                level -= 1
                cells = torch.unique(cells >> 1, dim=0)
            boxes.append(cell_boxes(cells, 2.0 / 2**level))
        crop = crop_of(window.options, self._options)
        if np.isfinite(crop).any():
            boxes.append(np.clip(crop, -1, 1)[None].astype(np.float32))
        return Shapes(boxes=np.concatenate(boxes) if boxes else None)

    def _cut(self, options: Mapping[str, Value]) -> Field:
        return cropped(self.field, crop_of(options, self._options))

    def _scaled(
        self, channel: str, values: NDArray[np.float32], opacity: NDArray[np.float32], window: Window
    ) -> NDArray[Any]:
        """A channel that is no colour: three values as they are, one on a scale."""
        if values.shape[2] == 3:
            return np.where(opacity > 0.5, values, np.float32(1))
        end = {"sdf": 0.005, "density": float(self.field.sharpness.detach())}.get(channel, 1.0)
        shown = np.where(opacity > 0.5, heat(np.abs(values[..., 0]) / end), 1.0)
        return with_scale((shown * 255 + 0.5).astype(np.uint8), window, "0", f"{end:.3g} |{channel}|")


class SliceView(LiveView):
    """The distance in a plane: inside blue, outside red, isolines every .1; the exact one, and how they differ.

    Args:
        field: the distance.
        solid: what it is the distance from.
    """

    title = "Slices"

    def __init__(self, field: SDFField, solid: Solid) -> None:
        self.field, self.solid = field, solid
        self._known: dict[Hashable, NDArray[np.float32]] = {}

    def options(self) -> Sequence[Option]:
        """Across which axis and where, what is shown, up to which level, and which part."""
        return (
            Option("show", "Distance", "choice", "learnt", ("learnt", "exact", "error")),
            Option("axis", "Across", "choice", "z", SLICES),
            Option("at", "Position", "range", 0.0, low=-1.0, high=1.0, step=0.01),
            Option("scale", "Largest error shown", "range", 0.02, low=0.001, high=0.2, step=0.001),
            *level_option(self.field),
            *zooming(),
        )

    def size(self) -> tuple[int, int]:
        """A square."""
        return SLICE, SLICE

    @left_to_kernels()
    def draw(self, window: Window) -> Any:
        """The plane in the window's box."""
        left, top, right, bottom = window.box
        # A pixel more on each side, so that lines are as thick there as in the whole picture.
        wider = replace(window, box=(left - 1, top - 1, right + 1, bottom + 1))
        show = window.options["show"]
        if show == "error":
            end = float(window.options["scale"])
            apart = np.abs(self._learnt(self._points(wider), window.options) - self._exact(wider))[1:-1, 1:-1]
            return with_scale((heat(apart / end) * 255 + 0.5).astype(np.uint8), window, "0", f"{end:g} |error|")
        values = self._exact(wider) if show == "exact" else self._learnt(self._points(wider), window.options)
        return panels.isolines(values, 2 / (window.width * float(window.options["zoom"])))[1:-1, 1:-1]

    def inspect(self, window: Window, x: int, y: int) -> Mapping[str, float | str]:
        """The place, the learnt distance there, the exact one and their difference."""
        pixel = replace(window, box=(x, y, x + 1, y + 1))
        points = self._points(pixel)
        learnt, exact = float(self._learnt(points, window.options)[0, 0]), float(self._exact(pixel)[0, 0])
        told: dict[str, float | str] = dict(zip("xyz", points.flatten().tolist(), strict=True))
        return told | {"learnt": learnt, "exact": exact, "error": learnt - exact}

    def _points(self, window: Window) -> Tensor:
        """(h, w, 3) the places of the box's pixels; as `panels.slice_through` lays axes."""
        x, y = window.places()
        axis = SLICES.index(str(window.options["axis"]))
        across, above = panels.PLANES[axis]
        points = np.full((len(y), len(x), 3), float(window.options["at"]), np.float32)
        points[..., across], points[..., above] = 2 * x - 1, (1 - 2 * y)[:, None]
        return torch.from_numpy(points)

    def _learnt(self, points: Tensor, options: Mapping[str, Value]) -> NDArray[np.float32]:
        values = self.field.evaluate(points.reshape(-1, 3), lod=lod_of(self.field, options))
        return np.asarray(values.reshape(points.shape[:2]).cpu().numpy())

    def _exact(self, window: Window) -> NDArray[np.float32]:
        """The exact distances in the window's box; kept, as they do not change, and libigl begins anew each time."""
        places = [window.options[name] for name in ("axis", "at", "zoom", "x", "y")]
        key = (window.width, window.height, *places)
        known = self._known.pop(key, None)
        if known is None:
            known = np.full((window.height + 2, window.width + 2), np.nan, np.float32)
            while len(self._known) >= WINDOWS:
                del self._known[next(iter(self._known))]
        self._known[key] = known
        left, top, right, bottom = (edge + 1 for edge in window.box)
        part = known[top:bottom, left:right]
        if np.isnan(part).any():
            points = self._points(window).reshape(-1, 3).double().numpy()
            part[...] = self.solid.distances(points).reshape(part.shape)
        return part


def depth_ends(window: Window) -> tuple[float, float]:
    """The nearest and farthest depth at which a ball of radius 1 around the origin can be seen."""
    assert window.camera is not None
    middle = float(window.camera.world_to_camera[2, 3])
    return max(0.0, middle - 1), max(middle + 1, 0.1)
