from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.errors import UsageError
from treadle.gans.augmentation import Augmentation


def rng(seed=0):
    return np.random.default_rng(seed)


def coded(side):
    """A picture whose pixels say where they are: (row, column, 0)."""
    rows, columns = np.indices((side, side))
    return np.stack([rows, columns, np.zeros_like(rows)], axis=2).astype(np.uint8)


@st.composite
def augmentations(draw):
    load = draw(st.integers(1, 24))
    return Augmentation(
        load_size=load,
        crop_size=draw(st.integers(1, load)),
        flip=draw(st.sampled_from([0.0, 0.5, 1.0])),
        rotate=draw(st.booleans()),
        jitter=draw(st.sampled_from([0.0, 0.3, 1.0])),
        noise=draw(st.sampled_from([0.0, 0.1])),
        blur=draw(st.sampled_from([0.0, 2.0])),
        label_input=draw(st.booleans()),
    )


@settings(max_examples=100, deadline=None)
@given(augmentations(), st.integers(0, 2**32), st.data())
def test_sizes_are_exact_and_the_generator_decides_all(augmentation, seed, data):
    def picture():
        height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
        channels = data.draw(st.sampled_from([1, 3, 4]))
        return rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)

    x, y = picture(), picture()
    before = x.copy(), y.copy()
    first, second = (augmentation(x, y, rng(seed)) for _ in range(2))
    side = augmentation.crop_size
    for given_, once, again in zip((x, y), first, second, strict=True):
        assert once.shape == (side, side, given_.shape[2])
        assert once.dtype == np.uint8
        np.testing.assert_array_equal(once, again)
    for given_, was in zip((x, y), before, strict=True):
        np.testing.assert_array_equal(given_, was)


@settings(max_examples=200, deadline=None)
@given(augmentations(), st.integers(0, 2**32))
def test_geometry_is_joint_and_the_crop_is_a_square_within(augmentation, seed):
    geometry, side = augmentation.geometry(), augmentation.crop_size
    picture = coded(augmentation.load_size)
    x, y = geometry(picture, picture.copy(), rng(seed))
    np.testing.assert_array_equal(x, y)
    rows, columns = np.sort(np.unique(x[..., 0])), np.sort(np.unique(x[..., 1]))
    for places in (rows, columns):
        np.testing.assert_array_equal(places, np.arange(places[0], places[0] + side))
        assert places[-1] < augmentation.load_size
    assert len(np.unique(x.reshape(-1, 3), axis=0)) == side * side


@settings(max_examples=50, deadline=None)
@given(augmentations(), st.integers(0, 2**32))
def test_the_target_is_the_same_whatever_is_done_to_the_input(augmentation, seed):
    x, y = coded(30), coded(30)[:, ::-1]
    moved = augmentation.geometry()(x, y, rng(seed))
    np.testing.assert_array_equal(augmentation(x, y, rng(seed))[1], moved[1])


def draws(augmentation, count=400):
    picture = coded(augmentation.load_size)
    return [augmentation(picture, picture, generator)[1] for generator in map(rng, range(count))]


def test_every_place_of_the_crop_is_as_probable():
    corners = [tuple(y[0, 0, :2]) for y in draws(Augmentation(load_size=10, crop_size=8, flip=0), 900)]
    counts = {corner: corners.count(corner) for corner in set(corners)}
    assert set(counts) == {(row, column) for row in range(3) for column in range(3)}
    assert all(60 < count < 140 for count in counts.values())


def test_flips_come_as_often_as_asked_for():
    for flip, low, high in ((0, 0, 0), (0.25, 70, 130), (1, 400, 400)):
        mirrored = [y[0, 0, 1] > y[0, -1, 1] for y in draws(Augmentation(load_size=8, crop_size=8, flip=flip))]
        assert low <= sum(mirrored) <= high
        assert all(y[0, 0, 0] < y[-1, 0, 0] for y in draws(Augmentation(load_size=8, crop_size=8, flip=flip), 10))


def test_all_quarter_turns_come_as_often():
    found = draws(Augmentation(load_size=8, crop_size=8, flip=0, rotate=True))
    for turns in range(4):
        assert 60 < sum(np.array_equal(y, np.rot90(coded(8), turns)) for y in found) < 140


