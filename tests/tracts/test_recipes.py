"""The recipes: each loads, is what its name says, and trains on a small file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_tracts import data

from treadle.recipes.registry import list_recipes, load_recipe
from treadle.tracts.prepared_writer import write_prepared

MODELS = {
    "tracts": "lstm",
    "tracts-gru": "gru",
    "tracts-mlp": "mlp",
    "tracts-tto": "tto",
    "tracts-tts": "tts",
    "tracts-ttst": "ttst",
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "small.h5"
    write_prepared(path, data())
    return path


def test_there_are_no_others() -> None:
    found = {row.name for row in list_recipes() if row.origin == "treadle" and row.name.startswith("tracts")}
    assert found == {*MODELS, "tracts-autoencoder"}


@pytest.mark.parametrize("name", [*MODELS, "tracts-autoencoder"])
def test_each_recipe_trains_on_a_prepared_file(name: str, prepared: Path) -> None:
    recipe = load_recipe(name)
    assert recipe.data is None and recipe.config.max_epochs == 10
    small = ["device=cpu", "max_steps=2", "batch_size=8"]
    small += ["channels=2"] if name == "tracts-autoencoder" else ["track_seeds=0"]
    with replace(recipe, data=prepared).with_overrides(small).build() as trainer:
        if name in MODELS:
            assert trainer.config.model == MODELS[name]
            assert trainer.config.rotate and trainer.config.generate_every == "5 epochs"
        before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
        trainer.train()
        after = trainer.model.state_dict()
        assert trainer.progress.step == 2
        assert all(torch.isfinite(value).all() for value in after.values())
        assert not all(torch.equal(value, before[key]) for key, value in after.items())
        assert trainer.validation_metrics["loss"] == trainer.validation_metrics["loss"]
        if name in MODELS:
            assert set(trainer.validation_metrics) == {"loss", "angle", "endpoint_distance", "connectivity"}
