from __future__ import annotations

import numba
import numpy as np
import pytest

from treadle.kernels import lanes


@numba.njit
def powers(values, out):
    for k in range(0, len(values), 16):
        lanes.store(out, k, lanes.exp2(lanes.load(values, k)))


@numba.njit
def mixed(a, b, out):
    x, y = lanes.load(a, 0), lanes.load(b, 0)
    low = lanes.lesser(x, y)
    both = (x > y) & (y >= a.dtype.type(0))
    value = lanes.choose(both, x * y - low, a.dtype.type(2) / (y + x))
    lanes.store(out, 0, value + lanes.steps_from(a.dtype.type(3)))
    return lanes.total(value), lanes.some(x < y), lanes.some(x < lanes.fill(a.dtype.type(-100)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_powers_of_two(dtype):
    values = np.append(-np.geomspace(1e-6, 99.9, 4096), np.zeros(16)).astype(dtype)
    out = np.empty_like(values)
    powers(values, out)
    exact = np.exp2(values.astype(np.longdouble))
    assert (np.abs(out - exact) / np.spacing(exact.astype(dtype))).max() <= 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_below_and_no_number_become_next_to_nothing(dtype):
    values = np.array([-100, -101, -1e30, -np.inf, np.nan] + [0.0] * 11, dtype)
    out = np.empty_like(values)
    powers(values, out)
    np.testing.assert_allclose(out, [2.0**-100] * 5 + [1] * 11, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arithmetic_comparison_and_choice(dtype):
    generator = np.random.default_rng(0)
    a, b = (generator.standard_normal(16).astype(dtype) for _ in range(2))
    out = np.empty(16, dtype)
    total, some, none = mixed(a, b, out)
    value = np.where((a > b) & (b >= 0), a * b - np.minimum(a, b), 2 / (a + b))
    np.testing.assert_allclose(out, value + 3 + np.arange(16), rtol=1e-5)
    assert total == pytest.approx(value.sum(), rel=1e-5) and some and not none


def test_sums_are_taken_in_halves():
    values = np.zeros(16, np.float32)
    values[[0, 8]], values[1] = [1e8, -1e8], 1.0  # another order would lose the one

    @numba.njit
    def add(values):
        return lanes.total(lanes.load(values, 0))

    assert add(values) == 1.0
