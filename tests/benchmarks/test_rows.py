"""The benchmark of row edits runs, small."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.warm.python import python


def test_the_quick_run_edits_and_counts() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "rows.py"
    found = subprocess.run(
        [python(everything=True), str(script), "--quick"], capture_output=True, text=True, timeout=250
    )
    assert found.returncode == 0, found.stderr
    for name in ("clone", "prune and add", "replace"):
        assert f"| {name} " in found.stdout
