"""Paths: rigid, closed, towards the scene, within what was seen; nerfstudio's file in the coordinates of the input."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treadle.cameras.camera import Camera
from treadle.cameras.interpolation import world_to_camera
from treadle.cameras.path_file import read_path
from treadle.cameras.paths import camera_path, surroundings
from treadle.cameras.procedural import procedural_capture
from treadle.cameras.rays import project
from treadle.errors import UsageError

TARGET = np.array([0.4, -1.0, 2.0])
UP = np.array([0.36, 0.48, 0.8])


def looking(azimuth: float, elevation: float, distance: float = 4.0, size: tuple[int, int] = (60, 40)) -> Camera:
    """A camera that looks at TARGET, upright by UP."""
    first = np.cross(UP, (1.0, 0, 0))
    first /= np.linalg.norm(first)
    flat = math.cos(azimuth) * first + math.sin(azimuth) * np.cross(UP, first)
    out = math.cos(elevation) * flat + math.sin(elevation) * UP
    right = np.cross(UP, out)
    right /= np.linalg.norm(right)
    pose = world_to_camera(np.stack([right, np.cross(right, out), -out]), TARGET + distance * out)
    return Camera(*size, 50.0, 50.0, size[0] / 2, size[1] / 2, pose)


def ring() -> list[Camera]:
    return [looking(2 * math.pi * k / 12, 0.3 + 0.2 * (k % 2)) for k in range(12)]


def front() -> list[Camera]:
    """As somebody takes pictures of a thing on a table, who cannot walk around it."""
    return [looking(0.8 + 0.1 * k, 0.2 + 0.05 * row) for k in range(-4, 5) for row in range(3)]


def angles(cameras: list[Camera]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Direction of each camera from TARGET against the middle one of `front`, elevation, distance."""
    middle = (looking(0.8, 0.25).center - TARGET) @ (np.eye(3) - np.outer(UP, UP))
    offsets = np.array([camera.center for camera in cameras]) - TARGET
    heights = offsets @ UP
    flat = offsets - heights[:, None] * UP
    cosine = flat @ middle / np.linalg.norm(flat, axis=1) / np.linalg.norm(middle)
    distances = np.linalg.norm(offsets, axis=1)
    return np.arccos(np.clip(cosine, -1, 1)), np.arcsin(heights / distances), distances


def test_what_cameras_look_at_is_found() -> None:
    around = surroundings(ring())
    assert np.abs(around.target - TARGET).max() < 1e-9 and np.abs(around.axes[2] - UP).max() < 1e-9
    assert np.abs(around.axes @ around.axes.T - np.eye(3)).max() < 1e-12 and np.linalg.det(around.axes) > 0
    assert around.closed and abs(around.elevation - 0.4) < 1e-9 and abs(around.distance - 4) < 1e-9
    assert abs(around.lowest - 0.3) < 1e-9 and abs(around.highest - 0.5) < 1e-9
    one_side = surroundings(front())
    assert np.abs(one_side.target - TARGET).max() < 1e-9
    assert not one_side.closed and 0.35 < one_side.width < 0.45


@pytest.mark.parametrize("cameras", [ring(), front()], ids=["around", "front"])
@pytest.mark.parametrize("kind", ["orbit", "spiral", "dolly", "zoom"])
def test_every_path_is_smooth_closed_upright_and_looks_at_the_scene(kind: str, cameras: list[Camera]) -> None:
    path = camera_path(kind, cameras, 90, size=(64, 48))
    assert len(path) == 90 and len({camera.name for camera in path}) == 90
    target = surroundings(cameras).target
    for camera in path:
        assert camera.size == (64, 48) and (camera.cx, camera.cy) == (32, 24)
        pixel, depth = project(camera, target)
        assert np.abs(pixel - (32, 24)).max() < 1e-9 and depth > 0
        rotation = camera.world_to_camera[:3, :3]
        assert np.abs(rotation @ rotation.T - np.eye(3)).max() < 1e-12 and np.linalg.det(rotation) > 0
        assert rotation[1] @ UP < 0 and abs(rotation[0] @ surroundings(cameras).axes[2]) < 1e-12
    centers = np.array([camera.center for camera in path])
    steps = np.linalg.norm(np.roll(centers, -1, axis=0) - centers, axis=1)
    assert steps.max() < 0.7, "the last leads to the first"
    if kind in ("orbit", "spiral"):
        assert steps.sum() > 2
    focal = np.array([camera.fx for camera in path])
    assert (focal[0] == focal).all() == (kind != "zoom")


