"""ONNX files: the same function as in torch, alone in a process without torch, and never a wrong or a torn file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from treadle.errors import RunError, UsageError
from treadle.export import onnx as exporting
from treadle.export.onnx import OPSET, OPSETS, TOLERANCE, Exportable, write_onnx

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def smoother(**changes: Any) -> Exportable:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Tanh()
    )
    settings = {"shape": (2, 8, 8), "free": {2: "height", 3: "width"}, "multiple": 2}
    return Exportable(model.eval(), **settings | {"metadata": {"treadle": "1.2", "step": "7"}} | changes)


def test_it_is_the_same_function_and_says_so(tmp_path: Path) -> None:
    exportable = smoother()
    differences = write_onnx(exportable, tmp_path / "model.onnx")
    assert set(differences) == {(1, 2, 8, 8), (3, 2, 8, 8), (1, 2, 10, 8)}
    assert all(0 <= difference <= TOLERANCE for difference in differences.values())
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for shape in ((1, 2, 8, 8), (5, 2, 4, 12)):
        x = torch.randn(shape)
        (found,) = session.run(["output"], {"input": x.numpy()})
        np.testing.assert_allclose(found, exportable.model(x).detach().numpy(), atol=1e-5)
    assert session.get_inputs()[0].shape == ["batch", 2, "height", "width"]
    assert [output.name for output in session.get_outputs()] == ["output"]


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    write_onnx(smoother(), tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    assert {entry.key: entry.value for entry in model.metadata_props} == {"treadle": "1.2", "step": "7"}
    assert (model.producer_name, model.producer_version) == ("treadle", "1.2")
    assert model.opset_import[0].version == OPSET
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_axes_that_are_not_free_stay_fixed(tmp_path: Path) -> None:
    assert set(write_onnx(smoother(free={}), tmp_path / "model.onnx")) == {(1, 2, 8, 8), (3, 2, 8, 8)}
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert session.get_inputs()[0].shape == ["batch", 2, 8, 8]


def test_a_program_without_torch_gets_the_same_picture(tmp_path: Path) -> None:
    exportable = smoother()
    write_onnx(exportable, tmp_path / "model.onnx")
    x = torch.randn(2, 2, 6, 8)
    np.save(tmp_path / "x.npy", x.numpy())
    code = """
import sys, numpy, onnxruntime
x = numpy.load("x.npy")
numpy.save("y.npy", onnxruntime.InferenceSession("model.onnx").run(None, {"input": x})[0])
print([name for name in ("torch", "treadle", "onnx") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), exportable.model(x).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("opset", [11, OPSETS[-1]])
def test_other_opsets(tmp_path: Path, opset: int) -> None:
    write_onnx(smoother(), tmp_path / "model.onnx", opset=opset)
    assert onnx.load(tmp_path / "model.onnx").opset_import[0].version == opset


@pytest.mark.parametrize("opset", [OPSETS[0] - 1, OPSETS[-1] + 1])
def test_opsets_that_cannot_be_written_are_refused(tmp_path: Path, opset: int) -> None:
    with pytest.raises(UsageError, match=rf"opset is {opset}: expected 9 to 20"):
        write_onnx(smoother(), tmp_path / "model.onnx", opset=opset)


def test_a_file_that_differs_from_torch_is_never_written(tmp_path: Path) -> None:
    """Operators as old as 9 interpolate between other points."""
    path = tmp_path / "model.onnx"
    path.write_text("what was there before")
    with pytest.raises(RunError, match=r"differs from torch's by 0\.\d+ for an input of 1 x 2 x 8 x 8 .*opset than 9$"):
        write_onnx(smoother(), path, opset=9)
    assert path.read_text() == "what was there before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_every_shape_has_to_work(tmp_path: Path, capfd: Any) -> None:
    class Recorded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.arange(float(len(x)))[:, None]  # one value per picture of the batch that was recorded

    with pytest.raises(RunError, match=r"^onnxruntime cannot run the exported model: .* Add node"):
        write_onnx(Exportable(Recorded().eval(), (2,)), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr().err == ""


def test_nan_is_a_difference(tmp_path: Path) -> None:
    exportable = smoother()
    exportable.model[0].weight.data.fill_(float("nan"))
    with pytest.raises(RunError, match="by nan"):
        write_onnx(exportable, tmp_path / "model.onnx")


def test_what_onnx_cannot_express_is_one_line(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.i0e(x)

    with pytest.raises(RunError, match=r"^the model cannot be written as ONNX: .*i0e") as raised:
        write_onnx(Exportable(Odd().eval(), (2,)), tmp_path / "model.onnx")
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


def test_a_disk_that_refuses_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere.model\.onnx cannot be written: No such file"):
        write_onnx(smoother(), tmp_path / "nowhere" / "model.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_its_remedy(tmp_path: Path, monkeypatch: Any, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"needs the package {package}: pip install 'treadle\[onnx\]'"):
        exporting.write_onnx(smoother(), tmp_path / "model.onnx")
