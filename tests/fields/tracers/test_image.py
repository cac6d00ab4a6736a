"""A field of two dimensions as a picture in space."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from treadle.errors import UsageError
from treadle.fields.field import Field
from treadle.fields.hash_field import pixel_centres
from treadle.fields.rays import Rays
from treadle.fields.tracers.image import ImageSampler


class Ramp(Field):
    channels = {"color": 3, "place": 2}

    def forward(
        self, points: Tensor, directions: Tensor | None = None, channels: Sequence[str] | None = None,
        lod: int | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        assert points.shape[1] == 2
        return {"color": points[:, :1].expand(-1, 3) / 2 + 0.5, "place": points}


def test_pixels_are_those_of_a_picture() -> None:
    rays = ImageSampler.pixels(5, 7)
    found = ImageSampler()(Ramp(), rays, ("color", "place"))
    torch.testing.assert_close(found.channels["place"], pixel_centres(5, 7))
    torch.testing.assert_close(found.channels["color"][:, 0], pixel_centres(5, 7)[:, 0] / 2 + 0.5)
    assert (found.opacity == 1).all() and (found.distance == 1).all() and found.samples == 35


def test_seen_from_aside_it_ends_at_its_edges() -> None:
    origins = torch.tensor([[0.0, 0, -2], [0, 0, -2], [0, 0, -2], [0, 0, -2], [0.5, 0, 0]])
    aims = torch.tensor([[0.3, -0.2, 2.0], [1.2, 0, 2], [0, 0, -1], [1, 0, 0], [0, 1, 0]])
    rays = Rays(origins, torch.nn.functional.normalize(aims, dim=1))
    found = ImageSampler()(Ramp(), rays, ("color", "place"), background=torch.tensor([0.0, 0.0, 9.0]))
    assert found.opacity.tolist() == [1, 0, 0, 0, 0]
    torch.testing.assert_close(found.channels["place"][0], torch.tensor([0.3, -0.2]))
    assert found.distance[0] == pytest.approx((4 + 0.09 + 0.04) ** 0.5) and not found.distance[1:].any()
    assert found.channels["color"][1:].tolist() == [[0, 0, 9]] * 4 and not found.channels["place"][1:].any()


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(UsageError, match="0 x 7"):
        ImageSampler.pixels(0, 7)
    with pytest.raises(UsageError, match="no channel 'colour'"):
        ImageSampler()(Ramp(), ImageSampler.pixels(2, 2), ("colour",))
