"""Opacity in 8 bits, as the compressed formats have it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_bytes(logits: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Opacities, given as logits, from 0 to 255."""
    with np.errstate(over="ignore"):
        return (255 / (1 + np.exp(-logits)) + np.float32(0.5)).astype(np.uint8)


def from_bytes(levels: NDArray[Any]) -> Tensor:
    """Their logits, float32: 0 and 255, which half a step is rounded to, mean the middle of it and stay finite."""
    shares = torch.from_numpy(levels.astype(np.float32)).clamp(0.25, 254.75) / 255
    return torch.logit(shares)
