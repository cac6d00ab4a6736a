"""A picture in a mapped file: the same pixels as in memory, each once an epoch, and the same fit measured."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from treadle import testing
from treadle.errors import RunError, UsageError
from treadle.fields import image_trainer
from treadle.fields.hash_field import pixel_centres
from treadle.fields.image.tiles import SpreadFeed, TiledPicture, TileFeed
from treadle.fields.image_trainer import ImageTrainer
from treadle.images.display import write_png
from treadle.images.metrics import psnr_of
from treadle.images.picture import Picture, read_picture

SMALL = {"levels": 4, "log2_size": 10, "n_min": 4, "hidden": 16, "batch_size": 300, "device": "cpu",
         "learning_rate": "cosine 4e-2 to 1e-3"}  # fmt: skip


def picture(height: int, width: int, channels: int = 3, dtype: Any = np.uint8, seed: int = 0) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    if dtype == np.float32:
        return rng.normal(size=(height, width, channels)).astype(np.float32) * 20
    return rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)


def same(values: torch.Tensor) -> torch.Tensor:
    return values


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from([1, 3, 4]))
def test_every_pixel_is_found_at_its_place(height: int, width: int, channels: int) -> None:
    values = picture(height, width, channels)
    tiled = TiledPicture(values, "noise")
    indices = np.arange(len(tiled))
    rows, columns = tiled.places(indices)
    assert len(tiled) == height * width and len(set((rows * width + columns).tolist())) == height * width
    np.testing.assert_array_equal(tiled.values(indices), values[rows, columns] / np.float32(255))


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_values_are_those_of_a_picture_in_memory(dtype: Any, top: int) -> None:
    values = picture(5, 7, 3, dtype)
    tiled = TiledPicture(values, "noise")
    np.testing.assert_array_equal(tiled.values(np.arange(35)).reshape(5, 7, 3), values / np.float32(top))
    assert not tiled.linear and tiled.fingerprint() == TiledPicture(values.copy(), "other").fingerprint()
    values[4, 6, 2] ^= 1
    assert tiled.fingerprint() != TiledPicture(values, "noise").fingerprint()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(1, 150), st.integers(8, 5000), st.integers(0, 5))
def test_every_epoch_takes_each_pixel_once_in_batches_of_one_size(
    height: int, width: int, size: int, epoch: int
) -> None:
    feed = TileFeed(TiledPicture(np.zeros((height, width, 1), np.uint8), "black"), same, size)
    batches = [feed.plan(epoch)[number] for number in range(feed.batches)]
    assert sorted(pixel for batch in batches for pixel in batch.tolist()) == list(range(height * width))
    assert max(map(len, batches)) <= size and max(map(len, batches)) - min(map(len, batches)) <= 1
    assert feed.samples == height * width


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    tiled = TiledPicture(picture(90, 70), "noise")

    def order(epoch: int, seed: int) -> list[int]:
        return [int(index) for batch in TileFeed(tiled, same, 100, seed=seed).plan(epoch) for index in batch]

    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(epoch, seed)) for epoch in (0, 1) for seed in (1, 2)}) == 4


def test_points_and_targets_belong_together_and_are_spread() -> None:
    values = picture(96, 130)
    feed = TileFeed(TiledPicture(values, "noise"), same, 192)
    whole = pixel_centres(96, 130)
    points, targets = next(feed.iterate(0))
    places = [int(torch.nonzero((whole == point).all(1))) for point in points]
    np.testing.assert_array_equal(targets.numpy(), (values.reshape(-1, 3) / np.float32(255))[places])
    quarters = np.histogram2d(*points.numpy().T, bins=2, range=[[-1, 1], [-1, 1]])[0]
    assert quarters.min() > 24


def test_what_is_measured_is_spread_and_bounded() -> None:
    feed = TileFeed(TiledPicture(picture(64, 64), "noise"), same, 50)
    (batch,) = SpreadFeed(feed, 1000).iterate(0)
    assert len(batch[0]) == SpreadFeed(feed, 1000).samples == 820
    assert len(next(SpreadFeed(feed, 10**6).iterate(0))[0]) == 4096
    assert SpreadFeed(feed, 1000).fingerprint() != SpreadFeed(feed, 100).fingerprint()


def test_a_preview_is_the_mean_of_what_its_pixels_cover() -> None:
    values = picture(100, 140)
    small = TiledPicture(values, "noise").preview(50)
    assert small.values.shape == (34, 47, 3)
    np.testing.assert_allclose(small.values[3, 5], values[9:12, 15:18].mean((0, 1)) / 255, rtol=1e-5)
    np.testing.assert_allclose(small.values[33, 46], values[99:, 138:].mean((0, 1)) / 255, rtol=1e-5)


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A smooth picture that counts as large."""
    monkeypatch.setattr(image_trainer, "TILED", 1000)
    y, x = np.mgrid[0:70, 0:100] / 32
    values = np.stack([0.5 + 0.4 * np.sin(5 * x + 3 * y * (c + 1) + c) for c in range(3)], axis=2)
    write_png(tmp_path / "large.png", values)
    yield tmp_path / "large.png"


