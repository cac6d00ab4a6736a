"""Between the page's messages about views and the views: what was asked as a window, what was found as data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from treadle.errors import UsageError
from treadle.reports.views import LiveView, Sample, Window, camera_of, chosen, numbers_of
from treadle.reports.views import Shapes as ViewShapes
from treadle.studio.protocol import Shapes, Watch
from treadle.studio.wire import pack


def ranked(samples: Sequence[Sample], view: LiveView) -> list[dict[str, Any]]:
    """Samples as plain data, the worst first by their first figure; those whose figure is no number before all."""

    def order(sample: Sample) -> float:
        value = next(iter(sample.figures.values()), 0.0)
        return -math.inf if math.isnan(value) else value if view.worst == "lowest" else -value

    return [{"name": sample.name, "figures": dict(sample.figures)} for sample in sorted(samples, key=order)]


def packed(id: int, shapes: ViewShapes) -> bytes:
    """Shapes as a binary message: the arrays that there are, each named as `treadle.reports.views.Shapes` has it."""
    parts, data = [], []
    for one in fields(shapes):
        array = getattr(shapes, one.name)
        if array is None:
            continue
        array = np.asarray(array)
        if one.name == "offsets":
            array = array.astype(np.uint32)
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        kind = {"colors": "points", "line_colors": "lines", "offsets": "lines", "boxes": "box"}.get(one.name, one.name)
        parts.append({"name": one.name, "kind": kind, "dtype": array.dtype.name, "shape": list(array.shape)})
        data.append(array.tobytes())
    return pack(Shapes(id=id, parts=parts), *data)


def resized(window: Window, width: int, height: int) -> Window:
    """The same picture, coarser."""
    camera = None if window.camera is None else window.camera.resized(width, height)
    return Window(width, height, (0, 0, width, height), camera, window.options, moving=True)


def window_of(view: LiveView, watch: Watch) -> Window:
    """What a client wants to see of a view. Raises UsageError for an option or a camera that is none."""
    options = chosen(view.options(), watch.options)
    width, height, camera = watch.width, watch.height, None
    if view.kind == "space":
        numbers: Sequence[float] | None = watch.camera
        if numbers is None:
            cameras = view.cameras()
            if not cameras:
                raise UsageError(f"the view {watch.view!r} has no camera of its own: give one")
            numbers = numbers_of(cameras[0])
        camera = camera_of(numbers, width, height)
    elif (size := view.size()) is not None:
        # Never larger than it is, for the page can enlarge pixels; unless it is looked at from nearer than that.
        zoom = max(1.0, float(options.get("zoom", 1.0)))
        scale = min(width / size[0], height / size[1], zoom)
        width, height = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    return Window(width, height, (0, 0, width, height), camera, options, watch.moving)
