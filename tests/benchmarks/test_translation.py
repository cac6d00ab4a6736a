"""The benchmark of label maps: its quick run trains and judges each contender, and a promise not held is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import translation

    return translation


def test_the_quick_run_trains_and_judges_the_recipe(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not bench.DATA.is_dir():
        pytest.skip("needs ../shared/data")
    assert bench.main(["--quick", "--part", bench.LABELS, "--keep", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "| pix2pix-labels, best " in told and "| pix2pix-labels, final " in told and "NOT HELD" in told
    kept = json.loads((tmp_path / "pix2pix-labels.json").read_text())
    assert kept["steps"] == 3 and set(bench.FIGURES) <= kept["final"].keys()
    assert np.asarray(Image.open(tmp_path / "translation.jpg")).shape == (4 * 64, 5 * 64, 3)


def test_where_the_data_are_absent_nothing_is_measured(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "DATA", tmp_path / "elsewhere")
    assert bench.main([]) == 0
    assert capsys.readouterr().out == f"there is no {tmp_path / 'elsewhere'}: nothing is measured\n"


def test_a_promise_is_held_within_its_bar_and_told_where_it_is_not(bench: Any) -> None:
    final = {"sharpness": 0.8, "spectrum": 0.4, "lattice": 0.02, "centre": 1.2, "l1": 0.179}
    bars = bench.bars({"final": final, "best": {"l1": 0.17, "ssim": 0.25}})
    assert [bar.what for bar in bars if not bar.held] == ["final: centre"]
    assert next(bar for bar in bars if not bar.held).row() == [
        "final: centre", "at least 0.85, at most 1.15", "1.200", "NOT HELD",
    ]  # fmt: skip


def test_the_centre_is_of_gradients(bench: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(4, 3, 64, 64, generator=generator) * 0.2
    assert bench.centre(pictures) == pytest.approx(1, abs=0.05)
    pictures[:, :, 24:40, 24:40] *= 3
    assert bench.centre(pictures) > 2
