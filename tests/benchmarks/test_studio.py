"""The benchmark of the studio runs, small, and looking changes no digest."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.warm.python import python

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_the_quick_run_has_one_digest() -> None:
    pytest.importorskip("msgspec")
    found = subprocess.run(
        [python(everything=True), str(BENCHMARKS / "studio.py"), "--quick"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=250,
    )
    assert found.returncode == 0, found.stderr
    rows = [line.split("|") for line in found.stdout.splitlines() if line.startswith("| ")]
    kinds = {row[1].strip(): row[2].strip() for row in rows}
    assert len({kinds[name] for name in ("no studio", "hidden", "1.0", "10.0", "unlimited")}) == 1
    assert "NOT HELD" not in found.stdout
