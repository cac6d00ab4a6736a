from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from colmap_writer import IMAGES, noise, write

from treadle.cameras.colmap_files import read_reconstruction
from treadle.cameras.reading import read_capture
from treadle.errors import UsageError

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared example data are not on this machine")


def transforms(root, names, file="transforms.json", **content):
    for name in names:
        if not (root / f"{name}.png").is_file():
            write(root / f"{name}.png", noise(16, 24, 4, seed=len(name)))
    frames = [{"file_path": name, "transform_matrix": np.eye(4).tolist()} for name in names]
    (root / file).write_text(json.dumps({"fl_x": 30, "frames": frames} | content))
    return root


def names(photographs):
    return [camera.name for camera in photographs.cameras]


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(("place", "pictures"), [("sparse/0", "images"), ("sparse", "images_2"), (".", ".")])
def test_colmap_is_read_wherever_its_files_lie(capture_folder, text, place, pictures):
    root = capture_folder(text=text, place=place, pictures=pictures)
    capture = read_capture(root, every=2)
    assert names(capture.train) == ["b.png"] and names(capture.test) == ["a.png", "c.png"]
    assert capture.validation is capture.test and len(capture.points) == len(capture.colors) == 3
    np.testing.assert_array_equal(capture.train[0].pixels, noise(16, 24, 3, seed=1))
    np.testing.assert_array_equal(capture.to_input, np.eye(4))


def test_every_8th_view_by_name_is_held_out_where_the_files_do_not_say(tmp_path):
    root = transforms(tmp_path, [f"{index:02d}" for index in reversed(range(10))])
    capture = read_capture(root)
    assert names(capture.test) == ["00.png", "08.png"] and len(capture.train) == 8
    assert len(read_capture(root, every=0).train) == 10 and len(read_capture(root, every=0).test) == 0
    (tmp_path / "transforms.json").rename(tmp_path / "transforms_train.json")
    assert names(read_capture(root).test) == ["00.png", "08.png"]


def test_the_files_own_split_goes_before_every_and_lists_before_all(tmp_path):
    root = transforms(tmp_path, "abcd", test_filenames=["c"])
    assert names(read_capture(root, every=2).test) == ["c.png"]
    (tmp_path / "held.txt").write_text("d\n")
    (tmp_path / "used.txt").write_text("a.png\nb.png\n")
    capture = read_capture(root, lists={"test": tmp_path / "held.txt", "train": tmp_path / "used.txt"})
    assert names(capture.test) == ["d.png"] and names(capture.train) == ["a.png", "b.png"]
    assert capture.notes == ("1 views are neither trained on nor held out",)


def test_the_first_format_counts_unless_another_is_named(capture_folder):
    root = capture_folder()
    transforms(root, "def")
    transforms(root, "gh", "transforms_train.json", camera_angle_x=1.0)
    capture = read_capture(root, every=0)
    assert names(capture.train) == ["g.png", "h.png"]
    assert capture.notes[0] == (
        f"read from transforms_train.json; not used: transforms.json; COLMAP's files in {root / 'sparse/0'}"
    )
    assert names(read_capture(root, every=0, format="transforms").train) == ["d.png", "e.png", "f.png"]
    assert names(read_capture(root, every=0, format="colmap").train) == ["a.png", "b.png", "c.png"]
    assert names(read_capture(root / "transforms.json", every=0).train) == ["d.png", "e.png", "f.png"]
    assert names(read_capture(root / "transforms_train.json", every=0).train) == ["g.png", "h.png"]


def test_factor_and_memory_reach_the_pictures(capture_folder):
    capture = read_capture(capture_folder(), factor=2, every=0, memory=0)
    assert capture.train[0].camera.size == (12, 8)
    assert capture.train[0] is not capture.train[0]
    kept = read_capture(capture_folder(), every=0)
    assert kept.train[0] is kept.train[0]


def test_an_alpha_channel_is_no_mask(tmp_path):
    view = read_capture(transforms(tmp_path, "ab"), every=0).train[0]
    assert view.pixels.shape == (16, 24, 4) and view.mask is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "colmab"}, r"format is 'colmab'; did you mean 'colmap'\?"),
        ({"format": "blender"}, r"holds no capture of the format blender: what is there is COLMAP's files in"),
        ({"missing": "ignore"}, r"missing is 'ignore'; known: refuse, skip"),
        ({"factor": 0}, r"factor is 0: pictures are made smaller, so expected 1 or more"),
        ({"every": 1}, r"every is 1: expected 0"),
        ({"memory": -5}, r"memory is -5"),
        ({"images": "photos"}, r"photos: no such folder of pictures"),
    ],
)
def test_settings_that_cannot_be_say_why(capture_folder, options, said):
    with pytest.raises(UsageError, match=said):
        read_capture(capture_folder(), **options)


