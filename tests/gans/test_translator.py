"""Pictures of any size, depth and transparency: what a translator makes of them, whole and in tiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from treadle.errors import UsageError
from treadle.gans.inference import translate
from treadle.gans.resnet import ResNetGenerator
from treadle.gans.translator import Translator
from treadle.gans.unet import UNet
from treadle.gans.values import Values

RNG = np.random.default_rng(0)


class Negative(torch.nn.Module):
    """Turns pictures into their negatives, and notes the sizes that it was given."""

    def __init__(self, channels=None):
        super().__init__()
        self.channels, self.seen = channels, []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        return -x if self.channels is None else -x.mean(1, keepdim=True).expand(-1, self.channels, -1, -1)


def noise(*shape, dtype="uint8"):
    if dtype == "float32":
        return RNG.random(shape, np.float32)
    return RNG.integers(0, np.iinfo(dtype).max + 1, shape, dtype)


@pytest.mark.parametrize("pixels", [10**6, 800])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(("height", "width"), [(32, 48), (45, 70), (1, 1), (3, 200)])
def test_size_and_depth_are_kept_to_the_last_bit(pixels, dtype, height, width):
    translator = Translator(model=Negative(), multiple=8, least=16)
    picture = noise(height, width, 3, dtype=dtype)
    out = translator.translate(picture, pixels=pixels, overlap=8)
    assert out.dtype == picture.dtype
    np.testing.assert_array_equal(out, np.iinfo(dtype).max - picture)
    assert all(rows % 8 == columns % 8 == 0 and min(rows, columns) >= 16 and rows * columns <= max(pixels, 256)
               for _, _, rows, columns in translator.model.seen)  # fmt: skip


def test_floats_stay_floats():
    translator = Translator(model=Negative())
    picture = noise(9, 7, 3, dtype="float32")
    out = translator.translate(picture)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, 1 - picture, atol=1e-6)
    with pytest.raises(UsageError, match=r"holds values from 6 to 7, where the model's pictures have 0.0 to 1"):
        translator.translate(picture.round() + 6)


def test_that_16_bits_are_not_8_with_zeros():
    """A ramp of 256 steps between two neighbouring 8-bit levels comes out as 256 steps."""
    ramp = (np.arange(256, dtype=np.uint16) + 257 * 100)[None, :, None].repeat(3, 2)
    out = Translator(model=Negative()).translate(ramp)
    assert len(np.unique(out)) == 256


@pytest.mark.parametrize(
    ("inputs", "outputs", "given", "made"),
    [
        (Values(), Values(), "uint16", "uint16"),
        (Values(dtype="uint16"), Values(dtype="uint16"), "uint8", "uint8"),
        (Values(dtype="uint16", range=(0, 4095)), Values(dtype="uint16", range=(0, 4095)), "uint16", "uint16"),
        (Values(dtype="uint16", range=(0, 4095)), Values(dtype="uint16", range=(0, 4095)), "uint8", "uint16"),
        (Values(dtype="uint16", range=(0, 4095)), Values(), "uint16", "uint8"),
        (Values(dtype="float32", range=(-1000, 3000)), Values(), "float32", "uint8"),
        (Values(dtype="float32", range=(-1000, 3000)), Values(dtype="float32", range=(0, 1)), "float32", "float32"),
    ],
)
def test_a_type_or_range_of_their_own_is_what_outputs_have(inputs, outputs, given, made):
    translator = Translator(model=Negative(), inputs=inputs, outputs=outputs)
    assert translator.translate(noise(4, 5, 3, dtype=given)).dtype == made


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("pixels", [10**6, 300])
def test_alpha_is_kept_and_what_is_transparent_shows_white(dtype, pixels):
    white = np.iinfo(dtype).max
    picture = noise(20, 30, 4, dtype=dtype)
    picture[:, :10, 3], picture[:, 10:20, 3] = 0, white
    out = Translator(model=Negative()).translate(picture, pixels=pixels, overlap=4)
    assert out.shape == picture.shape
    np.testing.assert_array_equal(out[..., 3], picture[..., 3])
    assert (out[:, :10, :3] == 0).all()  # the negative of white
    np.testing.assert_array_equal(out[:, 10:20, :3], white - picture[:, 10:20, :3])


def test_alpha_belongs_to_the_model_where_it_takes_or_makes_it():
    picture = noise(6, 8, 4)
    both = Translator(model=Negative(), inputs=Values(channels=4), outputs=Values(channels=4))
    np.testing.assert_array_equal(both.translate(picture), 255 - picture)
    takes = Translator(model=Negative(3), inputs=Values(channels=4))
    assert takes.translate(picture).shape == (6, 8, 3)
    gray = Translator(model=Negative(1), outputs=Values(channels=1))
    assert gray.translate(picture).shape == (6, 8, 2) and gray.translate(picture[:, :, :3]).shape == (6, 8, 1)


def test_channels_become_those_of_the_model_or_are_refused():
    translator = Translator(model=Negative())
    gray = noise(6, 8, 1)
    np.testing.assert_array_equal(translator.translate(gray), 255 - gray.repeat(3, 2))
    with pytest.raises(UsageError, match="the picture has 5 channels, not 3"):
        translator.translate(noise(6, 8, 5))
    with pytest.raises(UsageError, match=r"int64 of shape \(6, 8, 3\): expected \(H, W, C\) uint8, uint16 or float32"):
        translator.translate(noise(6, 8, 3).astype(np.int64))


@pytest.mark.parametrize("model", [UNet(3, 3, features=2, downs=3), ResNetGenerator(3, 3, features=2, blocks=1)])
def test_it_is_what_translate_makes_of_one_picture(model):
    model = model.eval()
    translator = Translator(model=model, multiple=model.multiple, least=model.least)
    picture = noise(21, 35, 3)
    np.testing.assert_array_equal(translator.translate(picture), translate(model, picture))


def test_progress_of_tiles_goes_from_tile_to_tile_to_1():
    told = []
    Translator(model=Negative()).translate(noise(40, 40, 3), pixels=400, overlap=2, progress=told.append)
    assert len(told) > 4 and told == sorted(told) and told[-1] == 1
