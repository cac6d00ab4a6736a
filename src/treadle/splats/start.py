"""What a scene starts from: points that are known, random places, or splats from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.cameras.bounds import Bounds
from treadle.cameras.camera import Camera
from treadle.cameras.capture import Capture
from treadle.cameras.rays import project
from treadle.errors import UsageError
from treadle.kernels.neighbours import neighbour_distances
from treadle.splats.cloud import Cloud
from treadle.splats.rendering import NEAR
from treadle.splats.settings import SplatsConfig

SH0 = 0.28209479177387814
"""The spherical harmonic of degree 0."""

LEAST_SQUARE = 1e-7
"""The least mean squared distance to its neighbours that a splat is made for: points may be at the same place."""

ALONE = 5000
"""Random splats where there is nothing else to start from."""

Array = NDArray[np.float64]


def nearest(capture: Capture) -> float:
    """From how near on splats are drawn: .6 of the distance than which a hundredth of what cameras see of the data's
    points lies nearer, at least `NEAR`; `NEAR` where there are none.

    A fog right before a camera is the cheapest way to explain what differs from view to view, such as its exposure.
    """
    if capture.points is None or len(capture.points) == 0:
        return NEAR
    seen = []
    for camera in capture.train.cameras:
        pixels, depths = project(camera, capture.points)
        inside = (pixels >= 0).all(1) & (pixels < camera.size).all(1) & (depths > 0)
        seen.append(depths[inside])
    depths = np.concatenate(seen)
    return max(NEAR, 0.6 * float(np.percentile(depths, 1))) if len(depths) else NEAR


def start(config: SplatsConfig, capture: Capture) -> Cloud:
    """The splats that a run begins with, as its settings say; random places are a function of the seed.

    Raises:
        UsageError: the data has no points to start from, or there would be no splat at all.
    """
    if config.init not in ("auto", "points", "random"):
        return from_file(Path(config.init), config)
    known = capture.points if config.init != "random" else None
    if config.init == "points" and (known is None or len(known) == 0):
        raise UsageError("init is 'points', but the data has none: start with init=random")
    has_points = known is not None and len(known) > 0
    count = config.random if config.random is not None else (0 if has_points else ALONE)
    places, colors = random_places(config, capture.train.cameras, count), np.full((count, 3), 0.5)
    if has_points:
        assert known is not None
        gray = np.full((len(known), 3), 128, np.uint8)
        places = np.concatenate([known, places])
        colors = np.concatenate([(gray if capture.colors is None else capture.colors) / 255, colors])
    if len(places) == 0:
        raise UsageError("there is no splat to start from: init is 'random' and random is 0")
    if len(places) > config.cap:
        chosen = np.sort(np.random.default_rng(config.seed).permutation(len(places))[: config.cap])
        places, colors = places[chosen], colors[chosen]
    opacity, size = config.beginning()
    return from_points(places, colors, opacity, size, config.degree, antialiased=bool(config.antialiased))


def from_points(
    points: Array, colors: Array, opacity: float, size: float, degree: int, *, antialiased: bool = False
) -> Cloud:
    """A round splat at each of `points` (n, 3), of `colors` (n, 3) from 0 to 1.

    Its standard deviation is `size` times the root of the mean squared distance to its three nearest neighbours.
    """
    nearest = neighbour_distances(points, 3)
    finite = np.isfinite(nearest)
    squares = np.where(finite, nearest, 0).sum(1) / np.maximum(1, finite.sum(1))
    squares = np.where(finite.any(1), squares, 1e-2)  # a splat that is alone
    logs = 0.5 * np.log(np.maximum(squares, LEAST_SQUARE)) + np.log(size)
    count = len(points)
    return Cloud(
        means=_tensor(points),
        quaternions=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1),
        log_scales=_tensor(logs)[:, None].repeat(1, 3),
        logits=torch.full((count,), float(np.log(opacity / (1 - opacity)))),
        dc=_tensor((colors - 0.5) / SH0),
        rest=torch.zeros(count, (degree + 1) ** 2 - 1, 3),
        antialiased=antialiased,
    )


def random_places(config: SplatsConfig, cameras: Sequence[Camera], count: int) -> Array:
    """(count, 3) random places in a box around what the cameras look at, or in what they see."""
    bounds, rng = Bounds.of(cameras), np.random.default_rng([config.seed, 1])
    if config.random_in == "box":
        return bounds.focus + rng.uniform(-1, 1, (count, 3)) * bounds.distance / 3
    which = rng.integers(len(cameras), size=count)
    depths = bounds.distance * 3 ** rng.uniform(-1, 1, count)
    shares = rng.uniform(size=(count, 2))
    lenses = np.array([(*camera.intrinsics, *camera.size) for camera in cameras])[which]
    across = (shares * lenses[:, 4:] - lenses[:, 2:4]) / lenses[:, :2]
    local = np.column_stack([across, np.ones(count)]) * depths[:, None]
    poses = np.stack([camera.camera_to_world for camera in cameras])[which]
    places: Array = (poses[:, :3, :3] @ local[:, :, None])[:, :, 0] + poses[:, :3, 3]
    return places


def from_file(path: Path, config: SplatsConfig) -> Cloud:
    """The splats of a PLY, compressed PLY or .spz file, with harmonics of the degree that the settings say.

    Those that the file lacks are zero, those beyond are left out.

    Raises:
        UsageError: there is no such file, or none that holds splats.
    """
    from treadle.splats.files import read_splats

    if not path.is_file():
        raise UsageError(
            f"init is {str(path)!r}: expected 'auto', 'points', 'random' or a file of splats that is there"
        )
    cloud = read_splats(path)
    bands = (config.degree + 1) ** 2 - 1
    rest = torch.zeros(len(cloud), bands, 3)
    common = min(bands, cloud.rest.shape[1])
    rest[:, :common] = cloud.rest[:, :common]
    antialiased = cloud.antialiased if config.antialiased is None else config.antialiased
    return replace(cloud, rest=rest, antialiased=antialiased)


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))
