"""The benchmark of loggers: what of it does not depend on time, and that its measuring is right."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def loggers() -> ModuleType:
    """The benchmark, as a module."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import loggers
    finally:
        sys.path.remove(str(BENCHMARKS))
    return loggers


def test_eight_services_cost_few_calls_and_change_nothing(
    loggers: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["loggers.py", "--quick"])
    assert loggers.main() == 0
    said = capsys.readouterr().out
    assert "| Python calls for a step, 8 services |" in said and "NOT HELD" not in said


def test_the_figures_are_what_they_say(loggers: ModuleType) -> None:
    base, way = (loggers.Way(name, list) for name in ("none", "one"))
    base.seconds, way.seconds = [1e-4, 2e-4, 5e-4], [1.1e-4, 2.3e-4, 5.2e-4]
    base.calls, way.calls, way.others, way.steps = 100.0, 150.0, 0.004, 400
    assert loggers.over(way, base) == pytest.approx(20 * loggers.EVERY)
    assert loggers.calls(way, base) == pytest.approx(50 * loggers.EVERY / 50)
    assert loggers.rows([base, way])[1][3:] == [f"{10 * loggers.EVERY}", "+2.0"]


def test_the_memory_for_a_dead_service_is_bounded(loggers: ModuleType) -> None:
    peak, held = map(float, loggers.grown("Missing", 1100).split())
    assert peak > 50 and 0.2 < held < 1
