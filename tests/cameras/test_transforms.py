from __future__ import annotations

import json
import math

import numpy as np
import pytest
from colmap_writer import noise, write

from treadle.cameras.distortion import Distortion
from treadle.cameras.splitting import Split
from treadle.cameras.transforms import blender_scene, single_scene
from treadle.errors import UsageError
from treadle.images.reading import BadPicture

# A camera at (1, 2, 3) that looks along the world's x, its own up along the world's z (OpenGL: looks along -z).
LOOKS_ALONG_X = [[0, 0, -1, 1], [-1, 0, 0, 2], [0, 1, 0, 3], [0, 0, 0, 1]]


def frame(path, **others):
    return {"file_path": path, "transform_matrix": LOOKS_ALONG_X, **others}


@pytest.fixture
def single(tmp_path):
    """Write transforms.json for pictures images/a.png, b.png and c.png of 24 x 16; keywords add to it."""

    def make(frames=None, **content):
        for seed, name in enumerate("abc"):
            write(tmp_path / "images" / f"{name}.png", noise(16, 24, 3, seed=seed))
        frames = [frame(f"images/{name}.png") for name in "cab"] if frames is None else frames
        content = {"fl_x": 30.0, "frames": frames} | content
        file = tmp_path / "transforms.json"
        file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
        return file

    return make


def test_poses_come_to_look_along_z_with_y_down(single):
    view = single_scene(single()).views[0]
    np.testing.assert_allclose(view.camera.center, [1, 2, 3])
    ahead_and_up = np.array([[5, 2, 3, 1], [1, 2, 9, 1], [1, 0, 3, 1]]).T
    np.testing.assert_allclose((view.camera.world_to_camera @ ahead_and_up)[:3].T, [[0, 0, 4], [0, -6, 0], [2, 0, 0]])


def test_views_are_sorted_by_name(single):
    scene = single_scene(single())
    assert [view.camera.name for view in scene.views] == ["images/a.png", "images/b.png", "images/c.png"]
    assert scene.views[0].picture.name == "a.png" and scene.split is None and scene.points is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, (30, 30, 12, 8)),
        ({"fl_y": 31.0, "cx": 11.5, "cy": 8.25, "w": 24, "h": 16}, (30, 31, 11.5, 8.25)),
        ({"w": 48, "h": 32, "cx": 23.0}, (15, 15, 11.5, 8)),
        ({"fl_x": None, "camera_angle_x": 2 * math.atan(12 / 30)}, (30, 30, 12, 8)),
        (
            {"fl_x": None, "camera_angle_x": 2 * math.atan(12 / 30), "camera_angle_y": 2 * math.atan(8 / 31)},
            (30, 31, 12, 8),
        ),
        ({"fl_x": None, "fl_y": 31}, (31, 31, 12, 8)),
    ],
)
def test_intrinsics_are_read_from_lengths_or_angles(single, content, expected):
    np.testing.assert_allclose(single_scene(single(**content)).views[0].camera.intrinsics, expected)


def test_a_frame_says_it_better_than_the_file(single):
    own = {"fl_x": 20.0, "fl_y": 21.0, "cx": 3.0, "cy": 4.0, "k1": 0.2, "camera_model": "OPENCV_FISHEYE", "k4": 0.1}
    a, b, _ = single_scene(
        single([frame("images/a.png", **own), frame("images/b.png"), frame("images/c.png")], k1=0.1)
    ).views
    assert a.camera.intrinsics == (20, 21, 3, 4) and a.distortion == Distortion("fisheye", (0.2, 0, 0, 0.1))
    assert b.camera.intrinsics == (30, 30, 12, 8) and b.distortion == Distortion("brown", (0.1, 0, 0, 0, 0))


def test_lenses_are_kept_counted_or_refused_by_name(single):
    scene = single_scene(single(k1=0.1, k2=0.2, p1=0.3, p2=0.4, k3=0.5, camera_model="OPENCV"))
    assert scene.views[0].distortion == Distortion("brown", (0.1, 0.2, 0.3, 0.4, 0.5))
    assert scene.notes == ["3 views of transforms.json were undistorted"]
    assert single_scene(single(k1=0, p1=0.0)).views[0].distortion is None
    assert single_scene(single(is_fisheye=True, k1=0.1)).views[0].distortion == Distortion("fisheye", (0.1, 0, 0, 0))
    for content, said in (
        ({"camera_model": "EQUIRECTANGULAR"}, "EQUIRECTANGULAR"),
        ({"ftheta_p0": 0.1}, "ftheta_p0"),
    ):
        with pytest.raises(
            UsageError, match=rf"frame 0 \(images/c\.png\) is of the camera model {said}, which is not und"
        ):
            single_scene(single(**content))
    with pytest.raises(UsageError, match=r"k4 is 0\.1, which OPENCV has no term for"):
        single_scene(single(k4=0.1))


