from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from treadle.errors import UsageError
from treadle.fields.hash_field import pixel_centres
from treadle.fields.image.panels import comparison
from treadle.fields.image.picture_field import PictureField
from treadle.fields.image_trainer import ImageConfig, ImageTrainer
from treadle.images.metrics import psnr_of
from treadle.images.picture import Picture, read_picture
from treadle.recipes.registry import load_recipe

Image = pytest.importorskip("PIL.Image")
SMALL = {
    "levels": 6,
    "log2_size": 12,
    "n_min": 4,
    "hidden": 16,
    "batch_size": 256,
    "device": "cpu",
    "learning_rate": "cosine 4e-2 to 1e-3",
}


def waves(channels=3, height=24, width=32, *, linear=False):
    """A smooth picture; channels differ, alpha included."""
    y, x = np.mgrid[0:height, 0:width] / 32
    values = np.stack([0.5 + 0.4 * np.sin(5 * x + 3 * y * (c + 1) + c) for c in range(channels)], axis=2)
    return Picture((values * 30 - 5 if linear else values).astype(np.float32), linear, "waves")


@pytest.mark.parametrize(
    ("grid", "settings"),
    [
        ("dense", {"levels": 3, "n_max": 16}),
        ("siren", {"hidden": 32, "layers": 1, "learning_rate": "cosine 6e-2 to 0"}),
    ],
)
def test_every_grid_learns_and_comes_back(grid, settings, tmp_path):
    options = {"hidden": 16, "n_min": 4, "batch_size": 256, "device": "cpu", "learning_rate": "cosine 4e-2 to 1e-3"}
    options |= settings
    run = tmp_path / grid / "v001"
    trainer = ImageTrainer(
        data=waves(), max_steps=300, examples_every=None, log_every=None, grid=grid, run_dir=run, **options
    )
    assert trainer.train().validation_metrics["psnr"] > 30
    loaded = ImageTrainer.load_model(run)
    assert np.array_equal(loaded.picture().values, trainer.model.picture().values)
    assert loaded.picture(12, 16).values.shape == (12, 16, 3)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_it_fits_any_number_of_channels(channels):
    trainer = ImageTrainer(data=waves(channels), max_steps=150, examples_every=None, **SMALL)
    summary = trainer.train()
    assert summary.status == "finished"
    assert summary.validation_metrics["psnr"] > 30
    fit = trainer.model.picture()
    assert fit.values.shape == (24, 32, channels)
    mse = float(((fit.values - trainer.picture.values) ** 2).mean())
    assert psnr_of(mse) == pytest.approx(summary.validation_metrics["psnr"], abs=0.1)


def test_float_pictures_are_fitted_in_the_logarithm_and_given_back_in_their_own_range():
    picture = waves(3, linear=True)
    trainer = ImageTrainer(data=picture, max_steps=150, examples_every=None, **SMALL)
    targets = trainer.model.targets(picture)
    assert targets.abs().max() == pytest.approx(1.0)
    np.testing.assert_allclose(
        trainer.model.values(targets).reshape(picture.values.shape), picture.values, rtol=1e-4, atol=1e-4
    )
    assert trainer.train().validation_metrics["psnr"] > 30
    fit = trainer.model.picture().values
    assert np.abs(fit - picture.values).mean() < 2
    assert fit.max() > 15 and fit.min() < -1


def test_a_black_float_picture_is_no_division_by_zero():
    trainer = ImageTrainer(data=Picture(np.zeros((4, 4, 3), np.float32), True, "black"), max_steps=3, **SMALL)
    assert np.isfinite(trainer.train().validation_metrics["psnr"])
    assert trainer.model.picture().linear


def test_an_integer_picture_stays_in_its_range():
    model = ImageTrainer(data=waves(1), max_steps=1, **SMALL).model
    assert model.values(torch.tensor([[2.0], [-1.0], [0.5]])).flatten().tolist() == [1.0, 0.0, 0.5]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 2)])
def test_pictures_smaller_than_a_batch(size):
    picture = Picture(np.full((*size, 3), 0.5, np.float32), False, "tiny")
    trainer = ImageTrainer(data=picture, max_steps=5, **SMALL)
    assert trainer.feed.batches == 1
    assert trainer.train().step == 5


def test_the_validation_is_the_whole_picture():
    trainer = ImageTrainer(data=waves(), max_steps=2, **SMALL)
    trainer.train()
    found = trainer.model(pixel_centres(24, 32)).detach()
    mse = (found - torch.from_numpy(waves().values).reshape(-1, 3)).square().mean().item()
    assert trainer.validation_metrics["loss"] == pytest.approx(mse, rel=1e-4)
    assert trainer.validation_metrics["psnr"] == pytest.approx(psnr_of(mse), abs=1e-3)


def test_two_runs_of_one_seed_are_equal_and_iterate_is_train():
    whole = ImageTrainer(data=waves(), max_steps=12, **SMALL)
    whole.train()
    stepped = ImageTrainer(data=waves(), max_steps=12, **SMALL)
    while stepped.iterate():
        pass
    assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), stepped.model.parameters(), strict=True))


