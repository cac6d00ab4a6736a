"""A small cloud with everything in it."""

from __future__ import annotations

import pytest
import torch

from treadle.splats.cloud import Cloud


def make_cloud(count: int = 300, degree: int = 3, seed: int = 0) -> Cloud:
    """Splats as a trained scene has them: in a box of 4, small, of any rotation, colour and opacity."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(count, *shape, generator=generator)

    return Cloud(
        means=torch.rand(count, 3, generator=generator) * 4 - 2,
        quaternions=normal(4),
        log_scales=normal(3) - 4,
        logits=2 * normal(),
        dc=normal(3),
        rest=0.2 * normal((degree + 1) ** 2 - 1, 3),
    )


@pytest.fixture
def cloud() -> Cloud:
    return make_cloud()
