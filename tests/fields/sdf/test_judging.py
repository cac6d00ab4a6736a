from __future__ import annotations

import numpy as np
import pytest
import torch

from treadle.fields.sdf.judging import apart, figures, iou, normal_error
from treadle.fields.sdf.solid import enclose

pytest.importorskip("igl")


class Ball:
    """Stands in for a field: an exact ball, possibly tilted."""

    def __init__(self, radius: float, tilt: float = 0.0):
        self.radius, self.tilt, self.to_input = radius, tilt, torch.eye(4)

    def evaluate(self, points):
        return points.norm(dim=1, keepdim=True) - self.radius

    def normals(self, points, step):
        c, s = np.cos(np.radians(self.tilt)), np.sin(np.radians(self.tilt))
        normals = torch.nn.functional.normalize(points, dim=1)
        # Turned around an axis across each of them, so by the whole angle.
        across = torch.linalg.cross(normals, torch.roll(normals, 1, 1))
        across = torch.nn.functional.normalize(across, dim=1)
        return c * normals + s * torch.linalg.cross(across, normals)


def test_insides_that_overlap_are_measured_by_volume(ball):
    solid = enclose(ball(rings=48))
    assert iou(Ball(0.9), solid, 300_000) > 0.99
    assert iou(Ball(0.6), solid, 300_000) == pytest.approx((0.6 / 0.9) ** 3, abs=0.01)
    assert iou(Ball(-1.0), solid, 1000) == 0


def test_figures_of_points():
    wanted = torch.tensor([[-0.2], [-0.01], [0.03], [0.4]])
    found = wanted + torch.tensor([[0.0], [0.02], [0.0], [0.1]])
    assert figures(found, wanted) == pytest.approx({"iou": 1 / 2, "error": 0.03, "near": 0.01})
    assert np.isnan(figures(wanted[3:], wanted[3:])["near"]) and figures(wanted[3:], wanted[3:])["iou"] == 1


def test_surfaces_apart_are_measured_exactly_and_both_ways(ball, box):
    solid = enclose(ball(rings=40))
    same = apart(solid.vertices, solid.faces, solid, 5000)
    assert max(same.from_fit, same.to_fit, same.largest) < 1e-9
    small = apart(solid.vertices * 0.9, solid.faces, solid, 5000)
    assert small.from_fit == pytest.approx(0.09, rel=0.01) and small.to_fit == pytest.approx(0.09, rel=0.01)
    assert small.relative == pytest.approx(0.09 / solid.diagonal, rel=0.01)
    assert str(small.fit) == "1 part, watertight, genus 0"
    # A second part far away is seen from the one side alone.
    both = np.concatenate([solid.vertices, solid.vertices * 0.3])
    more = apart(both, np.concatenate([solid.faces, solid.faces + len(solid.vertices)]), solid, 5000)
    assert more.to_fit < 1e-9 < 0.03 < more.from_fit and more.largest > 0.6
    assert more.relative == pytest.approx((more.from_fit + more.to_fit) / 2 / solid.diagonal)


def test_normals_are_compared_in_degrees(ball):
    solid = enclose(ball(rings=60))
    assert normal_error(Ball(0.9), solid, 5000) < 1.6
    assert normal_error(Ball(0.9, tilt=20), solid, 5000) == pytest.approx(20, abs=0.5)