def test_settings_reach_the_model_and_the_optimizer():
    trainer = ImageTrainer(
        data=waves(), max_steps=4, levels=3, features=4, log2_size=9, n_min=5, n_max=33, hidden=9, layers=3,
        learning_rate="linear 1e-2 to 0", decoder_rate=0.25, batch_size=100, device="cpu",
    )  # fmt: skip
    layout = trainer.model.grid.layout
    assert (layout.levels, layout.features, layout.log2_size, layout.n_min, layout.n_max) == (3, 4, 9, 5, 33)
    assert [tuple(layer.weight.shape) for layer in trainer.model.decoder.layers] == [(9, 12), (9, 9), (9, 9), (3, 9)]
    trainer.iterate()
    trainer.iterate()
    rates = {group["name"]: group["lr"] for group in trainer.optimizer.param_groups}
    assert rates == pytest.approx({"grid": 7.5e-3, "decoder": 7.5e-3 / 4})


def test_the_finest_level_follows_the_picture_unless_told():
    assert ImageConfig().layout((100, 400)).n_max == 600
    assert ImageConfig().layout((2, 3)).n_max == 16
    assert ImageConfig(n_max=77).layout((100, 400)).n_max == 77
    assert ImageConfig(grid="dense").layout((100, 400)).n_max == 200


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("levels", 0), ("log2_size", 99), ("n_min", 1), ("n_max", 3), ("features", 0), ("hidden", 0), ("layers", -1),
        ("learning_rate", "cosinus 1"), ("decoder_rate", 0.0), ("examples_every", "often"), ("batch_size", 0),
    ],
)  # fmt: skip
def test_a_setting_out_of_range_is_refused_by_name(setting, value):
    with pytest.raises(UsageError, match=setting):
        ImageConfig(**{setting: value})


def test_on_disk_with_report_examples_and_a_model_to_load(tmp_path):
    path = tmp_path / "waves.png"
    Image.fromarray((waves().values * 255).astype(np.uint8)).save(path)
    document = tmp_path / "recipe.yaml"
    document.write_text(
        f"trainer: image\ndata: {path}\nconfig: {{max_steps: 100, levels: 6, log2_size: 12, n_min: 4, hidden: 16, "
        "learning_rate: cosine 4e-2 to 1e-3, batch_size: 256, device: cpu, examples_every: 50%}\n"
    )
    trainer = load_recipe(document).build(run_dir=tmp_path / "runs" / "waves")
    trainer.train()
    run = tmp_path / "runs" / "waves" / "v001"
    assert sorted(p.name for p in (run / "examples").iterdir()) == ["step-00000050-fit.png", "step-00000100-fit.png"]
    report = tmp_path / "report"
    report.mkdir()
    results = trainer.report(report)
    assert results["psnr"] == pytest.approx(trainer.validation_metrics["psnr"], abs=1e-3)
    assert results["psnr"] > 25
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    assert (results["parameters"], results["values"]) == (parameters, 24 * 32 * 3)
    assert results["parameters_per_value"] == pytest.approx(parameters / (24 * 32 * 3))
    assert read_picture(results["picture"]).values.shape[1] > 3 * 32
    fit = read_picture(results["fit"])
    np.testing.assert_allclose(fit.values, trainer.model.picture().values, atol=0.5 / 255 + 1e-6)

    model = ImageTrainer.load_model(run)
    assert isinstance(model, PictureField) and not model.training
    assert json.loads((run / "best_model" / "metrics.json").read_text())["monitor"] == "psnr"
    np.testing.assert_allclose(model.picture().values, trainer.model.picture().values, atol=1e-6)
    assert model.picture(48, 64).values.shape == (48, 64, 3)


def test_load_model_says_what_is_missing(tmp_path):
    with pytest.raises(UsageError, match="no best model"):
        ImageTrainer.load_model(tmp_path)


def test_data_is_a_picture_a_path_or_the_astronaut(tmp_path):
    path = tmp_path / "gray.png"
    Image.fromarray(np.eye(16, dtype=np.uint8) * 200).save(path)
    assert ImageTrainer(data=path, max_steps=1, **SMALL).picture.channels == 1
    assert ImageTrainer.load_data(ImageConfig(), path)["data"].size == (16, 16)
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    assert ImageTrainer.load_data(ImageConfig(), None)["data"].name == "astronaut"


def test_the_shipped_recipe_is_the_astronaut():
    recipe = load_recipe("image")
    assert recipe.trainer_class is ImageTrainer
    assert recipe.data is None
    assert "astronaut" in recipe.description
    model = recipe.config.field((512, 512), 3)
    assert sum(parameter.numel() for parameter in model.parameters()) < 0.5 * 512 * 512 * 3, "it is compression"


def test_the_panel_shows_fit_target_and_error():
    target = waves(4, 160, 240)
    fit = Picture(target.values.copy(), False, "fit")
    fit.values[5, 7, :3] += 0.05
    panel = comparison(fit, target, 30.0)
    assert panel.dtype == np.uint8
    body = panel[24:184]
    left, middle, right = (body[:, 8 + k * 244 : 248 + k * 244].astype(int) for k in range(3))
    assert left.shape == middle.shape == right.shape == (160, 240, 3)
    changed = np.zeros((160, 240), bool)
    changed[5, 7] = True
    assert ((left != middle).any(axis=2) == changed).all()
    assert ((right > 0).any(axis=2) == changed).all()
    assert panel[:24].min() < 100  # captions


def test_a_large_panel_is_scaled_down():
    big = Picture(np.zeros((40, 2500, 1), np.float32), False, "a name that is long " * 40)
    assert comparison(big, big, 30.0).shape[1] == 8 + 3 * (1024 + 4) - 4 + 8