def test_what_is_no_capture_is_said_to_be_none(tmp_path, capture_folder):
    with pytest.raises(UsageError, match=r"gone: no such folder: name one that holds pictures and cameras"):
        read_capture(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        UsageError, match=r"empty holds no capture: expected transforms\.json, .* or COLMAP's cameras\.bin"
    ):
        read_capture(tmp_path / "empty")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"notes\.txt is no capture: name a folder, or a transforms\.json"):
        read_capture(tmp_path / "notes.txt")
    root = transforms(capture_folder(), "de")
    with pytest.raises(UsageError, match=r"images is 'images': only COLMAP's pictures lie in a folder of one's choice"):
        read_capture(root, images="images")


def test_one_view_is_too_few(capture_folder, tmp_path):
    with pytest.raises(UsageError, match=r"images\.bin has one view whose picture is there: at least 2 are needed"):
        read_capture(capture_folder(images=IMAGES[:1]))
    with pytest.raises(UsageError, match=r"transforms\.json has one view"):
        read_capture(transforms(tmp_path, "a"))


def damage(root: Path, kind: str) -> None:
    """Harm every file of a capture in one way."""
    files = sorted(file for pattern in ("*.json", "**/*.bin", "**/*.txt") for file in root.glob(pattern))
    contents = [file.read_bytes() for file in files]
    for index, file in enumerate(files):
        if kind == "truncated":
            file.write_bytes(contents[index][: len(contents[index]) // 2])
        elif kind == "empty":
            file.write_bytes(b"")
        else:
            file.write_bytes(contents[index - 1] if len(files) > 1 else noise(99).tobytes())


@pytest.mark.parametrize("kind", ["truncated", "empty", "mixed up"])
@pytest.mark.parametrize("format", ["binary", "text", "transforms", "blender"])
def test_damaged_captures_are_refused_in_one_line_that_names_a_file(tmp_path, capture_folder, format, kind):
    if format in ("binary", "text"):
        root = capture_folder(text=format == "text")
    else:
        root = transforms(tmp_path, "abc", "transforms.json" if format == "transforms" else "transforms_train.json")
    read_capture(root)
    damage(root, kind)
    with pytest.raises(UsageError, match=r"(cameras|images|points3D|transforms\w*)\.(bin|txt|json)") as caught:
        read_capture(root)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


# Real captures ---------------------------------------------------------------------------------------------------


@needs_data
def test_plushdogs_points_are_seen_where_colmap_has_seen_them():
    """Also against pycolmap 4.2.1, once: the same cameras, names, points and observations, poses to 5e-16."""
    root = SHARED / "colmap_plushdog"
    capture = read_capture(root)
    assert len(capture.train) == 69 and len(capture.test) == 10 and len(capture.points) == 3579
    rebuilt = read_reconstruction(root / "sparse" / "0")
    places = dict(zip(rebuilt.points.ids.tolist(), rebuilt.points.positions, strict=True))
    cameras = {camera.name: camera for part in (capture.train, capture.test) for camera in part.cameras}
    errors = []
    for image in rebuilt.images:
        camera, known = cameras[image.name], image.points >= 0
        points = np.stack([places[point] for point in image.points[known].tolist()])
        x, y, depth = camera.world_to_camera[:3, :3] @ points.T + camera.world_to_camera[:3, 3:]
        seen = np.stack((x / depth * camera.fx + camera.cx, y / depth * camera.fy + camera.cy), axis=1)
        errors.append(np.linalg.norm(seen - image.observed[known], axis=1))
    assert len(cameras) == 79 and np.concatenate(errors).mean() < 0.3
    view = capture.train[0]
    assert view.pixels.shape == (320, 480, 3) and len(view.points) > 20
    assert ((view.points[:, :2] >= 0) & (view.points[:, :2] < (480, 320))).all() and (view.points[:, 2] > 1).all()


@needs_data
def test_spots_points_lie_on_what_its_cameras_see():
    capture = read_capture(SHARED / "nerf_spot")
    assert len(capture.train) == 80 and len(capture.test) == 20 and capture.notes == ()
    for index in (0, 31):
        view = capture.train[index]
        camera = view.camera
        x, y, depth = camera.world_to_camera[:3, :3] @ capture.points.T + camera.world_to_camera[:3, 3:]
        columns, rows = x / depth * camera.fx + camera.cx, y / depth * camera.fy + camera.cy
        assert (depth > 0).all()
        assert (view.pixels[rows.astype(int), columns.astype(int), 3] > 0).mean() > 0.98


@needs_data
def test_the_fox_is_undistorted_and_holds_its_scale():
    capture = read_capture(SHARED / "nerf_fox", factor=2)
    assert capture.aabb_scale == 4 and capture.notes == ("50 views of transforms.json were undistorted",)
    view = capture.train[0]
    assert view.camera.size == (135, 240) and 0.9 < view.mask.mean() < 1
    assert view.camera.fx == pytest.approx(343.88 / 2) and view.camera.cy == pytest.approx(241.317 / 2)


@needs_data
def test_a_copy_of_a_capture_has_its_fingerprint(tmp_path):
    shutil.copytree(SHARED / "nerf_spot", tmp_path / "copy", ignore=shutil.ignore_patterns("train", "*train.json"))
    copy, original = read_capture(tmp_path / "copy"), read_capture(SHARED / "nerf_spot")
    assert copy.test.fingerprint() == original.test.fingerprint() and len(copy.train) == 0
