from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from treadle.cameras.capture import Photograph
from treadle.cameras.procedural import camera_at
from treadle.cameras.rays import rays
from treadle.errors import UsageError
from treadle.fields.nerf.feed import RayFeed
from treadle.fields.nerf.pixels import Pixels

SIZES = (9, 12, 8)


class Drawn:
    """Photographs of random colours: the second alone may have alpha, a mask and depth."""

    def __init__(self, alpha: bool = True) -> None:
        self.cameras = [camera_at((1, index, 1), size, f"{index}") for index, size in enumerate(SIZES)]
        random = np.random.default_rng(0)
        self.photographs = [
            Photograph(camera, random.integers(0, 256, (*camera.size, 3), np.uint8)) for camera in self.cameras
        ]
        if alpha:
            second, size = self.photographs[1], (SIZES[1], SIZES[1])
            pixels = np.concatenate([second.pixels, random.integers(0, 256, (*size, 1), np.uint8)], 2)
            mask, depth = random.random(size) > 0.5, random.random(size).astype(np.float32)
            self.photographs[1] = replace(second, pixels=pixels, mask=mask, depth=depth)

    def __len__(self) -> int:
        return len(self.photographs)

    def __getitem__(self, index: int) -> Photograph:
        return self.photographs[index]

    def fingerprint(self) -> str:
        return "drawn"


@pytest.mark.parametrize("memory", [1 << 30, 0])
def test_pixels_are_those_of_the_photographs_with_their_rays(memory: int) -> None:
    views = Drawn()
    pixels = Pixels(views, memory)
    assert pixels.mapped == (memory == 0)
    assert len(pixels) == sum(size * size for size in SIZES)
    seen = pixels.seen(np.arange(len(pixels)))
    start = 0
    for index, size in enumerate(SIZES):
        part = slice(start, start := start + size * size)
        photograph = views[index]
        origins, directions = (torch.from_numpy(table).reshape(-1, 3) for table in rays(photograph.camera))
        assert torch.equal(seen.origins[part], origins)
        assert torch.allclose(seen.directions[part], directions, atol=1e-6)
        assert torch.equal(
            (seen.pixels[part, :3] * 255).round(), torch.from_numpy(photograph.pixels[..., :3]).reshape(-1, 3)
        )
        assert (seen.views[part] == index).all()
    assert seen.alpha is not None and (seen.alpha[:81] == 1).all()
    assert torch.equal((seen.alpha[81:225] * 255).round(), torch.from_numpy(views[1].pixels[..., 3]).reshape(-1))
    assert seen.counts is not None and torch.equal(seen.counts[81:225], torch.from_numpy(views[1].mask).reshape(-1))
    assert seen.counts[:81].all() and seen.counts[225:].all()
    # Depth is along the camera's axis, distance along the ray.
    assert seen.distances is not None and (seen.distances[:81] == 0).all()
    axis = torch.from_numpy(views.cameras[1].world_to_camera[2, :3]).float()
    along = seen.distances[81:225] * (seen.directions[81:225] @ axis)
    assert torch.allclose(along, torch.from_numpy(views[1].depth).reshape(-1), atol=1e-6)


def test_opaque_photographs_have_three_values_and_a_background_shows_through_alpha() -> None:
    plain = Pixels(Drawn(alpha=False)).seen(np.arange(10))
    assert plain.pixels.shape[1] == 3 and plain.alpha is None and plain.counts is None and plain.distances is None
    assert plain.colors(torch.zeros(3)) is plain.pixels
    seen = Pixels(Drawn()).seen(np.arange(81, 225))
    black, white = seen.colors(torch.zeros(3)), seen.colors(torch.ones(3))
    assert torch.allclose(white - black, (1 - seen.alpha)[:, None].expand(-1, 3), atol=1e-6)
    some = seen.chosen(seen.counts)
    assert len(some.origins) == int(seen.counts.sum()) and torch.equal(some.views, seen.views[seen.counts])


def test_the_order_is_a_function_of_seed_and_epoch_and_any_batch_is_at_hand() -> None:
    feed = RayFeed(Drawn(), 50)
    feed.bind(3, "cpu")
    assert feed.batches == 6 and feed.samples == 300
    batches = list(feed.iterate(0))
    assert len(batches) == 6 and all(batch.shape == (50,) for batch in batches)
    again = list(feed.iterate(0, start=4))
    assert torch.equal(again[0], batches[4]) and torch.equal(again[1], batches[5])
    assert not torch.equal(batches[0], batches[1])
    assert not torch.equal(next(feed.iterate(1)), batches[0])
    other = RayFeed(Drawn(), 50)
    other.bind(4, "cpu")
    assert not torch.equal(next(other.iterate(0)), batches[0])
    with pytest.raises(IndexError):
        feed.plan(0)[6]


def test_pixels_of_all_views_are_drawn_alike() -> None:
    feed = RayFeed(Drawn(), 4000)
    feed.bind(0, "cpu")
    numbers = torch.cat([next(feed.iterate(epoch)) for epoch in range(3)])
    counts = torch.bincount(numbers, minlength=289).double()
    assert len(counts) == 289
    assert counts.min() > 12 and counts.max() < 80  # 41.5 of each are expected
    assert set(feed.rays(numbers).views.tolist()) == {0, 1, 2}


def test_no_photographs_are_no_data() -> None:
    views = Drawn()
    views.photographs, views.cameras = [], []
    with pytest.raises(UsageError, match="no photographs"):
        RayFeed(views, 10)


def test_the_fingerprint_is_that_of_the_photographs() -> None:
    assert RayFeed(Drawn(), 10).fingerprint() == "drawn"
