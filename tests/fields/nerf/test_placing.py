from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from treadle.cameras.capture import Capture, Photograph
from treadle.cameras.procedural import camera_at, procedural_capture
from treadle.cameras.rays import project
from treadle.fields.nerf.placing import Box, PlacedPhotographs, camera_box, find_box, placed, silhouette_box

CENTER, RADIUS = np.array([0.3, -0.2, 0.1]), 0.4


class Balls:
    """Views of a ball, transparent around it; from all around, or from above alone."""

    def __init__(self, *, depth: bool = False, lowest: float = -0.9) -> None:
        heights = np.linspace(lowest, 0.9, 12)
        turns = 2.4 * np.arange(12)
        self.cameras = [
            camera_at((np.cos(turn), np.sin(turn), height), 60, f"{height:.2f}")
            for turn, height in zip(turns, heights, strict=True)
        ]
        self.depth = depth

    def __len__(self) -> int:
        return len(self.cameras)

    def __getitem__(self, index: int) -> Photograph:
        camera = self.cameras[index]
        middle, depth = project(camera, CENTER)
        row, column = np.mgrid[:60, :60] + 0.5
        seen = np.hypot(column - middle[0], row - middle[1]) < RADIUS / depth * camera.fx
        pixels = np.zeros((60, 60, 4), np.uint8)
        pixels[seen] = 255
        depths = np.where(seen, depth - RADIUS, 0).astype(np.float32) if self.depth else None
        return Photograph(camera, pixels, None, depths)

    def fingerprint(self) -> str:
        return "balls"


def test_the_box_is_around_what_is_opaque() -> None:
    box = silhouette_box(Balls())
    assert box is not None
    assert np.abs(np.array(box.center) - CENTER).max() < 0.06
    assert RADIUS < box.half < 1.25 * RADIUS


def test_depths_say_where_the_scene_ends_where_no_view_looks() -> None:
    alone, known = silhouette_box(Balls(lowest=0.6)), silhouette_box(Balls(lowest=0.6, depth=True))
    assert alone is not None and known is not None
    assert alone.half > 1.3 * RADIUS and RADIUS <= known.half < 0.9 * alone.half


def test_without_alpha_it_is_half_as_large_as_the_cameras_are_far() -> None:
    views = Balls()
    box = camera_box(views.cameras)
    assert np.allclose(box.center, 0, atol=1e-6) and box.half == pytest.approx(1.5)
    nothing = Capture(Empty(), Empty(), Empty())
    assert silhouette_box(nothing.train) is None
    assert find_box(nothing).half == pytest.approx(1.5)


class Empty(Balls):
    """The same views, of nothing at all."""

    def __getitem__(self, index: int) -> Photograph:
        return Photograph(self.cameras[index], np.zeros((60, 60, 4), np.uint8))


def test_a_placed_capture_sees_the_same_pictures_of_a_scene_in_its_own_coordinates() -> None:
    capture = procedural_capture(16, 3, 2, points=40)
    capture = replace(capture, to_input=np.diag([2.0, 2.0, 2.0, 1.0]))
    box = Box((0.1, -0.2, 0.05), 0.7)
    moved = placed(capture, box)
    assert moved.validation is moved.test and moved.points is not None and capture.points is not None
    for index in range(3):
        before, after = capture.train.cameras[index], moved.train.cameras[index]
        pixels, depths = project(before, capture.points)
        again, shorter = project(after, moved.points)
        np.testing.assert_allclose(again, pixels, atol=1e-9)
        np.testing.assert_allclose(shorter * 0.7, depths)
        photograph = moved.train[index]
        assert photograph.depth is not None and photograph.camera.name == before.name
        np.testing.assert_allclose(photograph.depth * 0.7, capture.train[index].depth, rtol=1e-6)
    ones = np.ones((40, 1))
    places = np.concatenate([moved.points, ones], 1) @ moved.to_input.T
    np.testing.assert_allclose(places[:, :3], 2 * capture.points)
    assert moved.train.fingerprint() == capture.train.fingerprint()


def test_single_points_of_a_photograph_move_with_it() -> None:
    camera = camera_at((1, 0, 0), 8)
    points = np.array([[3.0, 4.0, 2.0]], np.float32)

    class One(Balls):
        def __getitem__(self, index: int) -> Photograph:
            return Photograph(camera, np.zeros((8, 8, 3), np.uint8), points=points)

    np.testing.assert_allclose(PlacedPhotographs(One(), Box((0, 0, 0), 0.5))[0].points, [[3, 4, 4]])
