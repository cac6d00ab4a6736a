"""Live views of splats: from wherever a browser looks, and held-out photographs beside what is rendered."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.cameras.background import BLACK, WHITE
from treadle.cameras.bounds import Bounds
from treadle.cameras.camera import Camera
from treadle.cameras.capture import Capture
from treadle.cameras.naming import cameras_of, names_of
from treadle.data.batch import to_device
from treadle.data.views import Target, View, ViewFeed
from treadle.images.depth import depth_ends, shown_depth
from treadle.images.judging import as_pixels
from treadle.images.strips import STRIP
from treadle.kernels.splatting import Projection
from treadle.kernels.threads import left_to_kernels
from treadle.reports.cropping import crop_of, crop_options
from treadle.reports.scene import MOST_POINTS as MOST_GAUSSIANS
from treadle.reports.scene import Scene, cameras_in
from treadle.reports.sheets import Cell, SheetView
from treadle.reports.views import LiveView, Option, Sample, Shapes, Value, Window, values_at
from treadle.splats.cloud import Cloud
from treadle.splats.model import Splats
from treadle.splats.panels import strip_of
from treadle.splats.rendering import LEAST_ALPHA, Rendered, kernels_for
from treadle.splats.sigmoid import sigmoid

MOST_POINTS = 5000
"""Centres that are laid over the picture; of more splats, so many, evenly from the first to the last."""
CROWDED = 64
"""Splats over a pixel that are white in the channel "overdraw"."""
_HARMONIC = 0.28209479177387814
"""The spherical harmonic of degree 0."""
_DOT = -20.0
"""The logarithm of the extents of splats that are to be dots: what is left is the filter of .3 pixels^2."""


@dataclass(frozen=True, eq=False)
class Seen:
    """Splats as a camera sees all of them, before they are blended in one part of its picture or another."""

    projection: Projection
    opacities: Tensor
    """(n,), 0 where a splat is left out."""
    colors: Tensor
    """(n, 3)."""
    ends: tuple[float, float]
    """The nearest and the farthest depth of the scale of colours."""

    def blended(self, window: Window, channels: Tensor, background: Tensor | None) -> tuple[Tensor, Tensor]:
        """Channels (n, c) and alpha in the window's box: (h, w, c) and (h, w)."""
        left, top, right, bottom = window.box
        # Projected for the whole picture and moved: what is beside it is then the same in all parts.
        moved = self.projection.centers - self.projection.centers.new_tensor([left, top])
        rasterize = kernels_for(channels.device).rasterize
        found: tuple[Tensor, Tensor] = rasterize(
            self.projection._replace(centers=moved), self.opacities, channels, (right - left, bottom - top), background
        )
        return found

    def overdraw(self, window: Window) -> NDArray[np.int64]:
        """(h, w): how many splats reach each pixel of the window's box, by the boxes around them."""
        left, top, right, bottom = window.box
        centers, extents = self.projection.centers.cpu().numpy(), self.projection.extents.cpu().numpy()
        there = extents[:, 0] > 0
        # Pixel i is sampled at i + .5.
        low = np.ceil(centers[there] - extents[there] - 0.5) - (left, top)
        high = np.floor(centers[there] + extents[there] - 0.5) + 1 - (left, top)
        size = right - left, bottom - top
        x0, x1 = (np.clip(ends[:, 0], 0, size[0]).astype(np.int64) for ends in (low, high))
        y0, y1 = (np.clip(ends[:, 1], 0, size[1]).astype(np.int64) for ends in (low, high))
        edges = np.zeros((size[1] + 1, size[0] + 1), np.int64)
        for rows, columns, sign in ((y0, x0, 1), (y0, x1, -1), (y1, x0, -1), (y1, x1, 1)):
            np.add.at(edges, (rows, columns), sign)
        return np.asarray(edges.cumsum(0).cumsum(1)[:-1, :-1])


