"""FID, the Fréchet Inception distance of two sets of pictures: Heusel, Ramsauer, Unterthiner and others, 2017.

Treadle ships no weights and downloads none. The published ones are `pt_inception-2015-12-05-6726825d.pth` of the
`pytorch-fid` package's releases; convert that file once:

    import safetensors.torch, torch
    state = torch.load("pt_inception-2015-12-05-6726825d.pth", weights_only=True)
    safetensors.torch.save_file(state, "fid_inception.safetensors")
"""

from __future__ import annotations

import math
from copy import copy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.errors import UsageError
from treadle.images.inception import FEATURES, Inception
from treadle.images.pixels import seen_by_networks
from treadle.images.pretrained import fill, read_tensors

_WHAT = "FID's Inception-v3"


class FID:
    """Collects pictures, batch by batch, and gives the distance of the two sets.

    The value depends on how many pictures there are (fewer: larger), so compare only values of as many. The features of
    a picture take 8 KB until `value` is asked for.

    Args:
        weights: the safetensors file.

    Raises:
        UsageError: the file is missing or holds something else.
    """

    def __init__(self, weights: Path | str) -> None:
        path = Path(weights)
        self.network = Inception()
        fill(self.network, read_tensors(path, _WHAT), path, _WHAT)
        self.outputs: list[NDArray[np.float32]] = []
        self.targets: list[NDArray[np.float32]] = []

    def another(self) -> FID:
        """One of other sets, still empty, with the same network."""
        other = copy(self)
        other.outputs, other.targets = [], []
        return other

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Add pictures, (N, C, H, W) and (M, C, H, W) in [-1, 1], any size, on any device, where the network computes.

        They are rounded to 8 bits and scaled to 299 pixels as `pytorch-fid` does; gray is repeated, alpha left out.
        """
        for gathered, pictures in ((self.outputs, outputs), (self.targets, targets)):
            if len(pictures):  # one of the two sets may be the larger one
                gathered.append(self._features(pictures))

    @property
    def counts(self) -> tuple[int, int]:
        """How many pictures there are in the two sets."""
        return sum(map(len, self.outputs)), sum(map(len, self.targets))

    def value(self) -> float:
        """The distance of all that was added; 0 for equal sets. NaN where a picture had values that are not finite.

        Raises UsageError for fewer than two pictures.
        """
        return frechet_distance(*(np.concatenate([*parts, _NONE]) for parts in (self.outputs, self.targets)))

    def _features(self, pictures: Tensor) -> NDArray[np.float32]:
        self.network.to(pictures.device)
        with torch.inference_mode(), torch.autocast(pictures.device.type, enabled=False):
            return self.network(seen_by_networks(pictures)).cpu().numpy()


_NONE = np.empty((0, FEATURES), np.float32)


def frechet_distance(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """The squared Wasserstein-2 distance of the Gaussians fitted to two sets of points, (N, D) and (M, D).

    |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2). With C1 = A'A and C2 = B'B (A, B: the centred points over
    sqrt(N - 1), sqrt(M - 1)) the last trace is the sum of the singular values of AB': no root is taken of a matrix that
    is singular whenever there are fewer points than dimensions.

    Computed in float64. Raises UsageError for fewer than two points in a set.
    """
    if min(len(first), len(second)) < 2:
        raise UsageError(
            f"a Fréchet distance needs two or more pictures in each set, not {len(first)} and {len(second)}"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return math.nan
    means, roots = zip(*(_gaussian(np.asarray(points, np.float64)) for points in (first, second)), strict=True)
    spread = sum(float(np.square(root).sum()) for root in roots)
    shared = float(np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum())
    return max(0.0, float(np.square(means[0] - means[1]).sum()) + spread - 2 * shared)


def _gaussian(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean of points (N, D) and a root A of their covariance A'A, of at most D rows."""
    mean = points.mean(axis=0)
    root = (points - mean) / math.sqrt(len(points) - 1)
    if root.shape[0] > root.shape[1]:
        root = np.asarray(np.linalg.qr(root, mode="r"))
    return mean, root
