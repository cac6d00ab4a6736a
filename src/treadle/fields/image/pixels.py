"""The pixels of a picture as training data: each batch is spread evenly over it, each pixel comes once an epoch."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.data.feed import Feed
from treadle.data.fingerprint import Fingerprint
from treadle.data.random import derive_seed
from treadle.errors import UsageError
from treadle.parallel import ALONE, World


def z_order(height: int, width: int) -> NDArray[np.int64]:
    """The flat indices of all pixels along a Z-order curve: neighbours on it are neighbours in the picture."""
    y, x = np.divmod(np.arange(height * width, dtype=np.int64), width)
    code = _spread(x) | (_spread(y) << 1)
    order: NDArray[np.int64] = np.argsort(code, kind="stable")
    return order


def _spread(value: NDArray[np.int64]) -> NDArray[np.int64]:
    """Move bit k of each number to bit 2k; for numbers below 2**31."""
    for shift, mask in (
        (16, 0x0000FFFF0000FFFF),
        (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333),
        (1, 0x5555555555555555),
    ):
        value = (value | (value << shift)) & mask
    return value


class PixelFeed(Feed):
    """Batches (points, values) of a picture's pixels, evenly spread.

    The pixels lie along a Z-order curve, cut into as many short runs as a batch has pixels: a batch takes one pixel of
    each run. So it covers the whole picture (less noise than pixels drawn at random), and is in an order in which its
    look-ups in a grid are close to one another. An epoch takes every pixel once, in an order drawn from (seed, epoch).

    Args:
        points: (height * width, 2) pixel centres, row by row.
        values: (height * width, channels), in the same order.
        height, width: sides of the picture.
        batch_size: pixels per batch at most; a smaller picture is one batch. Batches differ in size by one at most.
        seed: an own seed instead of the run's.
    """

    def __init__(
        self, points: Tensor, values: Tensor, height: int, width: int, batch_size: int, *, seed: int | None = None
    ) -> None:
        super().__init__(seed)
        count = height * width
        if points.shape != (count, 2) or values.dim() != 2 or values.shape[0] != count or count == 0:
            raise UsageError(
                f"pixels: {height} x {width} pixels need points ({count}, 2) and values ({count}, channels), "
                f"got {tuple(points.shape)} and {tuple(values.shape)}"
            )
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}: expected at least 1")
        order = torch.from_numpy(z_order(height, width))
        self.points, self.values = points[order].contiguous(), values[order].contiguous()
        self._run = -(-count // batch_size)
        self._runs = -(-count // self._run)

    @property
    def batches(self) -> int:
        """Batches per epoch."""
        return self._run

    @property
    def samples(self) -> int:
        """Pixels per epoch: all."""
        return self.points.shape[0]

    def bind(self, seed: int, device: torch.device | str, world: World = ALONE) -> None:
        """Take the run's seed and device; the pixels are moved there."""
        super().bind(seed, device, world)
        self.points, self.values = self.points.to(self.device), self.values.to(self.device)

    def plan(self, epoch: int) -> list[Tensor]:
        """The batches of `epoch`, each as indices along the curve."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "pixels", epoch))
        within = torch.rand(self._runs, self._run, generator=generator).argsort(dim=1)
        chosen = (within + torch.arange(self._runs)[:, None] * self._run).t().contiguous()
        # The last run is shorter than the others: where it has no pixel left, the batch has one less.
        return [row[:-1] if row[-1] >= self.samples else row for row in chosen]

    def gather(self, epoch: int, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The pixels at `indices`."""
        index = indices.to(self.points.device)
        return self.points.index_select(0, index), self.values.index_select(0, index)

    def fingerprint(self) -> str:
        """SHA-256 over positions and values of all pixels."""
        return Fingerprint().add(self.points).add(self.values).hexdigest()
