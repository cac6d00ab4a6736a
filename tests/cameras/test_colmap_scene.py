from __future__ import annotations

import numpy as np
import pytest
from colmap_writer import CAMERA, HEIGHT, IMAGES, POINTS, WIDTH, noise, write

from treadle.cameras.colmap_scene import colmap_scene
from treadle.cameras.distortion import Distortion
from treadle.cameras.reading import read_capture
from treadle.errors import UsageError
from treadle.images.reading import BadPicture


def scene_of(root, **options):
    return colmap_scene(root, root / "sparse" / "0", **options)


@pytest.mark.parametrize("text", [False, True])
def test_views_are_paired_with_pictures_by_name_and_sorted(capture_folder, text):
    root = capture_folder(text=text)
    scene = scene_of(root)
    assert [view.camera.name for view in scene.views] == ["a.png", "b.png", "c.png"]
    assert [view.picture for view in scene.views] == [root / "images" / f"{name}.png" for name in "abc"]
    a, b, c = (view.camera for view in scene.views)
    assert a.size == (WIDTH, HEIGHT) and a.intrinsics == CAMERA[4]
    np.testing.assert_array_equal(b.world_to_camera[:3, 3], [0.1, 0, 0])
    # Half an angle of .2 about y: the x axis of the world points away from the camera.
    np.testing.assert_allclose(c.world_to_camera[:3, 0], [np.cos(0.4), 0, -np.sin(0.4)], atol=1e-12)
    assert scene.split is None and scene.notes == []


def test_points_are_those_of_each_view_by_number(capture_folder):
    scene = scene_of(capture_folder())
    np.testing.assert_array_equal(scene.points, [position for _, position, *_ in POINTS])
    assert scene.colors.tolist() == [list(color) for _, _, color, *_ in POINTS]
    a, b, c = (view.points for view in scene.views)
    np.testing.assert_array_equal(a, scene.points)
    np.testing.assert_array_equal(c, scene.points[:1])
    assert b.shape == (0, 3)


def test_the_points_of_a_photograph_lie_where_the_camera_sees_them(capture_folder):
    photograph = read_capture(capture_folder(), every=0).train[0]
    expected = [[11.5, 8.25, 4.0], [30 * 0.3 / 5 + 11.5, 31 * -0.2 / 5 + 8.25, 5.0]]  # the third one lies behind
    np.testing.assert_allclose(photograph.points, expected, rtol=1e-6)


def test_missing_and_unregistered_pictures_are_named_and_counted(capture_folder):
    root = capture_folder()
    (root / "images" / "b.png").unlink()
    for name in ("x", "y", "z", "u"):
        write(root / "images" / f"{name}.png", noise(4, 4, 3))
    scene = scene_of(root)
    assert [view.camera.name for view in scene.views] == ["a.png", "c.png"]
    np.testing.assert_array_equal(scene.views[1].camera.world_to_camera[:3, 3], [0.5, 0, 0])
    assert scene.notes == [
        f"1 of 3 images of {root / 'sparse/0/images.bin'} are not in {root / 'images'}: b.png: left out",
        "4 pictures in images/ are not registered in images.bin and left out: u.png, x.png, y.png and 1 more",
    ]
    with pytest.raises(
        UsageError, match=r"1 of 3 images of .* are not in .*: b\.png: put them back, or leave these views"
    ):
        scene_of(root, missing="refuse")


def test_no_picture_at_all_is_an_error(capture_folder):
    root = capture_folder(pictures="photos")
    with pytest.raises(
        UsageError, match=r"3 of 3 images of .*: a\.png, b\.png, c\.png: name the folder that holds the rec"
    ):
        scene_of(root)
    assert len(scene_of(root, images="photos").views) == 3


def test_pictures_of_another_size_scale_their_cameras(capture_folder):
    scene = scene_of(capture_folder(cameras=[(3, "PINHOLE", 48, 32, (60.0, 62.0, 23.0, 16.5))]))
    assert scene.views[0].camera.intrinsics == CAMERA[4]
    assert scene.notes == ["3 pictures have another size than their camera, which was scaled to it"]
    with pytest.raises(BadPicture, match=r"a\.png is 24 x 16 pixels, and its camera in .*cameras\.bin 48 x 48"):
        scene_of(capture_folder(cameras=[(3, "PINHOLE", 48, 48, (60.0, 62.0, 23.0, 16.5))]))


