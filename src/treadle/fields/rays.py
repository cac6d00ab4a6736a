"""Rays as tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from treadle.cameras.camera import Camera
from treadle.cameras.rays import rays


@dataclass(frozen=True, eq=False)
class Rays:
    """Half-lines in space.

    Attributes:
        origins: (n, 3).
        directions: (n, 3) of unit length: what is measured along a ray is a distance.
    """

    origins: Tensor
    directions: Tensor

    @classmethod
    def of(cls, camera: Camera, device: torch.device | str = "cpu") -> Rays:
        """Those through the centres of a camera's pixels, row by row: float32."""
        origins, directions = (torch.from_numpy(array).reshape(-1, 3).to(device) for array in rays(camera))
        return cls(origins, directions)

    def __len__(self) -> int:
        return self.origins.shape[0]

    def __getitem__(self, chosen: Any) -> Rays:
        """Some of the rays: a slice, indices or a mask."""
        return Rays(self.origins[chosen], self.directions[chosen])
