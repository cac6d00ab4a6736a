"""The benchmark of tracking: its loop tracks the same lines, and its quick run measures both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.warm.python import python

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import tracts_tracking

    return tracts_tracking


def test_other_lines_are_noticed(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    workload = bench.Workload()
    seeds = workload.seeds(2)
    bench.check(workload, seeds)
    right = workload.one_by_one
    monkeypatch.setattr(workload, "one_by_one", lambda seeds: [line + np.float32(0.1) for line in right(seeds)])
    with pytest.raises(AssertionError, match="other lines"):
        bench.check(workload, seeds)


def test_the_quick_run_prints_a_row_for_each_way() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [python(everything=True), str(BENCHMARKS / "tracts_tracking.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert all(f"| {name}" in done.stdout for name in ("300 seeds", "64 at once", "one by one"))
