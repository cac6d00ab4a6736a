from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from treadle.cameras.colmap import MODELS, ColmapCamera, ColmapImage, pinhole, world_to_camera
from treadle.cameras.distortion import Distortion
from treadle.errors import UsageError

FILE = Path("cameras.bin")


def image(quaternion, translation=(0.0, 0.0, 0.0)):
    return ColmapImage(1, "a.jpg", 1, np.array(quaternion), np.array(translation), np.zeros((0, 2)), np.zeros(0, int))


@pytest.mark.parametrize(
    ("model", "values", "intrinsics", "lens"),
    [
        ("SIMPLE_PINHOLE", (5, 2, 3), (5, 5, 2, 3), None),
        ("PINHOLE", (5, 6, 2, 3), (5, 6, 2, 3), None),
        ("SIMPLE_RADIAL", (5, 2, 3, 0.1), (5, 5, 2, 3), Distortion("brown", (0.1,))),
        ("SIMPLE_RADIAL", (5, 2, 3, 0.0), (5, 5, 2, 3), None),
        ("RADIAL", (5, 2, 3, 0.1, 0.2), (5, 5, 2, 3), Distortion("brown", (0.1, 0.2))),
        ("OPENCV", (5, 6, 2, 3, 0.1, 0.2, 0.3, 0.4), (5, 6, 2, 3), Distortion("brown", (0.1, 0.2, 0.3, 0.4))),
        ("FULL_OPENCV", (5, 6, 2, 3, *range(1, 9)), (5, 6, 2, 3), Distortion("brown", tuple(range(1, 9)))),
        ("SIMPLE_RADIAL_FISHEYE", (5, 2, 3, 0.0), (5, 5, 2, 3), Distortion("fisheye", (0.0,))),
        ("RADIAL_FISHEYE", (5, 2, 3, 0.1, 0.2), (5, 5, 2, 3), Distortion("fisheye", (0.1, 0.2))),
        ("OPENCV_FISHEYE", (5, 6, 2, 3, 1, 2, 3, 4), (5, 6, 2, 3), Distortion("fisheye", (1, 2, 3, 4))),
    ],
)
def test_parameters_mean_what_the_model_says(model, values, intrinsics, lens):
    assert pinhole(ColmapCamera(1, model, 10, 10, values), FILE) == (intrinsics, lens)


@pytest.mark.parametrize("number", [7, 10, 11, 12, 13, 14, 15, 16, 17])
def test_exotic_models_are_refused_by_name(number):
    name, count = MODELS[number]
    with pytest.raises(UsageError, match=rf"cameras\.bin: camera 4 is of the model {name}, .*colmap image_undistorter"):
        pinhole(ColmapCamera(4, name, 10, 10, (0.0,) * count), FILE)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9])
def test_coefficients_that_no_lens_has_are_refused(value):
    with pytest.raises(
        UsageError, match=r"cameras\.bin: camera 4 is a lens with the coefficients 0\.1, .*: expected num"
    ):
        pinhole(ColmapCamera(4, "RADIAL", 10, 10, (5, 2, 3, 0.1, value)), FILE)


def test_a_pose_turns_as_its_quaternion_says_at_any_length():
    half = np.sqrt(0.5)
    pose = world_to_camera(image((3 * half, 0, 0, 3 * half), (1, 2, 3)), FILE)
    np.testing.assert_allclose(pose, [[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]], atol=1e-15)


@pytest.mark.parametrize(
    ("quaternion", "translation"),
    [
        ((0, 0, 0, 0), (0, 0, 0)),
        ((np.nan, 0, 0, 1), (0, 0, 0)),
        ((1, 0, 0, 0), (0, np.inf, 0)),
        ((1e200, 0, 0, 0), (0, 0, 0)),
    ],
)
def test_a_pose_that_is_none_is_refused(quaternion, translation):
    with pytest.raises(UsageError, match=r"images\.bin: the image 'a\.jpg' has no pose, .*: remove it, or run COLMAP"):
        world_to_camera(image(quaternion, translation), Path("images.bin"))
