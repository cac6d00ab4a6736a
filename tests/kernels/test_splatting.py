"""What all of splatting has in common: threads, gradients through the whole chain, other dtypes, what is refused."""

from __future__ import annotations

import pytest
import torch

from treadle.errors import UsageError
from treadle.kernels import splatting, ssim, threads
from treadle.kernels.splatting_reference import (
    contributions_reference,
    project_reference,
    rasterize_reference,
    spherical_harmonics_reference,
)
from treadle.kernels.splatting_warmup import STAGES, prepare
from treadle.kernels.ssim_reference import ssim_l1_reference

COMPILED = (splatting.project, splatting.spherical_harmonics, splatting.rasterize, ssim.ssim_l1)
REFERENCE = (project_reference, spherical_harmonics_reference, rasterize_reference, ssim_l1_reference)


def scene(count, size, dtype, seed=0):
    """Parameters of a cloud before a camera: means, quaternions, scales, opacities, dc, rest, pose."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    opacities = torch.rand(count, generator=generator, dtype=torch.float64) * 0.9 + 0.05
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = torch.linalg.qr(torch.eye(3, dtype=torch.float64) + 0.1 * normal(3, 3))[0]
    pose[:3, :3] *= pose[:3, :3].diagonal().sign()
    pose[2, 3] = 3.0
    scales = 0.08 * normal(count, 3).exp()
    cloud = [normal(count, 3), normal(count, 4), scales, opacities, normal(count, 3), 0.3 * normal(count, 15, 3), pose]
    return [values.to(dtype) for values in cloud]


def whole_step(functions, leaves, size, target):
    """The loss of a picture, its parts, and the gradient to everything."""
    project, harmonics, rasterize, compare = functions
    means, quaternions, scales, opacities, dc, rest, pose = leaves = [x.detach().requires_grad_() for x in leaves]
    lens = (1.2 * size[0], 1.1 * size[0], 0.45 * size[0], 0.55 * size[1])
    flat = project(means, quaternions, scales, opacities, pose, lens, size, antialiased=True)
    eye = -pose[:3, :3].T @ pose[:3, 3]
    colors = harmonics(dc, rest, means, eye, 3, flat.extents[:, 0] > 0)
    channels = torch.cat((colors, flat.depths[:, None]), dim=1)
    image, alpha = rasterize(flat, opacities * flat.compensations, channels, size)
    l1, alike = compare(image[..., :3], target)
    loss = 0.8 * l1 + 0.2 * (1 - alike) + 0.01 * image[..., 3].mean() + 0.1 * alpha.mean()
    return [*flat, colors, image, alpha, loss, *torch.autograd.grad(loss, leaves)]


def step(functions, dtype, count=300, size=(70, 45)):
    target = torch.rand(size[1], size[0], 3, generator=torch.Generator().manual_seed(9), dtype=torch.float64).to(dtype)
    return [x.detach() for x in whole_step(functions, scene(count, size, dtype), size, target)]


def test_a_whole_step_equals_the_reference_in_float64():
    for found, wanted in zip(step(COMPILED, torch.float64), step(REFERENCE, torch.float64), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
        assert wanted.abs().max() > 1e-6


def test_a_whole_step_in_float32_is_near_the_one_in_float64():
    for found, wanted in zip(step(COMPILED, torch.float32), step(REFERENCE, torch.float64), strict=True):
        assert found.dtype == torch.float32
        assert (found - wanted).norm() <= 2e-3 * wanted.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bitwise_equal_in_any_number_of_parts(dtype, monkeypatch):
    results = []
    for parts in (1, 2, 4, 3):
        monkeypatch.setattr(threads, "parts_for", lambda work, parts=parts: parts)
        results.append(step(COMPILED, dtype, count=5000))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_bitwise_equal_on_one_two_and_four_threads():
    before, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            results.append(step(COMPILED, torch.float32, count=9000))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_centers_keep_the_gradient_that_densification_looks_at():
    means, quaternions, scales, opacities, _, _, pose = scene(20, (40, 30), torch.float32)
    lens, size = (50.0, 50.0, 20.0, 15.0), (40, 30)
    flat = splatting.project(means.requires_grad_(), quaternions, scales, opacities, pose, lens, size)
    flat.centers.retain_grad()
    image, _ = splatting.rasterize(flat, opacities, torch.ones(20, 3), size)
    image.square().sum().backward()
    seen = flat.extents[:, 0] > 0
    assert flat.centers.grad[seen].abs().sum() > 0 and (flat.centers.grad[~seen] == 0).all()
    assert means.grad.isfinite().all()


def test_other_dtypes_take_the_reference():
    means, quaternions, scales, opacities, dc, rest, pose = (x.bfloat16() for x in scene(5, (20, 20), torch.float32))
    flat = splatting.project(means, quaternions, scales, opacities, pose, (20.0, 20.0, 10.0, 10.0), (20, 20))
    colors = splatting.spherical_harmonics(dc, rest, means, means[0] - 1, 1)
    image, _ = splatting.rasterize(flat, opacities, colors, (20, 20))
    assert flat.centers.dtype == colors.dtype == image.dtype == torch.bfloat16
    weights, pixels = splatting.contributions(flat, opacities, (20, 20))
    expected = contributions_reference(flat, opacities, (20, 20))
    assert torch.equal(weights, expected[0]) and torch.equal(pixels, expected[1])


def test_everything_is_compiled_ahead_and_progress_told():
    told = []
    prepare(lambda *line: told.append(line))
    assert told == [(i, len(STAGES), name) for i, name in enumerate((*STAGES, ""))]


REFUSED = {
    "means": lambda s: splatting.project(s[0][:, :2], *s[1:4], s[6], (1.0, 1.0, 0.0, 0.0), (9, 9)),
    "quaternions": lambda s: splatting.project(s[0], s[1][:2], *s[2:4], s[6], (1.0, 1.0, 0.0, 0.0), (9, 9)),
    "scales is torch.float64": lambda s: splatting.project(
        s[0], s[1], s[2].double(), s[3], s[6], (1.0, 1.0, 0.0, 0.0), (9, 9)
    ),
    "0 x 9 pixels": lambda s: splatting.project(*s[:4], s[6], (1.0, 1.0, 0.0, 0.0), (0, 9)),
    "near": lambda s: splatting.project(*s[:4], s[6], (1.0, 1.0, 0.0, 0.0), (9, 9), near=0.0),
    "degree of 0 to 3 here, got 4": lambda s: splatting.spherical_harmonics(s[4], s[5], s[0], s[0][0], 4),
    "degree 3 needs 15": lambda s: splatting.spherical_harmonics(s[4], s[5][:, :8], s[0], s[0][0], 3),
    "visible": lambda s: splatting.spherical_harmonics(*s[4:6], s[0], s[0][0], 3, torch.ones(2, dtype=torch.bool)),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(words):
    with pytest.raises(UsageError, match=words) as caught:
        REFUSED[words](scene(4, (9, 9), torch.float32))
    assert "\n" not in str(caught.value)


def test_channels_and_backgrounds_that_do_not_fit_are_refused():
    *cloud, _, _, pose = scene(4, (9, 9), torch.float32)
    flat = splatting.project(*cloud[:4], pose, (9.0, 9.0, 4.5, 4.5), (9, 9))
    for channels, background in ((torch.ones(4), None), (torch.ones(3, 3), None), (torch.ones(4, 0), None),
                                 (torch.ones(4, 3), torch.ones(2))):  # fmt: skip
        with pytest.raises(UsageError, match=r"channels|background"):
            splatting.rasterize(flat, cloud[3], channels, (9, 9), background)
