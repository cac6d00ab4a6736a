from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from treadle.errors import UsageError
from treadle.gans.image_losses import coarse, l1, l2, laplacian, sobel

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
