"""The objective's benchmark runs, small, and sums the same bits by hand and by the objective."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.warm.python import python

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "objective.py"


def test_the_quick_run_prints_its_table():
    found = subprocess.run(
        [python(everything=True), str(BENCHMARK), "--quick"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=250,
    )
    assert found.returncode == 0, found.stderr
    assert [line.split()[1] for line in found.stdout.splitlines() if line.startswith("|")][2:] == ["1", "2", "3", "5"]
