from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from treadle.errors import UsageError
from treadle.images.picture import Picture, default_picture, read_picture

cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
Image = pytest.importorskip("PIL.Image")

SHARED = Path(__file__).parents[3] / "shared" / "data" / "images"


def ramp(channels, dtype=np.uint8, height=6, width=9):
    """A picture in which every pixel and channel differs, with channels in the order RGBA."""
    top = np.iinfo(dtype).max
    values = np.linspace(0, top, height * width * channels).astype(dtype).reshape(height, width, channels)
    return values


def check(path, expected, top):
    picture = read_picture(path)
    assert picture.values.dtype == np.float32
    assert not picture.linear
    assert picture.name == str(path)
    np.testing.assert_allclose(picture.values, expected / top, atol=1e-7)


# WebP has no gray, and Pillow writes no alpha into a BMP.
KINDS = [
    ("png", 1),
    ("png", 3),
    ("png", 4),
    ("tiff", 1),
    ("tiff", 3),
    ("tiff", 4),
    ("webp", 3),
    ("webp", 4),
    ("bmp", 3),
]


@pytest.mark.parametrize(("ending", "channels"), KINDS)
def test_eight_bits(tmp_path, ending, channels):
    path = tmp_path / f"picture.{ending}"
    values = ramp(channels)
    if ending == "webp" and channels == 4:
        values[..., 3] = 255 - values[..., 3] // 2  # where alpha is 0, WebP drops the colours
    Image.fromarray(values[:, :, 0] if channels == 1 else values).save(
        path, **({"lossless": True} if ending == "webp" else {})
    )
    check(path, values, 255)


