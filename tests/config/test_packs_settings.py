"""Which settings of the shipped trainers a resume may change, besides those that every trainer has."""

from __future__ import annotations

import pytest

from treadle import TrainerConfig
from treadle.config.settings import resumable, resumable_with_effect
from treadle.recipes.registry import trainer
from treadle.runs.names import comes_with_treadle, registered

OWN = [name for name, point in registered().items() if comes_with_treadle(point)]
JUDGING = {"keep_generators", "cache_mb", "examples", "examples_every", "lpips_weights", "fid_weights"}
SPLATS = {"memory_mb", "lpips_weights", "examples_every", "turntable"}
SDF = {"examples_every", "render_every", "picture", "resolution", "test_points", "validation_points"}
LINES = {"lazy", "cache_mb"}
EXPECTED = {
    "image": {"examples_every"}, "pix2pix": JUDGING, "cyclegan": JUDGING, "colorization": JUDGING,
    "splats": SPLATS,
    "nerf": SPLATS | {"render_every"}, "sdf": SDF,
    "tracts": LINES | {"track_seeds", "examples_every"}, "tracts-autoencoder": LINES,
}  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_what_does_not_determine_the_past_may_be_changed(name: str) -> None:
    kind = trainer(name).Config
    assert resumable(kind) - resumable(TrainerConfig) == EXPECTED[name]
    assert resumable_with_effect(kind) == resumable_with_effect(TrainerConfig)
