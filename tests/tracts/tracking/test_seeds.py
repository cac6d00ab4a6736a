import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.errors import UsageError
from treadle.tracts.tracking.randomness import uniforms
from treadle.tracts.tracking.seeds import place_seeds


def some_mask() -> np.ndarray:
    mask = np.zeros((5, 6, 7), bool)
    mask[1:3, 2:5, 3] = True
    return mask


def test_every_voxel_gets_as_many_seeds_all_inside() -> None:
    mask = some_mask()
    seeds = place_seeds(mask, seed=3, per_voxel=50)
    assert seeds.dtype == np.float32
    counts = np.zeros(mask.shape, int)
    np.add.at(counts, tuple(seeds.astype(int).T), 1)
    assert np.array_equal(counts, mask * 50)
    assert np.array_equal(seeds.astype(int), np.argwhere(mask).repeat(50, axis=0))
    within = seeds - np.floor(seeds)
    assert abs(within.mean() - 0.5) < 0.03 and within.min() < 0.02 and within.max() > 0.98


def test_a_total_is_spread_over_the_mask() -> None:
    mask = some_mask()
    seeds = place_seeds(mask, seed=3, total=6000)
    counts = np.zeros(mask.shape, int)
    np.add.at(counts, tuple(seeds.astype(int).T), 1)
    assert counts[~mask].sum() == 0
    expected = 6000 / mask.sum()
    assert ((counts[mask] - expected) ** 2 / expected).sum() < 26.8  # chi-square, 5 degrees of freedom: 1e-4


@pytest.mark.parametrize("kind", ["per_voxel", "total"])
def test_a_seed_is_a_function_of_its_number(kind: str) -> None:
    mask = some_mask()
    many = place_seeds(mask, seed=1, **{kind: 40})  # type: ignore[arg-type]
    if kind == "total":
        assert np.array_equal(place_seeds(mask, seed=1, total=10), many[:10])
    assert np.array_equal(place_seeds(mask, seed=1, **{kind: 40}), many)  # type: ignore[arg-type]
    assert not np.array_equal(place_seeds(mask, seed=2, **{kind: 40}), many)  # type: ignore[arg-type]


def test_nowhere_to_begin_and_two_numbers_are_refused() -> None:
    with pytest.raises(UsageError, match="empty"):
        place_seeds(np.zeros((2, 2, 2), bool), seed=0, total=5)
    for wrong in ({}, {"per_voxel": 1, "total": 1}, {"total": 0}):
        with pytest.raises(UsageError, match="a number of seeds"):
            place_seeds(some_mask(), seed=0, **wrong)


@settings(deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 500), st.integers(1, 4))
def test_uniforms_belong_to_their_index_and_step(seed: int, step: int, count: int) -> None:
    indices = np.array([5, 0, 9, 2**40])
    drawn = uniforms(seed, "forward", indices, count, step)
    assert drawn.dtype == np.float32 and drawn.shape == (4, count)
    assert (drawn > 0).all() and (drawn < 1).all()
    assert np.array_equal(drawn[2:3], uniforms(seed, "forward", indices[2:3], count, step))
    assert not np.array_equal(drawn, uniforms(seed, "forward", indices, count, step + 1))
    assert not np.array_equal(drawn, uniforms(seed, "backward", indices, count, step))


def test_uniforms_are_uniform_and_uncorrelated() -> None:
    drawn = np.stack([uniforms(0, "forward", np.arange(2000), 3, step) for step in range(20)])
    counts = np.histogram(drawn, 64, (0, 1))[0]
    expected = drawn.size / 64
    assert ((counts - expected) ** 2 / expected).sum() < 120  # 63 degrees of freedom: 1.4e-5
    flat = drawn.reshape(20, 2000, 3) - 0.5
    for first, second in ((flat[1:], flat[:-1]), (flat[:, 1:], flat[:, :-1]), (flat[..., 1:], flat[..., :-1])):
        correlation = (first * second).mean() * 12
        assert abs(correlation) < 4.5 / np.sqrt(first.size)


def test_rounding_never_carries_a_seed_into_the_next_voxel() -> None:
    """Beside 70,000 float32 knows steps of 1 / 128: one place in 256 would be rounded up."""
    mask = np.zeros((70_000, 1, 1), bool)
    mask[-1] = True
    seeds = place_seeds(mask, seed=0, total=20_000)
    assert seeds.dtype == np.float32 and (seeds[:, 0].astype(np.int64) == 69_999).all()