def test_paths_may_lack_an_ending_or_come_from_windows(single):
    frames = [frame("./images/a"), frame("images\\b.png"), frame("./images/c.png")]
    scene = single_scene(single(frames))
    assert [view.camera.name for view in scene.views] == ["images/a.png", "images/b.png", "images/c.png"]
    assert all(view.picture.is_file() for view in scene.views)


def test_masks_depth_and_points_are_found(single, tmp_path):
    write(tmp_path / "masks" / "m.png", np.full((16, 24), 255, np.uint8))
    write(tmp_path / "masks" / "b.png", np.full((16, 24), 255, np.uint8))
    write(tmp_path / "depth.png", np.full((16, 24), 1500, np.uint16))
    (tmp_path / "cloud.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n1 2 3 4 5 6\n"
    )
    frames = [
        frame("images/a.png", mask_path="masks/m.png", depth_file_path="depth.png"),
        frame("images/b.png", depth_path="depth.png", integer_depth_scale=0.1),
        frame("images/c.png"),
    ]
    scene = single_scene(single(frames, ply_file_path="cloud.ply", aabb_scale=4))
    a, b, c = scene.views
    assert a.mask == tmp_path / "masks" / "m.png" and b.mask == tmp_path / "masks" / "b.png" and c.mask is None
    assert (a.depth_scale, b.depth_scale, c.depth) == (1e-3, 0.1, None) and a.depth == b.depth == tmp_path / "depth.png"
    assert scene.points.tolist() == [[1, 2, 3]] and scene.colors.tolist() == [[4, 5, 6]] and scene.aabb_scale == 4
    for key in ("mask_path", "depth_file_path"):
        with pytest.raises(UsageError, match=rf"frame 0 \(images/a\.png\): {key} names gone\.png, which is missing"):
            single_scene(single([frame("images/a.png", **{key: "gone.png"})]))


def test_the_file_may_split_its_views_itself(single):
    lists = {
        "train_filenames": ["images/c.png"],
        "val_filenames": ["images/a.png"],
        "test_filenames": ["./images/b.png"],
    }
    assert single_scene(single(**lists)).split == Split([2], [0], [1])
    assert single_scene(single(test_filenames=["images/a.png"])).split == Split([1, 2], [0], [0])
    with pytest.raises(UsageError, match=r"transforms\.json: test_filenames names 'images/d\.png', which is none of 3"):
        single_scene(single(test_filenames=["images/d.png"]))
    with pytest.raises(UsageError, match=r"transforms\.json: test_filenames is no list of names"):
        single_scene(single(test_filenames="images/a.png"))


def test_missing_pictures_are_an_error_unless_they_may_be_left_out(single):
    frames = [frame(f"images/{name}") for name in ("a.png", "x.png", "y.png", "b", "z", "w.png")]
    file = single(frames)
    with pytest.raises(
        UsageError, match=r"4 of 6 pictures of .*transforms\.json are missing: images/x\.png, .* and 1 more"
    ):
        single_scene(file)
    scene = single_scene(file, missing="skip")
    assert [view.camera.name for view in scene.views] == ["images/a.png", "images/b.png"]
    assert scene.notes[0].endswith("are missing: images/x.png, images/y.png, images/z and 1 more: left out")
    kept = single_scene(single(frames, test_filenames=["images/x.png", "images/b.png"]), missing="skip")
    assert kept.split == Split([0], [1], [1])
    with pytest.raises(UsageError, match=r"1 of 1 pictures of .* are missing: images/x\.png"):
        single_scene(single([frame("images/x.png")]), missing="skip")


NAN = [[float("nan"), 0, 0, 0], *LOOKS_ALONG_X[1:]]
TWICE = (2 * np.array(LOOKS_ALONG_X)).tolist()
MIRRORED = (np.array(LOOKS_ALONG_X) * [-1, 1, 1, 1]).tolist()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"transform_matrix": NAN},
            r"frame 0 \(images/a\.png\): transform_matrix is no 4 x 4 matrix of finite numbers",
        ),
        ({"transform_matrix": [[1, 2], [3]]}, r"transform_matrix is no 4 x 4 matrix"),
        ({"transform_matrix": None}, r"transform_matrix is no 4 x 4 matrix"),
        ({"transform_matrix": TWICE}, r"transform_matrix is no rotation and translation: .* scaled by 2 to 2; export"),
        ({"transform_matrix": MIRRORED}, r"its axes are mirrored"),
        ({"fl_x": "wide"}, r"frame 0 \(images/a\.png\): fl_x is 'wide': expected a number"),
        ({"fl_x": float("nan")}, r"fl_x is 'nan': expected a number"),
        ({"cx": 10**400}, r"cx is '10+': expected a number"),
        ({"transform_matrix": [[10**400] * 4] * 4}, r"transform_matrix is no 4 x 4 matrix"),
        ({"mask_path": "a\0b"}, r"mask_path names 'a\\x00b', which is missing"),
        ({"mask_path": "/"}, r"mask_path names /, which is missing"),
        ({"fl_x": -3}, r"has focal lengths -3, -3"),
        ({"fl_x": 0}, r"has no focal length: add fl_x, in pixels, or camera_angle_x, in radians"),
        (
            {"k1": 1e9},
            r"frame 0 \(images/a\.png\): a lens with the coefficients 1000000000\.0, .*: expected numbers of",
        ),
        ({"w": -24, "h": 16}, r"has a picture of -24 x 16 pixels"),
        ({"mask_path": 3}, r"mask_path is 3: expected the name of a file"),
        ({"file_path": "a\nb", "fl_x": "x"}, r"1 of 2 pictures of .* are missing: 'a\\nb'"),
        ({"file_path": 3}, r"frame 0 has no file_path: name its picture"),
        ({"file_path": ""}, r"frame 0 has no file_path: name its picture"),
    ],
)
def test_frames_that_cannot_be_are_refused(single, changes, said):
    with pytest.raises(UsageError, match=said) as caught:
        single_scene(single([frame("images/a.png") | changes, frame("images/b.png")]))
    assert "transforms.json" in str(caught.value) and "\n" not in str(caught.value)


