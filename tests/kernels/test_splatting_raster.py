"""Tiles, blending and what each splat contributes: the reference, finite differences, and pixel by pixel here."""

from __future__ import annotations

import math

import pytest
import torch

from treadle.kernels.splatting import Projection, contributions, rasterize
from treadle.kernels.splatting_reference import contributions_reference, rasterize_reference

DOUBLE = torch.float64
BOTH = pytest.mark.parametrize("function", [rasterize, rasterize_reference])


def flat(centers, spreads, opacities, depths=None, dtype=DOUBLE):
    """Splats on the picture plane from centres, 2D covariances (xx, xy, yy) and opacities."""
    centers, spreads, opacities = (torch.as_tensor(x, dtype=DOUBLE) for x in (centers, spreads, opacities))
    xx, xy, yy = spreads.unbind(1)
    conics = torch.stack((yy, -xy, xx), dim=1) / (xx * yy - xy * xy)[:, None]
    reach = (2 * (255 * opacities).log()).clamp(min=0).sqrt()
    extents = reach[:, None] * torch.stack((xx, yy), dim=1).sqrt()
    depths = torch.arange(1.0, len(centers) + 1) if depths is None else torch.as_tensor(depths)
    found = Projection(centers, conics, depths.to(DOUBLE), torch.ones(len(centers)), extents)
    return Projection(*(value.to(dtype) for value in found)), opacities.to(dtype)


def but(projection, **changes):
    """The projection with some of its tensors replaced."""
    names = ("centers", "conics", "depths", "compensations", "extents")
    return Projection(**{name: changes.get(name, getattr(projection, name)) for name in names})


