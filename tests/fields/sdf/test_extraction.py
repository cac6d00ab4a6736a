from __future__ import annotations

import numpy as np
import pytest
import torch

from treadle.errors import UsageError
from treadle.fields.sdf.extraction import extract, sampled
from treadle.fields.sdf.topology import topology

pytest.importorskip("skimage")


class Exact:
    """Stands in for a field: any function of points, and how many points it was asked for."""

    def __init__(self, function):
        self.function, self.asked = function, 0

    def evaluate(self, points):
        self.asked += len(points)
        return self.function(points)[:, None]


def ring(points):
    across = points[:, :2].norm(dim=1) - 0.55
    return torch.stack([across, points[:, 2]], 1).norm(dim=1) - 0.2


def test_the_surface_is_where_it_should_be_watertight_and_of_the_right_genus():
    vertices, faces = extract(Exact(ring), 64)
    assert str(topology(faces)) == "1 part, watertight, genus 1"
    assert np.abs(ring(torch.from_numpy(vertices)).numpy()).max() < 0.25 * (2 / 64) ** 2 / 0.2
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    volume = np.einsum("nk,nk->n", a, np.cross(b, c)).sum() / 6
    assert volume == pytest.approx(2 * np.pi**2 * 0.55 * 0.04, rel=0.01)  # faces outwards, or it would be negative


@pytest.mark.parametrize("resolution", [32, 61])
def test_far_from_the_surface_nothing_is_asked_and_nothing_is_lost(resolution):
    field = Exact(ring)
    found = sampled(field.evaluate, resolution)
    ticks = torch.arange(resolution + 1) * (2 / resolution) - 1
    dense = ring(torch.stack(torch.meshgrid(ticks, ticks, ticks, indexing="ij"), -1).reshape(-1, 3)).reshape(
        found.shape
    )
    near = dense.abs() < 2 / resolution
    np.testing.assert_allclose(found[near.numpy()], dense[near].numpy(), atol=1e-6)
    np.testing.assert_array_equal(found < 0, (dense < 0).numpy())


def test_most_of_the_box_is_left_out_where_voxels_are_small():
    field = Exact(ring)
    sampled(field.evaluate, 128)
    assert field.asked < 0.4 * 129**3


def test_what_reaches_the_walls_is_closed_there():
    vertices, faces = extract(Exact(lambda points: points[:, 0] - 0.3), 16)
    assert topology(faces).watertight
    assert vertices[:, 0].max() == pytest.approx(0.3, abs=1e-6) and vertices[:, 0].min() < -0.99


def test_a_field_without_a_surface_and_other_resolutions_are_refused():
    with pytest.raises(UsageError, match="nowhere zero"):
        extract(Exact(lambda points: points[:, 0] * 0 + 1), 16)
    with pytest.raises(UsageError, match="resolution is 4: expected 8 to 1024 voxels"):
        extract(Exact(ring), 4)


def test_what_is_smaller_than_a_block_is_found():
    middle = torch.tensor([0.13, -0.37, 0.62])  # in the middle of a block of 64 voxels a side
    vertices, faces = extract(Exact(lambda points: (points - middle).norm(dim=1) - 0.06), 64)
    assert str(topology(faces)) == "1 part, watertight, genus 0"
    np.testing.assert_allclose((vertices.min(0) + vertices.max(0)) / 2, middle, atol=0.01)
