from __future__ import annotations

import numpy as np
import pytest
import torch

from treadle.errors import UsageError
from treadle.export.mesh import read_mesh
from treadle.fields.sdf.exporters import sdf_exporters
from treadle.fields.sdf.field import SDFField
from treadle.fields.sdf.topology import topology

pytest.importorskip("skimage")

PLAIN = {"resolution": 32, "largest": False, "crop": None, "up": None, "scale": None}


class Balls(SDFField):
    """Two balls, the one on the right smaller; red on the right, blue on the left."""

    colored = True
    channels = {"sdf": 1, "color": 3}

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.register_buffer("to_input", torch.eye(4, dtype=torch.float64))
        self.to_input[:3, :3] *= 10
        self.to_input[:3, 3] = 7

    def forward(self, points, directions=None, channels=None, lod=None):
        left = (points + torch.tensor([0.4, 0, 0])).norm(dim=1) - 0.35
        right = (points - torch.tensor([0.6, 0, 0])).norm(dim=1) - 0.2
        red = (points[:, :1] > 0).float()
        shades = torch.cat([red, torch.zeros_like(red), 1 - red], 1)
        return {"sdf": torch.minimum(left, right)[:, None], "color": shades}


@pytest.mark.parametrize("ending", [".ply", ".obj", ".glb"])
def test_the_mesh_comes_back_in_the_coordinates_of_the_input_and_in_colour(ending, tmp_path):
    path = tmp_path / f"mesh{ending}"
    said = sdf_exporters(lambda run: Balls())["mesh"].write(tmp_path, path, PLAIN)
    mesh = read_mesh(path)
    np.testing.assert_allclose(mesh.vertices.min(0), [-0.5, 3.5, 3.5], atol=0.05)
    np.testing.assert_allclose(mesh.vertices.max(0), [15, 10.5, 10.5], atol=0.05)
    assert said["shape"] == "2 parts, watertight, genus 0" and said["colours"] == "learnt"
    assert said["voxel"] == pytest.approx(10 * 2 / 32) and said["faces"] == len(mesh.faces)
    right = mesh.vertices[:, 0] > 8
    assert (mesh.colors[right] == [255, 0, 0]).all() and (mesh.colors[~right] == [0, 0, 255]).all()


def test_the_largest_part_alone_a_box_and_another_scale(tmp_path):
    write = sdf_exporters(lambda run: Balls())["mesh"].write
    write(tmp_path, tmp_path / "a.ply", PLAIN | {"largest": True})
    assert read_mesh(tmp_path / "a.ply").vertices[:, 0].max() < 7
    write(tmp_path, tmp_path / "b.ply", PLAIN | {"crop": (8, 0, 0, 20, 20, 20)})
    assert read_mesh(tmp_path / "b.ply").vertices[:, 0].min() > 8
    write(tmp_path, tmp_path / "c.ply", PLAIN | {"scale": 0.1})
    assert np.ptp(read_mesh(tmp_path / "c.ply").vertices[:, 0]) == pytest.approx(1.55, abs=0.01)
    faces = read_mesh(tmp_path / "c.ply").faces
    assert topology(faces).watertight
    with pytest.raises(UsageError, match="has no faces"):
        write(tmp_path, tmp_path / "d.ply", PLAIN | {"crop": (100, 100, 100, 101, 101, 101), "largest": True})