def test_an_orbit_goes_all_around_where_cameras_do_and_stays_on_their_side_where_they_do() -> None:
    away, elevation, distance = angles(camera_path("orbit", ring(), 60))
    assert away.max() > 3.0 and np.abs(elevation - 0.4).max() < 1e-9 and np.abs(distance - 4).max() < 1e-9
    for kind in ("orbit", "spiral"):
        away, elevation, distance = angles(camera_path(kind, front(), 60))
        assert 0.3 < away.max() < 0.45 and elevation.min() > 0.15 and elevation.max() < 0.35
        assert np.abs(distance - 4).max() < 1e-2


def test_a_dolly_comes_near_and_a_zoom_stands_still() -> None:
    dolly = camera_path("dolly", ring(), 10)
    distance = angles(dolly)[2]
    assert abs(distance[0] - 4) < 1e-9 and abs(distance.min() - 2.4) < 1e-9
    assert np.linalg.matrix_rank(np.array([camera.center for camera in dolly]) - TARGET, tol=1e-9) == 1
    zoom = camera_path("zoom", ring(), 10)
    assert all(np.array_equal(camera.center, zoom[0].center) for camera in zoom)
    focal = [camera.fx for camera in zoom]
    assert abs(max(focal) / focal[0] - 1.8) < 1e-9 and focal[0] == min(focal)


def test_through_the_cameras() -> None:
    cameras = [replace(camera, fy=40.0 + k, fx=40.0 + k) for k, camera in enumerate(ring())]
    path = camera_path("cameras", cameras, 12 * 11 - 10)
    for k, camera in enumerate(cameras):
        at = path[11 * k]
        assert np.abs(at.world_to_camera - camera.world_to_camera).max() < 1e-9
        assert abs(at.fy - camera.fy) < 1e-9
    turns = [np.trace(a.world_to_camera[:3, :3] @ b.world_to_camera[:3, :3].T) for a, b in pairwise(path)]
    assert min(turns) > 2.98, "no leap"
    steps = np.linalg.norm(np.diff([camera.center for camera in path], axis=0), axis=1)
    assert steps.max() < 2 * np.median(steps)
    one = camera_path("cameras", cameras[:1], 3)
    assert all(np.abs(camera.world_to_camera - cameras[0].world_to_camera).max() < 1e-12 for camera in one)


def test_cameras_in_no_order_are_visited_from_nearest_to_nearest() -> None:
    mixed = [ring()[k] for k in (0, 5, 10, 3, 8, 1, 6, 11, 4, 9, 2, 7)]
    path = camera_path("cameras", mixed, 100)
    assert np.abs(path[0].world_to_camera - mixed[0].world_to_camera).max() < 1e-9
    steps = np.linalg.norm(np.diff([camera.center for camera in path], axis=0), axis=1)
    assert steps.sum() < 1.2 * sum(np.linalg.norm(a.center - b.center) for a, b in pairwise(ring()))


def test_size_and_field_of_view() -> None:
    for kind in ("orbit", "cameras"):
        first = camera_path(kind, ring(), 3)[0]
        assert first.size == (60, 40) and abs(first.fy - 50) < 1e-9
        larger = camera_path(kind, ring(), 3, size=(600, 400))[0]
        assert abs(larger.fy - 500) < 1e-9 and abs(larger.fx - 500) < 1e-9
        wide = camera_path(kind, ring(), 3, size=(80, 60), fov=90)[1]
        assert abs(wide.fy - 30) < 1e-9 and abs(wide.fx - 30) < 1e-9


def test_parallel_cameras_take_the_distance_from_the_points() -> None:
    row = [Camera(60, 40, 50.0, 50.0, 30, 20, world_to_camera(np.eye(3), np.array([0.1 * k, 0, 0]))) for k in range(5)]
    points = np.array([0.2, 0, 7.0]) + np.random.default_rng(0).normal(size=(99, 3)) * 0.01
    assert np.abs(surroundings(row, points).target - (0.2, 0, 7)).max() < 0.01
    assert np.abs(surroundings(row).target - (0.2, 0, 0.4)).max() < 1e-9
    assert all(camera.world_to_camera[2, 2] > 0.99 for camera in camera_path("orbit", row, 8, points=points))