class SplatsView(LiveView):
    """The splats from any camera.

    Args:
        model: the splats.
        capture: what they are fitted to: its cameras are those to snap to, its points say where the crop box can be.
        background: (3,) from 0 to 1: what held-out views are rendered over.
        near: the near plane.
        standing: which state the run is in (see `treadle.reports.trainer_views.standing_of`).
    """

    title = "Splats"
    kind = "space"

    def __init__(
        self, model: Splats, capture: Capture, background: Tensor, near: float, standing: Callable[[], Hashable]
    ) -> None:
        self._model, self._capture, self._background, self._near = model, capture, background, near
        self._standing = standing
        self._seen: tuple[Hashable, Seen] | None = None
        self._cameras = cameras_of(capture)
        self._bounds = lower, upper = bounds_of(capture)
        self._options = (
            Option("channel", "Channel", "choice", "color", ("color", "depth", "alpha", "overdraw")),
            Option("look", "Look", "choice", "splats", ("splats", "ellipses", "points")),
            Option("scale", "Extents, times their own", "range", 1.0, low=0.05, high=2.0, step=0.05),
            Option("degree", "Harmonics up to degree", "range", float(model.cloud().degree), low=0.0,
                   high=float(model.cloud().degree), step=1.0),
            Option("opacity", "Least opacity", "range", 0.0, low=0.0, high=1.0, step=0.01),
            Option("background", "Background", "choice", "of tests", ("of tests", "black", "white")),
            *crop_options(lower.tolist(), upper.tolist()),
        )  # fmt: skip

    def options(self) -> Sequence[Option]:
        """Channel, look, extents, harmonics, opacity, background and the crop box."""
        return self._options

    def cameras(self) -> Sequence[Camera]:
        """Those of all photographs: first what is trained on, then what is held out."""
        return self._cameras

    @left_to_kernels()
    def prepare(self, window: Window) -> bool:
        """Project the splats."""
        self.seen(window)
        return True

    @left_to_kernels()
    def draw(self, window: Window) -> Any:
        """The window's box in the chosen channel; overdraw is the root of how many splats lie over one another,
        white from `CROWDED` on."""
        seen, channel = self.seen(window), window.options["channel"]
        if channel == "overdraw":
            return np.sqrt(np.minimum(seen.overdraw(window) / CROWDED, 1)).astype(np.float32)
        if channel == "color":
            return as_pixels(seen.blended(window, seen.colors, self.background(window))[0])
        depth, alpha = seen.blended(window, seen.projection.depths[:, None], None)
        if channel == "alpha":
            return alpha.cpu().numpy()
        return shown_depth(depth[..., 0] / alpha.clamp(min=LEAST_ALPHA), alpha, seen.ends)

    @left_to_kernels()
    def inspect(self, window: Window, x: int, y: int) -> Mapping[str, float | str]:
        """Colour, alpha, how many splats reach the pixel, and where in space what is seen there lies in the mean."""
        seen, pixel = self.seen(window), replace(window, box=(x, y, x + 1, y + 1))
        channels = torch.cat([seen.colors, seen.projection.depths[:, None]], 1)
        background = torch.cat([self.background(window), seen.colors.new_zeros(1)])
        (values,), (alpha,) = (part[0] for part in seen.blended(pixel, channels, background))
        found: dict[str, float | str] = dict(zip(("red", "green", "blue"), values[:3].tolist(), strict=True))
        found |= {"alpha": float(alpha), "splats": int(seen.overdraw(pixel)[0, 0])}
        if alpha > 0.5 and window.camera is not None:
            camera, depth = window.camera, float(values[3] / alpha)
            ray = np.array([(x + 0.5 - camera.cx) / camera.fx, (y + 0.5 - camera.cy) / camera.fy, 1.0, 1 / depth])
            place = camera.camera_to_world @ (ray * depth)
            found |= {"depth": depth} | dict(zip("xyz", place[:3].tolist(), strict=True))
        return found

    def figures(self, window: Window) -> Mapping[str, float]:
        """How many splats there are, how many are left by opacity and crop box, and how many of these are in sight."""
        seen = self.seen(window)
        left, sight = (seen.opacities > 0).sum(), (seen.projection.extents[:, 0] > 0).sum()
        return {"splats": len(seen.opacities), "chosen": int(left), "in sight": int(sight)}

    def shapes(self, window: Window) -> Shapes:
        """Centres of splats in their colours, evenly chosen from those that opacity and crop box leave; the box."""
        cloud = self._model.cloud().detached()
        there = self._chosen(cloud, window.options).nonzero()[:, 0]
        some = there[torch.linspace(0, len(there) - 1, min(len(there), MOST_POINTS)).round().long()]
        colors = as_pixels(cloud.dc[some] * _HARMONIC + 0.5).numpy()
        crop = crop_of(window.options, self._options)
        cut = np.isfinite(crop)
        boxes = np.where(cut, crop, self._bounds)[None].astype(np.float32) if cut.any() else None
        return Shapes(points=cloud.means[some].numpy().astype(np.float32), colors=colors, boxes=boxes)

    def background(self, window: Window) -> Tensor:
        """The colour behind the splats, (3,)."""
        color = {"black": BLACK, "white": WHITE}.get(str(window.options["background"]))
        return self._background if color is None else self._background.new_tensor(color)

    def seen(self, window: Window) -> Seen:
        """The splats as the window's camera sees them; projected once for all parts of a picture."""
        camera = window.camera
        assert camera is not None
        key = (
            self._standing(), camera.intrinsics, camera.size, camera.world_to_camera.tobytes(),
            tuple(sorted(window.options.items())),
        )  # fmt: skip
        if self._seen is None or self._seen[0] != key:
            self._seen = key, self._see(camera, window.options)
        return self._seen[1]

    def _see(self, camera: Camera, options: Mapping[str, Value]) -> Seen:
        cloud, look = self._model.cloud(), options["look"]
        kernels = kernels_for(cloud.means.device)
        solid = look != "splats"
        opacities = torch.ones_like(cloud.logits) if solid else sigmoid(cloud.logits)
        opacities = torch.where(self._chosen(cloud, options), opacities, 0.0)
        extents = cloud.log_scales.exp() * float(options["scale"])
        if look == "points":
            extents = torch.full_like(extents, _DOT).exp()
        pose = torch.as_tensor(camera.world_to_camera).to(cloud.means)
        antialiased = cloud.antialiased and not solid
        projection: Projection = kernels.project(
            cloud.means, cloud.quaternions, extents, opacities, pose, camera.intrinsics, camera.size,
            near=self._near, antialiased=antialiased,
        )  # fmt: skip
        visible = projection.extents[:, 0] > 0
        eye = -(pose[:3, :3].T @ pose[:3, 3])
        degree = int(options["degree"])
        colors = kernels.spherical_harmonics(cloud.dc, cloud.rest, cloud.means, eye, degree, visible)
        depths = projection.depths[visible & (opacities > 0.1)]
        ends = depth_ends(depths.cpu().numpy()) if len(depths) else (0.0, 1.0)
        return Seen(projection, opacities * projection.compensations if antialiased else opacities, colors, ends)

    def _chosen(self, cloud: Cloud, options: Mapping[str, Value]) -> Tensor:
        """(n,) bool: which splats are opaque enough, and inside of the crop box."""
        least = float(options["opacity"])
        chosen = sigmoid(cloud.logits) >= least if least > 0 else torch.ones_like(cloud.logits, dtype=torch.bool)
        crop = crop_of(options, self._options)
        if np.isfinite(crop).any():
            lower, upper = torch.as_tensor(crop).to(cloud.means)
            chosen &= ((cloud.means >= lower) & (cloud.means <= upper)).all(1)
        return chosen


