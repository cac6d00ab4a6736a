"""Ray tracing against geometry that is known: where rays meet every kind of shape, normals, distances, light."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch

from treadle.errors import UsageError
from treadle.kernels import raytracing
from treadle.kernels.raytracing import Material, Shape, box, build, capsule, cone, sphere, torus

GREY = Material((0.5, 0.5, 0.5))
AXIS = (0.36, 0.48, 0.8)
SIZE, LENS = (48, 40), (70.0, 72.0, 23.0, 21.0)
SHAPES: dict[str, Shape] = {
    "sphere": sphere(GREY, (0.1, -0.05, 0.02), 0.5),
    "capsule": capsule(GREY, (-0.3, 0.1, -0.2), (0.3, 0, 0.4), 0.2),
    "torus": torus(GREY, (0.05, 0, 0), AXIS, 0.45, 0.15),
    "box": box(GREY, (0, 0.1, 0), (0.4, 0.25, 0.15), 0.03, AXIS, (1, 0, 0)),
    "cone": cone(GREY, (-0.2, -0.1, -0.4), (0.1, 0.2, 0.4), (0.4, 0.15), 0.02),
    "cylinder": cone(GREY, (0, 0, -0.3), (0, 0, 0.3), (0.3, 0.3), 0.01),
}
each = pytest.mark.parametrize("kind", SHAPES)


def looking(yaw: float = 0.4, pitch: float = 0.5, distance: float = 3.0) -> np.ndarray:
    """World to camera, looking at the origin."""
    out = np.array([math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch)])
    right = np.array([-math.sin(yaw), math.cos(yaw), 0])
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(-out, right), -out])
    pose[:3, 3] = [0, 0, distance]
    return pose


def rays_of(pose: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Origin, unit directions (h, w, 3) and how much of each lies along the optical axis."""
    fx, fy, cx, cy = LENS
    x, y = np.meshgrid((np.arange(SIZE[0]) + 0.5 - cx) / fx, (np.arange(SIZE[1]) + 0.5 - cy) / fy)
    ahead = np.stack([x, y, np.ones_like(x)], axis=-1)
    scale = 1 / np.linalg.norm(ahead, axis=-1)
    return -pose[:3, :3].T @ pose[:3, 3], (ahead * scale[..., None]) @ pose[:3, :3], scale


def distance_of(shape: Shape) -> Callable[[np.ndarray], np.ndarray]:
    """The distance from (n, 3) points, by the closest of many points all over the surface's own definition."""
    axes, center = np.array(shape.axes), np.array(shape.center)
    a, b, c = shape.sizes

    def core(p: np.ndarray) -> np.ndarray:
        rho = np.hypot(p[:, 0], p[:, 1])
        if shape.kind == "torus":
            return np.hypot(rho - a, p[:, 2])
        if shape.kind == "box":
            return np.linalg.norm(np.maximum(np.abs(p) - (a, b, c), 0), axis=1)
        if shape.kind in ("sphere", "capsule"):
            return np.linalg.norm(p - np.clip(p[:, 2:], -a, a) * (0, 0, 1), axis=1)
        # Of a truncated cone: the nearest point of the segments that bound its profile, 0 inside.
        corners = np.array([(0, -c), (a, -c), (b, c), (0, c)])
        q, best = np.stack([rho, p[:, 2]], axis=1), np.full(len(p), np.inf)
        for start, end in pairwise(corners):
            along = np.clip((q - start) @ (end - start) / ((end - start) @ (end - start)), 0, 1)
            best = np.minimum(best, np.linalg.norm(q - start - along[:, None] * (end - start), axis=1))
        inside = (np.abs(q[:, 1]) < c) & (q[:, 0] < a + (b - a) * (q[:, 1] + c) / (2 * c))
        return np.where(inside, 0, best)

    return lambda points: core((points - center) @ axes.T) - shape.radius


