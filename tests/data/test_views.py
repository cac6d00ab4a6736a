from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from treadle.cameras.camera import Camera
from treadle.cameras.capture import Photograph
from treadle.data.views import ViewFeed, as_view, shrink, smaller_camera
from treadle.errors import UsageError


def photograph(number: int = 0, channels: int = 3, size: tuple[int, int] = (12, 8)) -> Photograph:
    rng, (width, height) = np.random.default_rng(number), size
    return Photograph(
        Camera(width, height, 10.0, 11.0, 5.0, 3.0, np.eye(4), f"{number}"),
        rng.integers(0, 256, (height, width, channels), dtype=np.uint8),
        mask=rng.random((height, width)) > 0.3,
        depth=rng.random((height, width)).astype(np.float32),
        normals=rng.random((height, width, 3)).astype(np.float32),
        points=np.array([[4.0, 2.0, 3.0]], np.float32),
    )


class Album:
    def __init__(self, count: int, fails: int = -1) -> None:
        self.cameras = [photograph(number).camera for number in range(count)]
        self.fails, self.read = fails, []

    def __len__(self) -> int:
        return len(self.cameras)

    def __getitem__(self, index: int) -> Photograph:
        self.read.append((index, threading.current_thread() is threading.main_thread()))
        if index == self.fails:
            raise UsageError(f"photograph {index} cannot be read")
        return photograph(index)

    def fingerprint(self) -> str:
        return f"{len(self)}"


def test_an_epoch_takes_every_view_once_in_an_order_of_seed_and_epoch() -> None:
    feed, again = ViewFeed(Album(9)), ViewFeed(Album(9))
    orders = [[view.number for view in feed.iterate(epoch)] for epoch in range(2)]
    assert all(sorted(order) == list(range(9)) for order in orders) and orders[0] != orders[1]
    assert [view.number for view in again.iterate(1, 4)] == orders[1][4:]
    assert [view.number for view in ViewFeed(Album(3), shuffle=False).iterate(5)] == [0, 1, 2]
    assert feed.batches == feed.samples == 9 and feed.fingerprint() == "9"
    feed.close()
    assert [view.number for view in feed.iterate(0)] == orders[0], "a closed feed can be iterated again"
    feed.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_views_are_read_ahead_by_threads_and_each_once(threads: int) -> None:
    album = Album(7)
    feed = ViewFeed(album, shuffle=False, threads=threads)
    views = feed.iterate(0)
    first = next(views)
    assert first.number == 0
    assert [view.number for view in views] == list(range(1, 7))
    assert sorted(album.read) == [(0, True), *((number, False) for number in range(1, 7))]
    feed.close()


def test_a_view_that_cannot_be_read_says_so_when_its_turn_has_come() -> None:
    feed = ViewFeed(Album(4, fails=2), shuffle=False)
    views = feed.iterate(0)
    assert [next(views).number for _ in range(2)] == [0, 1]
    for _ in range(2):
        with pytest.raises(UsageError, match="photograph 2 cannot be read"):
            next(views)
    feed.close()


def test_no_photographs_are_refused() -> None:
    with pytest.raises(UsageError, match="there are no photographs to train on"):
        ViewFeed(Album(0))


def test_alpha_is_transparency_over_the_background() -> None:
    view = as_view(photograph(channels=4), 0)
    background = torch.tensor([0.2, 0.5, 0.9])
    alpha = view.pixels[..., 3:] / 255
    expected = view.pixels[..., :3] / 255 * alpha + background * (1 - alpha)
    assert torch.allclose(view.colors(background), expected, atol=1e-6)
    assert torch.equal(view.object(), view.pixels[..., 3] > 0)
    plain = as_view(photograph(), 0)
    assert torch.equal(plain.colors(background), plain.pixels / 255) and plain.object() is None


def test_a_smaller_target_is_what_a_smaller_camera_would_see() -> None:
    view, background = as_view(photograph(channels=4), 3), torch.ones(3)
    whole, target = view.target(background), view.target(background, 2)
    assert (target.camera.size, target.camera.intrinsics) == ((6, 4), (5.0, 5.5, 2.5, 1.5))
    assert torch.allclose(target.colors, whole.colors.reshape(4, 2, 6, 2, 3).mean((1, 3)), atol=1e-6)
    for name in ("mask", "depth", "normals"):
        small, large = getattr(target, name), getattr(whole, name)
        assert torch.equal(small, large[1::2, 1::2]), name
    assert target.points.tolist() == [[2.0, 1.0, 3.0]]
    odd = view.target(background, 8)
    assert odd.camera.size == (1, 1) == odd.colors.shape[:2] == odd.depth.shape
    assert torch.allclose(odd.colors[0, 0], whole.colors.mean((0, 1)), atol=1e-6)


def test_cameras_and_colours_of_sizes_that_do_not_divide() -> None:
    camera = photograph(size=(13, 9)).camera
    assert smaller_camera(camera, 4).size == (3, 2)
    assert smaller_camera(camera, 4).fx == pytest.approx(10 * 3 / 13)
    assert shrink(torch.ones(9, 13, 3), 3, 2).shape == (2, 3, 3)


def test_memory_that_must_not_be_written_to_is_copied_and_the_rest_shared() -> None:
    taken = photograph()
    assert as_view(taken, 0).pixels.data_ptr() == taken.pixels.ctypes.data
    taken.pixels.flags.writeable = False
    assert as_view(taken, 0).pixels.data_ptr() != taken.pixels.ctypes.data