def scene_of(cloud: Cloud, cameras: Sequence[Camera]) -> Scene:
    """Splats as Gaussians in their colours without harmonics, evenly chosen where they are many, and cameras."""
    some = torch.linspace(0, len(cloud) - 1, min(len(cloud), MOST_GAUSSIANS)).round().long()
    colors = torch.cat([cloud.dc[some] * _HARMONIC + 0.5, sigmoid(cloud.logits[some])[:, None]], 1)
    turns = torch.nn.functional.normalize(cloud.quaternions[some], dim=1)[:, [1, 2, 3, 0]]
    return Scene(
        points=cloud.means[some].numpy(),
        colors=as_pixels(colors).numpy(),
        scales=cloud.log_scales[some].exp().numpy(),
        rotations=turns.numpy(),
        **cameras_in(cameras),
    )


def bounds_of(capture: Capture) -> NDArray[np.float64]:
    """(2, 3): the lower and the upper corner of where a scene is: of its points, or of what its cameras look at."""
    bounds = Bounds.of(capture.train.cameras)
    around = np.stack([bounds.focus - bounds.distance, bounds.focus + bounds.distance])
    if capture.points is None or len(capture.points) < 10:
        return around
    low, high = np.percentile(capture.points, [1, 99], axis=0)
    spare = 0.25 * (high - low).max()
    return np.stack([low - spare, high + spare])


