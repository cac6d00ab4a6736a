from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from treadle.errors import UsageError
from treadle.gans.image_losses import coarse, l1, l2, laplacian, lattice, lattice_below, sobel
from treadle.images.texture import LATTICES, UNSEEN, lattice_places

LOSSES = [l1, coarse, l2, sobel, laplacian]
INNER = np.s_[:, 1:-1, 1:-1]


def edges(gray):
    x, y = (np.stack([ndimage.sobel(picture, axis) for picture in gray])[INNER] for axis in (0, 1))
    return np.sqrt(x**2 + y**2 + 1e-6)


def detail(gray):
    return np.stack([ndimage.laplace(picture) for picture in gray])[INNER]


def squares(x):
    """Means of squares of 4 x 4 pixels, of what there is of them."""
    height, width = x.shape[2:]
    rows = [[x[:, :, i : i + 4, j : j + 4].mean((2, 3)) for j in range(0, width, 4)] for i in range(0, height, 4)]
    return np.array(rows)


BY_SCIPY = {
    l1: lambda x, y: np.abs(x - y).mean(),
    coarse: lambda x, y: np.abs(squares(x) - squares(y)).mean(),
    l2: lambda x, y: ((x - y) ** 2).mean(),
    sobel: lambda x, y: np.abs(edges(x.mean(1)) - edges(y.mean(1))).mean(),
    laplacian: lambda x, y: np.abs(detail(x.mean(1)) - detail(y.mean(1))).mean(),
}


