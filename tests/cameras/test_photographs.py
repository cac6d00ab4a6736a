from __future__ import annotations

import dataclasses
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from colmap_writer import noise, write
from PIL import Image

from treadle.cameras.camera import Camera
from treadle.cameras.distortion import Distortion
from treadle.cameras.keeping import Keeper
from treadle.cameras.photographs import PhotographFiles, View, read_depth, read_mask, same_shape, seen_points, size_of
from treadle.errors import UsageError
from treadle.images.reading import BadPicture


def camera(width=24, height=16, name="a.png"):
    return Camera(width, height, 30, 31, 11.5, 8.25, np.eye(4), name)


@pytest.fixture
def views(tmp_path):
    """Six views of noise."""
    for index in range(6):
        write(tmp_path / "images" / f"{index}.png", noise(16, 24, 3, seed=index))
    return [View(camera(name=f"{index}.png"), tmp_path / "images" / f"{index}.png") for index in range(6)]


def test_each_view_is_its_own_picture_with_its_camera(views):
    photographs = PhotographFiles(views)
    assert len(photographs) == 6 and [each.name for each in photographs.cameras] == [f"{n}.png" for n in range(6)]
    for index in (3, 0, 3):
        given = photographs[index]
        assert given.camera is views[index].camera or given.camera.name == f"{index}.png"
        np.testing.assert_array_equal(given.pixels, noise(16, 24, 3, seed=index))
        assert given.mask is None and given.depth is None and given.points.shape == (0, 3)
        assert given.pixels.flags.writeable and given.pixels.flags.c_contiguous
    with pytest.raises(IndexError):
        photographs[6]


def test_pictures_are_kept_within_the_bound_and_the_same_without_it(views):
    keeper = Keeper(3 * 16 * 24 * 3, size_of)
    bounded, free = PhotographFiles(views, keeper=keeper), PhotographFiles(views)
    order = np.random.default_rng(0).integers(0, 6, 60).tolist()
    with ThreadPoolExecutor(4) as pool:
        for index, one in zip(order, pool.map(lambda index: bounded[index], order), strict=True):
            np.testing.assert_array_equal(one.pixels, free[index].pixels)
    assert 0 < keeper.used <= 3 * 16 * 24 * 3
    assert bounded[order[0]] is bounded[order[0]]


def test_two_sets_of_one_keeper_do_not_mix(views):
    keeper = Keeper(10**6, size_of)
    one, two = PhotographFiles(views[:3], keeper=keeper), PhotographFiles(views[3:], keeper=keeper)
    small = PhotographFiles(views[:3], factor=2, keeper=keeper)
    assert one[0].camera.name == "0.png" and two[0].camera.name == "3.png"
    assert small[0].camera.size == (12, 8) and one[0].camera.size == (24, 16)


def test_a_factor_makes_pictures_and_cameras_smaller(views):
    small = PhotographFiles(views, factor=1.6)
    assert small.cameras[0].size == (15, 10) == small[0].camera.size
    assert small.cameras[0].intrinsics == small[0].camera.intrinsics
    np.testing.assert_allclose(
        small.cameras[0].intrinsics, (30 * 15 / 24, 31 * 10 / 16, 11.5 * 15 / 24, 8.25 * 10 / 16)
    )
    for factor in (0.5, float("nan"), float("inf")):
        with pytest.raises(UsageError, match=r"factor is .*: pictures are made smaller, so expected 1 or more"):
            PhotographFiles(views, factor=factor)


def test_a_lens_is_straightened_after_the_picture_was_made_smaller(views):
    lens = Distortion("brown", (0.3,))
    bent = [dataclasses.replace(view, distortion=lens) for view in views]
    assert not PhotographFiles(bent)[0].mask[0, 0]
    assert PhotographFiles(bent, factor=2)[0].mask.shape == (8, 12)
    none = [dataclasses.replace(view, distortion=Distortion("brown", (0.0,))) for view in views]
    np.testing.assert_array_equal(PhotographFiles(none)[0].pixels, noise(16, 24, 3))


def test_gray_becomes_colour_and_alpha_stays(tmp_path):
    write(tmp_path / "gray.png", noise(16, 24))
    write(tmp_path / "alpha.png", noise(16, 24, 4))
    gray, alpha = PhotographFiles([View(camera(), tmp_path / "gray.png"), View(camera(), tmp_path / "alpha.png")])
    np.testing.assert_array_equal(gray.pixels, np.repeat(noise(16, 24)[:, :, None], 3, axis=2))
    np.testing.assert_array_equal(alpha.pixels, noise(16, 24, 4))
    assert alpha.mask is None


def test_pictures_are_as_they_are_stored_unless_they_must_be_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path / "a.png", noise(16, 24, 3), exif=exif)
    stored = PhotographFiles([View(camera(), tmp_path / "a.png")])[0]
    turned = PhotographFiles([View(camera(16, 24), tmp_path / "a.png", upright=True)])[0]
    np.testing.assert_array_equal(stored.pixels, noise(16, 24, 3))
    np.testing.assert_array_equal(turned.pixels, np.rot90(noise(16, 24, 3), -1))


