"""What is said of translated pictures: picture by picture, and of all together, in validation and in tests."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from treadle.errors import UsageError
from treadle.gans.cyclegan import CycleGANConfig, CycleGANTrainer
from treadle.gans.images import PairedImages, UnpairedImages
from treadle.gans.judging import Judge
from treadle.gans.pix2pix import Pix2PixConfig, Pix2PixTrainer
from treadle.gans.sources import ArrayPairs
from treadle.images.display import write_png
from treadle.images.inception import Inception
from treadle.images.lpips import LPIPS
from treadle.images.metrics import measure
from treadle.images.texture import FIGURES, lattice, sharpness, texture

SMALL = {
    "device": "cpu",
    "precision": "fp32",
    "size": 32,
    "features": 4,
    "downs": 2,
    "blocks": 1,
    "d_features": 4,
    "patch": 16,
    "max_steps": 2,
}


def pictures(seed=0, count=4, size=32):
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, (count, 3, size, size))).float()


def pairs(count=3, seed=0):
    known = np.random.default_rng(seed).integers(0, 256, (2, count, 32, 32, 3), dtype=np.uint8)
    return PairedImages(ArrayPairs(*known), 32)


def test_each_picture_is_compared_with_its_target():
    outputs, targets = pictures(0), pictures(1)
    found = Judge().compare(outputs, targets)
    wanted = measure(outputs, targets)
    wanted["sharpness"] = [sharpness(*pair) for pair in zip(outputs, targets, strict=True)]
    wanted["lattice"] = [lattice(*pair) for pair in zip(outputs, targets, strict=True)]
    assert found == [{name: values[index] for name, values in wanted.items()} for index in range(4)]


def test_all_pictures_are_compared_with_all_real_ones():
    outputs, real = pictures(0), pictures(1, 3)
    judge = Judge()
    for start in (0, 2):
        judge.gather(outputs[start : start + 2], real[start : start + 2])
        judge.overall()
    assert judge.overall() == pytest.approx(texture(outputs, real))
    assert tuple(judge.figures) == FIGURES
    assert judge.figures["swd"].compute() == judge.overall()["swd"]
    judge.figures["texture"].reset()
    assert all(math.isnan(value) for value in judge.overall().values())


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_pictures_of_any_channels_shape_and_depth_are_judged(channels):
    rng = np.random.default_rng(0)
    outputs, real = (torch.from_numpy(rng.uniform(-1, 1, (2, channels, 24, 40))).float() for _ in range(2))
    judge = Judge(deep=True)
    judge.gather(outputs, real)
    found = judge.compare(outputs, real)[0] | judge.overall()
    assert all(math.isfinite(value) for value in found.values())


def test_each_direction_has_sets_and_a_name_of_its_own_and_the_choice_is_between_both():
    judge = Judge(ways=("ab", "ba"))
    judge.gather(pictures(0), pictures(1), "ab")
    judge.gather(pictures(2) / 2, pictures(3), "ba")
    ab, ba = texture(pictures(0), pictures(1)), texture(pictures(2) / 2, pictures(3))
    found = judge.overall()
    assert found.keys() == judge.figures.keys()
    assert (found["sharpness_ab"], found["sharpness_ba"]) == (ab["sharpness"], ba["sharpness"])
    assert found["texture"] == pytest.approx((ab["texture"] + ba["texture"]) / 2)
    assert "texture_ab" not in found and "sharpness" not in found


def test_validation_says_what_all_its_pictures_come_to_and_begins_anew_each_time():
    trainer = Pix2PixTrainer(data=pairs(), validation_data=pairs(5, 1), batch_size=2, **SMALL)
    trainer.train()
    feed = trainer.validation_feed
    with trainer.evaluating():
        outputs = torch.cat([trainer.translate(x, trainer.generator) for x, _ in feed.iterate(0)])
    targets = torch.cat([y for _, y in feed.iterate(0)])
    metrics = trainer.validation_metrics
    assert list(metrics) == ["l1", "psnr", "ssim", *FIGURES]
    assert {name: metrics[name] for name in FIGURES} == pytest.approx(texture(outputs, targets), rel=1e-6)
    assert trainer.validate() == metrics


def test_sets_of_validation_data_have_figures_of_their_own():
    both = {"one": pairs(2, 1), "two": pairs(2, 2)}
    trainer = Pix2PixTrainer(data=pairs(), validation_data=both, monitor="one/texture", **SMALL)
    found = trainer.validate()
    alone = Pix2PixTrainer(data=pairs(), validation_data=pairs(2, 2), **SMALL).validate()
    assert {name: found[f"two/{name}"] for name in alone} == pytest.approx(alone)
    assert found["one/texture"] != found["two/texture"]


@pytest.mark.parametrize(
    ("kind", "monitor"), [(Pix2PixTrainer, "texture"), (Pix2PixTrainer, "lattice"), (CycleGANTrainer, "texture")]
)
def test_texture_chooses_a_model_without_any_weights(kind, monitor, tmp_path):
    data = pairs() if kind is Pix2PixTrainer else UnpairedImages(pairs().source, 32)
    trainer = kind(data=data, validation_data=data, monitor=monitor, validate_every="1 step", **SMALL)
    trainer.train()
    assert trainer.best["monitor"] == monitor and trainer.best["value"] == trainer.best["metrics"][monitor]


def test_weights_are_used_in_validation_where_they_choose_and_else_in_tests_alone(weights_file, tmp_path):
    weights = weights_file(LPIPS("alex"))
    plain = Pix2PixTrainer(data=pairs(), validation_data=pairs(2, 1), lpips_weights=weights, **SMALL)
    assert "lpips" not in plain.validate()
    assert plain.test_report(tmp_path, plain.validation_feed)["lpips"] > 0
    choosing = Pix2PixTrainer(
        data=pairs(), validation_data=pairs(2, 1), lpips_weights=weights, monitor="lpips", **SMALL
    )
    choosing.train()
    assert choosing.best["value"] == choosing.validation_metrics["lpips"] > 0


def test_fid_chooses_between_both_directions(weights_file):
    settings = {"fid_weights": weights_file(Inception()), "monitor": "fid"}
    found = CycleGANTrainer(data=pairs(), validation_data=pairs(2, 1), **settings, **SMALL).validate()
    assert found["fid"] == pytest.approx((found["fid_ab"] + found["fid_ba"]) / 2) and found["fid_ab"] > 0
    assert found["fid_ab"] != found["fid_ba"]
    judge = Judge(fid_weights=settings["fid_weights"])
    judge.gather(pictures(0, 1), pictures(1, 1))
    assert math.isnan(judge.overall()["fid"]), "one picture has no distribution, and is no error after hours"


def test_the_page_of_a_test_says_what_its_figures_mean_and_shows_how_the_training_went(tmp_path):
    for name in ("steps_ab", "steps_ba"):
        (tmp_path / "report").mkdir(exist_ok=True)
        write_png(tmp_path / "report" / f"{name}.png", np.zeros((20, 300, 3), np.uint8))
    trainer = CycleGANTrainer(data=pairs(), test_data=pairs(2, 1), **SMALL)
    found = trainer.test_report(tmp_path / "test", trainer.test_feed)
    assert {"texture", "sharpness", "lattice", "swd_ab", "spectrum_ba", "cycle"} <= found.keys()
    text = (tmp_path / "test" / "index.html").read_text()
    assert text.count("<figcaption>how the training went") == 2 and "each validation, B to A</figcaption>" in text
    assert "model of step 0" in text and "L1 alone prefers fog" in text
    told = re.findall("<th scope=row>([a-z0-9_]+)(?: <small>[^<]*</small>)?</th>.*?<td class=words>([^<]*)</td>", text)
    told = {name.partition("_")[0] for name, words in told if words}
    assert told >= {*FIGURES, "l1", "psnr", "ssim", "cycle"}


@pytest.mark.parametrize("config", [Pix2PixConfig, CycleGANConfig])
def test_what_cannot_choose_is_refused(config):
    for name in ("lpips", "fid"):
        with pytest.raises(UsageError, match=f"{name}_weights is None: expected a file, which monitor: {name} needs"):
            config(monitor=name)
    with pytest.raises(
        UsageError, match=r"lpips_weights is .*: expected null, since LPIPS needs pictures of 32 pixels"
    ):
        config(lpips_weights="lpips.safetensors", size=16, patch=16)
    for name in ("sharpness", "sharpness_ab", "hard/sharpness"):
        with pytest.raises(UsageError, match=f"monitor is '{name}': expected .*'texture'"):
            config(monitor=name)
