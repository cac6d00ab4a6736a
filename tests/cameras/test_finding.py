from __future__ import annotations

import numpy as np
import pytest
from colmap_writer import noise, write
from PIL import Image

from treadle.cameras.camera import Camera
from treadle.cameras.finding import find_mask, find_pictures, fitted, listed
from treadle.errors import UsageError
from treadle.images.reading import BadPicture


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_pictures_are_found_by_name_in_the_folder_that_has_most_of_them(tmp_path):
    touch(tmp_path, "images/a.jpg", "images_4/a.jpg", "images_4/b.jpg", "images_10/a.jpg", "images_10/b.jpg", "b.jpg")
    found = find_pictures(tmp_path, ["b.jpg", "a.jpg", "c.jpg"])
    assert found.folder == tmp_path / "images_4"
    assert found.files == {name: tmp_path / "images_4" / name for name in ("b.jpg", "a.jpg")}
    assert found.missing == ["c.jpg"] and found.others == []
    assert find_pictures(tmp_path, ["a.jpg"]).folder == tmp_path / "images"
    assert find_pictures(tmp_path, ["b.jpg", "a.jpg"], "images_10").folder == tmp_path / "images_10"
    with pytest.raises(UsageError, match=r"images_8: no such folder of pictures; did you mean 'images_\d+'"):
        find_pictures(tmp_path, ["a.jpg"], "images_8")


def test_folders_below_count_and_what_is_not_asked_for_is_listed(tmp_path):
    touch(tmp_path, "images/left/1.jpg", "images/right/1.jpg", "images/10.png", "images/9.png", "images/notes.txt")
    touch(tmp_path, "images/.hidden.png")
    found = find_pictures(tmp_path, ["right/1.jpg", "left\\1.jpg"])
    assert found.files["right/1.jpg"] == tmp_path / "images" / "right" / "1.jpg"
    assert found.files["left\\1.jpg"] == tmp_path / "images" / "left" / "1.jpg"
    assert found.others == ["9.png", "10.png"]


def test_beside_the_reconstruction_only_the_folder_itself_is_listed(tmp_path):
    touch(tmp_path, "a.jpg", "z.jpg", "masks/a.jpg.png", "sub/b.jpg")
    found = find_pictures(tmp_path, ["a.jpg", "sub/b.jpg"])
    assert found.folder == tmp_path and found.others == ["z.jpg"] and found.missing == []


def test_another_ending_counts_where_it_is_clear(tmp_path):
    touch(tmp_path, "images/a.png", "images/b.png", "images/b.webp")
    found = find_pictures(tmp_path, ["a.JPG", "b.jpg"])
    assert found.files == {"a.JPG": tmp_path / "images" / "a.png"} and found.missing == ["b.jpg"]
    # What is the picture of one view is not that of another one as well.
    assert find_pictures(tmp_path, ["a.jpg", "a.png", "a.webp"]).missing == ["a.jpg", "a.webp"]
    assert find_pictures(tmp_path, ["a.jpg", "a.webp", "no\0file"]).missing == ["a.webp", "no\0file"]


@pytest.mark.parametrize("mask", ["a.jpg.png", "a.png"])
@pytest.mark.parametrize("name", ["a.jpg", "images/a.jpg", "./images_2/a.jpg"])
def test_a_mask_is_found_with_and_without_the_ending_of_its_picture(tmp_path, mask, name):
    assert find_mask(tmp_path, name) is None
    touch(tmp_path, f"masks/{mask}")
    assert find_mask(tmp_path, name) == tmp_path / "masks" / mask
    assert find_mask(tmp_path, "sub/a.jpg") is None


def test_a_camera_takes_the_size_of_its_picture_and_pictures_are_turned_only_where_nothing_else_fits(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    write(tmp_path / "a.jpg", noise(16, 24, 3), exif=exif)

    def camera(width, height):
        return Camera(width, height, 30, 31, width / 2, height / 2, np.eye(4))

    small, upright = fitted(camera(48, 32), tmp_path / "a.jpg", tmp_path)
    assert small.size == (24, 16) and small.intrinsics == (15, 15.5, 12, 8) and not upright
    turned, upright = fitted(camera(16, 24), tmp_path / "a.jpg", tmp_path)
    assert turned.size == (16, 24) and upright
    with pytest.raises(BadPicture, match=r"a\.jpg is 24 x 16 pixels, and its camera in .* 20 x 20: put back the"):
        fitted(camera(20, 20), tmp_path / "a.jpg", tmp_path)


def test_the_first_few_names_are_said():
    assert listed(["a", "b", "c\n"]) == "a, b, 'c\\n'"
    assert listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