def test_lenses_are_kept_for_the_pictures_and_counted(capture_folder):
    scene = scene_of(capture_folder(cameras=[(3, "SIMPLE_RADIAL", WIDTH, HEIGHT, (30.0, 12.0, 8.0, 0.1))]))
    assert scene.views[0].distortion == Distortion("brown", (0.1,))
    assert scene.notes == ["3 views were undistorted (SIMPLE_RADIAL)"]


@pytest.mark.parametrize("model", ["FOV", "THIN_PRISM_FISHEYE", "RAD_TAN_THIN_PRISM_FISHEYE", "EUCM"])
def test_exotic_lenses_are_refused_by_name(capture_folder, model):
    count = {"FOV": 5, "THIN_PRISM_FISHEYE": 12, "RAD_TAN_THIN_PRISM_FISHEYE": 16, "EUCM": 6}[model]
    with pytest.raises(UsageError, match=rf"cameras\.bin: camera 3 is of the model {model}, which is not undistorted"):
        scene_of(capture_folder(cameras=[(3, model, WIDTH, HEIGHT, (30.0,) * count)]))


def test_masks_belong_to_their_picture(capture_folder):
    root = capture_folder()
    write(root / "masks" / "b.png.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    write(root / "masks" / "c.png", np.full((HEIGHT, WIDTH), 255, np.uint8))
    a, b, c = read_capture(root, every=0).train
    assert a.mask is None and not b.mask.any() and c.mask.all()


def test_points_at_one_place_count_once(capture_folder):
    again = (8, POINTS[0][1], (0, 0, 0), 0.1, [])
    scene = scene_of(capture_folder(points=[POINTS[2], again, *POINTS[:2]]))
    assert scene.points.tolist() == [list(POINTS[index][1]) for index in (2, 0, 1)]
    assert scene.colors[1].tolist() == [0, 0, 0]
    assert scene.notes == ["1 of 4 points lie where another one does, and were left out"]


def test_observations_of_points_that_are_gone_are_left_out(capture_folder):
    for kept, seen in ((POINTS[:1], [1, 0, 1]), (POINTS[::2], [2, 0, 1]), (POINTS[2:], [1, 0, 0])):
        scene = scene_of(capture_folder(points=kept))
        assert [len(view.points) for view in scene.views] == seen
        gone = 4 - sum(seen)
        assert scene.notes == [f"{gone} observations are of points that points3D.bin does not hold, and left out"]


def test_no_points_are_an_error_and_no_file_of_points_is_none(capture_folder):
    with pytest.raises(UsageError, match=r"points3D\.bin holds no points: .* or remove the file to start from random"):
        scene_of(capture_folder(points=[]))
    root = capture_folder()
    (root / "sparse/0/points3D.bin").unlink()
    scene = scene_of(root)
    assert scene.points is None and scene.views[0].points is None


@pytest.mark.parametrize(
    ("camera", "image", "said"),
    [
        (CAMERA, (5, (1.0, float("nan"), 0.0, 0.0), *IMAGES[0][2:]), r"images\.bin: the image 'c\.png' has no pose"),
        ((3, "PINHOLE", 24, 16, (30.0, -1.0, 1.0, 1.0)), IMAGES[0], r"cameras\.bin: camera 'a\.png' has focal lengths"),
        (
            (3, "PINHOLE", 0, 16, (30.0, 1.0, 1.0, 1.0)),
            IMAGES[0],
            r"cameras\.bin: camera 'a\.png' has a picture of 0 x",
        ),
    ],
)
def test_cameras_that_cannot_be_are_refused(capture_folder, camera, image, said):
    with pytest.raises(UsageError, match=said):
        scene_of(capture_folder(cameras=[camera], images=[image, *IMAGES[1:]]))


def test_a_reconstruction_without_images_is_refused(capture_folder):
    with pytest.raises(UsageError, match=r"images\.bin holds no images: COLMAP has registered none"):
        scene_of(capture_folder(images=[]))