@pytest.mark.parametrize("ending", ["png", "tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits(tmp_path, ending, channels):
    path = tmp_path / f"picture.{ending}"
    values = ramp(channels, np.uint16)
    order = [2, 1, 0, 3][:channels] if channels > 1 else [0]
    assert cv2.imwrite(str(path), values[:, :, order])
    check(path, values, 65535)


def test_jpeg_has_its_colours_in_order(tmp_path):
    path = tmp_path / "red.jpg"
    Image.new("RGB", (16, 16), (200, 40, 20)).save(path, quality=95)
    np.testing.assert_allclose(read_picture(path).values[8, 8] * 255, (200, 40, 20), atol=3)


def test_palettes_are_expanded(tmp_path):
    path = tmp_path / "palette.png"
    colours = Image.new("RGB", (8, 8), (10, 200, 30))
    colours.putpixel((0, 0), (250, 0, 0))
    colours.convert("P", palette=Image.Palette.ADAPTIVE).save(path)
    assert Image.open(path).mode == "P"
    values = read_picture(path).values * 255
    np.testing.assert_allclose(values[0, 0], (250, 0, 0), atol=1)
    np.testing.assert_allclose(values[4, 4], (10, 200, 30), atol=1)


def test_the_transparent_colour_of_a_palette_becomes_alpha(tmp_path):
    path = tmp_path / "clear.png"
    picture = Image.new("P", (8, 8), 0)
    picture.putpalette([10, 200, 30, 250, 0, 0])
    picture.putpixel((0, 0), 1)
    picture.save(path, transparency=0)
    values = read_picture(path).values * 255
    np.testing.assert_allclose(values[0, 0], (250, 0, 0, 255), atol=0.01)
    np.testing.assert_allclose(values[4, 4], (10, 200, 30, 0), atol=0.01)


def test_gray_with_alpha_becomes_colour_with_alpha(tmp_path):
    path = tmp_path / "la.png"
    Image.new("LA", (8, 8), (100, 50)).save(path)
    values = read_picture(path).values * 255
    assert values.shape == (8, 8, 4)
    np.testing.assert_allclose(values[3, 3], (100, 100, 100, 50), atol=0.01)


def test_one_bit(tmp_path):
    path = tmp_path / "bits.png"
    Image.fromarray(np.eye(8, dtype=bool)).save(path)
    np.testing.assert_array_equal(read_picture(path).values[:, :, 0], np.eye(8))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    from PIL import ImageOps

    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(ramp(3)).save(path, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    check(path, expected, 255)


@pytest.mark.parametrize("names", ["RGB", "RGBA", "Y", "Z"])
def test_exr_keeps_linear_values(tmp_path, names):
    OpenEXR = pytest.importorskip("OpenEXR", reason="the OpenEXR package is not installed")
    path = tmp_path / "light.exr"
    values = np.random.default_rng(0).normal(0, 10, (5, 7, len(names))).astype(np.float32)
    channels = {name: np.ascontiguousarray(values[:, :, i]) for i, name in enumerate(names)}
    with OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}, channels) as file:
        file.write(str(path))
    picture = read_picture(path)
    assert picture.linear
    np.testing.assert_array_equal(picture.values, values)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_exr_that_is_not_finite_is_refused(tmp_path, bad):
    OpenEXR = pytest.importorskip("OpenEXR", reason="the OpenEXR package is not installed")
    path = tmp_path / "bad.exr"
    values = np.ones((4, 4), np.float32)
    values[1, 2] = bad
    with OpenEXR.File({}, dict.fromkeys("RGB", values)) as file:
        file.write(str(path))
    with pytest.raises(UsageError, match=r"bad\.exr has 3 values that are NaN or infinite"):
        read_picture(path)


@pytest.mark.parametrize("names", [("R", "G"), ("X", "Y", "Z"), ("A", "B", "G", "R", "depth")])
def test_exr_with_other_channels_is_refused(tmp_path, names):
    OpenEXR = pytest.importorskip("OpenEXR", reason="the OpenEXR package is not installed")
    path = tmp_path / "other.exr"
    with OpenEXR.File({}, {name: np.ones((4, 4), np.float32) for name in names}) as file:
        file.write(str(path))
    with pytest.raises(UsageError, match=r"other\.exr has the channels .*expected"):
        read_picture(path)


def test_float_tiff_is_linear(tmp_path):
    path = tmp_path / "light.tiff"
    values = np.random.default_rng(0).normal(0, 10, (5, 7, 3)).astype(np.float32)
    assert cv2.imwrite(str(path), values[:, :, ::-1])
    picture = read_picture(path)
    assert picture.linear
    np.testing.assert_array_equal(picture.values, values)


def whole_png(tmp_path):
    path = tmp_path / "whole.png"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.png", lambda whole: b"", "is empty"),
        ("text.png", lambda whole: b"this is no picture at all", "is no picture that can be read"),
        ("cut.png", lambda whole: whole[: len(whole) // 2], "is damaged"),
        ("header.png", lambda whole: whole[:20], "is (damaged|no picture)"),
        ("junk.exr", lambda whole: b"\x76\x2f\x31\x01junk", "cannot be read as EXR"),
        ("empty.exr", lambda whole: b"", "is empty"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(tmp_path, capfd, name, content, message):
    (tmp_path / name).write_bytes(content(whole_png(tmp_path)))
    with pytest.raises(UsageError, match=message) as caught:
        read_picture(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cut_picture_of_sixteen_bits_is_noticed(tmp_path):
    path = tmp_path / "deep.png"
    noise = np.random.default_rng(0).integers(0, 65535, (64, 64), dtype=np.uint16)
    assert cv2.imwrite(str(path), noise)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UsageError, match=r"deep\.png is damaged"):
        read_picture(path)


def test_a_cut_jpeg_is_noticed(tmp_path):
    path = tmp_path / "cut.jpg"
    Image.fromarray(ramp(3, height=64, width=64)).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UsageError, match=r"cut\.jpg is damaged"):
        read_picture(path)


def test_missing_files_and_directories(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        read_picture(tmp_path / "absent.png")
    with pytest.raises(UsageError, match="is a directory"):
        read_picture(tmp_path)


def test_missing_packages_are_named_with_the_remedy(tmp_path, monkeypatch):
    path = tmp_path / "deep.png"
    assert cv2.imwrite(str(path), ramp(3, np.uint16))
    exr = tmp_path / "light.exr"
    exr.write_bytes(b"\x76\x2f\x31\x01")
    for module, call in (
        ("cv2", lambda: read_picture(path)),
        ("OpenEXR", lambda: read_picture(exr)),
        ("skimage", default_picture),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(UsageError, match=r"pip install 'treadle\[fields\]'"):
            call()


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 2), (4, 4, 5), (0, 4, 3), (4, 0, 3)])
def test_a_picture_needs_pixels_and_channels(shape):
    with pytest.raises(UsageError, match="thing"):
        Picture(np.zeros(shape, np.float32), False, "thing")


def test_the_default_picture():
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    picture = default_picture()
    assert picture.size == (512, 512)
    assert picture.channels == 3
    assert 0 <= picture.values.min() < picture.values.max() <= 1


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared example pictures are not on this machine")
@pytest.mark.parametrize(
    ("name", "shape", "linear"),
    [
        ("astronaut.png", (512, 512, 3), False),
        ("camera.png", (512, 512, 1), False),
        ("coffee.png", (400, 600, 3), False),
        ("albert.exr", (1024, 1024, 4), True),
    ],
)
def test_real_pictures(name, shape, linear):
    picture = read_picture(SHARED / name)
    assert picture.values.shape == shape
    assert picture.linear == linear
