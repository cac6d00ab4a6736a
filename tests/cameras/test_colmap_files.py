from __future__ import annotations

import string

import numpy as np
import pytest
from colmap_writer import (
    CAMERA,
    IDS,
    IMAGES,
    POINTS,
    cameras_bin,
    cameras_txt,
    images_bin,
    images_txt,
    points_bin,
    points_txt,
    write_model,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from treadle.cameras.colmap import MODELS
from treadle.cameras.colmap_binary import binary_cameras, binary_images, binary_points
from treadle.cameras.colmap_files import find_reconstruction, read_reconstruction
from treadle.cameras.colmap_text import text_cameras, text_images, text_points
from treadle.errors import UsageError

BINARY = {"cameras": (cameras_bin, binary_cameras), "images": (images_bin, binary_images)}
BINARY["points3D"] = (points_bin, binary_points)
TEXT = {"cameras": (cameras_txt, text_cameras), "images": (images_txt, text_images)}
TEXT["points3D"] = (points_txt, text_points)
EXAMPLES = {"cameras": [CAMERA, (4, "OPENCV", 5, 6, tuple(range(8)))], "images": IMAGES, "points3D": POINTS}

number = st.floats(allow_nan=False, allow_infinity=False)
name = st.text(string.ascii_letters + string.digits + "._-/é鹿", min_size=1, max_size=20).map(lambda text: f"{text} x")


def numbers(count):
    return st.tuples(*[number] * count)


@st.composite
def camera_rows(draw):
    model = draw(st.sampled_from(sorted(IDS)))
    count = dict(MODELS.values())[model]
    size = st.integers(1, 10**6)
    return draw(st.integers(-(2**31), 2**31 - 1)), model, draw(size), draw(size), draw(numbers(count))


observation = st.tuples(number, number, st.integers(-1, 2**60))
image_row = st.tuples(
    st.integers(0, 2**31 - 1), numbers(4), numbers(3), st.integers(0, 99), name, st.lists(observation, max_size=4)
)
color = st.tuples(*[st.integers(0, 255)] * 3)
track = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=3)
point_row = st.tuples(st.integers(0, 2**60), numbers(3), color, number, track)
quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_both(tmp_path, kind, rows):
    for table, ending in ((BINARY, ".bin"), (TEXT, ".txt")):
        write, read = table[kind]
        content = write(rows)
        file = tmp_path / f"{kind}{ending}"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        yield read(file)


@quick
@given(rows=st.lists(camera_rows(), max_size=4))
def test_cameras_are_read_as_they_were_written(tmp_path, rows):
    for cameras in read_both(tmp_path, "cameras", rows):
        assert [(c.id, c.model, c.width, c.height, c.parameters) for c in cameras] == rows


@quick
@given(rows=st.lists(image_row, max_size=4))
def test_images_are_read_as_they_were_written(tmp_path, rows):
    for images in read_both(tmp_path, "images", rows):
        assert [(i.id, tuple(i.quaternion), tuple(i.translation), i.camera, i.name) for i in images] == [
            row[:5] for row in rows
        ]
        for image, row in zip(images, rows, strict=True):
            np.testing.assert_array_equal(image.observed, np.array([o[:2] for o in row[5]]).reshape(-1, 2))
            assert image.points.tolist() == [o[2] for o in row[5]]


@quick
@given(rows=st.lists(point_row, max_size=4))
def test_points_are_read_as_they_were_written(tmp_path, rows):
    for points in read_both(tmp_path, "points3D", rows):
        assert points.ids.tolist() == [row[0] for row in rows]
        np.testing.assert_array_equal(points.positions, np.array([row[1] for row in rows]).reshape(-1, 3))
        np.testing.assert_array_equal(points.colors, np.array([row[2] for row in rows]).reshape(-1, 3))
        assert points.errors.tolist() == [row[3] for row in rows]


@pytest.mark.parametrize("kind", BINARY)
def test_a_binary_file_that_was_cut_off_anywhere_or_goes_on_is_refused(tmp_path, kind):
    write, read = BINARY[kind]
    whole, file = write(EXAMPLES[kind]), tmp_path / f"{kind}.bin"
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(UsageError, match=rf"{kind}\.bin .*: it is damaged, or no {kind}\.bin of COLMAP's; copy it"):
            read(file)
    file.write_bytes(whole + b"\0")
    with pytest.raises(UsageError, match="goes on for 1 bytes where it should end"):
        read(file)


