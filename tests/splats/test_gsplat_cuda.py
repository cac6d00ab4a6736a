"""The adapter to gsplat, against a stand-in that takes what gsplat 1.5.3 takes and computes as our reference does.

gsplat itself needs CUDA: that its kernels give these pictures is not shown here.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from treadle.errors import UsageError
from treadle.kernels import splatting
from treadle.kernels.splatting_reference import harmonics, project_reference, rasterize_reference
from treadle.splats import gsplat_cuda

LENS, SIZE = (30.0, 31.0, 16.0, 11.0), (32, 23)


def fully_fused_projection(means, covars, quats, scales, viewmats, Ks, width, height, *, eps2d, near_plane,
                           calc_compensations, opacities):  # fmt: skip
    assert covars is None and viewmats.shape == (1, 4, 4) and Ks.shape == (1, 3, 3) and not opacities.requires_grad
    lens = tuple(Ks[0][index].item() for index in ((0, 0), (1, 1), (0, 2), (1, 2)))
    flat = project_reference(means, quats, scales, opacities, viewmats[0], lens, (width, height), near=near_plane,
                             eps2d=eps2d, antialiased=calc_compensations)  # fmt: skip
    compensations = flat.compensations[None] if calc_compensations else None
    return flat.extents.ceil().int()[None], flat.centers[None], flat.depths[None], flat.conics[None], compensations


def spherical_harmonics(degree, dirs, coeffs, masks=None):
    bases = harmonics(torch.nn.functional.normalize(dirs, dim=1), degree)
    return (bases[..., None] * coeffs[:, : bases.shape[1]]).sum(1)


def isect_tiles(means2d, radii, depths, tile_size, tile_width, tile_height):
    assert means2d.shape[0] == radii.shape[0] == depths.shape[0] == 1 and radii.dtype == torch.int32
    assert tile_width * tile_size >= SIZE[0] and tile_height * tile_size >= SIZE[1]
    return None, (radii, depths), (radii, depths)


def isect_offset_encode(keys, images, tile_width, tile_height):
    return torch.zeros(images, tile_height, tile_width)


def rasterize_to_pixels(means2d, conics, colors, opacities, width, height, tile, offsets, order, *, backgrounds):
    assert colors.shape[0] == opacities.shape[0] == 1 and offsets.dim() == 3
    radii, depths = order
    flat = splatting.Projection(means2d[0], conics[0], depths[0], opacities[0], radii[0].to(means2d.dtype))
    background = None if backgrounds is None else backgrounds[0]
    image, alpha = rasterize_reference(flat, opacities[0], colors[0], (width, height), background)
    return image[None], alpha[None, ..., None]


@pytest.fixture
def gsplat(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = (fully_fused_projection, spherical_harmonics, isect_tiles, isect_offset_encode, rasterize_to_pixels)
    monkeypatch.setitem(sys.modules, "gsplat", SimpleNamespace(**{each.__name__: each for each in functions}))


@pytest.mark.parametrize("antialiased", [False, True])
def test_it_takes_and_gives_what_our_kernels_do(gsplat: None, cloud, antialiased: bool) -> None:
    pose = torch.eye(4)
    pose[2, 3] = 6
    pictures = []
    for kernels in (splatting, gsplat_cuda):
        means = cloud.means.clone().requires_grad_()
        opacities = cloud.logits.sigmoid()
        flat = kernels.project(means, cloud.quaternions, cloud.log_scales.exp(), opacities, pose, LENS, SIZE,
                               antialiased=antialiased)  # fmt: skip
        flat.centers.retain_grad()
        visible = flat.extents[:, 0] > 0
        colors = kernels.spherical_harmonics(cloud.dc, cloud.rest, means, torch.tensor([0.0, 0.0, -6.0]), 3, visible)
        channels = torch.cat([colors, flat.depths[:, None]], 1)
        image, alpha = kernels.rasterize(flat, opacities * flat.compensations, channels, SIZE, torch.ones(4))
        image.sum().backward()
        assert image.shape == (23, 32, 4) and alpha.shape == (23, 32) and flat.compensations.shape == (len(cloud),)
        pictures.append((image.detach(), alpha.detach(), means.grad, flat.centers.grad))
    for ours, theirs in zip(*pictures, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=2e-3, atol=2e-3)


def test_without_gsplat_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, cloud) -> None:
    monkeypatch.setitem(sys.modules, "gsplat", None)
    with pytest.raises(UsageError, match="splats on CUDA need gsplat: install it with: pip install"):
        gsplat_cuda.spherical_harmonics(cloud.dc, cloud.rest, cloud.means, torch.zeros(3), 3)
