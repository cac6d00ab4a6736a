"""The best model's generator without its trainer: averaged weights, any size of picture, clear errors."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from treadle.config.files import dumps, load
from treadle.errors import UsageError
from treadle.gans.cyclegan import CycleGANTrainer
from treadle.gans.inference import generator_of, translate
from treadle.gans.pix2pix import Pix2PixTrainer
from treadle.gans.resnet import ResNetGenerator
from treadle.gans.unet import UNet
from treadle.runs.models import find_model

SMALL = {
    "size": 16, "features": 4, "d_features": 4, "patch": 16, "max_steps": 3, "batch_size": 2, "examples_every": None,
    "validate_every": None, "device": "cpu", "in_channels": 3, "out_channels": 1,
}  # fmt: skip


def pictures(channels, seed):
    return torch.rand(4, channels, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def trained(kind, run_dir, **settings):
    data = pictures(3, 0), pictures(settings.get("out_channels", 1), 1)
    trainer = kind(data=data, validation_data=data, run_dir=run_dir, **SMALL | settings)
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def paired(tmp_path_factory):
    return trained(Pix2PixTrainer, tmp_path_factory.mktemp("runs") / "paired")


@pytest.fixture(scope="module")
def unpaired(tmp_path_factory):
    weights = {"G_IDENTITY_A": 0, "G_IDENTITY_B": 0}
    return trained(CycleGANTrainer, tmp_path_factory.mktemp("runs") / "unpaired", weights=weights, blocks=1)


def best_of(trainer, model, x):
    """What the trainer's own generator makes of x in evaluation, where the last validation was the best."""
    assert trainer.best["step"] == trainer.progress.step
    with trainer.evaluating(), torch.no_grad():
        return model(x)


def test_it_is_what_was_validated(paired):
    model = Pix2PixTrainer.load_model(paired.run.path)
    assert isinstance(model, UNet) and not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    x = pictures(3, 2)
    torch.testing.assert_close(model(x), best_of(paired, paired.generator, x))
    with torch.no_grad():
        assert (model(x) - paired.generator.eval()(x)).abs().max() > 1e-5  # the average, not the weights in training


def test_both_ways_of_unpaired_translation(unpaired):
    path = unpaired.run.path
    there, back = CycleGANTrainer.load_model(path), CycleGANTrainer.load_model(path, "BtoA")
    assert isinstance(there, ResNetGenerator)
    assert (there.in_channels, there.out_channels, back.in_channels, back.out_channels) == (3, 1, 1, 3)
    a, b = pictures(3, 2), pictures(1, 3)
    torch.testing.assert_close(there(a), best_of(unpaired, unpaired.generator_ab, a))
    torch.testing.assert_close(back(b), best_of(unpaired, unpaired.generator_ba, b))


def test_loading_draws_no_random_numbers(paired):
    before = torch.get_rng_state()
    Pix2PixTrainer.load_model(paired.run.path)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 48), (21, 7), (1, 1), (40, 33)])
@pytest.mark.parametrize("model", [UNet(3, 1, features=2, downs=4), ResNetGenerator(3, 1, features=2, blocks=1)])
def test_a_picture_of_any_size_is_translated(model, height, width):
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    out = translate(model.eval(), picture)
    assert out.shape == (height, width, 1) and out.dtype == np.uint8
    if height % 16 == 0 and width % 16 == 0:
        with torch.no_grad():
            expected = model(torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1)
        np.testing.assert_array_equal(out[:, :, 0], ((expected[0, 0].numpy() + 1) * 127.5).round())


def test_a_picture_that_is_continued_is_not_moved(paired):
    """A generator that gives back its input: what comes out is what went in, wherever it was continued."""

    class Same(torch.nn.Module):
        in_channels = out_channels = 3
        multiple, least = 8, 16

        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, x):
            assert x.shape[2] % 8 == x.shape[3] % 8 == 0 and min(x.shape[2:]) >= 16
            return self.scale * x

    picture = np.random.default_rng(0).integers(0, 256, (11, 21, 3), np.uint8)
    np.testing.assert_array_equal(translate(Same(), picture), picture)


def test_other_channels_are_refused():
    model = UNet(3, 1, features=2, downs=2)
    with pytest.raises(UsageError, match="the picture has 4 channels: the generator takes 3"):
        translate(model, np.zeros((8, 8, 4), np.uint8))


def test_what_cannot_be_loaded_is_said(paired, unpaired, tmp_path):
    with pytest.raises(UsageError, match="has no final model yet"):
        Pix2PixTrainer.load_model(tmp_path)
    with pytest.raises(UsageError, match=r"the model has no 'generator'; did you mean"):
        found = find_model(unpaired.run.path, "best")
        generator_of(found, found.config(CycleGANTrainer.Config))
    changed = tmp_path / "changed"
    shutil.copytree(paired.run.path, changed)
    document = load(changed / "best_model" / "config.yaml")
    document["config"]["features"] = 5
    (changed / "best_model" / "config.yaml").write_text(dumps(document))
    with pytest.raises(
        UsageError, match="the generator of the final model, step 3 is not what its config describes: size mismatch"
    ) as raised:
        Pix2PixTrainer.load_model(changed)
    assert "\n" not in str(raised.value)