def test_resizing_is_pillows_bicubic_with_antialiasing():
    from PIL import Image

    picture = rng().integers(0, 256, (40, 70, 3), dtype=np.uint8)
    resized = Augmentation(load_size=16, crop_size=16).resize(picture)
    expected = Image.fromarray(picture).resize((16, 16), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(resized, np.asarray(expected))
    assert resized.std() < picture.std() / 2  # antialiased: noise is averaged
    same = Augmentation(load_size=40, crop_size=8)
    assert same.resize(picture[:, :40]).base is picture


def test_labels_stay_labels_when_asked_for():
    labels = np.where(rng().random((40, 40, 1)) < 0.5, np.uint8(10), np.uint8(200)).repeat(3, axis=2)
    blended = Augmentation(load_size=30, crop_size=30)
    kept = Augmentation(load_size=30, crop_size=30, label_input=True)
    assert len(np.unique(blended(labels, labels, rng())[0])) > 2
    x, y = kept(labels, labels, rng())
    assert set(np.unique(x)) == {10, 200}
    assert len(np.unique(y)) > 2


def flat(value, side=64, channels=3):
    return np.full((side, side, channels), value, np.uint8)


def appearance(seed, picture, **settings):
    side = len(picture)
    augmentation = Augmentation(load_size=side, crop_size=side, flip=0, **settings)
    return augmentation(picture, picture, rng(seed))[0]


def test_noise_has_up_to_the_deviation_asked_for():
    deviations = [appearance(seed, flat(128), noise=0.1).std() / 255 for seed in range(60)]
    assert max(deviations) <= 0.102
    assert np.mean(deviations) == pytest.approx(0.05, abs=0.01)
    assert appearance(3, flat(128), noise=0.1).mean() == pytest.approx(128, abs=0.5)
    assert appearance(3, flat(255), noise=0.1).min() > 150  # clipped, not wrapped around


def test_brightness_varies_within_bounds():
    means = [appearance(seed, flat(100), jitter=0.2).mean() for seed in range(100)]
    assert 79 <= min(means) < 85
    assert 115 < max(means) <= 121


def test_contrast_and_saturation_vary():
    gray = np.linspace(60, 160, 64 * 64).reshape(64, 64, 1).astype(np.uint8)
    spread = [np.ptp(appearance(seed, gray, jitter=0.3).astype(int)) / 100 for seed in range(60)]
    assert min(spread) < 0.65
    assert max(spread) > 1.35
    dot = flat(0)
    dot[:4, :4] = 160, 100, 100  # in the dark, brightness and contrast change no ratio of colours
    ratios = []
    for seed in range(60):
        red, green, blue = appearance(seed, dot, jitter=0.3)[0, 0].astype(int)
        assert green == blue
        ratios.append(green / red)
    assert min(ratios) < 0.56
    assert max(ratios) > 0.68


def test_transparency_is_not_coloured():
    picture = flat(128, channels=4)
    picture[..., 3] = 77
    assert (appearance(1, picture, jitter=0.5)[..., 3] == 77).all()


def test_blur_has_up_to_the_deviation_asked_for():
    point = flat(0, 65, 1)
    point[32, 32] = 255
    spread = []
    for seed in range(40):
        weights = appearance(seed, point, blur=3.0)[..., 0].astype(float)
        offsets = np.arange(65) - 32
        spread.append(np.sqrt((weights.sum(0) * offsets**2).sum() / max(weights.sum(), 1)))
    assert min(spread) < 0.5
    assert 2.5 < max(spread) < 3.1


def test_geometry_is_all_that_pictures_share():
    everything = Augmentation(
        load_size=9, crop_size=8, flip=0.3, rotate=True, jitter=0.1, noise=0.1, blur=1, label_input=True
    )
    assert everything.geometry() == Augmentation(load_size=9, crop_size=8, flip=0.3, rotate=True)


def test_still_is_the_whole_picture():
    augmentation = Augmentation(
        load_size=20, crop_size=10, rotate=True, noise=0.5, jitter=0.5, blur=2, label_input=True
    )
    still = augmentation.still()
    assert (still.load_size, still.crop_size, still.label_input) == (10, 10, True)
    picture = coded(10)
    for seed in range(5):
        np.testing.assert_array_equal(still(picture, picture, rng(seed)), (picture, picture))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"load_size": 0}, "load_size is 0: expected a whole number of pixels"),
        ({"crop_size": 2.5}, "crop_size is 2.5"),
        ({"load_size": 100}, "crop_size is 256, but load_size 100"),
        ({"flip": 1.5}, "flip is 1.5: expected 0 to 1"),
        ({"jitter": -0.1}, "jitter is -0.1: expected 0 to 1"),
        ({"noise": float("nan")}, "noise is nan"),
        ({"blur": float("inf")}, "blur is inf"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(UsageError, match=message):
        Augmentation(**settings)


# Shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preprocess", "load", "crop", "resized", "made"),
    [
        ("resize_and_crop", 64, 48, (64, 64), (48, 48)),
        ("resize_and_crop", (40, 60), (32, 48), (40, 60), (32, 48)),
        ("crop", 300, 48, (100, 200), (48, 48)),
        ("crop", 1, (30, 200), (100, 200), (30, 200)),
        ("scale_width", 100, 64, (50, 100), (50, 100)),
        ("scale_width", 200, 64, (100, 200), (100, 200)),
        ("scale_width_and_crop", 100, 40, (50, 100), (40, 40)),
        ("scale_width_and_crop", 100, 64, (64, 100), (64, 64)),  # never too low to be cut, as the official code has it
        ("none", 300, 64, (100, 200), (100, 200)),
    ],
)
def test_shapes_are_those_of_the_official_repository(preprocess, load, crop, resized, made):
    augmentation = Augmentation(load_size=load, crop_size=crop, preprocess=preprocess, rotate=True)
    picture = np.dstack([coded(200)[:100]] * 2)[:, :, :5]
    assert augmentation.resize(picture).shape == (*resized, 5)
    for seed in range(4):
        x, y = augmentation(picture, picture.copy(), rng(seed))
        np.testing.assert_array_equal(x, y)
        assert x.shape == (*made, 5)
    assert augmentation.resized((100, 200)) == resized and augmentation.size((100, 200)) == made


