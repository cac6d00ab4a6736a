"""The scale benchmark runs, small, its work is equal, and what does not hold is said to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "scale.py"


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    sys.path.insert(0, str(BENCHMARK.parent))
    try:
        import scale
    finally:
        sys.path.remove(str(BENCHMARK.parent))
    return scale


def test_the_quick_run_prints_its_tables() -> None:
    found = subprocess.run(
        [sys.executable, str(BENCHMARK), "--quick"], capture_output=True, text=True, timeout=280, env=os.environ
    )
    assert found.returncode == 0, found.stderr
    for name in ("alone, no messages", "DDP", "a message for each parameter, by hand", "Treadle", "Treadle, parts=4"):
        assert f"| {name} " in found.stdout
    for name in ("agreement on commands", "metrics of", "validation of", "a save, digests", "a row edit"):
        assert f"| {name}" in found.stdout


def test_ratios_are_paired_and_the_least_repetition_counts(scale: ModuleType) -> None:
    def found(ours: list[float], theirs: list[float], idle: float) -> object:
        seconds = {"treadle": ours, "ddp": theirs}
        return scale.Found(seconds, {"treadle": 0.0}, {"commands": [9e-6, idle]})

    some = [found([1.0, 30.0, 3.0], [1.0, 20.0, 1.0], 5e-7), found([1.1, 2.0, 3.0], [1.0, 2.5, 2.0], 2e-6)]
    small, large, idle = scale.gates(some, some[:1])
    assert small.value == pytest.approx(1.1) and not small.held
    assert large.value == pytest.approx(1.5) and not large.held
    assert idle.value == pytest.approx(0.5) and idle.held


def test_unequal_work_is_noticed(scale: ModuleType) -> None:
    scale.check_equal_work(scale.Found({}, {"alone": 1.0, "treadle": 1e-7}, {}), 2)
    for found, ranks in [
        (scale.Found({}, {"alone": 1.0}, {}), 1),
        (scale.Found({}, {"treadle": 1e-5}, {}), 2),
    ]:
        with pytest.raises(SystemExit, match="the work is not equal"):
            scale.check_equal_work(found, ranks)
