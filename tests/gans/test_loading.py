"""From files to networks and back: shapes stay, bits stay, channels stay, and what does not fit is said in one line."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import treadle
from treadle.config.files import load
from treadle.data.dataset import DatasetFeed
from treadle.errors import UsageError
from treadle.gans.cyclegan import CycleGANConfig, CycleGANTrainer
from treadle.gans.images import PairedImages, UnpairedImages
from treadle.gans.pix2pix import Pix2PixConfig, Pix2PixTrainer
from treadle.gans.translating import translate_files
from treadle.images.bands import read_bands
from treadle.images.writing import write_picture

SMALL = {
    "size": 16, "features": 4, "downs": 2, "blocks": 1, "d_features": 4, "patch": 16, "max_steps": 2, "device": "cpu",
    "precision": "fp32", "examples": 1, "keep_generators": 0,
}  # fmt: skip


def smooth(height, width, channels, dtype, seed=0):
    """A picture of many values: waves, over the type's whole range (floats: -3 to 5)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((height, width))[..., None] / 7
    waves = np.sin(rows * rng.uniform(0.5, 2, channels) + columns * rng.uniform(0.5, 2, channels) + rng.uniform(0, 9))
    shares = (waves + 1) / 2
    if dtype == "float32":
        return (8 * shares - 3).astype(np.float32)
    return np.rint(shares * np.iinfo(dtype).max).astype(dtype)


def write(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, picture)


def joined(root, sizes, channels=3, dtype="uint8", ending=".png", splits=("train", "val")):
    """A folder of A|B files with halves of these (height, width)."""
    for split in splits:
        for index, (height, width) in enumerate(sizes):
            halves = [smooth(height, width, channels, dtype, seed=2 * index + side) for side in range(2)]
            write(root / split / f"{index}{ending}", np.concatenate(halves, axis=1))
    return root


def built(kind, root, **settings):
    config = kind.Config(**SMALL | settings)
    return kind(config, **kind.load_data(config, root))


class Seen:
    """Notes the shapes of what networks are given in training."""

    def __init__(self, *networks):
        self.shapes = []
        for network in networks:
            network.register_forward_pre_hook(self.note)

    def note(self, module, inputs):
        if module.training:
            self.shapes.append(tuple(inputs[0].shape))


# Shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "trained", "evaluated"),
    [
        ({"preprocess": "none"}, (100, 200), (100, 200)),
        ({"preprocess": "scale_width", "load_size": 50}, (25, 50), (25, 50)),
        ({"preprocess": "scale_width", "load_size": 200}, (100, 200), (100, 200)),
        ({"preprocess": "crop", "size": (16, 32)}, (16, 32), (100, 200)),
        ({"preprocess": "scale_width_and_crop", "load_size": 60}, (16, 16), (30, 60)),
        ({"size": [24, 48]}, (24, 48), (24, 48)),
        ({}, (16, 16), (16, 16)),
    ],
)
def test_200_by_100_stays_so_unless_asked_otherwise(tmp_path, settings, trained, evaluated):
    trainer = built(Pix2PixTrainer, joined(tmp_path, [(100, 200)] * 2), **settings)
    generated, judged = Seen(trainer.generator), Seen(trainer.discriminator)
    trainer.iterate()
    padded = tuple(-(-side // 4) * 4 for side in trained)
    assert {shape[2:] for shape in generated.shapes} == {padded}, "the network's stride is 4"
    assert {shape[2:] for shape in judged.shapes} == {trained}, "nothing beyond the picture is judged"
    x, y = trainer.validation_feed.dataset[0]
    assert x.shape[1:] == y.shape[1:] == evaluated
    found = trainer.test_report(tmp_path / "test", trainer.validation_feed)
    assert all(np.isfinite(found[name]) for name in ("l1", "psnr", "ssim"))
    for path in (tmp_path / "test" / "pictures").iterdir():
        assert Image.open(path).size == evaluated[::-1]


def test_pictures_of_several_shapes_are_batched_by_shape_in_training_and_in_their_order_in_tests(tmp_path):
    sizes = [(20, 40), (40, 20), (20, 40), (20, 40), (40, 20), (31, 17)]
    root = joined(tmp_path, sizes)
    trainer = built(Pix2PixTrainer, root, preprocess="none", batch_size=2, max_epochs=1, max_steps=None)
    judged = Seen(trainer.discriminator)
    trainer.train()
    assert trainer.progress.step == 4 and trainer.config.batch_size == 2
    assert {shape[2:] for shape in judged.shapes} == set(sizes) and max(shape[0] for shape in judged.shapes) == 2
    trainer.test_report(tmp_path / "test", trainer.validation_feed)
    with open(tmp_path / "test" / "table.csv") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    for index, (height, width) in enumerate(sizes):
        made = Image.open(tmp_path / "test" / rows[f"{index}.png"]["target"])
        assert made.size == (width, height)
        np.testing.assert_array_equal(np.asarray(made), smooth(height, width, 3, "uint8", seed=2 * index + 1))


def test_a_run_over_several_shapes_resumes_to_the_same_digest(tmp_path):
    root = joined(tmp_path / "data", [(20, 40), (40, 20), (20, 40), (31, 17)])
    settings = SMALL | {"preprocess": "none", "batch_size": 2, "pool": 3, "max_steps": 7}

    def trainer(**given):
        config = Pix2PixConfig(**settings | given)
        return Pix2PixTrainer(config, **Pix2PixTrainer.load_data(config, root), run_dir=tmp_path / "run")

    whole = trainer()
    whole.train()
    stopped = trainer()
    for _ in range(4):
        stopped.iterate()
    stopped.save()
    stopped.close()
    resumed = treadle.resume(stopped.run.path, trainer=Pix2PixTrainer, data=root)
    assert resumed.progress.step == 4
    resumed.train()
    assert resumed.digest() == whole.digest()


def test_pictures_of_one_shape_are_an_ordinary_dataset(tmp_path):
    root = joined(tmp_path, [(20, 40)] * 3)
    found = Pix2PixTrainer.load_data(Pix2PixConfig(**SMALL, preprocess="none", batch_size=2), root)
    assert isinstance(found["data"], PairedImages)
    mixed = joined(tmp_path / "mixed", [(20, 40), (40, 20)])
    settings = {"preprocess": "none", "batch_size": 2, "workers": 1}
    feed = Pix2PixTrainer.load_data(Pix2PixConfig(**SMALL, **settings), mixed)["data"]
    assert isinstance(feed, DatasetFeed) and feed.workers == 1
    feed = Pix2PixTrainer.load_data(Pix2PixConfig(**SMALL, **settings | {"batch_size": 1}), mixed)["data"]
    assert isinstance(feed, PairedImages)


def test_unpaired_rectangles_go_there_and_back_and_are_not_batched(tmp_path):
    for side, sizes in (("A", [(24, 40), (17, 33)]), ("B", [(40, 24), (20, 60), (16, 16)])):
        for split in ("train", "test"):
            for index, size in enumerate(sizes):
                write(tmp_path / f"{split}{side}" / f"{index}.png", smooth(*size, 3, "uint8", seed=index))
    config = CycleGANConfig(**SMALL | {"preprocess": "none", "max_steps": 5, "pool": 2})
    trainer = CycleGANTrainer(config, **CycleGANTrainer.load_data(config, tmp_path))
    seen = Seen(trainer.discriminator_a), Seen(trainer.discriminator_b)
    trainer.train()
    assert {shape[2:] for shape in seen[0].shapes} <= {(24, 40), (17, 33), (40, 24), (20, 60), (16, 16)}
    trainer.test_report(tmp_path / "test", trainer.test_feed)
    made = {Image.open(path).size for path in (tmp_path / "test" / "pictures").glob("*-back.png")}
    assert made == {(40, 24), (33, 17), (24, 40), (60, 20), (16, 16)}
    with pytest.raises(UsageError, match=r"unpaired pictures of different shapes, drawn by .* batch_size to 1"):
        CycleGANTrainer.load_data(CycleGANConfig(**SMALL, preprocess="none", batch_size=2), tmp_path)
    crops = CycleGANTrainer.load_data(CycleGANConfig(**SMALL, preprocess="crop", batch_size=2), tmp_path)
    assert isinstance(crops["data"], UnpairedImages)  # all are cut to one shape


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preprocess": "crop", "size": 32}, r"1\.png: a picture of 40 x 20 pixels is too small to cut 32 x 32 from"),
        ({"preprocess": "none", "patch": 34}, r"0\.png is 40 x 8 pixels where it is trained on: patches of 34 .* 12"),
        ({"preprocess": "none", "load_size": 20}, "load_size is 20: expected null, since preprocess 'none' resizes"),
        ({"size": [16, 20, 3]}, "size is"),
        ({"size": [4, 16]}, r"size is \[4, 16\]: expected numbers, each at least 8"),
        ({"size": [16, 18]}, r"size is \(16, 18\): expected a multiple of 4"),
        ({"size": [16, 32], "load_size": 20}, "load_size is 20: expected at least `size`"),
    ],
)
def test_shapes_that_do_not_fit_are_named_before_training(tmp_path, settings, message):
    first = (8, 40) if "patch" in settings else (40, 40)
    root = joined(tmp_path, [first, (20, 40)], splits=("train",))
    with pytest.raises(UsageError, match=message) as raised:
        Pix2PixTrainer.load_data(Pix2PixConfig(**SMALL | settings), root)
    assert "\n" not in str(raised.value)