@each
def test_rays_end_on_the_surface_and_not_behind_it(kind: str) -> None:
    shape, pose = SHAPES[kind], looking()
    seen = raytracing.trace(build([[shape]]), pose, LENS, SIZE)
    origin, directions, ahead = rays_of(pose)
    distance, hit = distance_of(shape), seen.depth > 0
    assert 150 < hit.sum() < hit.size
    assert np.array_equal(hit, seen.shapes == 0) and (seen.shapes[~hit] == -1).all()
    far = (seen.depth / ahead)[hit][:, None]
    assert np.abs(distance(origin + far * directions[hit])).max() < 1e-9
    for part in np.linspace(0.5, 1 - 1e-4, 200):
        assert (distance(origin + part * far * directions[hit]) > 0).all(), "nothing is hit earlier"
    for far in np.linspace(2, 4, 400):
        assert (distance(origin + far * directions[~hit]) > 0).all(), "what misses meets nothing"


@each
def test_normals_are_unit_vectors_towards_the_camera_along_which_the_distance_grows(kind: str) -> None:
    shape, pose = SHAPES[kind], looking(2.5, 0.9)
    seen = raytracing.trace(build([[shape]]), pose, LENS, SIZE)
    origin, directions, ahead = rays_of(pose)
    hit = seen.depth > 0
    normals = seen.normals[hit]
    assert np.abs(np.linalg.norm(normals, axis=1) - 1).max() < 1e-12
    assert ((normals * directions[hit]).sum(axis=1) < 1e-9).all()
    assert (seen.normals[~hit] == 0).all()
    points = origin + (seen.depth / ahead)[hit][:, None] * directions[hit]
    assert np.abs(distance_of(shape)(points + 0.01 * normals) - 0.01).max() < 1e-9


@each
def test_distances_outside_are_true_and_inside_negative(kind: str) -> None:
    shape = SHAPES[kind]
    points = np.random.default_rng(0).uniform(-1, 1, (2000, 3))
    found, expected = raytracing.distances(build([[shape]]), points), distance_of(shape)(points)
    outside = expected > 0
    assert np.abs(found - expected)[outside].max() < 1e-12
    assert outside.sum() > 100 and (found[~outside] <= 1e-12).all()


def test_a_sphere_ahead() -> None:
    pose = looking()
    seen = raytracing.trace(build([[sphere(GREY, (0, 0, 0), 0.5)]]), pose, (50, 50, 1.5, 1.5), (3, 3))
    assert abs(seen.depth[1, 1] - 2.5) < 1e-12
    assert np.abs(seen.normals[1, 1] + pose[2, :3]).max() < 1e-12


def test_groups_change_nothing_and_the_nearest_shape_is_seen() -> None:
    shapes = [*SHAPES.values(), sphere(GREY, (0.5, 0.3, 0.3), 0.2)]
    one, many = build([shapes]), build([[shape] for shape in shapes])
    together, apart = (raytracing.trace(scene, looking(), LENS, SIZE) for scene in (one, many))
    for a, b in zip(together, apart, strict=True):
        assert np.array_equal(a, b)
    alone = np.stack([raytracing.trace(build([[s]]), looking(), LENS, SIZE).depth for s in shapes])
    alone[alone == 0] = np.inf
    hit = together.depth > 0
    assert np.array_equal(together.depth[hit], alone.min(axis=0)[hit])
    assert np.array_equal(together.shapes[hit], alone.argmin(axis=0)[hit])
    points = np.random.default_rng(0).uniform(-1, 1, (500, 3))
    nearest = np.stack([raytracing.distances(build([[s]]), points) for s in shapes]).min(axis=0)
    assert np.array_equal(raytracing.distances(many, points), nearest)


def still_life() -> raytracing.Scene:
    wood, yarn = (
        Material((0.5, 0.2, 0.1), (0.2, 0.1, 0.1), "wood", gloss=1),
        Material((0.1, 0.5, 0.5), texture="yarn", scale=9),
    )
    brass, marble = (
        Material((0.9, 0.7, 0.3), metal=0.95),
        Material((0.1, 0.1, 0.1), (0.9, 0.9, 0.9), "marble", 3, gloss=1),
    )
    return build(
        [
            [cone(marble, (0, 0, -0.4), (0, 0, -0.3), (0.7, 0.7))],
            [sphere(yarn, (0.2, -0.2, -0.1), 0.2), torus(brass, (-0.2, 0.2, -0.25), (0, 0, 1), 0.2, 0.05)],
            [box(wood, (-0.2, -0.3, -0.2), (0.15, 0.1, 0.1), 0.02)],
        ]
    )  # fmt: skip