class HeldOutView(SheetView):
    """Held-out photographs beside what the splats show from there: target, render, error and depth.

    Args:
        feed: the photographs.
        see: renders one with depth, and says what it should be (see `SplatsTrainer.seen`).
        judge: its figures.
        device: where views are wanted.
        standing: see `SheetView`.
    """

    title = "Held-out views"
    aligned = True

    def __init__(
        self,
        feed: ViewFeed,
        see: Callable[[View], tuple[Rendered, Target]],
        judge: Callable[[Rendered, Target, View], dict[str, float]],
        device: torch.device,
        standing: Callable[[], Hashable],
    ) -> None:
        super().__init__(standing)
        self._feed, self._see, self._judge, self._device = feed, see, judge, device
        self._numbers = {name: number for number, name in enumerate(names_of(feed.photographs.cameras))}
        self._judged: tuple[Hashable, dict[str, dict[str, float]]] = (None, {})

    def options(self) -> Sequence[Option]:
        """Which view."""
        names = tuple(self._numbers)
        return (Option("sample", "View", "choice", names[0], names), *super().options())

    def cells(self, window: Window) -> Sequence[Cell]:
        """Target, render, error and depth of the chosen view."""
        view = self._view(str(window.options["sample"]))
        rendered, target = self._see(view)
        assert rendered.depth is not None
        wanted, seen = (image.detach().cpu().numpy() for image in (target.colors, rendered.image))
        depth, alpha = (values.detach().cpu().numpy() for values in (rendered.depth, rendered.alpha))

        def far(column: int, row: int) -> dict[str, float | str]:
            return {"depth": float(depth[row, column]), "alpha": float(alpha[row, column])}

        numbers = (
            lambda column, row: values_at(wanted, column, row),
            lambda column, row: values_at(seen, column, row),
            lambda column, row: values_at(seen - wanted, column, row),
            far,
        )
        pictures = zip(STRIP, strip_of(rendered, target), numbers, strict=True)
        return [Cell(name, picture, exact) for name, picture, exact in pictures]

    def figures(self, window: Window) -> Mapping[str, float]:
        """PSNR, SSIM and L1 of the chosen view."""
        return self._figures(str(window.options["sample"]))

    def samples(self) -> Iterable[Sample]:
        """All held-out views with their figures, one by one; those of the present state are kept."""
        for name in self._numbers:
            yield Sample(name, self._figures(name))

    def _figures(self, name: str) -> dict[str, float]:
        state = self._standing()
        if self._judged[0] != state:
            self._judged = state, {}
        found = self._judged[1]
        if name not in found:
            view = self._view(name)
            found[name] = self._judge(*self._see(view), view)
        return found[name]

    def _view(self, name: str) -> View:
        view: View = to_device(self._feed.gather(0, [self._numbers[name]]), self._device)
        return view
