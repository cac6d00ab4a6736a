from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from treadle.fields.cropped import Cropped, cropped
from treadle.fields.field import Field


class Ball(Field):
    channels = {"sdf": 1, "density": 1, "color": 3}

    def forward(
        self,
        points: Tensor,
        directions: Tensor | None = None,
        channels: Sequence[str] | None = None,
        lod: int | None = None,
    ) -> Mapping[str, Tensor]:
        distance = points.norm(dim=1, keepdim=True) - 0.5
        return {"sdf": distance, "density": torch.full_like(distance, 3.0), "color": points}


def test_nothing_is_left_outside_of_the_box() -> None:
    box = np.array([[-np.inf, -np.inf, -np.inf], [0.25, np.inf, np.inf]])
    field = cropped(Ball(), box)
    points = torch.tensor([[0.0, 0, 0], [0.375, 0, 0], [0.25, 0, 0], [2.0, 0, 0], [-1.0, 0, 0]])
    found = field(points)
    assert found["sdf"].flatten().tolist() == [-0.25, 0.125, 0.0, 1.75, 0.5]
    assert found["density"].flatten().tolist() == [3, 0, 3, 0, 3]
    assert torch.equal(found["color"], points) and field.channels == Ball.channels


def test_where_nothing_is_cut_the_field_is_itself() -> None:
    ball = Ball()
    assert cropped(ball, np.array([[-np.inf] * 3, [np.inf] * 3])) is ball
    assert isinstance(cropped(ball, np.array([[-np.inf] * 3, [1.0, np.inf, np.inf]])), Cropped)
