"""The strip of a report: the same pictures by the generators of the validations that are kept."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from treadle.gans.cyclegan import CycleGANTrainer
from treadle.gans.pix2pix import Pix2PixTrainer
from treadle.images.panels import panel
from treadle.images.pixels import to_pixels
from treadle.runs.models import find_model, kept_at_validations

SMALL = {
    "size": 16, "features": 4, "d_features": 4, "patch": 16, "downs": 2, "blocks": 1, "max_steps": 6, "batch_size": 2,
    "examples_every": None, "validate_every": "2 steps", "device": "cpu", "precision": "fp32", "examples": 2,
    "learning_rate": 0.01, "ema": 0.5,
}  # fmt: skip


def pictures(seed):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(4, 3, 16, 16, generator=generator) * 2 - 1 for _ in range(2))


def trained(kind, run_dir, **settings):
    trainer = kind(data=pictures(0), **{"validation_data": pictures(1)} | SMALL | {"run_dir": run_dir} | settings)
    trainer.train()
    return trainer


def test_it_shows_the_input_every_kept_step_and_the_target(tmp_path):
    trainer = trained(Pix2PixTrainer, tmp_path / "run")
    assert [path.name for path in kept_at_validations(trainer.run.path)] == [f"step-{s:08d}" for s in (2, 4, 6)]
    (tmp_path / "report").mkdir()
    found = trainer.report(tmp_path / "report")
    x, y = pictures(1)
    made = [Pix2PixTrainer.load_model(trainer.run.path, at=step)(x) for step in (2, 4, 6)]
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(made)), "it has learnt in between"
    rows = [[to_pixels(each[i]) for each in (x, *made, y)] for i in range(2)]
    expected = panel(rows, ["input", "step 2", "step 4", "step 6", "target"])
    np.testing.assert_array_equal(np.asarray(Image.open(found["steps"])), expected)


def test_both_directions_have_one_without_targets_where_nothing_is_paired(tmp_path):
    trainer = trained(CycleGANTrainer, tmp_path / "run", max_steps=4)
    with trainer.evaluating():
        found = trainer.strips()
    a, b = pictures(1)
    for name, x, direction in (("steps_ab", a, "AtoB"), ("steps_ba", b, "BtoA")):
        made = [CycleGANTrainer.load_model(trainer.run.path, direction, at=step)(x) for step in (2, 4)]
        rows = [[to_pixels(each[i]) for each in (x, *made)] for i in range(2)]
        np.testing.assert_array_equal(found[name], panel(rows, ["input", "step 2", "step 4"]))


@pytest.mark.parametrize("settings", [{"keep_generators": 0}, {"examples": 0}, {"validate_every": None}])
def test_there_is_none_where_nothing_is_kept_or_shown(tmp_path, settings):
    trainer = trained(Pix2PixTrainer, tmp_path / "run", **settings)
    assert "steps" not in trainer.report(tmp_path)


def test_without_validation_data_they_are_kept_as_often(tmp_path):
    trainer = trained(Pix2PixTrainer, tmp_path / "run", validation_data=None)
    assert "steps" in trainer.report(tmp_path)
    assert find_model(trainer.run.path, 2).directory.parent.name == "models"
    assert Pix2PixTrainer.load_model(trainer.run.path).least == trainer.generator.least