def test_black_is_masked_out_whatever_else_the_mask_holds(tmp_path):
    for index, values in enumerate(
        (np.eye(4, dtype=np.uint8), np.eye(4, dtype=np.uint8)[:, :, None] * (0, 9, 0), np.eye(4, dtype=np.uint16) * 300)
    ):
        write(tmp_path / f"{index}.png", values.astype(np.uint16 if values.dtype == np.uint16 else np.uint8))
        np.testing.assert_array_equal(read_mask(tmp_path / f"{index}.png", 4, 4), np.eye(4, dtype=bool))
    alpha = np.zeros((4, 4, 4), np.uint8)
    alpha[:, :, 3] = 255
    write(tmp_path / "alpha.png", alpha)
    assert not read_mask(tmp_path / "alpha.png", 4, 4).any()


def test_a_mask_of_another_resolution_is_fitted_and_of_another_shape_refused(tmp_path):
    values = np.zeros((8, 12), np.uint8)
    values[:, 6:] = 255
    write(tmp_path / "mask.png", values)
    mask = read_mask(tmp_path / "mask.png", 24, 16)
    assert mask.shape == (16, 24) and not mask[:, :12].any() and mask[:, 12:].all()
    with pytest.raises(BadPicture, match=r"mask\.png has 12 x 8 pixels, its photograph 16 x 24: make both of one size"):
        read_mask(tmp_path / "mask.png", 16, 24)


def test_depth_of_whole_numbers_is_scaled_and_what_is_not_known_is_0(tmp_path):
    write(tmp_path / "depth.png", np.array([[0, 1000], [2500, 65535]], np.uint16))
    np.testing.assert_allclose(read_depth(tmp_path / "depth.png", 1e-3, 2, 2), [[0, 1], [2.5, 65.535]], rtol=1e-6)
    floats = Image.fromarray(np.array([[np.nan, 1.5], [-1, np.inf]], np.float32))
    floats.save(tmp_path / "depth.tiff")
    assert read_depth(tmp_path / "depth.tiff", 1e-3, 2, 2).tolist() == [[0, 1.5], [0, 0]]
    write(tmp_path / "colour.png", noise(2, 2, 3))
    with pytest.raises(BadPicture, match=r"colour\.png has 3 channels; depth has one"):
        read_depth(tmp_path / "colour.png", 1, 2, 2)


def test_masks_and_depth_come_with_their_view(tmp_path, views):
    write(tmp_path / "mask.png", np.tri(16, 24, dtype=np.uint8) * 255)
    write(tmp_path / "depth.png", np.full((16, 24), 400, np.uint16))
    points = np.array([[0.0, 0.0, 4.0], [0, 0, -4.0]])
    view = dataclasses.replace(
        views[0], mask=tmp_path / "mask.png", depth=tmp_path / "depth.png", depth_scale=0.01, points=points
    )
    given = PhotographFiles([view], factor=2)[0]
    assert given.mask.shape == given.depth.shape == (8, 12) and given.mask[7, 0] and not given.mask[0, 11]
    assert (given.depth == 4).all() and given.points.tolist() == [[5.75, 4.125, 4.0]]


def test_points_are_those_in_front_and_inside():
    points = np.array([[0, 0, 4], [0, 0, -4], [9, 0, 4], [0, 0, 0], [0.4, 0.2, 2]], np.float64)
    np.testing.assert_allclose(seen_points(camera(), points), [[11.5, 8.25, 4], [17.5, 11.35, 2]], rtol=1e-6)


def test_the_fingerprint_is_of_contents_and_cameras_and_not_of_places(tmp_path, views):
    given = PhotographFiles(views).fingerprint()
    shutil.copytree(tmp_path / "images", tmp_path / "moved")
    moved = [dataclasses.replace(view, picture=tmp_path / "moved" / view.picture.name) for view in views]
    assert (
        PhotographFiles(moved).fingerprint()
        == given
        == pickle.loads(pickle.dumps(PhotographFiles(views))).fingerprint()
    )
    pose = np.eye(4)
    pose[0, 3] = 1e-9
    changes = [
        {"camera": dataclasses.replace(views[0].camera, world_to_camera=pose)},
        {"camera": dataclasses.replace(views[0].camera, cx=11.6)},
        {"camera": dataclasses.replace(views[0].camera, name="z")},
        {"picture": views[1].picture},
        {"mask": views[1].picture},
        {"depth": views[1].picture},
        {"depth_scale": 2.0},
        {"distortion": Distortion("brown", (0.1,))},
        {"distortion": Distortion("fisheye", (0.1,))},
        {"points": np.ones((1, 3))},
        {"upright": True},
    ]
    prints = [
        PhotographFiles([dataclasses.replace(views[0], **change), *views[1:]]).fingerprint() for change in changes
    ]
    prints += [given, PhotographFiles(views, factor=2).fingerprint(), PhotographFiles(views[::-1]).fingerprint()]
    assert len(set(prints)) == len(prints)


def test_files_that_go_bad_later_name_themselves(views):
    photographs = PhotographFiles(views)
    write(views[0].picture, noise(8, 8, 3))
    with pytest.raises(BadPicture, match=r"0\.png has 8 x 8 pixels and had 24 x 16 when its folder was read"):
        photographs[0]
    views[1].picture.unlink()
    with pytest.raises(BadPicture, match=r"1\.png does not exist"):
        photographs[1]
    with pytest.raises(BadPicture, match=r"1\.png cannot be read .*: put it back"):
        photographs.fingerprint()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ((480, 320), (480, 320), True),
        ((4000, 2667), (1000, 667), True),
        ((480, 320), (320, 480), False),
        ((480, 320), (480, 324), False),
        ((479, 320), (240, 160), True),
    ],
)
def test_sizes_of_one_picture_differ_by_rounding(one, other, same):
    assert same_shape(one, other) is same and same_shape(other, one) is same
