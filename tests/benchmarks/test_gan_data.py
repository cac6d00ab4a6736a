"""The benchmark of picture loaders runs, small; it checks itself that all loaders deliver the same pictures."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.warm.python import python

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_quick_run_measures_everybody():
    found = subprocess.run(
        [python(everything=True), str(BENCHMARKS / "gan_data.py"), "--quick"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=250,
    )
    assert found.returncode == 0, found.stderr
    for workers in (0, 1):
        for name in ("Treadle, cached", "Treadle, not cached", "DataLoader"):
            rows = [line for line in found.stdout.splitlines() if f"| {name} " in line and f" {workers} |" in line]
            assert len(rows) == 1, found.stdout


def test_pictures_that_differ_end_the_benchmark(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gan_data

    gan_data.write_pairs(tmp_path, 2, 16)
    assert len(gan_data.loaders(tmp_path, 16)) == 6
    monkeypatch.setattr(gan_data.Plain, "__getitem__", lambda self, index: (gan_data.torch.zeros(3, 16, 16),) * 2)
    with pytest.raises(SystemExit, match="pair 0 differs"):
        gan_data.loaders(tmp_path, 16)
