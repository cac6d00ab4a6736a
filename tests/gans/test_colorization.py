"""Colorization: what it learns from, what is shown and measured, and gray photographs coloured with L kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import color

from treadle.cli.main import main
from treadle.errors import UsageError
from treadle.gans.colorization import ColorizationConfig, ColorizationTrainer, Colorizer, coloured, photographs_in
from treadle.gans.inference import translate
from treadle.gans.splitting import part_of
from treadle.images.lab import rgb_to_lab
from treadle.images.pixels import to_tensor

TINY = {"size": 32, "features": 4, "downs": 2, "d_features": 4, "patch": 16, "device": "cpu", "precision": "fp32"}
FLAGS = [
    *("--max-steps", "3", "--size", "16", "--features", "4", "--downs", "2", "--d-features", "4", "--patch", "16"),
    *("--device", "cpu", "--precision", "fp32", "--seed", "1"),
]


def photograph(path, seed=0, size=(24, 20), mode="RGB"):
    """A file of a photograph: smooth colours, as of a landscape."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path)
    return path


@pytest.fixture
def photos(tmp_path, monkeypatch):
    for split, count in (("train", 5), ("val", 2), ("test", 2)):
        for index in range(count):
            photograph(tmp_path / "photos" / split / f"{index}.png", 10 * index + len(split))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run of a folder of photographs, without splits."""
    place = tmp_path_factory.mktemp("colour")
    for index in range(30):
        photograph(place / "flat" / f"{index}.png", index)
    arguments = [
        "train",
        "--trainer",
        f"{__file__}:Registered",
        "--data",
        str(place / "flat"),
        "--run",
        str(place / "r"),
    ]
    assert main([*arguments, *FLAGS]) == 0
    return place / "r" / "v001"


class Registered(ColorizationTrainer):
    """The trainer, found by its file, whatever is installed."""


# What it learns from -----------------------------------------------------------------------------------------------


def test_of_each_photograph_l_is_the_input_and_the_photograph_the_target(photos):
    config = ColorizationConfig(**TINY | {"size": 16})
    data = ColorizationTrainer.load_data(config, photos)
    assert {name: len(each) for name, each in data.items()} == {"data": 5, "validation_data": 2, "test_data": 2}
    x, y = data["test_data"][1]
    assert x.shape == (1, 16, 16) and y.shape == (3, 16, 16)
    pixels = np.asarray(Image.open(photos / "test" / "1.png").resize((16, 16), Image.Resampling.BICUBIC))
    torch.testing.assert_close(y, to_tensor(pixels))
    light = color.rgb2lab(np.asarray(Image.open(photos / "test" / "1.png")))[..., 0].mean()
    assert ((x + 1) * 50).mean().item() == pytest.approx(light, abs=1)


def test_a_and_b_of_the_photographs_are_what_is_learnt(photos):
    """Oracle: scikit-image's conversion, divided by 110 as the official repository does."""
    config = ColorizationConfig(**TINY | {"size": 16}, max_steps=1, dropout=0.0)
    trainer = ColorizationTrainer(config, **ColorizationTrainer.load_data(config, photos))
    seen = []
    trainer.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    x, y = (torch.stack(each) for each in zip(*[trainer.feed.dataset[index] for index in range(3)], strict=True))
    trainer.train()
    seen.clear()
    trainer.step((x, y))
    real = seen[0]
    expected = color.rgb2lab(((y + 1) / 2).movedim(1, -1).double().numpy())[..., 1:] / 110
    np.testing.assert_allclose(real[:, 1:].movedim(1, -1), expected, atol=1e-4)
    torch.testing.assert_close(real[:, :1], x)


def test_geometry_moves_l_and_colours_alike_and_appearance_l_alone(photos):
    settings = {"elastic": (2.0, 2.0), "vertical_flip": 0.5, "cutout": 2.0, "cutout_both": True}
    config = ColorizationConfig(**TINY | {"size": 16}, **settings)
    dataset = ColorizationTrainer.load_data(config, photos)["data"]
    for seed in range(6):
        x, y = dataset.sample(seed % 5, np.random.default_rng(seed))
        kept = x[0] > -1
        assert 0.3 < kept.float().mean() < 1
        light = rgb_to_lab((y + 1) / 2)[0] / 50 - 1
        assert (light - x[0])[kept].abs().mean() < 0.05
        assert y[:, ~kept].max() == -1
    config = ColorizationConfig(**TINY | {"size": 16}, flip=0.0, load_size=16, gamma=(2.0, 2.0))
    gamma, plain = (each["data"] for each in (ColorizationTrainer.load_data(c, photos) for c in (
        config, ColorizationConfig(**TINY | {"size": 16}, flip=0.0, load_size=16))))  # fmt: skip
    (dark, same), (light, y) = gamma.sample(0, np.random.default_rng(0)), plain.sample(0, np.random.default_rng(0))
    torch.testing.assert_close((dark + 1) / 2, ((light + 1) / 2) ** 2, atol=1e-4, rtol=0)
    assert torch.equal(same, y)


def test_any_folder_of_photographs_is_split_by_name(tmp_path):
    names = [f"{index}" for index in range(40)]
    for name in names:
        photograph(tmp_path / "flat" / f"{name}.png", int(name))
    found = {split: photographs_in(tmp_path / "flat", split, "refuse") for split in ("train", "val", "test")}
    for split, source in found.items():
        assert [source.name(index) for index in range(len(source))] == [
            f"{name}.png" for name in names if part_of(name, 0, (0.8, 0.1, 0.1)) == split
        ]
    photograph(tmp_path / "one" / "1.png")
    assert photographs_in(tmp_path / "one", "val", "refuse") is None
    photograph(tmp_path / "parts" / "train" / "1.png")
    assert photographs_in(tmp_path / "parts", "test", "refuse") is None
    photograph(tmp_path / "tests" / "test" / "1.png")
    with pytest.raises(UsageError, match="has no folder 'train' with pictures to train on"):
        photographs_in(tmp_path / "tests", "train", "refuse")
    with pytest.raises(UsageError, match="nowhere: no such folder"):
        photographs_in(tmp_path / "nowhere", "train", "refuse")


