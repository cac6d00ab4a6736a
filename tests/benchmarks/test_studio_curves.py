"""The benchmark of the studio's curves runs, small, and what does not depend on time holds."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.warm.python import python

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_quick_run_asks_every_question() -> None:
    pytest.importorskip("msgspec")
    found = subprocess.run(
        [python(everything=True), str(BENCHMARKS / "studio_curves.py"), "--quick"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=250,
    )
    assert found.returncode == 0, found.stderr
    for name in ("steps, 4,000 points", "epochs", "seconds", "steps, logarithmic", "4,000 points through the studio"):
        assert f"| {name} " in found.stdout
    assert "NOT HELD" not in found.stdout
