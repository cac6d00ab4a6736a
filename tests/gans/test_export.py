"""Generators as ONNX files: the same pictures in a process that has neither torch nor Treadle."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from treadle.cli.main import main
from treadle.gans.cyclegan import CycleGANTrainer
from treadle.gans.inference import translate
from treadle.gans.pix2pix import Pix2PixTrainer

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
SMALL = {
    "size": 32, "features": 8, "d_features": 4, "patch": 16, "max_steps": 2, "batch_size": 2, "examples_every": None,
    "validate_every": None, "device": "cpu",
}  # fmt: skip

WITHOUT_TORCH = """
import sys, numpy, onnxruntime
picture = numpy.load("picture.npy")
session = onnxruntime.InferenceSession(sys.argv[1])
x = (picture.transpose(2, 0, 1)[None] / 127.5 - 1).astype(numpy.float32)
(y,) = session.run(["output"], {"input": x})
numpy.save("out.npy", ((y[0].transpose(1, 2, 0) + 1) * 127.5).round().clip(0, 255).astype(numpy.uint8))
print([name for name in ("torch", "treadle", "onnx") if name in sys.modules])
"""


def run_of(kind, run_dir, **settings):
    generator = torch.Generator().manual_seed(0)
    data = tuple(torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1 for _ in range(2))
    with kind(data=data, validation_data=data, run_dir=run_dir, **SMALL | settings) as trainer:
        trainer.train()
        return trainer.run.path


def properties(path):
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


@pytest.mark.parametrize(
    "settings",
    [
        {"upsampling": "bilinear", "residual": True},
        {"norm": "batch", "downs": 3},
        {"generator": "resnet", "blocks": 2, "direction": "BtoA"},
    ],
)
def test_a_program_without_torch_makes_the_same_picture(tmp_path, monkeypatch, capsys, settings):
    monkeypatch.chdir(tmp_path)
    run = run_of(Pix2PixTrainer, tmp_path / "houses", **settings)
    assert main(["export", "houses", "--onnx"]) == 0
    said = capsys.readouterr().out
    assert "1 x 3 x 32 x 32:" in said and "3 x 3 x 32 x 32:" in said and "written: houses/v001/generator.onnx" in said
    model = Pix2PixTrainer.load_model(run)
    assert properties(run / "generator.onnx") == {
        "treadle": "0.1.0",
        "run": "houses/v001",
        "model": "final model, step 2",
        "step": "2",
        "direction": settings.get("direction", "AtoB"),
        "range": "[-1, 1]",
        "inputs": "uint8 from 0 to 255, 3 channels",
        "outputs": "uint8 from 0 to 255, 3 channels",
        "size": "32 x 32",
        "multiple": str(model.multiple),
    }
    picture = np.random.default_rng(0).integers(0, 256, (64, 32, 3), np.uint8)
    np.save("picture.npy", picture)
    command = [sys.executable, "-c", WITHOUT_TORCH, str(run / "generator.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    difference = np.load("out.npy").astype(int) - translate(model, picture)
    assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 0.01  # values that lie between two bytes


def test_either_way_of_unpaired_translation(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = run_of(CycleGANTrainer, tmp_path / "zebras", blocks=1)
    assert main(["export", str(run), "--onnx"]) == 2
    assert "choose one with --model AtoB or --model BtoA" in capsys.readouterr().err
    models = CycleGANTrainer.exportable(run)
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(models["AtoB"].model(x), CycleGANTrainer.load_model(run)(x))
    assert torch.equal(models["BtoA"].model(x), CycleGANTrainer.load_model(run, "BtoA")(x))
    assert main(["export", str(run), "--onnx", "--model", "BtoA", "--out", "back.onnx"]) == 0
    assert properties("back.onnx")["direction"] == "BtoA"
