"""A surface from pictures of a ball whose depth is known: where it is, how it is coloured, what is cut off it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from treadle.cameras.camera import Camera
from treadle.errors import UsageError
from treadle.export.fusion import fuse
from treadle.export.look import Look, View
from treadle.export.mesh import Mesh
from treadle.export.mesh_parts import chosen, cropped, largest_part, moved

pytest.importorskip("skimage")
BOX = np.array([[-1.5, -1.5, -1.5], [1.5, 1.5, 1.5]])
Ball = tuple[tuple[float, float, float], float]


def looking_at_origin(eye: NDArray[np.float64], size: int = 120) -> Camera:
    forward = -eye / np.linalg.norm(eye)
    right = np.cross(forward, [0.123, 1.0, 0.3])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, -rotation @ eye
    return Camera(size, size, size * 1.2, size * 1.1, size / 2 + 3.5, size / 2 - 2, pose)


def around(count: int = 14, distance: float = 4.0) -> list[Camera]:
    heights = 1 - (2 * np.arange(count) + 1) / count
    turns = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    flat = np.sqrt(1 - heights**2)
    return [looking_at_origin(distance * np.array(eye)) for eye in
            zip(flat * np.cos(turns), heights, flat * np.sin(turns), strict=True)]  # fmt: skip


def balls(*given: Ball) -> Look:
    """Sees balls, exactly: coloured by where their surface points to, background far away."""

    def look(camera: Camera) -> View:
        columns, rows = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
        rays = np.stack([(columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy, np.ones_like(rows)], -1)
        rays = rays @ camera.world_to_camera[:3, :3]  # in the world's axes, 1 long along the camera's
        depth = np.full(rows.shape, np.inf)
        image = np.zeros((*rows.shape, 3))
        for center, radius in given:
            offset = camera.center - np.array(center)
            a, b, c = (rays**2).sum(-1), (rays * offset).sum(-1), (offset**2).sum() - radius**2
            inner = b * b - a * c
            here = np.where(inner > 0, (-b - np.sqrt(np.maximum(inner, 0))) / a, np.inf)
            nearer = here < depth
            depth = np.where(nearer, here, depth)
            normal = (offset + rays * np.where(np.isfinite(here), here, 0)[..., None]) / radius
            image = np.where(nearer[..., None], 0.5 + normal / 2, image)
        hit = np.isfinite(depth)
        parts = (image, np.where(hit, depth, 0), hit)
        return View(*(torch.from_numpy(part.astype(np.float32)) for part in parts))

    return look


def volume(mesh: Mesh) -> float:
    a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(np.float64) for i in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def test_the_surface_of_a_ball_lies_where_it_is() -> None:
    mesh = fuse(balls(((0.1, -0.2, 0.05), 1.0)), around(), BOX, 60)
    voxel = 3 / 60
    offsets = mesh.vertices - np.array([0.1, -0.2, 0.05])
    radii = np.linalg.norm(offsets, axis=1)
    assert np.abs(radii - 1).max() < voxel and np.sqrt(np.square(radii - 1).mean()) < voxel / 5
    assert volume(mesh) == pytest.approx(4 / 3 * np.pi, rel=0.02), "closed, and its faces turned outwards"
    edges = np.sort(mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all(), "closed"
    assert mesh.colors is not None
    errors = mesh.colors / 255 - (0.5 + offsets / 2)
    assert np.sqrt(np.square(errors).mean()) < 0.0065 and np.abs(errors).max() < 0.05


def test_what_no_camera_sees_is_left_open() -> None:
    """From one side there is half a ball, not a wall where the seen ends."""
    mesh = fuse(balls(((0, 0, 0), 1.0)), [looking_at_origin(np.array([0, 0, 4.0]))], BOX, 60)
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 1).max() < 3 / 60 * 2
    assert mesh.vertices[:, 2].min() > 0 and mesh.vertices[:, 2].max() > 0.9


def test_the_largest_part_is_kept() -> None:
    mesh = fuse(balls(((-0.6, 0, 0), 0.5), ((0.8, 0.3, 0), 0.3)), around(), BOX, 60)
    kept = largest_part(mesh)
    assert 0 < len(kept.faces) < len(mesh.faces) and kept.faces.max() == len(kept.vertices) - 1
    assert np.abs(np.linalg.norm(kept.vertices - [-0.6, 0, 0], axis=1) - 0.5).max() < 3 / 60
    assert kept.colors is not None and len(kept.colors) == len(kept.vertices)


def test_a_box_cuts_and_a_similarity_moves() -> None:
    mesh = fuse(balls(((0, 0, 0), 1.0)), around(), BOX, 30)
    half = cropped(mesh, (-2, -2, 0, 2, 2, 2))
    assert half.vertices[:, 2].min() >= 0 and 0.4 < len(half.faces) / len(mesh.faces) < 0.55
    assert set(map(tuple, half.vertices.tolist())) <= set(map(tuple, mesh.vertices.tolist()))
    matrix = np.array([[0, -2, 0, 5], [2, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]], float)
    turned = moved(mesh, matrix)
    np.testing.assert_allclose(np.linalg.norm(turned.vertices - [5, 0, 0], axis=1), 2, atol=0.2)
    assert volume(turned) == pytest.approx(8 * volume(mesh), rel=1e-3)
    assert not len(chosen(mesh, np.zeros(len(mesh.faces), bool)).vertices)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: fuse(balls(), around(2), BOX, 20), "no surface was seen from -1.5,-1.5,-1.5 to 1.5,1.5,1.5"),
        (lambda: fuse(balls(((0, 0, 0), 1.0)), [], BOX, 20), "no surface was seen"),
        (lambda: fuse(balls(((0, 0, 0), 1.0)), around(2), BOX[::-1], 20), "needs a box with a volume"),
        (lambda: fuse(balls(((0, 0, 0), 1.0)), around(2), BOX * np.nan, 20), "needs a box with a volume"),
        (lambda: fuse(balls(((0, 0, 0), 1.0)), around(2), BOX, 5000), "resolution is 5000: expected 8 to 1024"),
    ],
)
def test_where_there_is_no_surface_it_says_so(call: Callable[[], Mesh], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        call()