def test_poses_written_with_few_digits_are_made_rotations(single):
    turn = 0.3
    rounded = np.round([[np.cos(turn), -np.sin(turn), 0, 0], [np.sin(turn), np.cos(turn), 0, 0], [0, 0, 1, 0]], 3)
    rotation = single_scene(single([frame("images/a.png") | {"transform_matrix": rounded.tolist()}])).views[0]
    axes = rotation.camera.world_to_camera[:3, :3]
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(axes[0], rounded[:, 0], atol=1e-3)


def test_a_picture_that_comes_twice_or_has_another_shape_is_refused(single):
    with pytest.raises(UsageError, match=r"transforms\.json: the picture images/a\.png comes more than once"):
        single_scene(single([frame("images/a.png"), frame("./images/a")]))
    with pytest.raises(BadPicture, match=r"a\.png is 24 x 16 pixels, and its camera in .*transforms\.json 20 x 20"):
        single_scene(single([frame("images/a.png", w=20, h=20)]))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"frames": [{"file_path"', r"is no JSON, from line 1, column \d+ on: it is damaged or something else"),
        (b"# Camera list\n1 PINHOLE", r"is no JSON, from line 1, column 1 on"),
        (b"\x89PNG\r\n\x1a\n\xff", r"is no JSON: it is damaged"),
        (b"[" * 100_000, r"is no JSON"),
        (b"[]", r"has no list of frames"),
        (b"{}", r"has no list of frames"),
        (b'{"frames": [1]}', r"has no list of frames"),
        (b'{"frames": []}', r"has no views, its list of frames is empty"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, content, said):
    (tmp_path / "transforms.json").write_bytes(content)
    with pytest.raises(UsageError, match=rf"transforms\.json {said}"):
        single_scene(tmp_path / "transforms.json")


# Blender ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def blender(tmp_path):
    def make(**names):
        for kind, views in names.items():
            for name in views:
                write(tmp_path / f"{name}.png", noise(16, 24, 4))
            content = {"camera_angle_x": 0.7, "frames": [frame(f"./{name}") for name in views]}
            (tmp_path / f"transforms_{kind}.json").write_text(json.dumps(content))
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("names", "split"),
    [
        ({"train": ["r_1", "r_0"], "val": ["r_2"], "test": ["r_3"]}, Split([0, 1], [2], [3])),
        ({"train": ["r_1", "r_0"], "test": ["r_3"]}, Split([0, 1], [2], [2])),
        ({"train": ["r_1", "r_0"], "val": ["r_3"]}, Split([0, 1], [2], [2])),
        ({"test": ["r_1", "r_0"]}, Split([], [0, 1], [0, 1])),
    ],
)
def test_blenders_files_split_the_views_and_keep_their_order(blender, names, split):
    scene = blender_scene(blender(**names))
    assert scene.split == split
    assert [view.camera.name for view in scene.views] == [f"{name}.png" for views in names.values() for name in views]


def test_a_train_file_alone_says_nothing_of_what_is_held_out(blender):
    scene = blender_scene(blender(train=["r_1", "r_0"]))
    assert scene.split is None and [view.camera.name for view in scene.views] == ["r_0.png", "r_1.png"]


def test_views_that_are_trained_on_and_held_out_are_counted(blender):
    assert blender_scene(blender(train=["a", "b"], test=["b", "c"])).notes == [
        "1 held-out views are trained on, too: their figures say little"
    ]


def test_a_missing_picture_names_the_file_that_wants_it(blender):
    root = blender(train=["a", "b"], test=["c", "d"])
    (root / "c.png").unlink()
    with pytest.raises(UsageError, match=r"1 of 2 pictures of .*transforms_test\.json are missing: c: put them back"):
        blender_scene(root)
