import numpy as np
from scipy.ndimage import binary_dilation

from treadle.tracts.masks import at_points, dilated


def test_dilation_is_that_of_scipy() -> None:
    mask = np.random.default_rng(0).uniform(size=(7, 6, 5)) < 0.05
    for times in (0, 1, 2):
        assert np.array_equal(dilated(mask, times), binary_dilation(mask, iterations=times) if times else mask)


def test_points_are_in_the_voxel_that_spans_them() -> None:
    mask = np.zeros((3, 3, 3), bool)
    mask[1, 1, 1] = mask[0, 0, 0] = True
    points = [[1.0, 1.0, 1.0], [1.99, 1.5, 1.5], [2.0, 1.5, 1.5], [-0.01, 0.5, 0.5], [9, 9, 9], [np.nan, 1, 1]]
    assert at_points(mask, np.array(points)).tolist() == [True, True, False, False, False, False]
