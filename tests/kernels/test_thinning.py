import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from treadle.kernels.thinning import thin
from treadle.kernels.thinning_reference import thin_reference


def wandering(seed: int, lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    points = np.cumsum(rng.normal(size=(sum(lengths), 3)) * 0.3 + [0.5, 0, 0], axis=0)
    return points, np.cumsum([0, *lengths])


@given(st.integers(0, 1000), st.lists(st.integers(0, 30), min_size=1, max_size=6), st.sampled_from([0.0, 0.2, 1.0]))
def test_the_loop_says_what_the_reference_says(seed: int, lengths: list[int], tolerance: float) -> None:
    points, offsets = wandering(seed, lengths)
    assert np.array_equal(thin(points, offsets, tolerance, 4.0), thin_reference(points, offsets, tolerance, 4.0))


def test_a_straight_line_keeps_its_ends_and_what_the_longest_segment_asks_for() -> None:
    points = np.arange(41)[:, None] * np.array([0.5, 0, 0])
    keep = thin(points, np.array([0, 41]), 0.01, 10.0)
    assert np.flatnonzero(keep).tolist() == [0, 20, 40]


def test_what_is_left_out_lies_near_what_is_left() -> None:
    points, offsets = wandering(0, [200])
    keep = np.flatnonzero(thin(points, offsets, 0.5, 100.0))
    assert 2 < len(keep) < 120
    for first, last in itertools.pairwise(keep):
        ahead = points[last] - points[first]
        for between in points[first:last]:
            along = np.clip((between - points[first]) @ ahead / (ahead @ ahead), 0, 1)
            assert np.linalg.norm(between - points[first] - along * ahead) <= 0.5 + 1e-9


def test_threads_change_nothing() -> None:
    points, offsets = wandering(1, [12] * 400)
    before = torch.get_num_threads()
    try:
        kept = []
        for count in (1, 2):
            torch.set_num_threads(count)
            kept.append(thin(points, offsets, 0.3))
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*kept)


def test_offsets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="offsets"):
        thin(np.zeros((4, 3)), np.array([0, 3]), 0.1)
