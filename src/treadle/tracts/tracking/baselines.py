"""What to compare a trained model with: following known directions, such as a tensor's, or going straight on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from treadle.errors import UsageError
from treadle.tracts.tracking.propagator import Propagator

_ASIDE = math.cos(math.radians(45))


class Peaks(Propagator):
    """Follows directions that are known in each voxel: a tensor's principal one, or the true ones of a phantom.

    Of each of the eight voxels around a point the direction that fits the line's best is taken, with the sign that
    fits, if it is not more than 45 degrees off: another bundle's is not followed. They are weighted as in trilinear
    interpolation. At a seed the voxel's first direction leads.
    """

    def __init__(self, peaks: np.ndarray, least: float = 0.0) -> None:
        """
        Args:
            peaks: (x, y, z, 3), or (x, y, z, k, 3) in the order of their weight; 0 where there are fewer. Longer ones
                count for more.
            least: where what is read between voxels is shorter than this, there is no direction, and lines end.

        Raises:
            UsageError: another shape.
        """
        peaks = peaks[..., None, :] if peaks.ndim == 4 else peaks
        if peaks.ndim != 5 or peaks.shape[4] != 3 or peaks.shape[3] == 0:
            raise UsageError(f"expected directions (x, y, z, k, 3) or (x, y, z, 3), not {peaks.shape}")
        self._least = least
        self._shape = torch.tensor(peaks.shape[:3])
        self._places = torch.tensor([peaks.shape[1] * peaks.shape[2], peaks.shape[2], 1])
        self._peaks = torch.from_numpy(np.ascontiguousarray(peaks, np.float32)).reshape(-1, *peaks.shape[3:])

    def start(self, count: int) -> Any:
        """Nothing: it knows no past but the last step."""
        return None

    def advance(self, state: Any, points: Tensor, previous: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Any]:
        """See `Propagator`."""
        towards = torch.where((previous != 0).any(dim=1, keepdim=True), previous, self._at(points.floor().long())[:, 0])
        low = (points - 0.5).floor()
        part = points - 0.5 - low
        total = torch.zeros_like(points)
        for corner in range(8):
            step = torch.tensor([corner >> 2 & 1, corner >> 1 & 1, corner & 1])
            weight = torch.where(step == 1, part, 1 - part).prod(dim=1, keepdim=True)
            there = self._at(low.long() + step)  # (n, k, 3)
            fit = (there * towards[:, None]).sum(dim=2)
            best = fit.abs().argmax(dim=1, keepdim=True)
            chosen = there.gather(1, best[..., None].expand(-1, 1, 3))[:, 0]
            near = fit.gather(1, best)
            aside = near.abs() < _ASIDE * chosen.norm(dim=1, keepdim=True) * towards.norm(dim=1, keepdim=True)
            total += torch.where(aside, 0.0, weight * chosen * near.sign())
        length = total.norm(dim=1, keepdim=True)
        return torch.where(length > max(self._least, 1e-6), total / length, 0.0), points.new_zeros(len(points)), None

    def keep(self, state: Any, indices: Tensor) -> Any:
        """Nothing to keep."""
        return None

    def _at(self, voxels: Tensor) -> Tensor:
        """(n, k, 3): the directions in these voxels, and beyond the volume those at its border."""
        inside = voxels.clamp(min=0).minimum(self._shape - 1)
        return self._peaks[(inside * self._places).sum(dim=1)]


class Straight(Propagator):
    """Goes on as it came: copies the previous direction. At a seed another propagator says where to."""

    def __init__(self, first: Propagator) -> None:
        self._first = first

    def start(self, count: int) -> Any:
        """See `Propagator`."""
        return self._first.start(count)

    def advance(self, state: Any, points: Tensor, previous: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Any]:
        """See `Propagator`."""
        first, _, state = self._first.advance(state, points, previous, uniforms)
        length = previous.norm(dim=1, keepdim=True)
        return torch.where(length > 0, previous / length, first), points.new_zeros(len(points)), state

    def keep(self, state: Any, indices: Tensor) -> Any:
        """See `Propagator`."""
        return self._first.keep(state, indices)
