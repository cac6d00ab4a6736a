"""Which files of a folder count, in which order, and what is said of those that cannot be used."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from treadle.errors import UsageError
from treadle.images.folders import list_pictures, natural, split_folder, usable_pictures


def pixels(channels, height=6, width=10, top=255, dtype=np.uint8):
    return np.linspace(0, top, height * width * channels).astype(dtype).reshape(height, width, channels)


def save(path, values, **options):
    Image.fromarray(values[:, :, 0] if values.ndim == 3 and values.shape[2] == 1 else values).save(path, **options)
    return path


# Listing ---------------------------------------------------------------------------------------------------------


def test_only_visible_pictures_count_and_numbers_sort_by_value(tmp_path):
    for name in (
        "10.jpg",
        "9.JPG",
        "b2.png",
        "B10.PNG",
        "notes.txt",
        ".hidden.jpg",
        "._9.jpg",
        "007.tif",
        "x.jpg.part",
    ):
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / ".thumbnails").mkdir()
    assert [path.name for path in list_pictures(str(tmp_path))] == ["007.tif", "9.JPG", "10.jpg", "b2.png", "B10.PNG"]


@given(st.lists(st.text(min_size=1, max_size=8), unique=True), st.randoms())
def test_the_order_of_names_does_not_depend_on_the_order_they_are_found_in(names, random):
    shuffled = list(names)
    random.shuffle(shuffled)
    assert sorted(shuffled, key=natural) == sorted(names, key=natural)


@given(st.lists(st.integers(0, 10**30)), st.sampled_from(["", "img_", "a1b"]))
def test_numbers_in_names_sort_as_numbers(numbers, before):
    names = [f"{before}{number}.png" for number in numbers]
    assert sorted(names, key=natural) == [f"{before}{number}.png" for number in sorted(numbers)]


def test_equal_numbers_written_differently_have_an_order():
    for names in (["01.png", "1.png", "A.png", "a.png"], ["a.png", "A.png", "1.png", "01.png"]):
        assert sorted(names, key=natural) == ["01.png", "1.png", "A.png", "a.png"]


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        ("train/1.png", "trian", r"trian: no such folder; did you mean 'train'\?"),
        ("b/1.png", "zzzzzz", r"zzzzzz: no such folder; folders there: b$"),
        ("train/1.png", "no/where", r"no such folder \(nor is there .*no\)"),
        ("train/1.png", "train/1.png", "is a file: name the folder"),
        ("train/deeper/1.png", "train", r"train holds no pictures: name one of its folders \(deeper\)"),
        ("train/notes.txt", "train", "train holds no pictures: pictures are files such as"),
    ],
)
def test_folders_without_pictures_say_what_to_do(tmp_path, make, name, message):
    path = tmp_path / make
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(UsageError, match=message) as caught:
        list_pictures(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_many_folders_are_not_all_listed(tmp_path):
    for index in range(100):
        (tmp_path / f"{index}").mkdir()
    with pytest.raises(UsageError, match=r"folders there: 0, 1, 2, 3, 4, 5, 6, 7, \.\.\.$"):
        list_pictures(tmp_path / "photographs")


def test_splits(tmp_path):
    (tmp_path / "train").mkdir()
    assert split_folder(tmp_path, "train") == tmp_path / "train"
    assert split_folder(tmp_path, "val") is None
    assert split_folder(tmp_path, "test") is None
    (tmp_path / "validation").mkdir()
    (tmp_path / "testB").mkdir()
    assert split_folder(tmp_path, "val") == tmp_path / "validation"
    assert split_folder(tmp_path, "test", "B") == tmp_path / "testB"
    with pytest.raises(UsageError, match=r"has no folder 'trainA' with .*; folders there: testB, train, validation$"):
        split_folder(tmp_path, "train", "A")
    (tmp_path / "trian_A").mkdir()
    with pytest.raises(UsageError, match=r"'trainA' .*; did you mean 'trian_A'"):
        split_folder(tmp_path, "train", "A")
    with pytest.raises(UsageError, match=r"unknown split 'tets'; did you mean 'test'"):
        split_folder(tmp_path, "tets")
    with pytest.raises(UsageError, match="no such folder"):
        split_folder(tmp_path / "nowhere", "val")


# Bad files -------------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path):
    """Three good pictures, five bad ones."""
    for index in (1, 2, 10):
        save(tmp_path / f"{index}.png", pixels(3))
    for index in (3, 4, 5, 6, 7):
        (tmp_path / f"{index}.png").touch()
    return tmp_path


def test_all_bad_files_are_refused_in_one_message(mixed):
    with pytest.raises(UsageError) as caught:
        usable_pictures(mixed)
    assert str(caught.value) == (
        f"5 of 8 pictures in {mixed} cannot be used: 3.png is empty (0 bytes), 4.png is empty (0 bytes), "
        "5.png is empty (0 bytes), and 2 more: mend or remove them, or leave them out with on_bad 'skip'"
    )


def test_bad_files_are_skipped_with_one_warning(mixed):
    with pytest.warns(UserWarning) as caught:
        files, skipped = usable_pictures(mixed, "skip")
    assert [file.name for file in files] == ["1.png", "2.png", "10.png"]
    assert skipped == ["3.png", "4.png", "5.png", "6.png", "7.png"]
    assert len(caught) == 1
    assert "5 of 8 pictures in" in str(caught[0].message)
    assert "and 2 more" in str(caught[0].message)


def test_nothing_is_left_of_bad_files_only(mixed):
    for index in (1, 2, 10):
        (mixed / f"{index}.png").unlink()
    with pytest.raises(UsageError, match=r"5 of 5 .* mend or remove them$"):
        usable_pictures(mixed, "skip")
    with pytest.raises(UsageError, match=r"on_bad is 'skipp'; did you mean 'skip'"):
        usable_pictures(mixed, "skipp")


def test_complaints_about_sizes_are_counted_too(mixed):
    with pytest.raises(UsageError, match=r"8 of 8 .* 1\.png is 10 by 6,"):
        usable_pictures(mixed, complaint=lambda header: f"is {header.width} by {header.height}")
