"""Splats to look at: a strip of a held-out view, a turntable, and how a scene has grown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.cameras.camera import Camera
from treadle.cameras.capture import Capture
from treadle.cameras.paths import camera_path
from treadle.data.feed import Feed
from treadle.errors import UsageError
from treadle.images.panels import panel
from treadle.images.reading import Pixels, read_array
from treadle.images.video import write_gif
from treadle.runs.metrics import series
from treadle.splats.cloud import Cloud
from treadle.splats.feed import Target, View
from treadle.splats.judging import as_pixels
from treadle.splats.rendering import Rendered, render

ERROR_GAIN = 4
"""What errors are multiplied by to be seen."""
LARGEST = 256
"""The longest side of a picture that moves, in pixels."""

_GROWTH = re.compile(r"step-(\d+)-view\.png")

# Far to near, as Moreland's black-body colours run: steps that look alike, and still told apart without colour.
_FAR_TO_NEAR = np.array([[0, 0, 0], [72, 18, 10], [178, 34, 34], [227, 105, 5], [238, 210, 33], [255, 255, 255]]) / 255


def strip(rendered: Rendered, target: Target) -> list[Pixels]:
    """Target, render, error times `ERROR_GAIN` and depth of a view, (H, W, 3) uint8 each."""
    seen, wanted = as_pixels(rendered.image).numpy(), as_pixels(target.colors).numpy()
    error = np.abs(seen.astype(np.int16) - wanted).mean(2).clip(0, 255 / ERROR_GAIN) * ERROR_GAIN
    assert rendered.depth is not None
    depth = shown_depth(rendered.depth, rendered.alpha)
    return [wanted, seen, np.repeat(error.astype(np.uint8)[:, :, None], 3, 2), depth]


STRIP = ("target", "render", f"|error| x {ERROR_GAIN}", "depth")


def strips(views: Iterable[tuple[Rendered, Target]]) -> Pixels:
    """One panel of several views."""
    return panel([strip(rendered, target) for rendered, target in views], STRIP)


def shown_depth(depth: Tensor, alpha: Tensor, ends: tuple[float, float] | None = None) -> Pixels:
    """Depths (H, W) as colours, near bright and far dark, (H, W, 3) uint8; black where less than half is covered.

    `ends` are the nearest and the farthest depth of the scale, for several pictures on one; by default this one's.
    """
    values, covered = depth.detach().cpu().numpy().astype(np.float64), alpha.detach().cpu().numpy() > 0.5
    if not covered.any():
        return np.zeros((*values.shape, 3), np.uint8)
    near, far = depth_ends(values[covered]) if ends is None else ends
    share = np.clip((far - values) / max(far - near, 1e-9), 0, 1) * 0.85 + 0.15
    places = np.linspace(0, 1, len(_FAR_TO_NEAR))
    colors = np.stack([np.interp(share, places, _FAR_TO_NEAR[:, channel]) for channel in range(3)], 2)
    shown: Pixels = (colors * covered[..., None] * 255 + 0.5).astype(np.uint8)
    return shown


def depth_ends(depths: NDArray[np.floating]) -> tuple[float, float]:
    """The nearest and the farthest of depths (n,), one at least, that a scale of colours is to show."""
    # The nearest and farthest hundredth may be anything: a single stray splat is not to darken all others.
    near, far = np.percentile(depths, [1, 99])
    return float(near), float(far)


def spread(feed: Feed, count: int = 4) -> Iterator[View]:
    """Some of the views, from the first to the last."""
    last = (feed.samples or 1) - 1
    for number in dict.fromkeys(np.linspace(0, last, count).astype(int).tolist()):
        yield feed.gather(0, [number])


def course(run: Path, first: int, last: int) -> str:
    """How the number of splats went, in quarters of the run, as it was logged: "5000, 6381, 8144, 9999, 10000"."""
    steps, counts = series(run, "splats")
    between = np.searchsorted(steps, steps[-1] * np.array([0.25, 0.5, 0.75])) if len(steps) else []
    return ", ".join([str(first), *(f"{counts[at]:.0f}" for at in between), str(last)])


def small_camera(camera: Camera, largest: int = LARGEST) -> Camera:
    """The camera with a picture whose longest side is at most `largest` pixels."""
    scale = min(1.0, largest / max(camera.size))
    return camera.resized(max(1, round(camera.width * scale)), max(1, round(camera.height * scale)))


def around(capture: Capture, frames: int) -> list[Camera]:
    """Cameras on their way around the scene; none where those of the capture look away from one another."""
    try:
        return camera_path("orbit", capture.train.cameras, frames, points=capture.points) if frames else []
    except UsageError:
        return []


def turntable(path: Path, cloud: Cloud, cameras: Sequence[Camera], background: Tensor) -> Path:
    """Write what the cameras see, one after the other, as a GIF."""
    write_gif(path, _rendered(cloud, cameras, background), 16)
    return path


def growth(path: Path, examples: Path) -> Path | None:
    """Write the pictures "view" in a run's `examples` as a GIF; None where there are less than two.

    Pictures of another size than the last one (those of another fork, say) are left out.
    """
    found = {int(match[1]): file for file in examples.glob("*.png") if (match := _GROWTH.fullmatch(file.name))}
    pictures = [read_array(found[step]) for step in sorted(found)]
    frames = [picture for picture in pictures if picture.shape == pictures[-1].shape]
    if len(frames) < 2:
        return None
    write_gif(path, [*frames, *[frames[-1]] * 12], 8)
    return path


def _rendered(cloud: Cloud, cameras: Sequence[Camera], background: Tensor) -> Iterator[NDArray[np.uint8]]:
    with torch.no_grad():
        for camera in cameras:
            yield as_pixels(render(cloud, small_camera(camera), background=background).image).numpy()
