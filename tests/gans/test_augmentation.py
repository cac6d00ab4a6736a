from __future__ import annotations

from dataclasses import fields, replace

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


STRENGTHS = {
    "elastic": [(0.5, 1.0), 2.0],
    "distortion": [0.4, (0.1, 0.3)],
    "cutout": [2.0, (1, 3)],
    "motion_blur": [5.0],
    "gamma": [0.5, (0.5, 2.0)],
    "jpeg": [20, (5.0, 30.0)],
}


@st.composite
def augmentations(draw, geometry=False):
    load = draw(st.integers(1, 24))
    strengths = {
        name: draw(st.sampled_from([0.0, *some]))
        for name, some in STRENGTHS.items()
        if not geometry or name in ("elastic", "distortion")
    }
    on = [name for name, strength in strengths.items() if strength]
    if geometry:
        return Augmentation(
            load_size=load, crop_size=load, flip=draw(st.sampled_from([0.0, 0.5])), rotate=draw(st.booleans()),
            vertical_flip=draw(st.sampled_from([0.0, 0.5])), elastic_sigma=5.0, **strengths,
        )  # fmt: skip
    return Augmentation(
        **strengths,
        vertical_flip=draw(st.sampled_from([0.0, 0.5])),
        elastic_sigma=draw(st.sampled_from([0.3, 4.0])),
        cutout_both=draw(st.booleans()),
        gray=draw(st.sampled_from([0.0, 0.5])),
        chances={name: draw(st.sampled_from([0.0, 0.5, 1.0])) for name in on if draw(st.booleans())},
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
    geometry, side = replace(augmentation.geometry(), elastic=0.0, distortion=0.0, chances={}), augmentation.crop_size
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
    augmentation = replace(augmentation, cutout_both=False)
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
    shared = {
        "flip": 0.3,
        "vertical_flip": 0.2,
        "rotate": True,
        "elastic": 2.0,
        "elastic_sigma": 9.0,
        "distortion": 0.1,
    }
    alone = {"jitter": 0.1, "gamma": 0.1, "gray": 0.2, "noise": 0.1, "blur": 1, "motion_blur": 4, "jpeg": 30}
    alone |= {"cutout": 2, "cutout_size": 0.1, "cutout_both": True, "label_input": True}
    sizes = {"load_size": 9, "crop_size": 8, "in_range": (0, 9), "out_range": (0, 2), "preprocess": "crop"}
    everything = Augmentation(**sizes, **shared, **alone, chances={"elastic": 0.1, "jpeg": 0.2})
    assert everything.geometry() == Augmentation(**sizes, **shared, chances={"elastic": 0.1})
    named = sizes.keys() | shared.keys() | alone.keys() | {"chances"}
    assert named == {each.name for each in fields(Augmentation)}, "each is one or the other"


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
        ({"blur": float("inf")}, "blur is inf: expected 0 or more, finite"),
        ({"vertical_flip": -0.5}, "vertical_flip is -0.5: expected 0 to 1"),
        ({"gray": 2}, "gray is 2: expected 0 to 1"),
        ({"elastic": -1.0}, "elastic is -1.0: expected 0 or more"),
        ({"elastic_sigma": 0.0}, "elastic_sigma is 0.0: expected a number of pixels above 0"),
        ({"jpeg": 101}, "jpeg is 101: expected 0 to 100"),
        ({"gamma": 1.5}, "gamma is 1.5: expected 0 to 1"),
        ({"noise": (0.2, 0.1)}, r"noise is \[0.2, 0.1\]: expected the least first, then the most"),
        ({"distortion": (-2.0, 0.1)}, r"distortion is \(-2.0, 0.1\): expected -1 to 1"),
        ({"chances": {"elastics": 0.5}}, "chances names 'elastics'; did you mean 'elastic'"),
        ({"chances": {"flip": 0.5}}, "chances names 'flip'"),
        ({"chances": {"elastic": 1.5}, "elastic": 1.0}, "chances.elastic is 1.5: expected 0 to 1"),
        ({"chances": {"elastic": 0.5}}, "elastic is 0, which is never: set elastic, too"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(UsageError, match=message):
        Augmentation(**settings)


# Deformation -----------------------------------------------------------------------------------------------------

KINDS = {"uint8": 255, "uint16": 65535, "float32": 1.0}


def marked(kind, side, places, channels=3):
    """A dark picture of a type, with white squares of three pixels around places."""
    picture = np.zeros((side, side, channels), kind)
    for row, column in places:
        picture[row - 1 : row + 2, column - 1 : column + 2] = KINDS[kind]
    return picture


@pytest.mark.parametrize("kinds", [("uint8", "uint8"), ("uint16", "float32"), ("float32", "uint8")])
@pytest.mark.parametrize("labels", [False, True])
@settings(max_examples=25, deadline=None)
@given(geometry=augmentations(geometry=True), seed=st.integers(0, 2**32), channels=st.integers(1, 6))
def test_what_is_at_one_place_in_both_stays_at_one_place_whatever_their_types(kinds, labels, geometry, seed, channels):
    geometry, side = replace(geometry, load_size=40, crop_size=33, label_input=labels), 33
    at = [(8, 9), (20, 30), (33, 13)]
    x, y = marked(kinds[0], 40, at, channels), marked(kinds[1], 40, at, 2)
    moved = geometry(x, y, rng(seed)) if geometry.load_size == 40 else None
    shares = [each[..., 0] / KINDS[kind] for each, kind in zip(moved, kinds, strict=True)]
    assert [(each.shape, each.dtype) for each in moved] == [
        ((side, side, channels), kinds[0]),
        ((side, side, 2), kinds[1]),
    ]
    if labels:
        assert set(np.unique(shares[0])) <= {0, 1}
        assert (np.abs(shares[0] - shares[1]) <= 0.76).all()  # nearest beside linear, at a border of the marker
    else:
        np.testing.assert_allclose(shares[0], shares[1], atol=0.003)
    for each in moved:
        assert all(np.array_equal(each[..., :1], each[..., index : index + 1]) for index in range(each.shape[2]))


def smooth(side):
    """Two channels that say where they are, as floats: the row and the column, in pixels."""
    return np.stack(np.indices((side, side)), axis=2).astype(np.float32)


def displacements(augmentation, count=30):
    """Where pixels come from, less where they are: (count, side, side, 2)."""
    side = augmentation.load_size
    places = smooth(side)
    return np.stack([augmentation.vary((places,), rng(seed))[0] - places for seed in range(count)])


def test_elastic_displacements_have_the_deviation_asked_for_and_are_as_smooth():
    """Oracle: noise smoothed by a Gaussian of sigma has exp(-d^2 / 4 sigma^2) as correlation over d pixels."""
    augmentation = Augmentation(load_size=96, crop_size=96, flip=0, elastic=(2.0, 2.0), elastic_sigma=6.0)
    inner = displacements(augmentation, 40)[:, 12:-12, 12:-12]
    assert inner.std((0, 1, 2)) == pytest.approx([2.0, 2.0], rel=0.06)
    assert np.abs(inner.mean((0, 1, 2))).max() < 0.25
    rows, columns = inner[..., 0], inner[..., 1]
    assert abs((rows * columns).mean()) < 0.5, "they are drawn apart"
    for distance in (3, 6, 12):
        for one in (rows, columns):
            found = (one[:, distance:] * one[:, :-distance]).mean() / (one**2).mean()
            assert found == pytest.approx(np.exp(-(distance**2) / (4 * 36)), abs=0.08)
    drawn = displacements(replace(augmentation, elastic=2.0), 60)[:, 12:-12, 12:-12].std((1, 2, 3))
    assert drawn.max() < 2.7 and drawn.min() < 0.4


def test_a_lens_moves_what_is_r_from_the_middle_by_k_r_cubed_and_on():
    places = smooth(65)
    for k in (0.3, -0.3):
        lens = Augmentation(load_size=65, crop_size=65, flip=0, distortion=(k, k))
        moved = lens.vary((places,), rng())[0] - places
        for row, column in ((32, 32), (32, 40), (20, 12), (40, 55)):
            offset = (np.array([row, column]) - 32) / 65
            square = (offset**2).sum()
            np.testing.assert_allclose(moved[row, column], 65 * offset * k * (square + square**2), atol=1e-3)
    either = [displacements(Augmentation(load_size=9, crop_size=9, flip=0, distortion=0.5), 40)[:, 4, 0, 1]]
    assert 5 < (np.array(either) > 0).sum() < 35


def test_beyond_the_border_is_the_mirror_image():
    lens = Augmentation(load_size=64, crop_size=64, flip=0, distortion=(1.0, 1.0))
    x = rng().integers(1, 256, (64, 64, 3), dtype=np.uint8)
    assert lens.vary((x,), rng())[0].min() > 0
    assert lens.vary((np.full((64, 64, 1), 7, np.uint16),), rng())[0].tolist() == np.full((64, 64, 1), 7).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_strength_0_changes_nothing(kind):
    x = (rng(1).random((12, 12, 5)) * KINDS[kind]).astype(kind)
    nothing = dict.fromkeys(("elastic", "distortion", "blur", "motion_blur", "noise"), (0.0, 0.0))
    unchanged = {"jitter": (1.0, 1.0), "gamma": (1.0, 1.0)}
    still = Augmentation(load_size=12, crop_size=12, flip=0, **nothing, **unchanged)
    for found in still.vary((x, x), rng()):
        assert found.dtype == kind
        np.testing.assert_allclose(found, x, atol=3e-6 if kind == "float32" else 0)
    off = Augmentation(load_size=12, crop_size=12, flip=0)
    assert all(found.base is x for found in off.vary((x, x), rng())), "what is not asked for costs nothing"


def test_upside_down_is_as_probable_as_asked_for():
    found = draws(Augmentation(load_size=8, crop_size=8, flip=0, vertical_flip=0.3))
    assert 90 < sum(y[0, 0, 0] > y[-1, 0, 0] for y in found) < 150
    assert all(y[0, 0, 1] < y[0, -1, 1] for y in found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("both", [False, True])
def test_rectangles_are_cut_out_of_the_input_and_where_asked_for_of_the_target(kind, both):
    x, y = np.full((40, 40, 3), KINDS[kind], kind), np.full((40, 40, 2), 9, np.uint16)
    cut = Augmentation(load_size=40, crop_size=40, flip=0, cutout=2, cutout_size=(0.1, 0.5), cutout_both=both)
    shares = []
    for seed in range(60):
        found, target = cut.vary((x, y), rng(seed))
        black = (found == 0).all(2)
        assert ((found == KINDS[kind]).all(2) | black).all()
        np.testing.assert_array_equal((target == 0).all(2), black if both else False)
        shares.append(black.mean())
    assert 0.01 <= min(shares) < 0.05 and 0.2 < max(shares) <= 0.5
    assert (x == KINDS[kind]).all() and (y == 9).all(), "the kept pictures are not cut into"
    own = Augmentation(load_size=9, crop_size=9, flip=0, cutout=1, in_range=(-3.0, 5.0), out_range=(2.0, 9.0))
    pair = np.ones((9, 9, 1), np.float32), np.full((9, 9, 1), 5, np.float32)
    assert [each.min() for each in replace(own, cutout_both=True).vary(pair, rng())] == [-3, 2]


# Appearance, in every type ---------------------------------------------------------------------------------------

LOOKS = [
    {"blur": (1.5, 1.5)}, {"motion_blur": (5.0, 5.0)}, {"jitter": 0.4}, {"gamma": (2.0, 2.0)}, {"gray": 1.0},
    {"noise": (0.1, 0.1)}, {"jpeg": (10, 10)},
]  # fmt: skip


@pytest.mark.parametrize("looks", LOOKS, ids=lambda looks: next(iter(looks)))
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_a_picture_looks_the_same_in_all_types_and_deep_ones_keep_their_depth(looks, channels):
    x = rng(2).integers(0, 256, (20, 24, channels), dtype=np.uint8)[:20, :20]
    augmentation = Augmentation(load_size=20, crop_size=20, flip=0, **looks)
    shares = {}
    for kind, white in KINDS.items():
        found = augmentation.vary(
            ((x / 255 * white).astype(np.float64).round(6 if white == 1 else 0).astype(kind),), rng(3)
        )
        assert (found[0].dtype, found[0].shape) == (np.dtype(kind), x.shape)
        shares[kind] = found[0] / white
    # Pillow, which 8 bits keep to, makes a Gaussian of boxes, and rounds between brightness, contrast and saturation.
    pillow = {"blur": 0.15, "jitter": 5 / 255}.get(next(iter(looks)), 0) if channels in (1, 3, 4) else 0
    np.testing.assert_allclose(shares["uint8"], shares["float32"], atol=max(pillow, 0.5 / 255 + 1e-4))
    np.testing.assert_allclose(shares["uint16"], shares["float32"], atol=2e-5)
    if channels == 4 and not ({"blur", "motion_blur"} & looks.keys()):
        np.testing.assert_allclose(shares["uint8"][..., 3], x[..., 3] / 255, atol=1e-6)
    if channels != 1 or "gray" not in looks:
        assert np.abs(shares["uint8"] - x / 255).max() > 0.03
    scaled = replace(augmentation, in_range=(-100.0, 300.0))
    ranged = scaled.vary(((x / 255 * 400 - 100).astype(np.float32),), rng(3))[0]
    np.testing.assert_allclose((ranged + 100) / 400, shares["float32"], atol=1e-4)


def test_gamma_is_a_power_and_gray_is_luma():
    x = rng().integers(0, 256, (16, 16, 3), dtype=np.uint8)
    dark = appearance(0, x, gamma=(2.0, 2.0))
    np.testing.assert_array_equal(dark, np.rint((x / 255) ** 2 * 255))
    powers = [np.log(appearance(seed, flat(128), gamma=0.5).mean() / 255) / np.log(128 / 255) for seed in range(80)]
    assert 0.49 < min(powers) < 0.55 and 1.45 < max(powers) < 1.51
    from PIL import Image

    luma = np.asarray(Image.fromarray(x).convert("L")).astype(int)
    gray = appearance(0, x, gray=1.0)
    assert np.abs(gray - luma[..., None]).max() <= 1
    assert np.abs(appearance(0, x[..., :2], gray=1.0) - x[..., :2].mean(2, keepdims=True)).max() <= 0.5
    grayed = sum(np.ptp(appearance(seed, x, gray=0.25), 2).max() == 0 for seed in range(200))
    assert 30 < grayed < 70


def test_jpeg_is_pillows_and_the_lowest_quality_the_one_asked_for():
    import io

    from PIL import Image

    x = rng().integers(0, 256, (32, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(x).save(file, "JPEG", quality=15)
    np.testing.assert_array_equal(appearance(0, x, jpeg=(15, 15)), np.asarray(Image.open(file)))
    ramp = np.rint(120 + 100 * np.sin(np.indices((32, 32)).sum(0) / 5))[..., None].astype(np.uint8)
    errors = [np.abs(appearance(seed, ramp, jpeg=20).astype(int) - ramp).mean() for seed in range(40)]
    worst = np.abs(appearance(0, ramp, jpeg=(20, 20)).astype(int) - ramp).mean()
    assert worst / 2 < max(errors) <= worst + 0.3 and min(errors) < worst / 3


def test_motion_blur_is_a_line_of_the_length_asked_for():
    point = np.zeros((41, 41, 1), np.float32)
    point[20, 20] = 1
    rows, columns = np.indices((41, 41)) - 20
    for seed in range(12):
        line = appearance(seed, point, motion_blur=(9.0, 9.0))[..., 0].astype(float)
        assert line.sum() == pytest.approx(1, abs=1e-5)
        along = [[(line * a * b).sum() for b in (rows, columns)] for a in (rows, columns)]
        across, length = np.sqrt(np.linalg.eigvalsh(along))
        assert length == pytest.approx(9 / np.sqrt(12), rel=0.08) and across < 0.5


def test_what_is_done_by_chance_is_done_as_often():
    x = flat(100, 8)
    for name, strength in (("gamma", (2.0, 2.0)), ("noise", (0.1, 0.1)), ("cutout", 1)):
        often = [
            not np.array_equal(appearance(seed, x, **{name: strength}, chances={name: 0.25}), x) for seed in range(200)
        ]
        assert 30 < sum(often) < 70


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
