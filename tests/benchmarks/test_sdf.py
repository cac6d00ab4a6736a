"""The benchmark of distance fields judges what it says: edges are the sharp ones, and gates hold where figures do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treadle.fields.sdf.reading import Surface
from treadle.fields.sdf.shapes import knot
from treadle.fields.sdf.solid import enclose

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TINY = {
    "max_steps": 60, "learning_rate": "cosine 2e-2 to 1e-3", "levels": 2, "log2_size": 8, "n_min": 4, "n_max": 8,
    "hidden": 8, "layers": 1, "pool": 600, "batch_size": 200,
}  # fmt: skip


CORNERS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
SIDES = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
FACES = np.array([face for a, b, c, d in SIDES for face in ((a, b, c), (a, c, d))])


@pytest.fixture
def bench(monkeypatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import sdf

    return sdf


def test_a_mesh_is_trained_on_and_judged(bench, monkeypatch, tmp_path):
    import treadle.fields.sdf.extraction as extraction
    import treadle.fields.sdf.judging as judging

    extract, iou = extraction.extract, judging.iou
    monkeypatch.setattr(extraction, "extract", lambda field, resolution: extract(field, 24))
    monkeypatch.setattr(judging, "iou", lambda field, solid, count, seed: iou(field, solid, 2000, seed))
    block = tmp_path / "block.obj"
    lines = [f"v {x} {y} {z}" for x, y, z in CORNERS] + [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in FACES]
    block.write_text("\n".join(lines))
    found = bench.train("block", block, TINY, None)
    assert found["steps"] == 60 and 0 <= found["iou"] <= 1 and found["distance"] > 0
    assert len(bench.row("block", found)) == len(bench.HEAD)
    assert not all(gate.held for gate in bench.gates("spot", found))
    good = found | {"seconds": 50, "iou": 0.995, "distance": 0.0005, "same": True}
    assert all(gate.held for gate in bench.gates("spot", good))
    for name, value in (("seconds", 61), ("iou", 0.989), ("distance", 0.0011), ("same", False)):
        assert sum(not gate.held for gate in bench.gates("spot", good | {name: value})) == 1


def test_sharp_edges_are_those_of_a_block_and_none_of_a_rope(bench):
    solid = enclose(Surface(CORNERS, FACES))
    edges, first, second = bench.sharp(solid)
    lengths = np.linalg.norm(solid.vertices[edges[:, 0]] - solid.vertices[edges[:, 1]], axis=1)
    assert len(edges) == 12 and np.allclose(lengths, lengths[0])  # and not the diagonals of its sides
    np.testing.assert_allclose((solid.normals[first] * solid.normals[second]).sum(1), 0, atol=1e-12)
    assert len(bench.sharp(enclose(knot()), 60)[0]) == 0
