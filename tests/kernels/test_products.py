from __future__ import annotations

import numpy as np
import pytest

from treadle.kernels.products import product

LOWEST = -np.inf


def flat(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 3, 4, 8, 13])
@pytest.mark.parametrize("columns", [16, 32, 48, 64, 112])
def test_every_shape_is_the_product(rows, columns, dtype):
    inner = 7
    left, right, start = (
        flat(rows, inner, dtype=dtype),
        flat(inner, columns, seed=1, dtype=dtype),
        flat(columns, seed=2),
    )
    start = start.astype(dtype)
    out = np.full((rows + 2, columns + 3), 9, dtype)
    product(
        out.ravel(), columns + 3, columns + 3, start, 0, 0, left.ravel(), 0, inner, 1, right.ravel(), 0, columns,
        rows, inner, columns, dtype(LOWEST),
    )  # fmt: skip
    expected = start + left.astype(np.float64) @ right.astype(np.float64)
    np.testing.assert_allclose(out[1 : rows + 1, :columns], expected, rtol=1e-5, atol=1e-5)
    assert (out[0] == 9).all() and (out[-1] == 9).all() and (out[:, columns:] == 9).all()


def test_a_transposed_matrix_is_added_to_what_is_there():
    left, right, out = flat(20, 12), flat(20, 64, seed=1), flat(12, 64, seed=2)
    expected = out + left.T @ right
    product(out.ravel(), 0, 64, out.ravel(), 0, 64, left.ravel(), 0, 1, 12, right.ravel(), 0, 64,
            12, 20, 64, np.float32(LOWEST))  # fmt: skip
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_a_floor_cuts_numbers_and_leaves_what_is_none():
    left, right, zero = flat(8, 5), flat(5, 32, seed=1), np.zeros(32, np.float32)
    left[2, 3] = np.nan
    out = np.empty((8, 32), np.float32)
    product(out.ravel(), 0, 32, zero, 0, 0, left.ravel(), 0, 5, 1, right.ravel(), 0, 32, 8, 5, 32, np.float32(0))
    np.testing.assert_allclose(out, np.maximum(left @ right, 0), rtol=1e-4, atol=1e-5)
    assert np.isnan(out[2]).all() and (out[3] == 0).any()


def test_a_number_does_not_depend_on_the_tile_that_it_falls_into():
    left, right, zero = flat(13, 64), flat(64, 112, seed=1), np.zeros(112, np.float32)
    whole = np.empty((13, 112), np.float32)
    product(whole.ravel(), 0, 112, zero, 0, 0, left.ravel(), 0, 64, 1, right.ravel(), 0, 112,
            13, 64, 112, np.float32(LOWEST))  # fmt: skip
    alone = np.empty((1, 16), np.float32)
    for row in range(13):
        for column in range(0, 112, 16):
            product(alone.ravel(), 0, 16, zero, 0, 0, left.ravel(), row * 64, 64, 1, right.ravel(), column, 112,
                    1, 64, 16, np.float32(LOWEST))  # fmt: skip
            assert np.array_equal(alone[0], whole[row, column : column + 16])