@pytest.mark.parametrize("kind", TEXT)
def test_a_text_file_that_lost_lines_or_words_is_refused(tmp_path, kind):
    write, read = TEXT[kind]
    lines, file = write(EXAMPLES[kind]).splitlines(), tmp_path / f"{kind}.txt"
    entries = [line for line in lines if line and not line.startswith("#")]
    file.write_text("\n".join(lines[: lines.index(entries[-1])]))
    if kind != "images":  # where the last line is that of no observations
        with pytest.raises(UsageError, match=rf"{kind}\.txt says that it holds \d+ \w+ and holds \d+: it was cut off"):
            read(file)
    first = lines.index(entries[0])
    for line in (entries[0].rsplit(" ", 1)[0], "", entries[0].replace(" ", " x", 2)):
        file.write_text("\n".join([*lines[:first], line, *lines[first + 1 :]]))
        with pytest.raises(UsageError, match=rf"{kind}\.txt(, line \d+: expected| says that it holds)"):
            read(file)


@pytest.mark.parametrize("ending", [".bin", ".txt"])
def test_files_that_were_mixed_up_are_refused(tmp_path, ending):
    """Each file under the name of each other one, and of the other encoding."""
    contents = {f"{kind}.bin": BINARY[kind][0](EXAMPLES[kind]) for kind in BINARY}
    contents |= {f"{kind}.txt": TEXT[kind][0](EXAMPLES[kind]).encode() for kind in TEXT}
    contents["picture.png"] = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
    table = BINARY if ending == ".bin" else TEXT
    for kind in table:
        for other, content in contents.items():
            if other == f"{kind}{ending}":
                continue
            file = tmp_path / f"{kind}{ending}"
            file.write_bytes(content)
            with pytest.raises(UsageError, match=rf"{kind}\{ending}"):
                table[kind][1](file)


def test_a_model_that_nobody_knows_is_named(tmp_path):
    (tmp_path / "cameras.bin").write_bytes(cameras_bin([(1, 99, 10, 10, ())]))
    with pytest.raises(UsageError, match=r"cameras\.bin: camera 1 is of the model 99, which is none of COLMAP's"):
        binary_cameras(tmp_path / "cameras.bin")


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(
    ("cameras", "images", "points", "said"),
    [
        ([CAMERA, CAMERA], IMAGES, POINTS, r"cameras\.\w+: the camera number 3 comes more than once: remove"),
        ([CAMERA], [*IMAGES, (9, *IMAGES[0][1:])], POINTS, r"images\.\w+: the image 'c\.png' comes more than once"),
        ([CAMERA], [IMAGES[0], (5, *IMAGES[1][1:])], POINTS, r"images\.\w+: the image number 5 comes more than once"),
        (
            [CAMERA],
            IMAGES,
            [*POINTS, *POINTS],
            r"points3D\.\w+: the point number 7 comes more than once \(as do 2 more",
        ),
        ([(8, *CAMERA[1:])], IMAGES, POINTS, r"'c\.png' was taken with camera 3, which cameras\.\w+ does not hold"),
        ([CAMERA], IMAGES, [(1, (0.0, float("nan"), 0.0), (0, 0, 0), 0.1, [])], r"1 of 1 points lie nowhere"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, text, cameras, images, points, said):
    write_model(tmp_path, cameras, images, points, text)
    with pytest.raises(UsageError, match=said):
        read_reconstruction(tmp_path)


def test_binary_comes_before_text_and_points_may_be_missing(tmp_path):
    write_model(tmp_path, [CAMERA], IMAGES[:1], None, text=False)
    write_model(tmp_path, [CAMERA], IMAGES, POINTS, text=True)
    found = read_reconstruction(tmp_path)
    assert len(found.images) == 1 and found.points is None and found.cameras[3].model == "PINHOLE"
    (tmp_path / "images.bin").unlink()
    with pytest.raises(UsageError, match=r"images\.bin is missing: a reconstruction has cameras\.bin, images\.bin and"):
        read_reconstruction(tmp_path)
    (tmp_path / "cameras.bin").unlink()
    assert len(read_reconstruction(tmp_path).images) == 3


def test_a_reconstruction_is_found_where_tools_put_it(tmp_path):
    assert find_reconstruction(tmp_path) is None
    for place in (".", "colmap/sparse/0", "sparse", "sparse/0"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / "images.txt").touch()
        assert find_reconstruction(tmp_path) == tmp_path / place