@pytest.mark.parametrize("loss", LOSSES)
@settings(deadline=None, max_examples=30)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(3, 9), st.integers(3, 9)),
    seed=st.integers(0, 999),
)
def test_each_is_what_numpy_and_scipy_make_of_it(loss, shape, seed):
    generator = np.random.default_rng(seed)
    x, y = (generator.uniform(-1, 1, shape) for _ in range(2))
    expected = BY_SCIPY[loss](x, y)
    assert loss(torch.from_numpy(x), torch.from_numpy(y)).item() == pytest.approx(expected, rel=1e-12)
    single = loss(torch.from_numpy(x).float(), torch.from_numpy(y).float())
    assert single.dtype == torch.float32 and single.shape == ()
    assert single.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_right_and_finite_where_pictures_are_flat(loss):
    torch.manual_seed(0)
    fake = torch.rand(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    target = torch.rand(1, 2, 5, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(loss, (fake, target))
    flat = torch.zeros(1, 3, 8, 8, requires_grad=True)
    loss(flat, torch.zeros(1, 3, 8, 8)).backward()
    assert flat.grad.equal(torch.zeros_like(flat))
    assert loss(fake, fake) == 0 and loss(fake, target) == loss(target, fake) > 0


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_computed_in_full(loss):
    torch.manual_seed(0)
    fake, target = torch.rand(2, 3, 16, 16).bfloat16(), torch.rand(2, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        low = loss(fake, target)
    assert low.dtype == torch.float32 and low == loss(fake.float(), target)


@pytest.mark.parametrize(("loss", "slope"), [(sobel, 8 * 0.1), (laplacian, 0.0)])
def test_a_ramp(loss, slope):
    """Sobel's magnitude of a ramp is eight times its slope, its Laplacian 0; nothing happens at the border."""
    ramp = 0.1 * torch.arange(9.0).expand(1, 1, 6, 9)
    assert loss(ramp, torch.zeros(1, 1, 6, 9)).item() == pytest.approx(slope, abs=1e-3)


@pytest.mark.parametrize("loss", [sobel, laplacian])
@pytest.mark.parametrize("size", [(2, 9), (9, 2)])
def test_pictures_without_inner_pixels_are_refused(loss, size):
    with pytest.raises(UsageError, match=f"a picture of {size[0]} x {size[1]} pixels has no inner pixels"):
        loss(torch.zeros(1, 3, *size), torch.zeros(1, 3, *size))


def test_detail_within_squares_costs_nothing_but_colour_does():
    target = torch.zeros(1, 3, 8, 8)
    board = 1.0 - 2 * ((torch.arange(8)[:, None] + torch.arange(8)) % 2)
    assert coarse(target + board, target) == 0 and l1(target + board, target) == 1
    assert coarse(target + 0.5 + board, target).item() == pytest.approx(0.5)


# Lattices -----------------------------------------------------------------------------------------------------------


def standing_out(x):
    """Each peak's level over the mean level around it, in powers of ten of amplitude."""
    gray = np.einsum("nchw,c->nhw", x, [0.299, 0.587, 0.114]) if x.shape[1] == 3 else x.mean(1)
    gray = np.pad(gray, [(0, 0), *((0, max(0, 32 - side)) for side in gray.shape[1:])], mode="reflect")
    window = np.outer(np.hanning(34)[1:-1], np.hanning(34)[1:-1])
    powers = []
    for i in range(0, gray.shape[1] - 31, 16):
        for j in range(0, gray.shape[2] - 31, 16):
            tile = gray[:, i : i + 32, j : j + 32]
            mean = (tile * window).sum((1, 2), keepdims=True) / window.sum()
            powers.append(np.abs(np.fft.fft2((tile - mean) * window)) ** 2)
    levels = np.log10(np.mean(powers, (0, 1)).ravel() / (window**2).sum() + UNSEEN) / 2
    places = [pair for side in LATTICES for pair in zip(*lattice_places(side), strict=True)]
    return np.array([levels[peak] - levels[near].mean() for peak, near in places])


@pytest.mark.parametrize("below", [0.0, 0.05])
@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (2, 1, 48, 70), (3, 3, 64, 33), (2, 3, 8, 40)])
def test_lattices_are_what_numpy_makes_of_them(shape, below):
    generator = np.random.default_rng(0)
    x, y = (generator.uniform(-1, 1, shape) for _ in range(2))
    made, real = standing_out(x), standing_out(y)
    ends = np.cumsum([len(lattice_places(side)[0]) for side in LATTICES])[:-1]
    highest = [a.max() - b.max() for a, b in zip(np.split(made, ends), np.split(real, ends), strict=True)]
    expected = np.maximum(made - real + below, 0).mean() + np.maximum(np.add(highest, below), 0).mean()
    assert lattice(torch.from_numpy(x), torch.from_numpy(y), below).item() == pytest.approx(expected, rel=1e-10)
    if not below:
        return
    assert lattice_below(torch.from_numpy(x), torch.from_numpy(y)).item() == pytest.approx(expected, rel=1e-10)
    low = lattice(torch.from_numpy(x).bfloat16(), torch.from_numpy(y), below)
    assert low.dtype == torch.float64 and low.item() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("side", LATTICES)
def test_a_pattern_over_a_picture_costs_and_its_gradient_takes_it_away(side):
    torch.manual_seed(side)
    target = torch.rand(1, 3, 64, 64) - 0.5
    wave = torch.cos(2 * torch.pi * torch.arange(64) / side)
    fake = (target + 0.2 * wave).requires_grad_()
    cost = lattice(fake, target)
    assert cost > 0.01 and lattice(target, target) == 0
    assert lattice(target, fake) < cost / 3  # a target may have more than the picture
    cost.backward()
    assert (fake.grad * wave).sum() > 0
    costs = [lattice(fake.detach() - taken * wave, target).item() for taken in (0, 0.1, 0.15, 0.2)]
    assert costs == sorted(costs, reverse=True) and costs[-1] < 0.01 * costs[0]


def test_gradients_of_lattices_are_right_and_finite_in_fog():
    torch.manual_seed(0)
    fake, target = (torch.rand(1, 1, 32, 32, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(lattice, (fake.requires_grad_(), target), fast_mode=True)
    flat = torch.zeros(1, 3, 32, 32, requires_grad=True)
    lattice(flat, target.expand(1, 3, 32, 32)).backward()
    assert flat.grad.isfinite().all()