def test_a_pair_of_two_sizes_is_refused_where_neither_is_resized(tmp_path):
    for side, size in (("A", (20, 40)), ("B", (40, 20))):
        write(tmp_path / side / "train" / "a.png", smooth(*size, 3, "uint8"))
    data = Pix2PixTrainer.load_data(Pix2PixConfig(**SMALL, preprocess="none"), tmp_path)["data"]
    with pytest.raises(UsageError, match="the input has 40 x 20 pixels and the target 20 x 40: make them equal, or"):
        data[0]
    x, y = Pix2PixTrainer.load_data(Pix2PixConfig(**SMALL, preprocess="scale_width"), tmp_path)["data"][0]
    assert x.shape == y.shape == (3, 8, 16)


# Depth and channels ----------------------------------------------------------------------------------------------


class Affine(nn.Module):
    """A generator that can be the identity, but is not at first."""

    def __init__(self):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.tensor(0.1))

    def forward(self, x):
        return self.scale * x + self.shift


class Identity(Pix2PixTrainer):
    """Learns the identity, by L1 alone."""

    def setup(self):
        super().setup()
        self.generator, self.average = Affine(), None
        self.g_optimizer = self.config.adam(self.generator)
        self.set_up_game(self.objective)


def test_a_16_bit_target_that_is_learnt_by_identity_keeps_more_than_8_bits(tmp_path):
    for index in range(3):
        picture = smooth(24, 24, 1, "uint16", seed=index)
        for side in "AB":
            write(tmp_path / side / "train" / f"{index}.png", picture)
            write(tmp_path / side / "val" / f"{index}.png", picture)
    settings = SMALL | {
        "preprocess": "none", "in_channels": 1, "out_channels": 1, "max_steps": 400, "validate_every": None,
        "weights": {"G_GAN": 0}, "learning_rate": "linear 2e-2 to 0", "examples_every": None, "flip": 0.0,
    }  # fmt: skip
    config = Pix2PixConfig(**settings)
    trainer = Identity(config, **Identity.load_data(config, tmp_path))
    assert (trainer.config.in_dtype, trainer.config.out_dtype) == ("uint16", "uint16")
    trainer.train()
    values, picture = trainer.config.output_values, smooth(24, 24, 1, "uint16", seed=1)
    with torch.no_grad():
        made = values.decode(trainer.generator(trainer.config.input_values.encode(picture)[None])[0])
    assert made.dtype == np.uint16 and len(np.unique(made)) > 400, "8 bits would have 256 at most"
    error = np.abs(made.astype(float) - picture).mean() / 65535
    assert error < 1 / 255 / 8, "8 bits are wrong by a quarter of a level on average"
    found = trainer.test_report(tmp_path / "test", trainer.validation_feed)
    assert found["l1"] == pytest.approx(trainer.validation_metrics["l1"])
    assert 0 < found["l1"] < 1 / 255 / 8 and found["psnr"] > 20 * np.log10(255 * 8)


