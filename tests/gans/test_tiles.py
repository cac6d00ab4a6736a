"""Tiles: they cover every pixel once in all, and are the whole picture as far as the network's sight allows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import avg_pool2d

from treadle.errors import UsageError
from treadle.gans.resnet import ResNetGenerator
from treadle.gans.tiles import grid, has_instance_norm, parts, surveying, translate_tiles
from treadle.gans.unet import UNet

lengths = st.integers(1, 40)


@settings(deadline=None, max_examples=40)
@given(lengths, lengths, st.sampled_from([1, 2, 4]), st.integers(100, 1500), st.integers(0, 40))
def test_tiles_cover_every_pixel_once_in_all(down, across, multiple, pixels, overlap):
    height, width = down * multiple, across * multiple
    tiles = grid(height, width, pixels, overlap, multiple)
    for axis, length in ((tiles.rows, height), (tiles.columns, width)):
        total = torch.zeros(length)
        for index, start in enumerate(axis.starts):
            assert start % multiple == 0 and start + axis.side <= length
            total[start : start + axis.side] += axis.weights(index)
        torch.testing.assert_close(total, torch.ones(length))
        steps = [after - before for before, after in zip(axis.starts, axis.starts[1:], strict=False)]
        assert all(axis.side - step >= min(overlap, axis.side // 2) // multiple * multiple for step in steps)
    assert tiles.rows.side * tiles.columns.side <= pixels
    assert list(parts(tiles, multiple, 1)) and all(
        row.start >= 0 and row.stop <= height and column.start >= 0 and column.stop <= width
        for row, column in parts(tiles, multiple, 1)
    )


def test_tiles_are_as_large_as_they_may_be_whatever_the_pictures_shape():
    for height, width in ((3000, 3000), (64, 40000), (40000, 64), (2000, 5000)):
        tiles = grid(height, width, 1_000_000, 128, 16)
        assert tiles.rows.side * tiles.columns.side > 900_000


def test_too_few_pixels_for_a_tile_are_refused():
    with pytest.raises(UsageError, match=r"0.1 megapixels are too few: the network needs tiles of 512 x 512 .* 0.26"):
        grid(4096, 4096, 100_000, 256, 256)


def smooth(height, width, seed=0):
    noise = torch.randn(3, height, width, generator=torch.Generator().manual_seed(seed))
    picture = avg_pool2d(noise, 5, 1, 2)
    return picture / picture.abs().max()


def lively(model):
    """Weights that let all that a network sees reach its output, as training does."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.eval().parameters():
        if parameter.ndim == 4:
            parameter.data.normal_(0, (2 / parameter[0].numel()) ** 0.5, generator=generator)


def tiled(model, x, pixels, overlap, survey=False):
    """x translated in tiles, and how many there were."""
    tiles = grid(*x.shape[1:], pixels, overlap, model.multiple, model.least)
    out, rows = torch.full_like(x, torch.nan), []

    def write(down, made):
        rows.append((down.start, down.stop))
        out[:, down] = made

    with torch.inference_mode():
        if survey:
            model = surveying(model)
            sample = torch.stack([x[:, down, across] for down, across in parts(tiles, 4, 8)])
            assert sample.shape[0] * sample.shape[2] * sample.shape[3] <= pixels
            model(sample)
        translate_tiles(model, tiles, lambda down, across: x[:, down, across], write)
    assert [start for start, _ in rows] == [0] + [stop for _, stop in rows[:-1]]  # from top to bottom, each once
    return out, len(tiles)


@pytest.mark.parametrize(
    "model",
    [
        ResNetGenerator(3, 3, features=4, blocks=1, norm="batch"),
        UNet(3, 3, features=4, downs=2, norm="batch", upsampling="bilinear"),
        UNet(3, 3, features=4, downs=3, norm="none"),
    ],
)
def test_where_tiles_overlap_by_more_than_the_network_sees_they_are_the_whole_picture(model):
    lively(model)
    x = smooth(256, 384)  # of whole tiles, where they do not overlap
    with torch.inference_mode():
        whole = model(x[None])[0]
    out, count = tiled(model, x, 128 * 128, 80)
    assert count > 4
    torch.testing.assert_close(out, whole, atol=1e-4, rtol=0)
    without, _ = tiled(model, x, 128 * 128, 0)
    assert (without - whole).abs().max() > 0.01  # and with less they are not


def test_instance_norms_take_the_statistics_of_the_whole_picture():
    """A picture that is dark on one side: tile by tile both sides would become equally bright."""
    model = ResNetGenerator(3, 3, features=4, blocks=1).eval()
    lively(model)
    x = smooth(192, 384) * 0.3 + torch.linspace(-0.7, 0.7, 384)
    with torch.inference_mode():
        whole = model(x[None])[0]
    apart, _ = tiled(model, x, 96 * 96, 48)
    together, _ = tiled(model, x, 96 * 96, 48, survey=True)
    assert (together - whole).abs().mean() < 0.5 * (apart - whole).abs().mean()
    assert not any(name for name, _ in model.named_modules() if "Surveyed" in name)  # the model itself is untouched
    torch.testing.assert_close(model(x[None])[0], whole)


def test_a_survey_shares_the_weights_and_sees_a_batch_as_one_picture():
    model = UNet(3, 3, features=4, downs=3, norm="instance").eval()
    assert has_instance_norm(model) and not has_instance_norm(UNet(3, 3, features=4, downs=3))
    copied = surveying(model)
    assert {id(p) for p in copied.parameters()} == {id(p) for p in model.parameters()}
    x = smooth(64, 64)
    with torch.inference_mode():
        assert torch.allclose(copied(x[None]), model(x[None]), atol=1e-5)  # of one picture they are its own
        other = smooth(64, 64, seed=1) * 0.2
        assert not torch.allclose(copied(other[None]), model(other[None]), atol=1e-2)  # and stay
