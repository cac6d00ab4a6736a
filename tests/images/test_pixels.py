"""Pictures in 8 bits, of any format and kind; and there and back as tensors."""

from __future__ import annotations

import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from treadle.errors import UsageError
from treadle.images.pixels import decode, read_pixels
from treadle.images.reading import BadPicture, picture_size


def pixels(channels, height=6, width=10, top=255, dtype=np.uint8):
    return np.linspace(0, top, height * width * channels).astype(dtype).reshape(height, width, channels)


def save(path, values, **options):
    Image.fromarray(values[:, :, 0] if values.ndim == 3 and values.shape[2] == 1 else values).save(path, **options)
    return path


# Formats and modes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["png", "tif", "bmp", "webp", "tga", "ppm", "jp2"])
def test_rgb_in_every_lossless_format(tmp_path, ending):
    values = pixels(3, 32, 40)
    options = {"webp": {"lossless": True}, "jp2": {"irreversible": False}}.get(ending, {})
    np.testing.assert_array_equal(read_pixels(save(tmp_path / f"1.{ending}", values, **options)), values)


def test_jpeg(tmp_path):
    Image.new("RGB", (16, 16), (200, 40, 20)).save(tmp_path / "red.jpg", quality=95)
    np.testing.assert_allclose(read_pixels(tmp_path / "red.jpg")[8, 8], (200, 40, 20), atol=3)


def test_gray_and_colour_become_one_another(tmp_path):
    gray, colour = pixels(1), pixels(3)
    path = save(tmp_path / "gray.png", gray)
    np.testing.assert_array_equal(read_pixels(path, 1), gray)
    np.testing.assert_array_equal(read_pixels(path, 3), gray.repeat(3, axis=2))
    assert read_pixels(path, 4)[..., 3].min() == 255
    luma = read_pixels(save(tmp_path / "colour.png", colour), 1)
    np.testing.assert_allclose(luma[..., 0], colour @ (0.299, 0.587, 0.114), atol=1)
    with pytest.raises(UsageError, match="channels is 2: expected 1"):
        read_pixels(path, 2)


def test_what_is_transparent_shows_white(tmp_path):
    values = np.zeros((2, 2, 4), np.uint8)
    values[0, 0], values[0, 1], values[1, 0] = (10, 20, 30, 255), (10, 20, 30, 0), (0, 0, 0, 127)
    path = save(tmp_path / "alpha.png", values)
    seen = read_pixels(path)
    assert seen[0].tolist() == [[10, 20, 30], [255, 255, 255]]
    assert seen[1, 0].tolist() == [128, 128, 128]
    assert read_pixels(path, 1)[0, 1].item() == 255
    np.testing.assert_array_equal(read_pixels(path, 4), values)


def test_gray_with_alpha(tmp_path):
    Image.new("LA", (4, 4), (100, 0)).save(tmp_path / "la.png")
    assert read_pixels(tmp_path / "la.png").tolist() == np.full((4, 4, 3), 255).tolist()
    assert read_pixels(tmp_path / "la.png", 4)[0, 0].tolist() == [100, 100, 100, 0]


@pytest.mark.parametrize("ending", ["png", "gif"])
def test_palettes_with_and_without_transparency(tmp_path, ending):
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([10, 200, 30, 250, 0, 0])
    picture.putpixel((0, 0), 1)
    picture.save(tmp_path / f"opaque.{ending}")
    picture.save(tmp_path / f"clear.{ending}", transparency=0)
    opaque, clear = (read_pixels(tmp_path / f"{name}.{ending}") for name in ("opaque", "clear"))
    assert opaque[0, 0].tolist() == clear[0, 0].tolist() == [250, 0, 0]
    assert (opaque[3, 3].tolist(), clear[3, 3].tolist()) == ([10, 200, 30], [255, 255, 255])


def test_a_transparent_colour_outside_of_palettes(tmp_path):
    Image.new("L", (4, 4), 7).save(tmp_path / "gray.png", transparency=7)
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "colour.png", transparency=(1, 2, 3))
    assert read_pixels(tmp_path / "gray.png").min() == 255
    assert read_pixels(tmp_path / "colour.png").min() == 255


def test_one_bit(tmp_path):
    path = save(tmp_path / "bits.png", np.eye(8, dtype=bool))
    np.testing.assert_array_equal(read_pixels(path, 1)[..., 0], np.eye(8) * 255)


