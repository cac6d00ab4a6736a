import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.kernels.traversal import traverse
from treadle.kernels.traversal_reference import traverse_reference

SHAPE = (6, 5, 4)


def voxels(line: list[list[float]], shape: tuple[int, ...] = SHAPE) -> list[tuple[int, ...]]:
    found, offsets = traverse(np.array(line, float), np.array([0, len(line)]), shape)
    assert offsets.tolist() == [0, len(found)]
    return [tuple(map(int, voxel)) for voxel in np.stack(np.unravel_index(found, shape), -1)]


def test_every_voxel_between_two_points_is_met_in_order() -> None:
    assert voxels([[0.5, 0.5, 0.5], [3.5, 0.5, 0.5]]) == [(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0)]
    assert voxels([[1.2, 1.9, 0.5], [2.9, 0.3, 0.5]]) == [(1, 1, 0), (2, 1, 0), (2, 0, 0)]
    assert voxels([[0.5, 0.25, 0.5], [1.5, 1.25, 0.5]]) == [(0, 0, 0), (1, 0, 0), (1, 1, 0)]


def test_through_a_corner_it_goes_straight_on() -> None:
    assert voxels([[0.5, 0.5, 0.5], [2.5, 2.5, 2.5]]) == [(0, 0, 0), (1, 1, 1), (2, 2, 2)]


def test_a_voxel_is_met_once_and_what_is_outside_not_at_all() -> None:
    there_and_back = [[0.5, 0.5, 0.5], [2.5, 0.5, 0.5], [0.5, 0.5, 0.5]]
    assert voxels(there_and_back) == [(0, 0, 0), (1, 0, 0), (2, 0, 0)]
    assert voxels([[-2.5, 0.5, 0.5], [1.5, 0.5, 0.5]]) == [(0, 0, 0), (1, 0, 0)]
    assert voxels([[9.0, 9.0, 9.0], [12.0, 9.0, 9.0]]) == []


def test_points_on_borders_belong_to_the_upper_voxel() -> None:
    assert voxels([[2.0, 1.0, 1.0]]) == [(2, 1, 1)]
    assert voxels([[1.5, 1.5, 1.5], [2.0, 1.5, 1.5]]) == [(1, 1, 1), (2, 1, 1)]
    assert voxels([[3.5, 1.5, 1.5], [2.0, 1.5, 1.5]]) == [(3, 1, 1), (2, 1, 1)]


coordinates = st.one_of(
    st.floats(-1.5, 7.5).map(lambda value: round(value, 3)), st.integers(-1, 7).map(float), st.just(2.5)
)
lines = st.lists(st.lists(st.tuples(coordinates, coordinates, coordinates), max_size=6), min_size=1, max_size=4)


@settings(deadline=None)
@given(lines)
def test_the_loop_meets_what_the_reference_meets(given_lines: list[list[tuple[float, float, float]]]) -> None:
    points = np.array([point for line in given_lines for point in line], float).reshape(-1, 3)
    offsets = np.cumsum([0, *map(len, given_lines)])
    found, bounds = traverse(points, offsets, SHAPE)
    for index, expected in enumerate(traverse_reference(points, offsets, SHAPE)):
        part = found[bounds[index] : bounds[index + 1]]
        met = {tuple(map(int, voxel)) for voxel in np.stack(np.unravel_index(part, SHAPE), -1)}
        assert len(met) == len(part)
        assert met == expected


def test_points_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        traverse(np.array([[np.nan, 0, 0]]), np.array([0, 1]), SHAPE)
    with pytest.raises(ValueError, match="offsets"):
        traverse(np.zeros((3, 3)), np.array([0, 2]), SHAPE)
