"""The benchmark of translation runs, and notices results that are not equal."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.warm.python import python

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytest.importorskip("onnxruntime")


def test_it_runs_and_prints_a_table() -> None:
    done = subprocess.run(
        [python(everything=True), str(BENCHMARKS / "translate.py"), "--quick"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "3 pictures of 64 x 32, final model, step 2" in done.stdout
    for name in ("Treadle", "onnxruntime, one by one", "onnxruntime, in threads"):
        assert f"| {name} " in done.stdout


def test_pictures_that_differ_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import translate

    for name, level in (("ours", 100), ("near", 101), ("far", 102)):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((4, 4, 3), level, np.uint8)).save(tmp_path / name / "0.png")
    translate.check([tmp_path / "ours", tmp_path / "near"])
    with pytest.raises(SystemExit, match=r"0.png of far differs from Treadle's by 2 levels"):
        translate.check([tmp_path / "ours", tmp_path / "near", tmp_path / "far"])