def test_a_large_picture_is_fitted_and_measured_whole(large: Path, tmp_path: Path) -> None:
    trainer = ImageTrainer(
        data=large, max_steps=150, run_dir=tmp_path / "run", examples_every="50%", decoder_rate=1.0, **SMALL
    )
    assert isinstance(trainer.picture, TiledPicture)
    trainer.train()
    found = trainer.report(tmp_path)
    whole = read_picture(large)
    mse = float(((trainer.model.picture().values - whole.values) ** 2).mean())
    assert found["psnr"] == pytest.approx(psnr_of(mse), abs=0.05) and found["psnr"] > 23
    assert found["values"] == 21000 and trainer.validation_metrics["psnr"] == pytest.approx(found["psnr"], abs=0.1)
    shown = read_picture(tmp_path / "fit.png")
    assert shown.size == (70, 100) and np.abs(shown.values - whole.values).mean() < 0.05
    assert read_picture(tmp_path / "comparison.png").size[0] > 70


def test_a_large_float_picture_keeps_its_range(tmp_path: Path) -> None:
    values = picture(40, 30, 3, np.float32)
    tiled, whole = TiledPicture(values, "noise"), Picture(values, True, "noise")
    assert tiled.linear and tiled.largest() == np.abs(values).max()
    trainers = [ImageTrainer(data=data, max_steps=2, **SMALL) for data in (tiled, whole)]
    assert trainers[0].model.peak == trainers[1].model.peak > 0
    trainers[0].train()
    trainers[1].model.load_state_dict(trainers[0].model.state_dict())
    reports = [trainer.report(tmp_path) for trainer in trainers]
    assert reports[0]["psnr"] == pytest.approx(reports[1]["psnr"], abs=1e-3)


def test_a_run_on_tiles_resumes_exactly(large: Path, tmp_path: Path) -> None:
    testing.check_resume(
        lambda **where: ImageTrainer(data=large, max_steps=40, **SMALL, **where), tmp_path / "runs", stops=[5, 24, 31]
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros((3, 3), np.uint8), "is no picture"),
        (np.zeros((0, 3, 3), np.uint8), "is no picture"),
        (np.zeros((3, 3, 2), np.uint8), "is no picture"),
        (np.zeros((3, 3, 3), np.float64), "expected uint8, uint16 or float32"),
        (np.full((3, 3, 3), np.nan, np.float32), "NaN or infinite"),
    ],
)
def test_what_is_no_picture_is_refused(values: NDArray[Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        TiledPicture(values, "x.png")


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RunError, match=r"x\.png needs 3 MB in .*: .*[Nn]o space left.*; make room"):
        TiledPicture(np.zeros((1024, 1024, 3), np.uint8), "x.png")