@pytest.mark.parametrize("ending", ["png", "webp", "tif", "gif"])
def test_the_first_of_several_frames_counts(tmp_path, ending):
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 0, 255)))
    options = {"lossless": True} if ending == "webp" else {}
    first.save(tmp_path / f"two.{ending}", save_all=True, append_images=[second], **options)
    assert read_pixels(tmp_path / f"two.{ending}")[4, 4].tolist() == [255, 0, 0]


def test_cmyk(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=95)
    np.testing.assert_allclose(read_pixels(tmp_path / "print.jpg")[8, 8], (255, 0, 0), atol=3)


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.pgm"])
def test_sixteen_bits_are_scaled_and_rounded(tmp_path, name):
    values = np.array([[0, 128, 129, 257 * 7], [257 * 7 + 128, 257 * 7 + 129, 65406, 65535]], np.uint16)
    path = save(tmp_path / name, values)
    expected = np.rint(values / 257.0)
    np.testing.assert_array_equal(read_pixels(path, 1)[..., 0], expected)
    np.testing.assert_array_equal(read_pixels(path, 3)[..., 2], expected)


def test_whole_numbers_of_32_bits_count_as_16(tmp_path):
    path = save(tmp_path / "wide.tif", np.array([[0, 257, 65535]], np.int32))
    assert read_pixels(path, 1).ravel().tolist() == [0, 1, 255]
    for low, high in ((-1, 257), (0, 65536)):
        save(path, np.array([[low, high]], np.int32))
        with pytest.raises(BadPicture, match=f"holds values from {low} to {high}; expected 0 to 65535: save it with 8"):
            read_pixels(path)


def test_floats_from_0_to_1(tmp_path):
    values = np.array([[0, 0.5, 1]], np.float32)
    assert read_pixels(save(tmp_path / "f.tif", values), 1).ravel().tolist() == [0, 128, 255]
    for outside in (-0.1, 1.1, np.nan, np.inf):
        values[0, 1] = outside
        with pytest.raises(BadPicture, match=r"f\.tif holds values .*: save it with 8 or 16 bits"):
            read_pixels(save(tmp_path / "f.tif", values))


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8, 5])
def test_pictures_are_upright(tmp_path, ending, orientation):
    path = tmp_path / f"turned.{ending}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(path, pixels(3, 16, 32), exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert (expected.shape[0] == 32) == (orientation >= 5)
    np.testing.assert_array_equal(read_pixels(path), expected)
    assert picture_size(path) == (expected.shape[1], expected.shape[0])


# Bad files -------------------------------------------------------------------------------------------------------


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png():
    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


BAD = {
    "empty.png": (b"", r"is empty \(0 bytes\): copy or download it again"),
    "text.jpg": (b"hello, world" * 20, "is no picture that can be read: convert it"),
    "huge.png": (huge_png(), "has more than 150 million pixels: make a smaller copy"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_name_themselves_and_the_remedy(tmp_path, name):
    content, message = BAD[name]
    path = tmp_path / name
    path.write_bytes(content)
    for read in (read_pixels, picture_size):
        with pytest.raises(BadPicture, match=message) as caught:
            read(path)
        assert str(caught.value).startswith(str(path))


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(BadPicture, match="does not exist"):
        decode(tmp_path / "absent.png")
    with pytest.raises(BadPicture, match=r"cannot be read \(.*directory\)"):
        decode(tmp_path)


@pytest.mark.parametrize("name", ["1.jpg", "1.png", "1.webp", "1.tif"])
def test_files_that_were_cut_off_are_damaged(tmp_path, name):
    path = save(tmp_path / name, np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    with pytest.raises(BadPicture, match=r"is (damaged \(|no picture).*or remove it$") as caught:
        read_pixels(path)
    assert str(caught.value).startswith(str(path))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["png", "jpg", "gif", "tif", "bmp", "webp", "jp2", "ppm", "tga"]), st.data())
def test_whatever_is_in_a_file_it_is_read_or_named(tmp_path, ending, data):
    path = save(tmp_path / f"1.{ending}", pixels(3, 8, 8))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of odd metadata
        for read in (read_pixels, picture_size):
            try:
                read(path)
            except BadPicture as error:
                assert str(error).startswith(str(path)) and "\n" not in str(error)