def test_without_data_there_are_house_fronts(photos):
    data = ColorizationTrainer.load_data(ColorizationConfig(**TINY, max_samples=6), None)
    assert [len(each) for each in data.values()] == [6, 32, 64]
    x, y = data["data"].sample(0, np.random.default_rng(0))
    assert x.shape == (1, 32, 32) and y.shape == (3, 32, 32) and (y[0] - y[2]).abs().max() > 0.3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"in_channels": 3}, "in_channels is 3: expected 1: colorization makes a and b of L"),
        ({"out_channels": 3}, "out_channels is 3: expected 2"),
        ({"direction": "BtoA"}, "direction is 'BtoA': expected one of 'AtoB'"),
        ({"out_range": (-1.0, 1.0)}, r"out_range is \(-1.0, 1.0\): expected \(-110.0, 110.0\)"),
        ({"objective": "basic+vgg"}, "objective is 'basic\\+vgg': expected one without vgg"),
    ],
)
def test_what_it_is_cannot_be_set(settings, said):
    with pytest.raises(UsageError, match=said):
        ColorizationConfig(**TINY, **settings)


# What comes of it --------------------------------------------------------------------------------------------------


def test_figures_and_pictures_are_of_rgb(run):
    assert main(["test", str(run), "--trainer", f"{__file__}:Registered"]) == 0
    table = json.loads((run / "test" / "table.json").read_text())
    assert {"l1", "psnr", "ssim"} <= json.loads((run / "summary.json").read_text())["validation_metrics"].keys()
    assert "psnr" in json.dumps(table)
    shown = np.asarray(Image.open(next((run / "examples").glob("step-00000003-*.png"))).convert("RGB")).astype(int)
    third = shown.shape[1] // 3
    spread = np.ptp(shown[20:], axis=2)
    assert spread[:, : third - 8].max() <= 1, "the input is gray"
    assert spread[:, 2 * third + 8 :].max() > 30, "the target has its colours"


def test_a_gray_photograph_becomes_rgb_of_its_own_l_at_any_size(run):
    model = ColorizationTrainer.load_model(run)
    gray = np.asarray(Image.open(photograph(run.parent / "gray.png", 3, (75, 51), "L")))[..., None]
    out = translate(model, gray)
    assert out.shape == (51, 75, 3) and out.dtype == np.uint8
    light = color.rgb2lab(np.repeat(gray, 3, 2))[..., 0]
    assert np.abs(color.rgb2lab(out)[..., 0] - light).mean() < 0.5
    torch.manual_seed(0)
    x = to_tensor(gray)[None, :, :48, :72]
    ab = model.generator(rgb_to_lab(((x + 1) / 2).expand(1, 3, 48, 72))[:, :1] / 50 - 1)
    torch.testing.assert_close(model(x), coloured(rgb_to_lab(((x + 1) / 2).expand(1, 3, 48, 72))[:, :1] / 50 - 1, ab))
    np.testing.assert_array_equal(out[:48, :72].shape, (48, 72, 3))


def test_treadle_translate_colours_files_of_any_depth_and_keeps_alpha(run, tmp_path):
    photograph(tmp_path / "in/gray.png", 1, (30, 20), "L")
    photograph(tmp_path / "in/colour.jpg", 2, (30, 20))
    photograph(tmp_path / "in/alpha.png", 3, (30, 20), "RGBA")
    deep = np.linspace(0, 65535, 30 * 20).reshape(20, 30).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "in/deep.png")
    code = ["--trainer", f"{__file__}:Registered"]
    assert main(["translate", str(run), str(tmp_path / "in"), "--out", str(tmp_path / "out"), *code]) == 0
    from treadle.images.reading import read_array

    found = {path.stem: read_array(path) for path in (tmp_path / "out").iterdir()}
    assert {name: (each.shape, each.dtype.name) for name, each in found.items()} == {
        "gray": ((20, 30, 3), "uint8"),
        "colour": ((20, 30, 3), "uint8"),
        "alpha": ((20, 30, 4), "uint8"),
        "deep": ((20, 30, 3), "uint16"),
    }


def test_what_is_exported_colours_gray_photographs_of_any_size(run, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    exported = ColorizationTrainer.exportable(run)["generator"]
    assert isinstance(exported.model, Colorizer)
    from treadle.export.onnx import write_onnx

    write_onnx(exported, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    x = torch.rand(2, 1, 20, 36) * 2 - 1
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert found.shape == (2, 3, 20, 36)
    np.testing.assert_allclose(found, exported.model(x).detach(), atol=1e-4)


def test_a_stopped_run_resumes_to_the_same_bits(photos):
    config = ColorizationConfig(**TINY | {"size": 16}, max_steps=3, elastic=1.0)
    data = {"data": ColorizationTrainer.load_data(config, photos)["data"]}
    with ColorizationTrainer(config, **data, run_dir="whole") as whole:
        whole.train()
    with ColorizationTrainer(config, **data, run_dir="part") as part:
        part.iterate()
        part.save()
    resumed = ColorizationTrainer(config, **data, run_dir=Path("part/v001"), resume=True)
    resumed.train()
    assert resumed.digest() == whole.digest()
