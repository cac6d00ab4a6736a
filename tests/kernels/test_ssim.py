from __future__ import annotations

import math

import pytest
import torch

from treadle.errors import UsageError
from treadle.kernels import threads
from treadle.kernels.ssim import ssim_l1
from treadle.kernels.ssim_reference import ssim_l1_reference

DOUBLE = torch.float64
BOTH = pytest.mark.parametrize("function", [ssim_l1, ssim_l1_reference])
SIZES = [(1, 1, 1), (3, 40, 3), (60, 5, 2), (30, 37, 3), (16, 16, 5), (50, 11, 1)]


def pictures(size, dtype=DOUBLE, seed=0):
    """An image, a target and a mask with all of 0, 1 and what is between."""
    generator = torch.Generator().manual_seed(seed)
    image, target = (torch.rand(*size, generator=generator, dtype=DOUBLE).to(dtype) for _ in range(2))
    mask = (torch.rand(*size[:2], generator=generator, dtype=DOUBLE) * 2 - 0.5).clamp(0, 1).to(dtype)
    return image.requires_grad_(), target, mask


def gradients(function, image, target, mask):
    l1, ssim = function(image, target, mask)
    return [l1.detach(), ssim.detach(), *(torch.autograd.grad(x, image, retain_graph=True)[0] for x in (l1, ssim)),
            torch.autograd.grad(0.8 * l1 - 0.2 * ssim, image)[0]]  # fmt: skip


def by_hand(image, target, mask):
    """The two means, a window at a time."""
    height, width, channels = image.shape
    taps = [math.exp(-(t**2) / 4.5) for t in range(-5, 6)]
    taps = [tap / sum(taps) for tap in taps]
    apart = alike = count = 0.0
    for row in range(height):
        for column in range(width):
            for c in range(channels):
                x = y = xx = yy = xy = 0.0
                for i in range(max(0, row - 5), min(height, row + 6)):
                    for j in range(max(0, column - 5), min(width, column + 6)):
                        a, b = (p[i, j, c].item() * mask[i, j].item() for p in (image, target))
                        w = taps[i - row + 5] * taps[j - column + 5]
                        x, y, xx, yy, xy = x + w * a, y + w * b, xx + w * a * a, yy + w * b * b, xy + w * a * b
                value = (2 * x * y + 1e-4) * (2 * (xy - x * y) + 9e-4)
                value /= (x * x + y * y + 1e-4) * (xx - x * x + yy - y * y + 9e-4)
                share = mask[row, column].item()
                apart += share * abs(image[row, column, c].item() - target[row, column, c].item())
                alike, count = alike + share * value, count + share
    return apart / count, alike / count


@BOTH
@pytest.mark.parametrize("masked", [False, True])
def test_both_paths_follow_the_definition(function, masked):
    image, target, mask = pictures((8, 13, 2))
    found = function(image, target, mask if masked else None)
    wanted = by_hand(image, target, mask if masked else torch.ones(8, 13))
    assert [x.item() for x in found] == pytest.approx(wanted, abs=1e-10)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("masked", [False, True])
def test_values_and_gradients_equal_the_reference(size, masked):
    image, target, mask = pictures(size)
    if size == (1, 1, 1):
        mask = torch.full_like(mask, 0.5)
    results = [gradients(f, image, target, mask if masked else None) for f in (ssim_l1, ssim_l1_reference)]
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_gradients_equal_finite_differences():
    image, target, mask = pictures((7, 6, 2))
    assert torch.autograd.gradcheck(lambda x: ssim_l1(x, target, mask), (image,), eps=1e-6, atol=1e-8)


def test_float32_is_near_float64():
    image, target, mask = pictures((70, 81, 3))
    wanted = gradients(ssim_l1_reference, image, target, mask)
    found = gradients(ssim_l1, image.detach().float().requires_grad_(), target.float(), mask.float())
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == torch.float32 and (a - b).norm() <= 1e-5 * b.norm()


@BOTH
def test_equal_pictures_and_pictures_of_which_nothing_counts(function):
    image, target, mask = pictures((20, 21, 3))
    l1, ssim = function(image, image.detach(), mask)
    assert l1 == 0 and ssim.item() == pytest.approx(1, abs=1e-12)
    found = gradients(function, image, target, torch.zeros_like(mask))
    assert found[0] == 0 and found[1] == 1 and all((gradient == 0).all() for gradient in found[2:])


@BOTH
def test_what_is_masked_out_has_no_part_in_anything(function):
    image, target, _ = pictures((30, 31, 3))
    mask = torch.ones(30, 31, dtype=DOUBLE)
    mask[10:20, 5:25] = 0
    other = torch.where(mask[..., None] > 0, target, target + 3)
    results = [gradients(function, image, y, mask) for y in (target, other)]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert (results[0][4][mask == 0] == 0).all() and (results[0][4][mask > 0] != 0).any()


def test_bitwise_equal_in_any_number_of_parts(monkeypatch):
    image, target, mask = pictures((200, 37, 3), torch.float32)
    results = []
    for parts in (1, 2, 4, 3):
        monkeypatch.setattr(threads, "parts_for", lambda work, parts=parts: parts)
        results.append(gradients(ssim_l1, image, target, mask))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_strided_pictures_give_the_same():
    image, target, mask = pictures((24, 25, 3))
    wide = torch.zeros(3, 24, 25, dtype=DOUBLE)
    wide[:] = image.detach().permute(2, 0, 1)
    strided = wide.permute(1, 2, 0).requires_grad_()
    results = [gradients(ssim_l1, x, target.permute(1, 0, 2).contiguous().permute(1, 0, 2), mask) for x in
               (image, strided)]  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_no_gradient_is_prepared_where_none_is_wanted():
    image, target, mask = pictures((20, 20, 3))
    l1, ssim = ssim_l1(image.detach(), target, mask)
    assert not l1.requires_grad and not ssim.requires_grad
    wanted = ssim_l1(image, target, mask)
    assert l1 == wanted[0] and ssim == wanted[1]


def test_a_value_that_is_no_number_is_seen():
    image, target, _ = pictures((20, 20, 3))
    image = image.detach()
    image[3, 4, 1] = math.nan
    l1, ssim = ssim_l1(image.requires_grad_(), target)
    assert l1.isnan() and ssim.isnan()
    assert torch.autograd.grad(l1 + ssim, image)[0].isnan().any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((torch.ones(4, 5), torch.ones(4, 5)), "height, width, channels"),
        ((torch.ones(4, 5, 3), torch.ones(5, 4, 3)), "of one shape"),
        ((torch.ones(0, 5, 3), torch.ones(0, 5, 3)), "of one shape"),
        ((torch.ones(4, 5, 3), torch.ones(4, 5, 3).double()), "target is torch.float64"),
        ((torch.ones(4, 5, 3), torch.ones(4, 5, 3), torch.ones(5, 4)), "mask"),
        ((torch.ones(4, 5, 3), torch.ones(4, 5, 3), torch.ones(4, 5, dtype=torch.bool)), "mask is torch.bool"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        ssim_l1(*arguments)
