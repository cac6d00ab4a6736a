"""`treadle export`: which model, where to, and that nothing is left where the check does not hold."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from treadle.export.onnx import OPSET, OPSETS, TOLERANCE, Exportable

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
RUN = Path("runs/line/v001")


@pytest.fixture
def trained(line: None) -> None:
    """What of a run is looked at here."""
    RUN.mkdir(parents=True)
    (RUN / "config.yaml").write_text("trainer: line\n")


def offer(monkeypatch: Any, *names: str) -> None:
    """Let the run's trainer have models of these names: those of `torch.nn.Upsample`, which opset 9 gets wrong."""

    def exportable(run: Path) -> dict[str, Exportable]:
        model = torch.nn.Upsample(scale_factor=2, mode="bilinear").eval()
        return {name: Exportable(model, (1, 4, 4), {2: "height"}, metadata={"run": str(run)}) for name in names}

    trainer = importlib.import_module("line_pack").LineTrainer
    monkeypatch.setattr(trainer, "exportable", exportable, raising=False)


def test_the_only_model_goes_into_the_run(treadle: Any, trained: None, monkeypatch: Any) -> None:
    offer(monkeypatch, "double")
    assert treadle("export", "runs/line", "--onnx") == 0
    (found,) = onnxruntime.InferenceSession(RUN / "double.onnx").run(None, {"input": torch.ones(2, 1, 6, 4).numpy()})
    assert found.shape == (2, 1, 12, 8) and (found == 1).all()
    assert f"written: {RUN / 'double.onnx'} (0.0 MB)" in treadle.out
    assert "  1 x 1 x 4 x 4:       " in treadle.out and "  3 x 1 x 4 x 4:       " in treadle.out
    assert f"  run:                 {RUN}" in treadle.out


def test_one_of_several_goes_where_it_is_told(treadle: Any, trained: None, monkeypatch: Any) -> None:
    offer(monkeypatch, "AtoB", "BtoA")
    assert treadle("export", str(RUN), "--onnx", "--model", "BtoA", "--out", "b.onnx", "--opset", "13") == 0
    assert Path("b.onnx").is_file() and treadle.out.startswith("BtoA, best model of runs/line/v001")
    assert not list(RUN.glob("*.onnx"))


def test_a_model_that_does_not_agree_leaves_no_file(treadle: Any, trained: None, monkeypatch: Any) -> None:
    offer(monkeypatch, "double")
    assert treadle("export", str(RUN), "--onnx", "--opset", "9") == 1
    assert "differs from torch's by 0." in treadle.err and treadle.err.count("\n") == 1
    assert not list(RUN.glob("*double*")) and not list(RUN.glob(".*double*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([str(RUN)], "the following arguments are required: --onnx"),
        (["nowhere", "--onnx"], "no run nowhere"),
        ([str(RUN), "--onnx"], "has several models: choose one with --model AtoB or --model BtoA"),
        ([str(RUN), "--onnx", "--model", "AtB"], "--model AtB: runs/line/v001 has no such model; did you mean 'AtoB'?"),
        ([str(RUN), "--onnx", "--model", "AtoB", "--out", "."], "--out . is a directory: name a file in it"),
        ([str(RUN), "--onnx", "--model", "AtoB", "--out", "no/b.onnx"], "--out no/b.onnx: there is no directory no"),
        ([str(RUN), "--onnx", "--model", "AtoB", "--opset", "0"], "opset is 0: expected 9 to 20"),
        ([str(RUN), "--onnx", "--opset", "new"], "argument --opset: invalid int value: 'new'"),
    ],
)
def test_bad_usage_is_one_line(treadle: Any, trained: None, monkeypatch: Any, arguments: list[str], said: str) -> None:
    offer(monkeypatch, "AtoB", "BtoA")
    assert treadle("export", *arguments) == 2
    assert said in treadle.err and treadle.err.count("\n") == 1
    assert not list(Path().rglob("*.onnx"))


def test_a_trainer_without_models_to_export_says_so(treadle: Any, trained: None) -> None:
    assert treadle("export", str(RUN), "--onnx") == 2
    assert treadle.err == "treadle: runs/line/v001: LineTrainer has nothing to export\n"


def test_the_help_states_the_limits_that_hold(treadle: Any) -> None:
    assert treadle("export", "--help") == 0
    assert f"{OPSETS[0]} to {OPSETS[-1]} (default:" in treadle.out and f"{OPSET})" in treadle.out
    assert TOLERANCE == 1e-4 and "1e-4" in treadle.out


def test_out_may_be_in_the_home_directory(treadle: Any, trained: None, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    offer(monkeypatch, "double")
    assert treadle("export", str(RUN), "--onnx", "--out", "~/x.onnx") == 0 and (tmp_path / "x.onnx").is_file()
    assert treadle("export", str(RUN), "--onnx", "--out", "~") == 2
    assert "--out ~ is a directory" in treadle.err
