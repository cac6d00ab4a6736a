"""Label maps as classes: palettes given and found, nearest colours, planes of 0 and 1."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from treadle.errors import UsageError
from treadle.gans.labels import Palette, find_palette

COLORS = ((0, 0, 0), (128, 0, 0), (0, 0, 128), (128, 128, 0))
FACADES = Path(__file__).parents[2] / "../shared/data/pairs_facades/train"
LABELS = "#000000 #800000 #800080 #808000 #808080 #804000 #008080 #008000 #000080"  # as the data set's page has them


def label_map(seed: int = 0, size: int = 64) -> np.ndarray:
    """Rectangles of the four colours."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((size, size, 3), np.uint8)
    for _ in range(12):
        top, left = rng.integers(size - 12, size=2)
        picture[top : top + 12, left : left + 12] = COLORS[rng.integers(4)]
    return picture


def lossy(picture: np.ndarray, quality: int = 80) -> np.ndarray:
    """The picture after a JPEG file."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def nearest(picture: np.ndarray, colors: tuple[tuple[int, int, int], ...]) -> np.ndarray:
    """Classes by the distances, in float64."""
    distances = ((picture[:, :, None].astype(float) - np.array(colors, float)) ** 2).sum(-1)
    return distances.argmin(-1)


def test_classes_are_those_of_the_nearest_colours() -> None:
    noise = np.random.default_rng(3).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    palette = Palette(COLORS)
    np.testing.assert_array_equal(palette.indices(noise), nearest(noise, COLORS))
    assert palette.indices(noise).dtype == np.uint8


def test_classes_survive_a_lossy_file_but_for_edges() -> None:
    clean = label_map()
    kept = Palette(COLORS).indices(lossy(clean)) == nearest(clean, COLORS)
    assert kept.mean() > 0.97


def test_planes_are_one_where_the_class_is_and_show_its_colour() -> None:
    picture, palette = label_map(), Palette(COLORS)
    planes = palette.one_hot(picture)
    assert planes.shape == (4, 64, 64) and planes.dtype == torch.float32
    assert torch.equal(planes.sum(0), torch.ones(64, 64)) and set(planes.unique().tolist()) == {0.0, 1.0}
    np.testing.assert_array_equal(palette.shown(planes), picture)
    np.testing.assert_array_equal(palette.shown(planes.expand(2, -1, -1, -1)), [picture, picture])


def test_gray_maps_of_class_numbers_are_classes_too() -> None:
    numbers = np.random.default_rng(0).integers(0, 5, (16, 16, 1), dtype=np.uint8)
    palette = find_palette([numbers])
    assert sorted(palette.colors) == [(value, value, value) for value in range(5)]
    assert sorted(palette.colors[index][0] for index in np.unique(palette.indices(numbers))) == list(range(5))


def test_colours_are_written_and_read() -> None:
    palette = Palette(COLORS)
    assert str(palette) == "#000000 #800000 #000080 #808000"
    assert Palette.parse(str(palette)) == palette == Palette.parse("#000000,#800000, #000080,#808000")
    assert len(palette) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#000000", "1 colours of classes: expected 2 to 256"),
        ("#000000 red", "the colour 'red' of a class: expected '#rrggbb'"),
        ("#000000 #80000", "'#80000'"),
        ("#000000 #ff0000 #000000", "#000000 is named for two classes"),
    ],
)
def test_what_is_no_palette_is_said(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Palette.parse(text)


def test_the_colours_of_lossless_maps_are_all_found_the_most_frequent_first() -> None:
    maps = [label_map(seed) for seed in range(3)]
    maps[1][5, 5] = (1, 2, 3)  # one pixel
    palette = find_palette(maps)
    assert set(palette.colors) == {*COLORS, (1, 2, 3)}
    assert palette.colors[0] == (0, 0, 0) and palette.colors[-1] == (1, 2, 3)


def test_the_colours_of_lossy_maps_are_found() -> None:
    palette = find_palette(lossy(label_map(seed, 96)) for seed in range(6))
    assert len(palette) == 4
    for color in COLORS:
        assert np.abs(np.array(palette.colors) - color).max(1).min() <= 8


def test_photographs_have_no_classes() -> None:
    rng = np.random.default_rng(0)
    photo = np.asarray(Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((96, 96), 3))
    with pytest.raises(UsageError, match=r"no classes found in the input pictures: .* are they label maps"):
        find_palette([photo])


@pytest.mark.skipif(not FACADES.is_dir(), reason="the facades are not here")
def test_the_classes_of_real_label_maps_are_those_of_the_data_set() -> None:
    maps = (np.asarray(Image.open(file))[:, 256:] for file in sorted(FACADES.glob("*.jpg"))[::4])
    found = np.array(find_palette(maps).colors)
    known = np.array(Palette.parse(LABELS).colors)
    distances = np.abs(found[:, None] - known).max(-1)
    assert len(found) == 9 and distances.min(1).max() <= 2 and len(set(distances.argmin(1).tolist())) == 9
