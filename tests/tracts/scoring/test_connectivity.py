import numpy as np
import pytest

from treadle.errors import UsageError
from treadle.tracts.scoring.connectivity import (
    bloc_regions,
    connected,
    connectivity_matrix,
    end_distances,
    label_regions,
)
from treadle.tracts.streamlines import Streamlines

LINES = Streamlines.of(
    [
        np.array([[0.5, 0.5, 0.5], [3.5, 0.5, 0.5]]),
        np.array([[3.5, 0.5, 0.5], [2.0, 1.0, 0.5], [0.5, 0.5, 0.5]]),
        np.array([[0.5, 0.5, 0.5], [1.5, 0.5, 0.5]]),
        np.array([[0.5, 0.5, 0.5], [9.5, 0.5, 0.5]]),
    ]
)


def test_blocs_cut_a_volume_into_equal_parts() -> None:
    regions = bloc_regions((4, 6, 5), (2, 3, 1))
    assert np.bincount(regions.ravel()).tolist() == [20] * 6
    assert regions[0, 0, 0] == 0 and regions[3, 0, 0] == 3 and regions[0, 5, 0] == 2 and regions[3, 5, 4] == 5
    uneven = bloc_regions((5, 1, 1), (2, 1, 1))[:, 0, 0]
    assert uneven.tolist() == [int(min(2 / 5 * (voxel + 0.0), 1)) for voxel in range(5)]  # as dwi_ml's floor
    with pytest.raises(UsageError, match="blocs"):
        bloc_regions((4, 4, 4), (2, 0, 1))


def test_labels_are_numbered_in_their_order_without_0() -> None:
    assert label_regions(np.array([0, 7, 3, 7, 100])).tolist() == [-1, 1, 0, 1, 2]


def test_lines_are_counted_between_regions_either_way() -> None:
    regions = bloc_regions((4, 2, 1), (2, 1, 1))
    matrix = connectivity_matrix(LINES, regions)
    assert matrix.tolist() == [[1, 2], [2, 0]]  # the last line ends outside
    assert np.triu(matrix).sum() == 3
    linked = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert connected(LINES, regions, linked).tolist() == [True, True, False, False]


def test_distances_are_in_millimetres() -> None:
    expected = np.array([[3.5, 0.5, 0.5], [0.5, 1.5, 0.5], [0.5, 0.5, 0.5], [9.5, 0.5, 2.5]])
    assert end_distances(LINES, expected, np.array([2.0, 3.0, 1.0])).tolist() == [0, 3, 2, 2]
