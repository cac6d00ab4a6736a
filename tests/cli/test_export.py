"""`treadle export`: which model, where to, and that nothing is left where the check does not hold."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from treadle.export.exporter import Exporter, Option
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


def test_at_says_which_model(treadle: Any, trained: None, monkeypatch: Any) -> None:
    offer(monkeypatch, "double")
    assert treadle("export", str(RUN), "--at", "final", "--onnx") == 2
    assert treadle.err == "treadle: --at final: the exportable() of LineTrainer takes no `at`: leave it out\n"
    trainer = importlib.import_module("line_pack").LineTrainer
    plain = trainer.exportable

    def exportable(run: Path, *, at: str | None = None) -> dict[str, Exportable]:
        return {name: replace(model, metadata={"model": f"model {at}"}) for name, model in plain(run).items()}

    monkeypatch.setattr(trainer, "exportable", exportable)
    assert treadle("export", "--at", "final", "--onnx", str(RUN)) == 0
    assert treadle.out.startswith("double, model final of runs/line/v001: largest difference")


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


def write(run: Path, path: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """A format that is what it was asked for."""
    path.write_text(repr(dict(values)))
    return {"of": run, "error": 0.00123, "asked for": " ".join(map(str, values.values()))}


def numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(",")))


BOX = Option("crop-box", "keep what is in it", "X,Y,Z", numbers)
FPS = Option("fps", "frames a second", "N", int, 30)
FORMATS = {
    "dots": Exporter("as dots", "line.dots", write, [BOX, Option("fine", "with more of them")], endings=[".dots"]),
    "film": Exporter("as a film of 100% of it", "line.film", write, [BOX, FPS], "PATH"),
}


@pytest.fixture
def formats(trained: None, monkeypatch: Any) -> None:
    """The run's trainer has formats of its own."""
    trainer = importlib.import_module("line_pack").LineTrainer
    monkeypatch.setattr(trainer, "exporters", classmethod(lambda cls: FORMATS))


def test_a_trainers_own_format_is_written_with_its_options(treadle: Any, formats: None) -> None:
    assert treadle("export", "runs/line", "--dots", "--crop-box", "-1,.5,2", "--fine") == 0
    expected = {"dots": True, "crop-box": (-1.0, 0.5, 2.0), "fine": True}
    assert (RUN / "line.dots").read_text() == repr(expected)
    assert treadle.out.splitlines() == [
        f"{RUN}, as dots",
        f"  of:        {RUN}",
        "  error:     0.00123",
        "  asked for: True (-1.0, 0.5, 2.0) True",
        f"written: {RUN / 'line.dots'} (0.0 MB)",
    ]


def test_a_format_may_take_a_value_and_options_have_defaults(treadle: Any, formats: None) -> None:
    assert treadle("export", "--film", "orbit", "runs/line", "--out", "x.mp4") == 0
    assert Path("x.mp4").read_text() == repr({"film": "orbit", "crop-box": None, "fps": 30})
    assert treadle("export", "--dots", "--out", "X.DOTS", "runs/line") == 0 and Path("X.DOTS").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "one of the arguments --onnx --dots --film is required"),
        (["--dots", "--onnx"], "argument --onnx: not allowed with argument --dots"),
        (["--dots", "--film", "a"], "argument --film: not allowed with argument --dots"),
        (["--film"], "argument --film: expected one argument"),
        (["--dots", "--fps", "3"], "--fps has no meaning with --dots: leave it out"),
        (["--dots", "--opset", "17"], "--opset has no meaning with --dots: leave it out"),
        (["--onnx", "--fine"], "--fine has no meaning with --onnx: leave it out"),
        (["--film", "a", "--fps", "x"], "--fps x: expected N"),
        (["--dots", "--crop-box", "-1,a"], "--crop-box -1,a: expected X,Y,Z"),
        (["--dots", "--out", "line.ply"], "--out line.ply: --dots writes .dots"),
        (["--dots", "--out", "."], "--out . is a directory: name a file in it, such as line.dots"),
        (["--dot"], "LineTrainer has no export option '--dot'; did you mean '--dots'?"),
        (["--dots", "--crop", "1"], "LineTrainer has no export option '--crop'; did you mean '--crop-box'?"),
        (["--onnx"], "LineTrainer has nothing to export as ONNX: take --dots or --film"),
    ],
)
def test_bad_usage_of_formats_is_one_line(treadle: Any, formats: None, arguments: list[str], said: str) -> None:
    assert treadle("export", str(RUN), *arguments) == 2
    assert said in treadle.err and treadle.err.count("\n") == 1
    assert [path.name for path in RUN.iterdir()] == ["config.yaml"] and len(list(Path().iterdir())) == 1


def test_a_trainer_without_formats_refuses_them_by_name(treadle: Any, trained: None) -> None:
    assert treadle("export", str(RUN), "--ply") == 2
    assert treadle.err.startswith(
        f"treadle: {RUN}: LineTrainer has no export option '--ply'; known: --at, --model, --onnx"
    )


def test_the_help_of_a_run_explains_what_its_trainer_offers(treadle: Any, formats: None) -> None:
    assert treadle("export", str(RUN), "--help") == 0
    page = " ".join(treadle.out.split())
    assert "--film PATH as a film of 100% of it" in page and "RUN/line.dots" in page
    assert "--crop-box X,Y,Z keep what is in it (with --dots, --film)" in page
    assert "--fine with more of them (with --dots)" in page


def test_the_help_without_a_run_names_the_formats_there_are(treadle: Any, formats: None) -> None:
    assert treadle("export", "--help") == 0
    assert "  line:      --dots\n             as dots\n  line:      --film PATH\n" in treadle.out
