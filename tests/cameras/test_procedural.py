"""The scene of our own: a pure function of its arguments, exact geometry, views around it, read by several threads."""

from __future__ import annotations

import hashlib
import threading

import numpy as np
import pytest

from treadle.cameras.procedural import DISTANCE, camera_at, distance, photograph, procedural_capture, surfaces
from treadle.cameras.rays import project, rays
from treadle.errors import UsageError


def test_the_pictures_stay_the_same() -> None:
    """What is measured on this scene stays comparable: nothing that a machine may round another way goes into it."""
    capture = procedural_capture(size=40, train=6, test=2)
    digest = hashlib.sha256()
    for views in (capture.train, capture.test):
        for index in range(len(views)):
            digest.update(views[index].pixels.tobytes())
    assert digest.hexdigest()[:16] == "d059531ffc979825"


def test_views_are_asked_for_and_held_out_as_told() -> None:
    capture = procedural_capture(size=24, train=30, test=7)
    assert len(capture.train) == 30 and len(capture.test) == 7 and capture.validation is capture.test
    assert capture.points is None and capture.colors is None
    cameras = [*capture.train.cameras, *capture.test.cameras]
    assert len({camera.name for camera in cameras}) == 37
    centers = np.array([camera.center for camera in cameras])
    assert np.abs(np.linalg.norm(centers, axis=1) - DISTANCE).max() < 1e-12
    assert centers[:, 2].min() > 0.3, "over the ground"
    assert np.abs(centers.mean(axis=0)[:2]).max() < 0.3, "all around"
    apart = np.linalg.norm(centers[:, None] - centers[None], axis=-1) + 9 * np.eye(37)
    assert apart.min() > 0.1, "no view twice"
    for camera in cameras:
        pixel, depth = project(camera, np.zeros(3))
        assert np.abs(pixel - 12).max() < 1e-9 and abs(depth - DISTANCE) < 1e-12
        assert camera.world_to_camera[1, 2] < 0, "upright"


def test_the_seed_turns_the_views_and_leaves_the_scene() -> None:
    first, again, other = (procedural_capture(size=24, train=2, test=1, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.train[0].pixels, again.train[0].pixels)
    assert first.train.fingerprint() == again.train.fingerprint() != other.train.fingerprint()
    assert first.train.fingerprint() != first.test.fingerprint()
    a, b = first.train.cameras[0].center, other.train.cameras[0].center
    assert np.linalg.norm(a - b) > 0.1 and abs(a[2] - b[2]) < 1e-12


def test_the_object_is_whole_in_every_picture_and_does_not_fill_it() -> None:
    for index in range(5):
        alpha = procedural_capture(size=48, train=5, test=0).train[index].pixels[..., 3]
        assert 0.2 < (alpha > 0).mean() < 0.6
        assert not alpha[[0, -1]].any() and not alpha[:, [0, -1]].any()


def test_depth_and_normals_are_those_of_the_surface() -> None:
    camera = camera_at((1, -2, 1), 48, "some")
    seen, shot = surfaces(camera), photograph(camera)
    assert shot.camera is camera and shot.mask is None
    assert shot.depth is not None and shot.depth.dtype == np.float32
    assert shot.normals is not None and shot.normals.dtype == np.float32
    hit = seen.depth > 0
    assert np.array_equal(shot.depth, seen.depth.astype(np.float32))
    assert np.array_equal(hit & (shot.pixels[..., 3] == 0), np.zeros_like(hit))
    origins, directions = rays(camera, np.float64)
    points = origins + directions * (seen.depth / (directions @ camera.world_to_camera[2, :3]))[..., None]
    assert np.abs(distance(points[hit])).max() < 1e-8
    off = distance((points + 1e-4 * seen.normals)[hit])
    assert (np.abs(off - 1e-4) < 1e-8).mean() > 0.97, "but where other shapes are as near"
    before = points - 0.02 * directions
    assert (distance(before[hit]) > 0).mean() > 0.97
    assert np.linalg.norm(points[hit], axis=1).max() < 1, "within the unit ball"


def test_points_lie_on_surfaces_and_have_their_colours() -> None:
    capture = procedural_capture(size=48, train=4, test=0, points=300)
    assert capture.points is not None and capture.colors is not None
    assert capture.points.shape == capture.colors.shape == (300, 3) and capture.colors.dtype == np.uint8
    assert np.abs(distance(capture.points)).max() < 1e-6
    assert len(np.unique(capture.points.round(6), axis=0)) > 250
    matched = np.zeros(300, bool)
    for index in range(4):
        pixels, depths = project(capture.train.cameras[index], capture.points)
        columns, rows = np.clip(pixels.astype(int), 0, 47).T
        shot = capture.train[index]
        assert shot.depth is not None
        near = np.abs(shot.depth[rows, columns] - depths) < 1e-5
        matched |= near & (shot.pixels[rows, columns, :3] == capture.colors).all(axis=1)
    assert matched.all()
    again = procedural_capture(size=48, train=4, test=0, points=300).points
    assert np.array_equal(capture.points, again)


def test_threads_get_the_same_photographs_each_taken_once() -> None:
    views = procedural_capture(size=24, train=4, test=0).train
    taken: list[list[object]] = [[], []]

    def work(mine: list[object]) -> None:
        mine.extend(views[index] for index in (0, 1, 2, 3, -1))

    workers = [threading.Thread(target=work, args=(mine,)) for mine in taken]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert len(taken[0]) == 5 and all(a is b for a, b in zip(*taken, strict=True))
    assert taken[0][3] is taken[0][4]
    with pytest.raises(IndexError):
        views[4]


@pytest.mark.parametrize("wrong", [{"size": 7}, {"train": 0}, {"test": -1}, {"points": -1}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        procedural_capture(**wrong)
