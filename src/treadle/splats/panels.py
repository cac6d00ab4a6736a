"""Splats to look at: a strip of a held-out view, a turntable, and how a scene has grown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.cameras.camera import Camera
from treadle.cameras.turntable import small_camera
from treadle.data.views import Target
from treadle.images.judging import as_pixels
from treadle.images.panels import panel
from treadle.images.reading import Pixels
from treadle.images.strips import STRIP, strip
from treadle.images.video import write_gif
from treadle.splats.cloud import Cloud
from treadle.splats.rendering import Rendered, render


def strip_of(rendered: Rendered, target: Target) -> list[Pixels]:
    """Target, render, error and depth of a view, (H, W, 3) uint8 each."""
    assert rendered.depth is not None
    return strip(rendered.image, target.colors, rendered.depth, rendered.alpha)


def strips(views: Iterable[tuple[Rendered, Target]]) -> Pixels:
    """One panel of several views."""
    return panel([strip_of(rendered, target) for rendered, target in views], STRIP)


def turntable(path: Path, cloud: Cloud, cameras: Sequence[Camera], background: Tensor) -> Path:
    """Write what the cameras see, one after the other, as a GIF."""
    write_gif(path, _rendered(cloud, cameras, background), 16)
    return path


def _rendered(cloud: Cloud, cameras: Sequence[Camera], background: Tensor) -> Iterator[NDArray[np.uint8]]:
    with torch.no_grad():
        for camera in cameras:
            yield as_pixels(render(cloud, small_camera(camera), background=background).image).numpy()
