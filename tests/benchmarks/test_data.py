"""The benchmark of feeds runs, small; it checks itself that every contender gives every sample."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.warm.python import python

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_quick_run_measures_everybody():
    found = subprocess.run(
        [python(everything=True), str(BENCHMARKS / "data.py"), "--quick"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=250,
    )
    assert found.returncode == 0, found.stderr
    for row in ("500", "8", "TensorFeed", "DatasetFeed, 2 workers", "DataLoader, 2 workers"):
        assert sum(line.split("|")[1].strip() == row for line in found.stdout.splitlines() if "|" in line) == 1, row
