"""What a generator minimizes beside the adversarial loss: how far its pictures are from the targets.

Each is called as function(fake, target) with (N, C, H, W) in [-1, 1] and gives a scalar, computed in float32 at least.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from treadle.errors import UsageError
from treadle.images.texture import LATTICES, TILE, UNSEEN, continued, lattice_places

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


def lattice(fake: Tensor, target: Tensor, below: float = 0.0) -> Tensor:
    """By how many powers of ten in amplitude the lattices of 2, 4 and 8 pixels stand out more than the target's.

    What `treadle.images.texture.lattice` measures in dB (20 of them are a power of ten), made to be minimized, as
    spectra are in Durall, Keuper and Keuper 2020 (https://arxiv.org/abs/2003.01826): of each peak the excess over the
    target's own, 0 where there is none, and the mean of all peaks; to it is added, of each side, the excess of the
    highest peak over the target's highest, and the mean of these three: one peak that is always there would hardly be
    seen in a mean of 63. Excess begins `below` the target's peak. Pictures smaller than 32 x 32 are continued by
    reflection.
    """
    made, real = _standing_out(fake), _standing_out(target)
    counts = [len(lattice_places(side)[0]) for side in LATTICES]
    sides = zip(made.split(counts), real.split(counts), strict=True)
    highest = torch.stack([mine.amax() - theirs.amax() for mine, theirs in sides])
    return (made - real + below).relu().mean() + (highest + below).relu().mean()


def lattice_below(fake: Tensor, target: Tensor) -> Tensor:
    """`lattice`, such that peaks cost from 1 dB below the target's on (.05 powers of ten in amplitude).

    In a single picture peaks come and go by chance, those of other photographs differ by half a dB: a generator that
    is to have no more than pictures that it has not seen has to aim lower.
    """
    return lattice(fake, target, below=0.05)


def _standing_out(picture: Tensor) -> Tensor:
    """How far each peak stands out of the power around it, in powers of ten of amplitude: (peaks,)."""
    values = _full(picture)
    for axis in (2, 3):
        if values.shape[axis] < TILE:
            values = values.index_select(axis, torch.from_numpy(continued(values.shape[axis])).to(values.device))
    if values.shape[1] >= 3:
        values = values[:, :3] * values.new_tensor([0.299, 0.587, 0.114])[:, None, None] * 3
    tiles = values.mean(1).unfold(1, TILE, TILE // 2).unfold(2, TILE, TILE // 2)
    hann = torch.hann_window(TILE + 2, periodic=False, dtype=values.dtype, device=values.device)[1:-1]
    window = hann[:, None] * hann
    mean = (tiles * window).sum((-2, -1), keepdim=True) / window.sum()
    found = torch.fft.fft2((tiles - mean) * window)
    power = (found.real.square() + found.imag.square()).mean((0, 1, 2)).flatten() / window.square().sum()
    level = (power + UNSEEN).log() / (2 * math.log(10))
    at, around, shares = (each.to(values.device) for each in _peaks())
    return level[at] - (level[around] * shares).sum(1)


@cache
def _peaks() -> tuple[Tensor, Tensor, Tensor]:
    """The cells of all peaks (P,), those around each (P, 16), and by how much these count (P, 16); see `texture`."""
    found = [pair for side in LATTICES for pair in zip(*lattice_places(side), strict=True)]
    at, around = [peak for peak, _ in found], [near + [0] * (16 - len(near)) for _, near in found]
    shares = [[1 / len(near)] * len(near) + [0.0] * (16 - len(near)) for _, near in found]
    return torch.tensor(at), torch.tensor(around), torch.tensor(shares)


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
