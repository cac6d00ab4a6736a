"""The hash grid's benchmark: what it compares does the same work, and its kernels of before are frozen whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import hashgrid

    monkeypatch.setattr(hashgrid, "POINTS", 300)
    return hashgrid


@pytest.mark.parametrize("dimensions", [2, 3])
def test_before_after_and_eager_torch_do_the_same_work(bench, dimensions):
    layout = bench.GridLayout(dimensions, levels=3, log2_size=8, n_min=4, n_max=30, flat_border=True)
    names = [bench.EAGER, bench.BEFORE, bench.OURS]
    times, difference = bench.measure(layout, names, rounds=2)
    assert difference < 1e-4
    assert {name: len(found) for name, found in times.items()} == dict.fromkeys(names, 2)


def test_other_work_ends_the_benchmark(bench):
    layout = bench.GridLayout(2, levels=3, log2_size=8, n_min=4, n_max=30, flat_border=True)
    field = bench.contestants(layout, [bench.EAGER, bench.OURS])
    field[bench.OURS].model.grid.layout = bench.GridLayout(2, levels=3, log2_size=8, n_min=4, n_max=30)
    with pytest.raises(SystemExit, match="treadle does other work than eager torch"):
        bench.prove_equal_work(field, layout)
