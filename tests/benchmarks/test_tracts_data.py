"""The benchmark of streamlines' data: its contestants read the same, and its quick run measures everybody."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.warm.python import python

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import tracts_data

    monkeypatch.setattr(tracts_data, "SHAPE", (28, 29, 30))
    return tracts_data


def test_all_read_the_same(bench):
    rng = np.random.default_rng(0)
    points = (rng.random((300, 3)) * 1.2 * np.array(bench.SHAPE) - 0.5).astype(np.float32)
    times = bench.measure(6, points, rounds=2)
    assert {name: len(found) for name, found in times.items()} == dict.fromkeys(times, 2) and len(times) == 4


def test_who_reads_something_else_ends_the_benchmark(bench, monkeypatch):
    monkeypatch.setattr(bench, "interpolate", lambda volume, points: bench.by_torch(volume.movedim(3, 0), points + 0.5))
    with pytest.raises(SystemExit, match="treadle does not read what NumPy does"):
        bench.measure(6, np.full((4, 3), 3.3, np.float32), rounds=1)


def test_the_feed_tells_what_it_took(tmp_path, bench):
    pytest.importorskip("h5py")
    bench.write_data(tmp_path / "lines.h5", 2, 40)
    command = [
        python(everything=True),
        str(BENCHMARKS / "tracts_data.py"),
        "--feed",
        str(tmp_path / "lines.h5"),
        "lazily",
        "1",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=250
    )
    assert done.returncode == 0, done.stderr
    assert '"hits": 0.0' in done.stdout and '"digest"' in done.stdout
