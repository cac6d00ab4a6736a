"""What splats look like, beside a rasterizer in float64 and plain torch: at every pixel, also of a file of others."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from treadle.cameras.camera import Camera
from treadle.cameras.procedural import camera_at
from treadle.kernels import splatting_reference as oracle
from treadle.splats.cloud import Cloud
from treadle.splats.ply import read_cloud
from treadle.splats.rendering import render

THEIRS = Path(__file__).parents[1] / "fixtures" / "splats" / "theirs.ply"


def at_random(antialiased: bool) -> Cloud:
    """Splats of all sizes, from much smaller than a pixel to a third of the picture."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(1500, *shape, generator=generator)

    return Cloud(
        0.5 * normal(3), normal(4), 1.2 * normal(3) - 4, 2 * normal(), normal(3), 0.3 * normal(15, 3), {}, antialiased
    )


CLOUDS = {
    "at random": lambda: at_random(False),
    "at random, antialiased": lambda: at_random(True),
    "another program's": lambda: read_cloud(THEIRS),
}


def in_float64(cloud: Cloud, camera: Camera, background: Tensor) -> Tensor:
    """The picture by the reference, from the float32 numbers of the cloud on."""
    double = {name: getattr(cloud, name).double() for name in ("means", "quaternions", "log_scales", "logits", "dc")}
    rest, pose = cloud.rest.double(), torch.from_numpy(camera.world_to_camera)
    opacities = double["logits"].sigmoid()
    projection = oracle.project_reference(
        double["means"],
        double["quaternions"],
        double["log_scales"].exp(),
        opacities,
        pose,
        camera.intrinsics,
        camera.size,
        antialiased=cloud.antialiased,
    )
    eye = torch.from_numpy(camera.center)
    colors = oracle.spherical_harmonics_reference(double["dc"], rest, double["means"], eye, 3, None)
    image, _ = oracle.rasterize_reference(
        projection, opacities * projection.compensations, colors, camera.size, background
    )
    return image


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize("view", [0, 1, 2])
def test_pictures_agree_with_float64_at_every_pixel(name: str, view: int) -> None:
    cloud = CLOUDS[name]()
    angle = 2.1 * view
    camera = camera_at(np.array([3 * math.cos(angle), 3 * math.sin(angle), 0.4 + view]), 120 + 7 * view)
    background = torch.tensor([1.0, 0.5, 0.0])
    found = render(cloud, camera, background=background).image.double().clamp(0, 1)
    wanted = in_float64(cloud, camera, background.double()).clamp(0, 1)
    error = (found - wanted).abs()
    assert error.max() <= 2 / 255
    assert -10 * math.log10(error.square().mean().item() + 1e-30) >= 80
    assert (wanted - background).abs().max() > 0.3, "nothing is seen"
