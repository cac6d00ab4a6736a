"""The global generators of Python and NumPy change places with others, with the Gaussians that they keep."""

from __future__ import annotations

import random

import numpy as np
import pytest

from treadle.data.exchange import MT19937, current_numpy, exchange_numpy, exchange_python


@pytest.fixture(autouse=True)
def untouched_generators() -> None:
    """In place of the folder's: these tests draw from the global generators themselves."""


@pytest.mark.parametrize("drawn", [1, 2])
def test_numpy_s_generator_goes_on_where_it_was_left(drawn: int) -> None:
    np.random.seed(3)
    expected = np.random.randn(5).tolist()
    np.random.seed(3)
    first = np.random.randn(drawn).tolist()  # one leaves the second of its pair in hand
    before = exchange_numpy((MT19937(8), None))
    assert np.random.randn() == np.random.RandomState(np.random.MT19937(8)).randn()
    inside = exchange_numpy(before)
    assert inside[1] is not None and first + np.random.randn(5 - drawn).tolist() == expected
    assert current_numpy()[0] is before[0]


@pytest.mark.parametrize("drawn", [1, 2])
def test_python_s_generator_goes_on_where_it_was_left(drawn: int) -> None:
    random.seed(3)
    expected = [random.gauss(0, 1) for _ in range(5)]
    random.seed(3)
    first = [random.gauss(0, 1) for _ in range(drawn)]
    other = random.Random(8)
    exchange_python(other)
    assert random.gauss(0, 1) == random.Random(8).gauss(0, 1)
    exchange_python(other)
    assert first + [random.gauss(0, 1) for _ in range(5 - drawn)] == expected
    twin = random.Random(8)
    twin.gauss(0, 1)
    assert other.getstate() == twin.getstate()
