"""The sliced Wasserstein distance of the patches of two sets of pictures, over a Laplacian pyramid.

As Karras, Aila, Laine and Lehtinen have it ("Progressive growing of GANs", 2018, https://arxiv.org/abs/1710.10196,
section 5 and appendix): from each level, 128 patches of 7 x 7 pixels of each picture; their channels normalised by mean
and standard deviation of each set of its own; the mean distance of their projections onto 512 random directions.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 7
"""Side of a patch, in pixels."""
PATCHES = 128
"""Patches of each picture at each level."""
DIRECTIONS = 512
"""Directions that patches are projected onto."""
COARSEST = 16
"""The shortest side of a level, in pixels; a smaller picture is its only level."""
SMALLEST_STD = 2 / 255 / 12**0.5
"""Below the standard deviation of rounding to 8 bits, what differs is no texture."""


class Patches:
    """Patches of a set of pictures, level by level, the finest first.

    Args:
        most: about how many patches are kept of each level. With more, every second one is dropped, and later pictures
            give as few.
    """

    def __init__(self, most: int = 16384) -> None:
        self.most = most
        self._pictures = 0
        self._stride = 1
        self._levels: list[list[Tensor]] = []

    def add(self, pictures: Tensor) -> None:
        """Add pictures (N, C, H, W) of finite floats in [-1, 1]; of 4 channels the last is alpha, and left out."""
        if len(pictures) == 0:
            return
        colours = pictures.detach().float().clamp(-1, 1).cpu()[:, : 3 if pictures.shape[1] == 4 else None]
        for number, level in enumerate(laplacian_pyramid(colours)):
            if number == len(self._levels):
                self._levels.append([])
            kept = [self._cut(each, self._pictures + index, number) for index, each in enumerate(level)]
            self._levels[number] += [each[:: self._stride] for each in kept]
        self._pictures += len(pictures)
        while self._pictures * (PATCHES // self._stride) > self.most and self._stride < PATCHES:
            self._stride *= 2
            self._levels = [[each[::2] for each in level] for level in self._levels]

    @property
    def kept(self) -> int:
        """How many patches there are of the finest level."""
        return sum(len(each) for level in self._levels[:1] for each in level)

    def distance(self, other: Patches) -> float:
        """The mean over the levels that both sets have; 0 for equal sets. NaN where a set is empty."""
        found = [
            _sliced(_normalised(first), _normalised(second))
            for first, second in zip(self._levels, other._levels, strict=False)
        ]
        return float(np.mean(found)) if found else float("nan")

    def _cut(self, picture: Tensor, number: int, level: int) -> Tensor:
        """Patches (PATCHES, C, 7, 7) of one level (C, H, W); the same places in the picture of that number in any set.

        What is smaller than a patch is continued by its edge.
        """
        lacking = [max(0, SIDE - side) for side in picture.shape[1:]]
        if any(lacking):
            picture = F.pad(picture[None], (0, lacking[1], 0, lacking[0]), mode="replicate")[0]
        rng = np.random.default_rng((number, level))
        top, left = (torch.from_numpy(rng.integers(side - SIDE + 1, size=PATCHES)) for side in picture.shape[1:])
        near = torch.arange(SIDE)
        rows, columns = top[:, None, None] + near[:, None], left[:, None, None] + near
        return picture[:, rows, columns].transpose(0, 1)


def laplacian_pyramid(pictures: Tensor) -> list[Tensor]:
    """The levels of pictures (N, C, H, W): the finest details, then those of the halved picture ..., and what is left.

    Burt and Adelson, "The Laplacian pyramid as a compact image code", 1983, with the kernel 1, 4, 6, 4, 1 and mirrored
    edges.
    """
    levels = [pictures]
    while min(levels[-1].shape[2:]) >= 2 * COARSEST:
        fine = levels[-1]
        coarse = _smoothed(fine)[:, :, ::2, ::2]
        spread = torch.zeros_like(fine)
        spread[:, :, ::2, ::2] = coarse
        levels[-1] = fine - 4 * _smoothed(spread)
        levels.append(coarse)
    return levels


def _smoothed(pictures: Tensor) -> Tensor:
    """Under the kernel 1, 4, 6, 4, 1 along both axes."""
    for axis, margin in ((3, (2, 2, 0, 0)), (2, (0, 0, 2, 2))):
        wide = F.pad(pictures, margin, mode="reflect")
        first, second, third, fourth, fifth = (wide.narrow(axis, at, pictures.shape[axis]) for at in range(5))
        pictures = (first + fifth).add_(second + fourth, alpha=4).add_(third, alpha=6).div_(16)
    return pictures


def _normalised(patches: list[Tensor]) -> Tensor:
    """All patches of a level as rows (N, C * 7 * 7): each channel less its mean, over its standard deviation."""
    values = torch.cat(patches)
    std, mean = torch.std_mean(values, dim=(0, 2, 3), keepdim=True, correction=0)
    return ((values - mean) / std.clamp(min=SMALLEST_STD)).flatten(1)


def _sliced(first: Tensor, second: Tensor) -> float:
    """The mean Wasserstein-1 distance of the projections of two sets of rows, (N, D) and (M, D)."""
    directions = _directions(first.shape[1])
    made, real = ((directions @ rows.T).numpy() for rows in (first, second))
    made.sort(axis=1)
    real.sort(axis=1)
    if made.shape == real.shape:
        return float(np.abs(made - real).mean(dtype=np.float64))
    # The quantile functions of sets that differ in size are steps of different widths: between the edges of both.
    wide, narrow = real.shape[1], made.shape[1]
    edges = np.union1d(np.arange(1, narrow + 1) * wide, np.arange(1, wide + 1) * narrow)
    between = np.abs(made[:, (edges - 1) // wide] - real[:, (edges - 1) // narrow])
    return float((between @ (np.diff(edges, prepend=0) / (wide * narrow))).mean())


@cache
def _directions(dimensions: int) -> Tensor:
    """Unit vectors (DIRECTIONS, dimensions), the same each time."""
    drawn = np.random.default_rng(0).standard_normal((DIRECTIONS, dimensions))
    return torch.from_numpy((drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32))