def test_the_procedural_scene_is_surrounded() -> None:
    capture = procedural_capture(size=32, train=24, test=0)
    around = surroundings(capture.train.cameras)
    assert around.closed and np.abs(around.target).max() < 1e-9 and np.abs(around.axes[2] - (0, 0, 1)).max() < 0.05


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        ("orbitt", {}, "did you mean 'orbit'"),
        ("orbit", {"frames": 0}, "at least 1"),
        ("orbit", {"fov": 180.0}, "between 0 and 180"),
        ("nowhere.json", {}, "cannot read"),
    ],
)
def test_bad_arguments(kind: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        camera_path(kind, ring(), **options)


def test_no_cameras_and_cameras_that_look_away() -> None:
    with pytest.raises(UsageError, match="there are none"):
        camera_path("orbit", [])
    flip = np.diag([-1.0, 1, -1, 1])
    outwards = [replace(camera, world_to_camera=flip @ camera.world_to_camera) for camera in ring()]
    with pytest.raises(UsageError, match="look away"):
        camera_path("orbit", outwards)
    assert len(camera_path("cameras", outwards, 5)) == 5


def nerfstudio(cameras: list[Camera], **changes: Any) -> dict[str, Any]:
    """What nerfstudio's viewer writes: camera to world by rows, OpenGL's axes, vertical field of view in degrees."""
    entries = [
        {
            "camera_to_world": (camera.camera_to_world @ np.diag([1, -1, -1, 1])).ravel().tolist(),
            "fov": math.degrees(2 * math.atan(camera.height / 2 / camera.fy)),
            "aspect": camera.width / camera.height,
        }
        for camera in cameras
    ]
    common = {"camera_type": "perspective", "render_height": 40, "render_width": 60, "fps": 30, "seconds": 4}
    return {**common, "camera_path": entries, **changes}


def test_nerfstudios_path_is_read(tmp_path: Path) -> None:
    file = tmp_path / "path.json"
    file.write_text(json.dumps(nerfstudio(ring())))
    cameras, fps = read_path(file)
    assert fps == 30 and len(cameras) == 12
    for read, written in zip(cameras, ring(), strict=True):
        assert np.abs(read.world_to_camera - written.world_to_camera).max() < 1e-9
        assert read.size == (60, 40) and np.abs(np.subtract(read.intrinsics, written.intrinsics)).max() < 1e-9
    larger = camera_path(file, [], size=(120, 80))
    assert larger[0].size == (120, 80) and abs(larger[0].fy - 100) < 1e-9
    # Ours are turned, three times as large and moved: what is seen of the same thing stays.
    turn = ring()[3].world_to_camera[:3, :3]
    to_input = np.eye(4)
    to_input[:3, :3], to_input[:3, 3] = turn / 3, (1, 2, 3)
    point = np.array([0.1, 0.2, 0.3])
    ours = camera_path(file, [], to_input=to_input)
    for camera, original in zip(ours, ring(), strict=True):
        here, depth = project(camera, point)
        there, original_depth = project(original, to_input[:3, :3] @ point + to_input[:3, 3])
        assert np.abs(here - there).max() < 1e-8 and abs(depth - 3 * original_depth) < 1e-8


def entry(**changes: Any) -> dict[str, Any]:
    return {"camera_path": [{**nerfstudio(ring())["camera_path"][0], **changes}]}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"camera_path": []}, "expected nerfstudio's camera path"),
        ({"camera_path": [3]}, r"camera_path\[0\] is no object"),
        ({"camera_type": "fisheye"}, "'fisheye' cannot be rendered"),
        ({"render_width": "wide"}, "render_width is 'wide'"),
        ({"render_height": 0}, "render_height is 0"),
        ({"fps": 0}, "fps is 0"),
        (entry(fov=None), r"camera_path\[0\].fov is None"),
        (entry(fov=math.nan), "fov is nan"),
        (entry(camera_to_world=[1, 2]), "16 finite numbers"),
        (entry(camera_to_world=None), "16 finite numbers"),
        (entry(camera_to_world=[math.nan] * 16), "16 finite numbers"),
        (entry(camera_to_world=[2.0] * 16), "not orthonormal"),
    ],
)
def test_bad_files_are_told_in_a_line(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    file = tmp_path / "path.json"
    file.write_text(json.dumps(nerfstudio(ring(), **changes)))
    with pytest.raises(UsageError, match=says) as error:
        read_path(file)
    assert "path.json" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, "\x00"])
def test_what_is_no_camera_path(text: str, tmp_path: Path) -> None:
    file = tmp_path / "path.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"path\.json"):
        read_path(file)
