from __future__ import annotations

import numpy as np

from treadle.fields.sdf.shapes import knot
from treadle.fields.sdf.topology import parts_of, topology


def test_spheres_and_tori_are_told_apart(ball, box):
    found = topology(ball().faces)
    assert (found.watertight, found.genus, found.euler, found.parts) == (True, 0, 2, 1)
    assert str(topology(knot(40, 8).faces)) == "1 part, watertight, genus 1"
    two = np.concatenate([box().faces, knot(40, 8).faces + 8])
    assert str(topology(two)) == "2 parts, watertight, genus 1"
    np.testing.assert_array_equal(np.bincount(parts_of(two)), [12, 640])


def test_holes_and_faces_turned_round_are_counted(box):
    faces = box().faces
    holed = topology(faces[:-1])
    assert (holed.open_edges, holed.crossed_edges, holed.watertight, holed.genus) == (3, 0, False, None)
    turned = faces.copy()
    turned[3] = turned[3][::-1]
    found = topology(turned)
    assert (found.open_edges, found.crossed_edges, found.watertight) == (0, 3, False)
    assert "not watertight: 3 of 18 edges" in str(found)
    assert not topology(np.zeros((0, 3), int)).watertight


def test_vertices_without_faces_do_not_count(box):
    assert topology(box().faces * 7 + 100).genus == 0
