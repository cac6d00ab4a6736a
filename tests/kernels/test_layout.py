from __future__ import annotations

import pytest

from treadle.errors import UsageError
from treadle.kernels.layout import GridLayout


def test_levels_grow_geometrically_to_exactly_n_max():
    layout = GridLayout(2, levels=16, n_min=16, n_max=512)
    assert layout.resolutions[0] == 16
    assert layout.resolutions[-1] == 512
    ratios = [b / a for a, b in zip(layout.resolutions, layout.resolutions[1:], strict=False)]
    assert all(1.2 < ratio < 1.3 for ratio in ratios)


def test_n_max_is_reached_whatever_the_rounding():
    for n_min in (4, 8, 16, 32):
        for n_max in (64, 100, 128, 256, 512, 768, 1000, 1024, 2048):
            for levels in (2, 8, 12, 16):
                assert GridLayout(2, levels=levels, n_min=n_min, n_max=n_max).resolutions[-1] == n_max


def test_a_level_that_fills_the_table_exactly_is_dense():
    assert GridLayout(2, levels=1, log2_size=8, n_min=16).dense == (True,)
    assert GridLayout(2, levels=1, log2_size=8, n_min=17).dense == (False,)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_level_is_dense_up_to_the_table_size_and_hashed_beyond(dimensions):
    layout = GridLayout(dimensions, levels=3, log2_size=12, n_min=4, n_max=4096)
    edge = 2 ** (12 // dimensions)
    for n, size, dense in zip(layout.resolutions, layout.sizes, layout.dense, strict=True):
        assert dense == (n <= edge)
        assert size == (n**dimensions if dense else 4096)
    assert layout.dense == (True, dimensions == 2 and layout.resolutions[1] <= 64, False)


def test_levels_lie_behind_one_another():
    layout = GridLayout(3, levels=8, log2_size=10, n_min=4, n_max=128)
    ends = [offset + size for offset, size in zip(layout.offsets, layout.sizes, strict=True)]
    assert layout.offsets == (0, *ends[:-1])
    assert layout.rows == ends[-1]
    assert layout.width == 16


def test_one_level_has_the_coarsest_resolution():
    assert GridLayout(2, levels=1, n_min=32, n_max=512).resolutions == (32,)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("dimensions", 4), ("dimensions", 1), ("levels", 0), ("features", 0), ("features", 9), ("log2_size", 0),
        ("log2_size", 25), ("n_min", 1), ("n_max", 2**21), ("levels", 2.5), ("levels", True), ("n_max", 8),
    ],
)  # fmt: skip
def test_a_number_out_of_range_is_refused_by_name(setting, value):
    with pytest.raises(UsageError, match=setting):
        GridLayout(**{"dimensions": 2, "n_min": 16, setting: value})
