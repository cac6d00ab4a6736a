"""What a generator minimizes beside the adversarial loss: how far its pictures are from the targets.

Each is called as function(fake, target) with (N, C, H, W) in [-1, 1] and gives a scalar, computed in float32 at least.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from treadle.errors import UsageError

SQUARE = 4
"""Side of the squares that `coarse` averages over, in pixels."""

EPSILON = 1e-6
"""Added below the root of the Sobel magnitude, which has no derivative at 0."""


def l1(fake: Tensor, target: Tensor) -> Tensor:
    """The mean absolute difference."""
    return (_full(fake) - _full(target)).abs().mean()


def coarse(fake: Tensor, target: Tensor) -> Tensor:
    """The mean absolute difference of means over squares of 4 x 4 pixels, cut off at the right and lower border.

    It asks for the right colours in the right places, and leaves it to a discriminator what they are made of: L1 pays
    for every detail that is not where it was, so that none is made.
    """
    difference = _full(fake) - _full(target)
    return functional.avg_pool2d(difference, SQUARE, ceil_mode=True, count_include_pad=False).abs().mean()


def l2(fake: Tensor, target: Tensor) -> Tensor:
    """The mean squared difference."""
    return (_full(fake) - _full(target)).square().mean()


def sobel(fake: Tensor, target: Tensor) -> Tensor:
    """The mean absolute difference of edges: how steep the gray picture is by Sobel's operator, at inner pixels.

    Raises:
        UsageError: a picture smaller than 3 x 3.
    """
    return (_steepness(_gray(fake)) - _steepness(_gray(target))).abs().mean()


def laplacian(fake: Tensor, target: Tensor) -> Tensor:
    """The mean absolute difference of detail: the gray picture's Laplacian (four neighbours), at inner pixels.

    Raises:
        UsageError: a picture smaller than 3 x 3.
    """
    # The operator is linear: that of the difference is the difference of those of the pictures.
    d = _gray(fake) - _gray(target)
    around = d[:, :-2, 1:-1] + d[:, 2:, 1:-1] + d[:, 1:-1, :-2] + d[:, 1:-1, 2:]
    return (around - 4 * d[:, 1:-1, 1:-1]).abs().mean()


def _gray(picture: Tensor) -> Tensor:
    """The mean over channels, (N, H, W)."""
    if min(picture.shape[2:]) < 3:
        height, width = picture.shape[2:]
        raise UsageError(f"a picture of {height} x {width} pixels has no inner pixels to find edges at: 3 x 3 at least")
    return _full(picture).mean(1)


def _steepness(gray: Tensor) -> Tensor:
    """Sobel's magnitude with unnormalized kernels (1 2 1 by -1 0 1).

    Sums of shifted pictures instead of convolutions: these would run in half precision under autocast.
    """
    down = gray[:, :-2] + 2 * gray[:, 1:-1] + gray[:, 2:]
    across = gray[:, :, :-2] + 2 * gray[:, :, 1:-1] + gray[:, :, 2:]
    x = down[:, :, 2:] - down[:, :, :-2]
    y = across[:, 2:] - across[:, :-2]
    return (x.square() + y.square() + EPSILON).sqrt()


def _full(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
