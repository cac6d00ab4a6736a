"""Directions in space."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(directions: Tensor) -> Tensor:
    """Directions (..., 3) brought to length 1; those of less than 1e-12 stay as good as 0."""
    return directions / directions.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def frame(directions: Tensor) -> tuple[Tensor, Tensor]:
    """Two directions (n, 3) that make a right-handed frame with each of `directions` (n, 3), of length 1.

    Duff et al., Building an orthonormal basis, revisited (JCGT 2017).
    """
    x, y, z = directions.unbind(1)
    sign = torch.where(z >= 0, 1.0, -1.0).to(z)
    a = -1 / (sign + z)
    b = x * y * a
    first = torch.stack([1 + sign * x * x * a, sign * b, -sign * x], dim=1)
    return first, torch.stack([b, sign + y * y * a, -y], dim=1)