def test_bands_in_and_deep_gray_out_from_files_to_a_run_and_back(tmp_path):
    data = tmp_path / "data"
    for split in ("train", "val"):
        for index in range(2):
            write(data / "A" / split / f"{index}.tif", smooth(20, 30, 6, "float32", seed=index))
            write(data / "B" / split / f"{index}.png", smooth(20, 30, 1, "uint16", seed=index))
    config = Pix2PixConfig(**SMALL, preprocess="none", in_channels=6, out_channels=1)
    trainer = Pix2PixTrainer(config, **Pix2PixTrainer.load_data(config, data), run_dir=tmp_path / "run")
    trainer.train()
    noted = load(trainer.run.path / "config.yaml")["config"]
    assert (noted["in_dtype"], noted["out_dtype"], noted["out_range"]) == ("float32", "uint16", None)
    every = np.concatenate([smooth(20, 30, 6, "float32", seed=index).ravel() for index in range(2)])
    assert noted["in_range"] == [float(every.min()), float(every.max())], "measured on what is trained on"
    found = trainer.test_report(tmp_path / "test", trainer.validation_feed)
    assert all(np.isfinite(found[name]) for name in ("l1", "psnr", "ssim"))
    shown = {path.name.split("-")[-1]: np.asarray(Image.open(path)) for path in (tmp_path / "test/pictures").iterdir()}
    assert shown["input.png"].shape == (20, 30, 3) and shown["target.png"].shape == (20, 30)
    assert all(np.ptp(picture) > 100 for name, picture in shown.items() if name != "output.png")
    with trainer.evaluating():
        assert trainer.examples()["translations"].dtype == np.uint8
    translator = Pix2PixTrainer.translators(trainer.run.path)["AtoB"]
    made = translator.translate(read_bands(data / "A" / "val" / "1.tif"))
    assert made.dtype == np.uint16 and made.shape == (20, 30, 1) and len(np.unique(made % 257)) > 50
    resumed = treadle.resume(trainer.run.path, trainer=Pix2PixTrainer, data=data, max_steps=3)
    resumed.train()
    assert resumed.progress.step == 3


@pytest.mark.parametrize("ending", [".png", ".tif", ".npy"])
def test_16_bits_are_read_cached_and_given_to_the_network_as_such(tmp_path, ending):
    root = joined(tmp_path, [(16, 16)] * 2, 3, "uint16", ending)
    data = Pix2PixTrainer.load_data(Pix2PixConfig(**SMALL, preprocess="none", flip=0.0), root)["data"]
    x, y = data[1]
    picture = smooth(16, 16, 3, "uint16", seed=2)
    expected = picture.transpose(2, 0, 1).astype(np.float64) / 65535 * 2 - 1
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-7)
    assert len(x.unique()) > 300 and y.dtype == torch.float32
    source = data.source

    class Gone:
        def __getattr__(self, name):
            raise AssertionError("the picture was not kept")

    size, data.source = 2 * 2 * 16 * 16 * 3, Gone()
    assert torch.equal(data[1][0], x)
    for room, kept in ((size, True), (size - 1, False)):  # in 16 bits, neither more nor less
        tight = PairedImages(source, 16, data.augmentation, cache_mb=room / 1e6, values=data.values)
        assert torch.equal(tight[1][0], x)
        tight.source = Gone()
        if kept:
            assert torch.equal(tight[1][0], x)
        else:
            with pytest.raises(AssertionError, match="not kept"):
                tight[1]


