"""Morton codes, trees, and which cells a mesh touches: against definitions and clipping."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from treadle.errors import UsageError
from treadle.kernels import voxels
from treadle.kernels.marching import dense


def test_codes_interleave_bits_x_first() -> None:
    cells = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [3, 5, 6]])
    codes = voxels.encode(cells, 3)
    assert codes.tolist() == [0, 4, 2, 1, 0b011_101_110]
    assert torch.equal(voxels.decode(codes, 3), cells)
    big = torch.randint(0, 1 << voxels.FINEST, (100, 3), generator=torch.Generator().manual_seed(0))
    assert torch.equal(voxels.decode(voxels.encode(big, voxels.FINEST), voxels.FINEST), big)


@pytest.mark.parametrize("level", [0, 1, 4])
def test_a_tree_holds_its_cells_and_no_others(level: int) -> None:
    side = 1 << level
    cells = torch.randint(0, side, (60, 3), generator=torch.Generator().manual_seed(0)).unique(dim=0)
    tree = voxels.tree(voxels.encode(cells, level).sort().values, level)
    assert torch.equal(torch.nonzero(dense(tree)[0]), cells)
    counted = sum(int(mask).bit_count() for mask in tree.children)
    assert counted == (0 if level == 0 else len(tree.children) - 1 + len(cells))  # every node but the root is a child
    assert (
        tree.first.tolist()
        == (torch.tensor([0, *[int(m).bit_count() for m in tree.children]]).cumsum(0) + 1)[:-1].tolist()
    )


def clipped_area(triangle: NDArray[np.float64], low: NDArray[np.float64], side: float) -> bool:
    """Whether anything is left of a triangle that is cut off at each plane of a box (Sutherland and Hodgman 1974)."""
    polygon = list(triangle)
    for axis in range(3):
        for sign, bound in ((1.0, low[axis]), (-1.0, -(low[axis] + side))):
            kept: list[NDArray[np.float64]] = []
            for a, b in zip(polygon, polygon[1:] + polygon[:1], strict=True):
                da, db = sign * a[axis] - bound, sign * b[axis] - bound
                if da >= 0:
                    kept.append(a)
                if da * db < 0:
                    kept.append(a + (b - a) * (da / (da - db)))
            polygon = kept
            if not polygon:
                return False
    return True


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.05, 0.4, 1.5]), st.integers(0, 3))
def test_the_cells_are_those_in_which_something_is_left_of_a_triangle(seed: int, size: float, level: int) -> None:
    rng = np.random.default_rng(seed)
    triangle = rng.uniform(-1, 1, 3) + size * rng.uniform(-1, 1, (3, 3))
    found = voxels.touched(triangle, np.array([[0, 1, 2]]), level)
    side = 2.0 / (1 << level)
    cells = np.stack(np.meshgrid(*[np.arange(1 << level)] * 3, indexing="ij"), -1).reshape(-1, 3)
    wanted = [cell for cell in cells if clipped_area(triangle, -1 + side * cell, side)]
    assert voxels.decode(found, level).tolist() == sorted(
        (cell.tolist() for cell in wanted), key=lambda c: int(voxels.encode(torch.tensor([c]), level))
    )


def test_a_cells_side_belongs_to_both() -> None:
    square = np.array([[-0.9, -0.9, 0.0], [0.9, -0.9, 0.0], [0.0, 0.9, 0.0]])
    cells = voxels.decode(voxels.touched(square, np.array([[0, 1, 2]]), 1), 1)
    assert len(cells) == 8
    flat = np.array([[0.3, 0.3, 0.3]] * 3)  # without area: one point
    assert voxels.decode(voxels.touched(flat, np.array([[0, 1, 2]]), 2), 2).tolist() == [[2, 2, 2]]


def test_threads_change_nothing() -> None:
    rng = np.random.default_rng(0)
    vertices, faces = rng.uniform(-1.2, 1.2, (300, 3)), rng.integers(0, 300, (500, 3))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            results.append(voxels.touched(vertices, faces, 4))
    finally:
        torch.set_num_threads(before)
    assert len(results[0]) > 1000 and all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize(
    ("vertices", "faces", "level", "complaint"),
    [
        (np.zeros((3, 2)), [[0, 1, 2]], 3, "vertices"),
        (np.full((3, 3), np.nan), [[0, 1, 2]], 3, "finite"),
        (np.zeros((3, 3)), [[0, 1, 3]], 3, "of 3 vertices"),
        (np.zeros((3, 3)), [[0, 1]], 3, "faces"),
        (np.zeros((3, 3)), [[0, 1, 2]], 17, "level is 17"),
    ],
)
def test_what_is_no_mesh_is_refused(vertices: NDArray[np.float64], faces: list[list[int]], level: int,
                                    complaint: str) -> None:  # fmt: skip
    with pytest.raises(UsageError, match=complaint):
        voxels.touched(vertices, np.array(faces), level)
    assert len(voxels.touched(np.zeros((3, 3)), np.zeros((0, 3), np.int64), 3)) == 0