def crowd(count, size, seed=0, wide=3.0, dtype=DOUBLE):
    """Splats of all shapes over and around a picture, some of them alike in depth."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator, dtype=DOUBLE)

    centers = (uniform(count, 2) * 1.2 - 0.1) * torch.tensor(size, dtype=DOUBLE)
    a, b = (wide * (0.2 + uniform(count)) for _ in range(2))
    spreads = torch.stack((a * a, (2 * uniform(count) - 1) * 0.9 * a * b, b * b), dim=1)
    depths = (uniform(count) * max(1, count // 3)).floor() + 1
    opacities = 0.02 + 0.97 * uniform(count)
    # Every fifth is opaque, and clamped where it is sampled right at its centre.
    centers[::5], opacities[::5] = centers[::5].floor() + 0.5, 0.999
    return flat(centers, spreads, opacities, depths, dtype)


def by_hand(projection, opacities, channels, size, background):
    """Every pixel in plain Python, written from the definition."""
    order = sorted(range(len(opacities)), key=lambda i: (projection.depths[i].item(), i))
    image = torch.zeros(size[1], size[0], channels.shape[1], dtype=DOUBLE)
    alphas = torch.zeros(size[1], size[0], dtype=DOUBLE)
    for row in range(size[1]):
        for column in range(size[0]):
            through = 1.0
            for i in order:
                dx, dy = (p + 0.5 - c for p, c in zip((column, row), projection.centers[i].tolist(), strict=True))
                xx, xy, yy = projection.conics[i].tolist()
                alpha = min(0.99, opacities[i].item() * math.exp(-0.5 * (xx * dx * dx + yy * dy * dy) - xy * dx * dy))
                if alpha < 1 / 255:
                    continue
                if through * (1 - alpha) <= 1e-4:
                    break
                image[row, column] += alpha * through * channels[i]
                through *= 1 - alpha
            image[row, column] += through * background
            alphas[row, column] = 1 - through
    return image, alphas


def painted(count, kinds, dtype=DOUBLE, seed=7):
    generator = torch.Generator().manual_seed(seed)
    channels = torch.randn(count, kinds, generator=generator, dtype=DOUBLE)
    return channels.to(dtype), torch.rand(kinds, generator=generator, dtype=DOUBLE).to(dtype)


def gradients(function, projection, opacities, channels, size, background):
    """The image, alpha and the gradients of a random weighting of both to all that has one."""
    leaves = [x.detach().clone().requires_grad_() for x in (*projection[:2], opacities, channels, background)]
    image, alpha = function(but(projection, centers=leaves[0], conics=leaves[1]), *leaves[2:4], size, leaves[4])
    generator = torch.Generator().manual_seed(5)
    weights = [torch.randn(x.shape, generator=generator, dtype=DOUBLE).to(x.dtype) for x in (image, alpha)]
    total = (image * weights[0]).sum() + (alpha * weights[1]).sum()
    return [image.detach(), alpha.detach(), *torch.autograd.grad(total, leaves)]


@BOTH
def test_both_paths_follow_the_definition(function):
    projection, opacities = crowd(60, (19, 18), wide=8.0)
    channels, background = painted(60, 2)
    image, alpha = function(projection, opacities, channels, (19, 18), background)
    wanted = by_hand(projection, opacities, channels, (19, 18), background)
    assert wanted[1].max() > 0.9998  # some pixels end early
    torch.testing.assert_close(image, wanted[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(alpha, wanted[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize(("kinds", "size"), [(1, (33, 20)), (3, (50, 37)), (5, (16, 16)), (7, (15, 64))])
def test_values_and_gradients_equal_the_reference(kinds, size):
    projection, opacities = crowd(400, size, seed=kinds)
    channels, background = painted(400, kinds)
    ours, theirs = (
        gradients(function, projection, opacities, channels, size, background)
        for function in (rasterize, rasterize_reference)
    )
    for found, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@BOTH
def test_gradients_equal_finite_differences(function):
    size = (21, 18)
    projection, opacities = crowd(4, size, seed=2)
    assert (projection.centers[0] % 1 == 0.5).all() and opacities[0] > 0.99
    leaves = [x.clone().requires_grad_() for x in (*projection[:2], opacities, *painted(4, 2))]

    def drawn(centers, conics, shown, channels, background):
        return function(but(projection, centers=centers, conics=conics), shown, channels, size, background)

    assert torch.autograd.gradcheck(drawn, leaves, eps=1e-6, atol=1e-6, rtol=1e-6)


def test_float32_is_near_float64():
    size = (60, 50)
    projection, opacities = crowd(600, size, wide=2.0)
    channels, background = painted(600, 3)
    wanted = gradients(rasterize_reference, projection, opacities, channels, size, background)
    single = [x.float() for x in (opacities, channels, background)]
    found = gradients(rasterize, Projection(*(x.float() for x in projection)), *single[:2], size, single[2])
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == torch.float32 and (a - b).norm() <= 1e-4 * b.norm()


@BOTH
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (16, 1), (17, 33)])
def test_pictures_of_any_size(function, size):
    projection, opacities = flat([[0.5, 0.5]], [[4.0, 0.0, 4.0]], [0.8])
    image, alpha = function(projection, opacities, torch.ones(1, 1, dtype=DOUBLE), size)
    assert image.shape == (size[1], size[0], 1) and alpha.shape == (size[1], size[0])
    columns, rows = (torch.arange(n, dtype=DOUBLE) for n in size)
    wanted = 0.8 * (-(columns.square() + rows.square()[:, None]) / 8).exp()
    torch.testing.assert_close(alpha, torch.where(wanted >= 1 / 255, wanted, 0), rtol=0, atol=1e-12)
    torch.testing.assert_close(image[..., 0], alpha)


@BOTH
def test_no_splats_and_none_in_the_picture_leave_the_background(function):
    background = torch.tensor([0.25, -1.0], dtype=DOUBLE, requires_grad=True)
    nothing = flat(torch.zeros(0, 2), torch.zeros(0, 3), torch.zeros(0))
    culled, opacities = crowd(3, (20, 20))
    culled = but(culled, extents=torch.zeros_like(culled.extents))
    for projection, shown in (nothing, (culled, opacities)):
        channels = torch.ones(len(shown), 2, dtype=DOUBLE, requires_grad=True)
        image, alpha = function(projection, shown, channels, (20, 17), background)
        assert (image == background).all() and (alpha == 0).all()
        of_background, of_channels = torch.autograd.grad(image.sum(), (background, channels), allow_unused=True)
        assert of_background.tolist() == [340, 340]
        assert of_channels is None or (of_channels == 0).all()


@BOTH
def test_equal_depths_are_blended_in_the_order_of_rows(function):
    projection, opacities = flat([[8.0, 8.0]] * 3, [[4.0, 0.0, 4.0]] * 3, [0.5] * 3, [2.0, 1.0, 1.0])
    image, _ = function(projection, opacities, torch.eye(3, dtype=DOUBLE), (16, 16))
    red, green, blue = image[7, 7].tolist()
    assert green > blue > red > 0


@BOTH
def test_a_huge_and_a_needle_thin_splat(function):
    # A needle of 600 pixels and half a pixel's width, 30 degrees up, and one that covers everything alike.
    cos, sin = math.cos(math.pi / 6), math.sin(math.pi / 6)
    needle = [cos * cos * 9e4 + 0.25 * sin * sin, cos * sin * (9e4 - 0.25), sin * sin * 9e4 + 0.25 * cos * cos]
    projection, opacities = flat([[30.0, 25.0], [1e4, 0.0]], [needle, [1e12, 0.0, 1e12]], [0.9, 0.5])
    channels = torch.eye(2, dtype=DOUBLE)
    image, _ = function(projection, opacities, channels, (60, 50))
    wanted, _ = by_hand(projection, opacities, channels, (60, 50), torch.zeros(2, dtype=DOUBLE))
    torch.testing.assert_close(image, wanted, rtol=0, atol=1e-9)
    assert 60 < (image[..., 0] > 0).sum() < 300


def test_a_thin_splat_gets_all_its_tiles_in_float32():
    generator = torch.Generator().manual_seed(3)
    for _ in range(40):
        turn, long, thin = torch.rand(3, generator=generator).tolist()
        turn, long, thin = 7 * turn, 4 + 60 * long, 0.55 + thin
        c, s = math.cos(turn), math.sin(turn)
        spread = [c * c * long**2 + s * s * thin**2, c * s * (long**2 - thin**2), s * s * long**2 + c * c * thin**2]
        single, shown = flat([[50.3, 41.7]], [spread], [0.9], dtype=torch.float32)
        exact = Projection(*(x.double() for x in single))
        found = rasterize(single, shown, torch.ones(1, 1), (100, 90))[1].double()
        wanted = rasterize_reference(exact, shown.double(), torch.ones(1, 1, dtype=DOUBLE), (100, 90))[1]
        assert (found - wanted).abs()[wanted > 0.005].max() < 1e-3


def test_nothing_that_is_no_number_crashes_or_spreads():
    size = (40, 33)
    projection, opacities = crowd(50, size)
    channels, background = painted(50, 3)
    clean = rasterize(projection, opacities, channels, size)
    for broken in range(3):
        centers, conics, shown = (x.clone() for x in (*projection[:2], opacities))
        (centers, conics, shown)[broken][7] = math.nan
        image, alpha = rasterize(but(projection, centers=centers, conics=conics), shown, channels, size)
        keep = torch.arange(50) != 7
        without = Projection(*(x[keep] for x in projection))
        wanted = rasterize(without, opacities[keep], channels[keep], size)
        assert torch.equal(image, wanted[0]) and torch.equal(alpha, wanted[1])
        values = gradients(rasterize, but(projection, centers=centers, conics=conics), shown, channels, size,
                           background)  # fmt: skip
        assert all(value.isfinite().all() for value in values[2:])
    for value in (math.nan, math.inf):
        extents = projection.extents.clone()
        extents[3] = value
        image, _ = rasterize(but(projection, extents=extents), opacities, channels, size)
        assert image.isfinite().all()
    channels[7] = math.nan
    seen = rasterize(projection, opacities, channels, size)
    assert seen[0].isnan().any() and torch.equal(seen[1], clean[1])
    depths = projection.depths.clone()
    depths[7] = math.nan  # comes last
    assert rasterize(but(projection, depths=depths), opacities, channels.nan_to_num(), size)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_contributions_equal_the_reference_and_the_gradient_to_the_channels(dtype):
    size = (50, 37)
    projection, opacities = crowd(300, size, dtype=dtype)
    weights, pixels = contributions(projection, opacities, size)
    wanted = contributions_reference(Projection(*(x.double() for x in projection)), opacities.double(), size)
    torch.testing.assert_close(weights.double(), wanted[0], rtol=1e-4 if dtype == torch.float32 else 1e-10, atol=1e-4)
    assert pixels.dtype == torch.int64 and (pixels - wanted[1]).abs().sum() <= (4 if dtype == torch.float32 else 0)
    channels = torch.ones(300, 1, dtype=dtype, requires_grad=True)
    gradient = torch.autograd.grad(rasterize(projection, opacities, channels, size)[0].sum(), channels)[0][:, 0]
    torch.testing.assert_close(weights, gradient)
    alpha = rasterize(projection, opacities, channels, size)[1]
    torch.testing.assert_close(weights.sum(), alpha.sum())
    assert not weights.requires_grad


def test_contributions_of_nothing():
    projection, opacities = flat(torch.zeros(0, 2), torch.zeros(0, 3), torch.zeros(0))
    weights, pixels = contributions(projection, opacities, (20, 20))
    assert weights.shape == (0,) and pixels.shape == (0,)


def test_a_gradient_that_is_one_number_spread_over_the_picture():
    projection, opacities = crowd(30, (20, 20))
    channels, _ = painted(30, 3)
    channels.requires_grad_()
    image, _ = rasterize(projection, opacities, channels, (20, 20))
    spread = torch.autograd.grad(image.sum(), channels, retain_graph=True)[0]
    whole = torch.autograd.grad(image, channels, torch.ones_like(image))[0]
    assert torch.equal(spread, whole)
