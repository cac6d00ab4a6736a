from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.module import register_module_forward_hook

from treadle import Trainer
from treadle.errors import StateError, UsageError
from treadle.gans.perceptual import LAYERS, Perceptual
from treadle.testing import capture

# torchvision's vgg19().features: number of each convolution, its channels; a pooling follows the ReLUs of POOLED.
CONVOLUTIONS = {
    0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256),
    16: (256, 256), 19: (256, 512), 21: (512, 512), 23: (512, 512), 25: (512, 512), 28: (512, 512),
    30: (512, 512), 32: (512, 512), 34: (512, 512),
}  # fmt: skip
POOLED = (3, 8, 17, 26)
RELUS = {"relu1_1": 1, "relu1_2": 3, "relu2_2": 8, "relu3_1": 11, "relu3_3": 15, "relu4_1": 20, "relu5_1": 29}
SHALLOW = {"relu1_2": 1.0, "relu2_2": 0.5}


@pytest.fixture
def vgg(weights_file):
    """A function: a file of stand-ins with torchvision's names and shapes, for so many convolutions."""

    def write(convolutions=16, change=lambda tensors: None):
        with torch.device("meta"):
            network = nn.Module()
            network.features = nn.Module()
            for number, (inputs, outputs) in list(CONVOLUTIONS.items())[:convolutions]:
                network.features.add_module(str(number), nn.Conv2d(inputs, outputs, 3))
            network.classifier = nn.Linear(3, 3)  # the whole network's file has more than is needed
        return weights_file(network, change)

    return write


def by_hand(tensors, picture, last):
    """Outputs of the ReLUs up to number `last`, in float64."""
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).double()[:, :, None, None]
    x = ((picture.double() + 1) / 2 - mean) / deviation
    outputs = {}
    for number in CONVOLUTIONS:
        if number > last:
            break
        weight, bias = (tensors[f"features.{number}.{kind}"].double() for kind in ("weight", "bias"))
        x = outputs[number + 1] = functional.conv2d(x, weight, bias, padding=1).relu()
        if number + 1 in POOLED:
            x = functional.max_pool2d(x, 2)
    return outputs


@pytest.mark.parametrize("layers", [LAYERS, {"relu1_2": 1.0, "relu2_2": 1.0, "relu3_3": 1.0}])
def test_it_is_the_weighted_l1_of_features(vgg, noise, layers):
    tensors = {}
    path = vgg(change=tensors.update)
    fake, target = noise(0, (33, 16)), noise(1, (33, 16))
    known = {"relu2_1": 6, **RELUS}
    outputs = [by_hand(tensors, picture, known[list(layers)[-1]]) for picture in (fake, target)]
    parts = [w * (outputs[0][known[name]] - outputs[1][known[name]]).abs().mean() for name, w in layers.items()]
    assert min(parts) > 1e-4  # every layer counts in this comparison
    torch.testing.assert_close(Perceptual(path, layers)(fake, target).double(), sum(parts), rtol=1e-4, atol=0)


def test_gray_pictures_are_gray_colours(vgg, noise):
    perceptual = Perceptual(vgg(4), SHALLOW)
    fake, target = noise(0, (8, 8), channels=1), noise(1, (8, 8), channels=1)
    colours = perceptual(fake.expand(-1, 3, -1, -1), target.expand(-1, 3, -1, -1))
    torch.testing.assert_close(perceptual(fake, target), colours)
    assert perceptual(fake, fake) == 0


def test_it_pulls_a_picture_to_its_target(vgg, noise):
    perceptual = Perceptual(vgg(4), SHALLOW)
    target = noise(1, (12, 12))
    fake = noise(0, (12, 12)).requires_grad_()
    before = perceptual(fake, target)
    before.backward()
    with torch.no_grad():
        assert perceptual(fake - 2 * fake.grad / fake.grad.abs().max() * 0.05, target) < before


def test_under_autocast_the_result_is_a_float32_close_by(vgg, noise):
    perceptual = Perceptual(vgg(2), {"relu1_2": 1.0})
    fake, target = noise(0, (16, 16)), noise(1, (16, 16))
    plain = perceptual(fake, target)
    with torch.autocast("cpu", torch.bfloat16):
        low = perceptual(fake.bfloat16(), target)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, plain, rtol=0.02, atol=0)
    assert low != low.bfloat16()  # the mean was not rounded to half precision