@pytest.mark.parametrize(
    ("preprocess", "whole"),
    [
        ("resize_and_crop", (32, 48)),
        ("crop", (100, 200)),
        ("scale_width", (30, 60)),
        ("scale_width_and_crop", (30, 60)),
        ("none", (100, 200)),
    ],
)
def test_what_is_evaluated_is_whole_and_keeps_its_shape_where_training_does_not_change_it(preprocess, whole):
    crop = (20, 20) if preprocess == "scale_width_and_crop" else (32, 48)
    still = Augmentation(load_size=(40, 60), crop_size=crop, preprocess=preprocess, rotate=True, flip=1).still()
    picture = np.random.default_rng(0).integers(0, 65536, (100, 200, 1), np.uint16)
    whole = (*whole, 1)
    x, y = still(picture, picture, rng())
    assert x.shape == y.shape == whole and x.dtype == np.uint16
    np.testing.assert_array_equal(x, still.resize(picture))


def test_every_place_of_a_rectangle_is_as_probable():
    augmentation = Augmentation(load_size=(9, 10), crop_size=(8, 7), flip=0)
    picture = coded(10)[:9]
    corners = [tuple(augmentation(picture, picture, rng(seed))[1][0, 0, :2]) for seed in range(800)]
    counts = {corner: corners.count(corner) for corner in set(corners)}
    assert set(counts) == {(row, column) for row in range(2) for column in range(4)}
    assert all(60 < count < 140 for count in counts.values())


def test_rectangles_are_turned_upside_down_and_squares_to_every_side():
    picture = coded(8)[:4]
    augmentation = Augmentation(preprocess="none", flip=0, rotate=True)
    found = [augmentation(picture, picture, rng(seed))[1] for seed in range(200)]
    for turned in (picture, picture[::-1, ::-1]):
        assert 60 < sum(np.array_equal(y, turned) for y in found) < 140


def test_what_is_too_small_to_be_cut_is_said():
    augmentation = Augmentation(crop_size=(20, 50), preprocess="crop")
    picture = coded(40)
    with pytest.raises(UsageError, match="a picture of 40 x 40 pixels is too small to cut 50 x 20 from: choose"):
        augmentation(picture, picture, rng())
    for given_, message in (
        ({"preprocess": "squash"}, "preprocess is 'squash'"),
        ({"load_size": (20, 30), "crop_size": (10, 40)}, r"crop_size is \(10, 40\), but load_size \(20, 30\)"),
        ({"crop_size": (10, 0)}, r"crop_size is \(10, 0\): expected a whole number"),
    ):
        with pytest.raises(UsageError, match=message):
            Augmentation(**given_)
