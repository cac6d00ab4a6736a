"""Ragged lines of random numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

Lines = Callable[..., tuple[Tensor, Tensor, Tensor]]


@pytest.fixture
def lines() -> Lines:
    """Makes features, previous directions and offsets of lines that are so long."""

    def made(
        lengths: Sequence[int], inputs: int = 7, dtype: torch.dtype = torch.float32, seed: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        rng = torch.Generator().manual_seed(seed)
        offsets = torch.tensor([0, *lengths]).cumsum(0)
        points = int(offsets[-1])
        features = torch.randn(points, inputs, generator=rng, dtype=dtype)
        previous = torch.randn(points, 3, generator=rng, dtype=dtype)
        previous[offsets[:-1][offsets.diff() > 0]] = 0
        return features, previous, offsets

    return made