def test_loading_draws_nothing_and_follows_pictures_to_their_device(vgg):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    perceptual = Perceptual(vgg(2), {"relu1_2": 1.0})
    assert torch.get_rng_state().equal(before)
    pictures = torch.zeros(1, 3, 4, 4, device="meta")  # a device that every machine has
    met = []
    with register_module_forward_hook(lambda module, *_: met.extend(module.parameters())):
        assert perceptual(pictures, pictures).is_meta
    assert met and all(parameter.is_meta for parameter in met)


def test_only_the_layers_in_use_need_be_in_the_file(vgg):
    Perceptual(vgg(2), {"relu1_2": 1.0})
    with pytest.raises(
        UsageError, match=r"does not hold the weights of VGG-19: it has no tensor 'features\.5\.weight'"
    ):
        Perceptual(vgg(2), {"relu2_1": 1.0})


def with_(name, value):
    return lambda tensors: tensors.update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("features.2.bias"), "it has no tensor 'features.2.bias'"),
        (
            with_("features.0.weight", torch.zeros(64, 1, 3, 3)),
            r"has the shape \(64, 1, 3, 3\), expected \(64, 3, 3, 3\)",
        ),
        (
            with_("features.0.bias", torch.full((64,), math.inf)),
            "'features.0.bias' has values that are NaN or infinite",
        ),
    ],
)
def test_files_of_other_networks_are_refused(vgg, change, message):
    with pytest.raises(UsageError, match=message) as caught:
        Perceptual(vgg(4, change), SHALLOW)
    assert "weights.safetensors" in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_safetensors_file_is_refused_with_the_way_to_make_one(tmp_path):
    torch.save({"features.0.bias": torch.zeros(4)}, tmp_path / "vgg19.pth")
    (tmp_path / "empty.safetensors").touch()
    for name in ("vgg19.pth", "empty.safetensors", "missing.safetensors"):
        with pytest.raises(UsageError, match=r"make it with .*save_file\(torchvision.models.vgg19\(") as caught:
            Perceptual(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_layers_and_none(tmp_path):
    with pytest.raises(UsageError, match=r"VGG-19 has no layer 'relu3_5'; did you mean 'relu3_4'\?"):
        Perceptual(tmp_path, {"relu3_5": 1.0})
    with pytest.raises(UsageError, match="no layer is given"):
        Perceptual(tmp_path, {})


def test_pictures_that_vgg_cannot_see(vgg):
    perceptual = Perceptual(vgg(4), SHALLOW)
    with pytest.raises(UsageError, match=r"have 4 channels, VGG-19 sees 3 \(RGB\) or 1"):
        perceptual(torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8))
    with pytest.raises(UsageError, match=r"relu2_2 needs 2 x 2 pixels at least, not 8 x 1"):
        perceptual(torch.zeros(1, 3, 8, 1), torch.zeros(1, 3, 8, 1))


class Copier(Trainer):
    """A picture that is pulled to the data by the perceptual loss alone."""

    path = None

    def setup(self):
        self.generator = nn.Conv2d(3, 3, 1)
        self.optimizer = torch.optim.SGD(self.generator.parameters(), lr=0.1)
        self.perceptual = Perceptual(self.path, {"relu1_2": 1.0})

    def step(self, batch):
        loss = self.perceptual(self.generator(batch), batch)
        self.minimize(loss)
        return {"loss": loss}


def test_in_a_trainer_it_is_neither_trained_nor_saved_but_recognized(vgg, tmp_path, monkeypatch):
    data, settings = torch.rand(8, 3, 4, 4), {"batch_size": 2, "seed": 1, "log_every": "1 step"}
    monkeypatch.setattr(Copier, "path", vgg(2))
    whole = Copier(data=data, max_steps=6, **settings)
    whole.train()
    first = Copier(data=data, max_steps=3, run_dir=tmp_path / "run", **settings)
    before = first.perceptual(data[:4], data[4:])
    first.train()
    assert first.perceptual(data[:4], data[4:]).equal(before)
    assert sum(tensor.numel() for tensor in capture(first).tensors.values()) < 10_000  # VGG's first two layers: 38,720
    resumed = Copier(data=data, max_steps=6, run_dir=first.run.path, resume=True, **settings)
    resumed.train()
    assert resumed.digest() == whole.digest()
    monkeypatch.setattr(Copier, "path", vgg(2, with_("features.2.bias", torch.zeros(64))))
    with pytest.raises(StateError, match="other VGG-19 weights than the saved run"):
        Copier(data=data, max_steps=9, run_dir=first.run.path, resume=True, **settings)
