import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.tracts.scoring.geometry import ends_of, touching, walked, winding
from treadle.tracts.streamlines import Streamlines


@settings(deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(3, 12), min_size=1, max_size=5))
def test_winding_is_that_of_dipy(seed: int, lengths: list[int]) -> None:
    from dipy.tracking.metrics import winding as expected

    points = np.random.default_rng(seed).normal(size=(sum(lengths), 3)).cumsum(axis=0)
    offsets = np.cumsum([0, *lengths])
    found = winding(points, offsets)
    for index in range(len(lengths)):
        line = points[offsets[index] : offsets[index + 1]]
        assert math.isclose(found[index], expected(line), rel_tol=1e-4, abs_tol=1e-4)


def test_a_circle_winds_once_and_points_alone_do_not() -> None:
    angle = np.linspace(0, 2 * np.pi, 101)
    circle = np.stack([np.cos(angle), np.sin(angle), np.zeros(101)], -1)
    found = winding(np.concatenate([circle, [[1.0, 2.0, 3.0]]]), np.array([0, 101, 101, 102]))
    assert math.isclose(found[0], 360, abs_tol=2) and found[1:].tolist() == [0, 0]
    assert winding(np.zeros((0, 3)), np.array([0, 0])).tolist() == [0]


def test_how_far_lines_go() -> None:
    points = np.array([[0, 0, 0], [3, 1, 0], [1, 2, 0], [5, 5, 5], [5, 4, 7]], float)
    offsets = np.array([0, 3, 3, 5])
    assert walked(points, offsets, to_and_fro=False).tolist() == [[1, 2, 0], [0, 0, 0], [0, 1, 2]]
    assert walked(points, offsets, to_and_fro=True).tolist() == [[5, 2, 0], [0, 0, 0], [0, 1, 2]]


def test_lines_touch_voxels_between_their_points() -> None:
    mask = np.zeros((9, 2, 1), bool)
    mask[4, 0] = True
    over, beside = np.array([[0.5, 0.5, 0.5], [8.5, 0.5, 0.5]]), np.array([[0.5, 1.5, 0.5], [8.5, 1.5, 0.5]])
    assert touching(Streamlines.of([over, beside, np.zeros((0, 3)), over[:1]]), mask).tolist() == [True] + [False] * 3


def test_ends_of_lines() -> None:
    lines = Streamlines.of([np.zeros((0, 3)), np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]]), np.zeros((0, 3))])
    first, last = ends_of(lines)
    assert first[1].tolist() == [1, 2, 3] and last[1].tolist() == [7, 8, 9]
    assert np.isnan(first[[0, 2]]).all() and np.isnan(last[[0, 2]]).all()
    assert np.isnan(ends_of(Streamlines.of([np.zeros((0, 3))]))[0]).all()