def test_a_range_of_ones_own_is_the_networks(tmp_path):
    root = joined(tmp_path, [(16, 16)], 1, "uint16")
    config = Pix2PixConfig(**SMALL, preprocess="none", in_channels=1, out_channels=1, in_range=[0, 4095])
    x, y = Pix2PixTrainer.load_data(config, root)["data"][0]
    assert x.max() == 1 and (x == 1).float().mean() > 0.5 and (y == 1).float().mean() < 0.5
    assert config.in_range == (0, 4095) and config.out_range is None


def test_8_bits_are_what_they_were_and_note_nothing(tmp_path):
    root = joined(tmp_path, [(20, 24)] * 2)
    config = Pix2PixConfig(**SMALL)
    data = Pix2PixTrainer.load_data(config, root)["data"]
    assert config == Pix2PixConfig(**SMALL)
    x, _ = data[0]
    expected = Image.fromarray(smooth(20, 24, 3, "uint8")).resize((16, 16), Image.Resampling.BICUBIC)
    assert torch.equal(x, torch.from_numpy(np.array(expected)).permute(2, 0, 1).float() / 127.5 - 1)


def test_a_type_that_is_asked_for_converts_the_files(tmp_path):
    root = joined(tmp_path, [(16, 16)], 3, "uint16")
    joined(root, [(16, 16), (16, 16)], 3, "uint8", splits=("val",))
    eight = Pix2PixConfig(**SMALL, preprocess="none", in_dtype="uint8", out_dtype="uint8")
    x, _ = Pix2PixTrainer.load_data(eight, root)["data"][0]
    levels = (x + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    config = Pix2PixConfig(**SMALL, preprocess="none")
    found = Pix2PixTrainer.load_data(config, root)
    assert config.in_dtype == "uint16"
    assert found["validation_data"][1][0].shape == (3, 16, 16), "held out in 8 bits: brought to 16"


@pytest.mark.parametrize(
    ("files", "settings", "message"),
    [
        (
            {"0.png": (3, "uint8"), "1.png": (3, "uint16"), "2.png": (3, "uint16")},
            {},
            r"differ in type, 1 are uint8, such as 0\.png and 2 are uint16, such as 1\.png: convert them, or .*in_d",
        ),
        (
            {"0.tif": (5, "uint8"), "1.tif": (5, "uint8")},
            {},
            r"2 of 2 .* 0\.tif has 5 channels where 3 are asked for \(in_channels, out_channels\)",
        ),
        (
            {"0.tif": (5, "uint8"), "1.tif": (3, "uint8")},
            {"in_channels": 5, "out_channels": 5},
            r"1 of 2 .* 1\.tif has 3 channels where 5 are asked for",
        ),
    ],
)
def test_mixed_depths_and_channels_are_said_with_the_remedy(tmp_path, files, settings, message):
    for name, (channels, dtype) in files.items():
        write(tmp_path / "train" / name, smooth(16, 32, channels, dtype))
    with pytest.raises(UsageError, match=message) as raised:
        Pix2PixTrainer.load_data(Pix2PixConfig(**SMALL | settings), tmp_path)
    assert "\n" not in str(raised.value)


def test_floats_that_are_all_equal_have_no_range(tmp_path):
    write(tmp_path / "train" / "a.npy", np.full((16, 32, 1), 2.5, np.float32))
    with pytest.raises(UsageError, match=r"every number of the pictures is 2\.5: say their range with in_range"):
        Pix2PixTrainer.load_data(Pix2PixConfig(**SMALL, in_channels=1, out_channels=1), tmp_path)


def test_unpaired_floats_of_two_types(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / f"{split}A" / "a.npy", smooth(16, 16, 2, "float32"))
        write(tmp_path / f"{split}B" / "b.png", smooth(16, 16, 1, "uint16"))
    settings = SMALL | {"in_channels": 2, "out_channels": 1, "weights": {"G_IDENTITY_A": 0, "G_IDENTITY_B": 0}}
    trainer = built(CycleGANTrainer, tmp_path, **settings)
    trainer.train()
    config = trainer.config
    assert (config.in_dtype, config.out_dtype) == ("float32", "uint16") and config.in_range[0] < -2.5
    found = trainer.test_report(tmp_path / "test", trainer.test_feed)
    assert np.isfinite(found["cycle"])


def test_files_of_many_bands_are_translated_by_the_command_too(tmp_path):
    data = tmp_path / "data"
    for split in ("train", "val"):
        for index in range(2):
            write(data / "A" / split / f"{index}.npy", smooth(20, 30, 6, "float32", seed=index))
            write(data / "B" / split / f"{index}.png", smooth(20, 30, 3, "uint16", seed=index))
    settings = SMALL | {"keep_generators": 3, "validate_every": "1 step"}
    config = Pix2PixConfig(**settings, preprocess="none", in_channels=6)
    trainer = Pix2PixTrainer(config, **Pix2PixTrainer.load_data(config, data), run_dir=tmp_path / "run")
    trainer.train()
    with trainer.evaluating():
        assert trainer.strips()["steps"].dtype == np.uint8
    exportable = Pix2PixTrainer.exportable(trainer.run.path)["generator"]
    assert exportable.shape == (6, 16, 16) and exportable.metadata["outputs"] == "uint16 from 0 to 65535, 3 channels"
    assert exportable.metadata["inputs"].startswith("float32 from -3 to 5, 6")
    translator = Pix2PixTrainer.translators(trainer.run.path)["AtoB"]
    done = translate_files(translator, data / "A" / "val", tmp_path / "out", format="png")
    assert sorted(path.name for path in done.written) == ["0.png", "1.png"] and not done.bad
    made = read_bands(done.written[0])
    assert made.dtype == np.uint16 and made.shape == (20, 30, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_index_maps_are_classes_and_can_be_looked_at(tmp_path, channels):
    numbers = np.random.default_rng(0).permutation(np.arange(24) % 6).reshape(4, 6).repeat(8, 0).repeat(8, 1)
    for split in ("train", "val"):
        write(tmp_path / "A" / split / "a.png", numbers[:, :, None].astype(np.uint8))
        write(tmp_path / "B" / split / "a.png", smooth(32, 48, 3, "uint8"))
    trainer = built(Pix2PixTrainer, tmp_path, classes="auto", preprocess="none", in_channels=channels)
    x, _ = trainer.validation_feed.dataset[0]
    assert x.shape == (6, 32, 48) and torch.equal(x.sum(0), torch.ones(32, 48))
    order = [int(color[1:3], 16) for color in trainer.config.classes.split()]
    np.testing.assert_array_equal(np.array(order)[x.argmax(0)], numbers)
    shown = trainer.config.input_values.shown(x)
    colors = np.unique(shown.reshape(-1, 3), axis=0).astype(int)
    assert len(colors) == 6 and min(abs(a - b).max() for i, a in enumerate(colors) for b in colors[:i]) > 40
    trainer.train()


def test_tensors_of_any_number_of_channels(tmp_path):
    data = tuple(torch.rand(3, channels, 12, 20) * 2 - 1 for channels in (7, 2))
    trainer = Pix2PixTrainer(data=data, validation_data=data, **SMALL, in_channels=7, out_channels=2)
    trainer.train()
    with trainer.evaluating():
        assert trainer.examples()["translations"].ndim == 3


FACADES = Path(__file__).parents[3] / "shared" / "data" / "pairs_facades"


@pytest.mark.skipif(not FACADES.is_dir(), reason="the shared facades are not on this machine")
def test_real_facades_as_rectangles_in_16_bits():
    config = Pix2PixConfig(**SMALL | {"size": [64, 96]}, direction="BtoA", in_dtype="uint16")
    x, y = Pix2PixTrainer.load_data(config, FACADES)["data"][0]
    assert x.shape == y.shape == (3, 64, 96)
    plain = Pix2PixTrainer.load_data(Pix2PixConfig(**SMALL | {"size": [64, 96]}, direction="BtoA"), FACADES)["data"]
    assert (plain[0][0] - x).abs().mean() < 2 / 255 and torch.equal(plain[0][1], y)
