from __future__ import annotations

import builtins
import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from treadle.errors import UsageError
from treadle.images.metrics import METRICS, l1, measure, psnr, psnr_of, ssim
from treadle.images.pixels import to_pixels

reference = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")


def tensor(picture):
    """uint8 (H, W, C) as the networks have it."""
    return torch.from_numpy(picture).movedim(-1, 0).float() / 127.5 - 1


def pair(seed=0, size=(24, 31), channels=3, noise=40):
    """A smooth picture and a noisy copy, uint8 (H, W, C)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(size)
    clean = 128 + 100 * np.sin(rows / 5 + np.arange(channels)[:, None, None]) * np.cos(columns / 7)
    noisy = clean + rng.normal(0, noise, clean.shape)
    return [np.moveaxis(values.clip(0, 255).astype(np.uint8), 0, -1) for values in (noisy, clean)]


def test_to_pixels_undoes_the_scaling_of_all_levels():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    np.testing.assert_array_equal(to_pixels(tensor(levels)), levels)
    np.testing.assert_array_equal(to_pixels(tensor(levels)[None].double())[0], levels)


def test_to_pixels_rounds_and_clips():
    values = torch.tensor([-3.0, -1.0, -1 + 0.49 / 127.5, -1 + 0.51 / 127.5, 1.0, 7.0, math.nan, math.inf])
    np.testing.assert_array_equal(to_pixels(values.reshape(1, 1, 8))[0, :, 0], [0, 0, 0, 1, 255, 255, 0, 255])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(7, 7), (24, 31), (64, 64)])
def test_as_scikit_image(channels, size):
    output, target = pair(size=size, channels=channels)
    x, y = output / 255.0, target / 255.0
    assert psnr(tensor(output), tensor(target)) == pytest.approx(
        reference.peak_signal_noise_ratio(y, x, data_range=1), abs=1e-9
    )
    expected = reference.structural_similarity(x, y, channel_axis=-1, data_range=1)
    assert ssim(tensor(output), tensor(target)) == pytest.approx(expected, abs=1e-9)
    assert l1(tensor(output), tensor(target)) == pytest.approx(np.abs(x - y).mean(), abs=1e-12)


def test_known_values():
    black, white = -torch.ones(3, 8, 8), torch.ones(3, 8, 8)
    assert l1(black, white) == 1
    assert psnr(black, white) == 0
    assert psnr(black, black) == math.inf
    assert ssim(white, white) == 1
    assert l1(black, black + 0.3 / 127.5) == 0  # rounded away
    assert l1(black, black + 1 / 127.5) == pytest.approx(1 / 255)
    assert psnr(black, black + 1 / 127.5) == pytest.approx(20 * math.log10(255))


def test_psnr_of_a_mean_squared_error():
    assert psnr_of(0.01) == pytest.approx(20)
    assert psnr_of(1.0) == 0
    assert psnr_of(0.0) == math.inf
    assert math.isnan(psnr_of(math.nan)) and math.isnan(psnr_of(-1.0))
    assert psnr_of(4.0, 255) == pytest.approx(psnr_of(4.0 / 255**2), abs=1e-9)
    error = 0.025
    assert psnr_of(error) == -10 * math.log10(error) != 10 * math.log10(1 / error)  # as it is in earlier runs' state


pictures = npst.arrays(np.uint8, npst.array_shapes(min_dims=3, max_dims=3, min_side=7, max_side=12))


@settings(max_examples=40, deadline=None)
@given(pictures, st.integers(0, 2**32 - 1))
def test_symmetric_bounded_and_best_for_equal_pictures(target, seed):
    output = np.random.default_rng(seed).integers(0, 256, target.shape, dtype=np.uint8)
    x, y = tensor(output), tensor(target)
    assert 0 <= l1(x, y) == l1(y, x) <= 1
    assert psnr(x, y) == psnr(y, x) >= 0
    assert ssim(x, y) == pytest.approx(ssim(y, x), abs=1e-9)
    assert -1 <= ssim(x, y) <= 1
    assert (l1(y, y), psnr(y, y)) == (0, math.inf)
    assert ssim(y, y) == pytest.approx(1)


def test_a_batch_gives_a_figure_for_each_picture():
    pairs = [pair(seed, noise=20 * (seed + 1)) for seed in range(3)]
    outputs, targets = (torch.stack([tensor(p[side]) for p in pairs]) for side in (0, 1))
    figures = measure(outputs, targets)
    assert list(figures) == ["l1", "psnr", "ssim"]
    for name, metric in METRICS.items():
        assert figures[name] == [metric(x, y) for x, y in zip(outputs, targets, strict=True)]
    assert figures["l1"] == sorted(figures["l1"])
    assert figures["ssim"] == sorted(figures["ssim"], reverse=True)


def test_a_picture_that_is_not_finite_measures_nan_and_only_it():
    outputs = torch.zeros(2, 3, 8, 8)
    outputs[1, 0, 0, 0] = math.nan
    figures = measure(outputs, torch.full((2, 3, 8, 8), 0.5))
    for values in figures.values():
        assert math.isfinite(values[0])
        assert math.isnan(values[1])


def test_refusals():
    with pytest.raises(UsageError, match=r"at least 7 x 7 pixels, these have 9 x 6"):
        ssim(torch.zeros(3, 6, 9), torch.zeros(3, 6, 9))
    with pytest.raises(UsageError, match=r"\(3, 8, 8\) cannot be compared with a target of \(1, 8, 8\)"):
        psnr(torch.zeros(3, 8, 8), torch.zeros(1, 8, 8))
    with pytest.raises(UsageError, match="one picture"):
        l1(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    with pytest.raises(UsageError, match=r"\(1, 3, 8, 8\) cannot be compared"):
        measure(torch.zeros(1, 3, 8, 8), torch.zeros(2, 3, 8, 8))
    with pytest.raises(UsageError, match="batch"):
        measure(torch.zeros(3, 8, 8), torch.zeros(3, 8, 8))


def test_without_scikit_image_one_line_says_what_to_install(monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("skimage"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"pip install 'treadle\[gans\]'"):
        ssim(torch.zeros(3, 8, 8), torch.zeros(3, 8, 8))
    assert psnr(torch.zeros(3, 8, 8), torch.ones(3, 8, 8)) > 0


def test_a_picture_of_128_pixels_takes_milliseconds():
    x, y = (tensor(picture)[None] for picture in pair(size=(128, 128)))
    measure(x, y)
    begin = time.process_time()
    for _ in range(100):
        measure(x, y)
    assert time.process_time() - begin < 5  # about 0.6 s here