def test_every_number_of_threads_gives_the_same_bytes() -> None:
    before = torch.get_num_threads()
    digests = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            scene = still_life()
            pixels = raytracing.paint(scene, looking(), LENS, SIZE)
            seen = raytracing.trace(scene, looking(), LENS, SIZE)
            digests.append([table.tobytes() for table in (pixels, *scene.light, *seen)])
    finally:
        torch.set_num_threads(before)
    assert digests[0] == digests[1]


def test_the_picture_covers_what_is_traced() -> None:
    pixels = raytracing.paint(still_life(), looking(), LENS, SIZE)
    hit = raytracing.trace(still_life(), looking(), LENS, SIZE).depth > 0
    alpha = pixels[..., 3]
    assert pixels.dtype == np.uint8 and pixels.shape == (40, 48, 4)
    assert (alpha[hit] > 0).all() and (pixels[alpha == 0] == 0).all()
    inner = hit[1:-1, 1:-1] & hit[:-2, 1:-1] & hit[2:, 1:-1] & hit[1:-1, :-2] & hit[1:-1, 2:]
    assert (alpha[1:-1, 1:-1][inner] > 190).all() and ((alpha > 0) & (alpha < 255)).sum() > 20, "edges are smooth"
    assert len(np.unique(pixels[hit], axis=0)) > 200


def test_what_stands_above_casts_a_shadow() -> None:
    floor = cone(GREY, (0, 0, -0.5), (0, 0, -0.4), (0.7, 0.7))
    lit, shaded = (
        raytracing.paint(build(groups), looking(-0.8, 1.2), LENS, SIZE).astype(int)
        for groups in ([[floor]], [[floor], [sphere(GREY, (0.2, -0.2, 0.1), 0.15)]])
    )
    ground = (
        raytracing.trace(
            build([[floor], [sphere(GREY, (0.2, -0.2, 0.1), 0.15)]]), looking(-0.8, 1.2), LENS, SIZE
        ).shapes
        == 0
    )
    darker = (lit - shaded)[ground].max(axis=1)
    assert (darker > 40).sum() > 20 and (darker <= 3).sum() > 100


def test_a_mirror_shows_what_is_beside_it() -> None:
    mirror, red = Material((1, 1, 1), metal=1.0), Material((0.9, 0.02, 0.02))
    alone = build([[sphere(mirror, (0, 0, 0), 0.4)]])
    beside = build([[sphere(mirror, (0, 0, 0), 0.4)], [sphere(red, (0, 0.75, 0), 0.2)]])
    a, b = (raytracing.paint(scene, looking(0.2, 0.1), LENS, SIZE).astype(int) for scene in (alone, beside))
    on_mirror = raytracing.trace(beside, looking(0.2, 0.1), LENS, SIZE).shapes == 0
    redder = (b[..., 0] - b[..., 1]) - (a[..., 0] - a[..., 1])
    assert (redder[on_mirror] > 60).sum() > 5


@pytest.mark.parametrize(
    "shape",
    [
        sphere(GREY, (0, 0, 0), 0.0),
        sphere(GREY, (0.9, 0, 0), 0.2),
        torus(GREY, (0, 0, 0), AXIS, 0.2, 0.1),
        box(GREY, (0, 0, 0), (0.1, 0.1, 0.001)),
    ],
)
def test_shapes_that_cannot_be_are_refused(shape: Shape) -> None:
    with pytest.raises(UsageError, match=f"a {shape.kind} at"):
        build([[shape]])


def test_the_bytes_stay_the_same() -> None:
    """On every machine: the pose is made of what IEEE 754 fixes, too."""
    across = math.sqrt(0.48 * 0.48 + 0.6 * 0.6)
    right = (-0.6 / across, 0.48 / across, 0.0)
    down = (0.64 * 0.48 / across, 0.64 * 0.6 / across, -across)
    pose = np.array([[*right, 0], [*down, 0], [-0.48, -0.6, -0.64, 3], [0, 0, 0, 1]])
    assert np.abs(pose[:3, :3] @ pose[:3, :3].T - np.eye(3)).max() < 1e-12
    pixels = raytracing.paint(still_life(), pose, LENS, SIZE)
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == "00046123f45ef117"
