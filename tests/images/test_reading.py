"""The reader: what is stored is what comes back; what must not be decoded is not; limits and messages."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from treadle.errors import UsageError
from treadle.images import reading
from treadle.images.reading import BadPicture, picture_size, read_array

cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed")


def deep(channels: int, height: int = 6, width: int = 9) -> np.ndarray:
    """16 bits in which the lower eight differ from the upper ones."""
    shape = height, width, channels
    return np.random.default_rng(0).integers(0, 65536, shape, dtype=np.uint16)


def with_orientation(path: Path, orientation: int) -> None:
    """Add a PNG chunk that says how the picture is turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = exif.tobytes()
    data = data.removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(data)) + b"eXIf" + data + struct.pack(">I", zlib.crc32(b"eXIf" + data))
    content = path.read_bytes()
    path.write_bytes(content[:33] + chunk + content[33:])  # after the header


@pytest.mark.parametrize(("ending", "channels"), [("png", 3), ("png", 4), ("tiff", 3), ("tiff", 4), ("ppm", 3)])
def test_colour_of_sixteen_bits_whole_or_its_upper_half(tmp_path: Path, ending: str, channels: int) -> None:
    path, values = tmp_path / f"deep.{ending}", deep(channels)
    assert cv2.imwrite(str(path), values[:, :, [2, 1, 0, 3][:channels]])
    found = read_array(path)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, values)
    upper = read_array(path, deep=False)
    assert upper.dtype == np.uint8
    np.testing.assert_allclose(upper, values / 257, atol=1)


def test_jpeg_2000_says_how_many_bits_it_has(tmp_path: Path) -> None:
    path, values = tmp_path / "deep.jp2", deep(3, 64, 64)
    assert cv2.imwrite(str(path), values[:, :, ::-1], [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])
    found = read_array(path)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, values)
    for mode, dtype, channels in (("RGB", np.uint8, 3), ("LA", np.uint8, 4), ("L", np.uint8, 1)):
        Image.new(mode, (64, 64)).save(path)
        found = read_array(path)
        assert (found.dtype, found.shape) == (dtype, (64, 64, channels))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("whole", [True, False])
def test_exif_orientation_is_applied_to_sixteen_bits_too(tmp_path: Path, orientation: int, whole: bool) -> None:
    path, values = tmp_path / "deep.png", deep(3)
    assert cv2.imwrite(str(path), values[:, :, ::-1])
    with_orientation(path, orientation)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    found = read_array(path, deep=whole)
    assert picture_size(path) == (found.shape[1], found.shape[0])
    np.testing.assert_array_equal(found >> 8 if whole else found, expected)
    stored = read_array(path, deep=whole, upright=False)
    np.testing.assert_array_equal(stored if whole else stored.astype(np.uint16), values if whole else values >> 8)
    assert picture_size(path, upright=False) == (9, 6)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_a_turned_tiff(tmp_path: Path, kind: type) -> None:
    tifffile = pytest.importorskip("tifffile", reason="it comes with scikit-image")
    path, values = tmp_path / "turned.tif", (deep(3) >> 8).astype(kind)
    tifffile.imwrite(path, values, photometric="rgb", extratags=[(274, "H", 1, 6, True)])  # turned to the right
    np.testing.assert_array_equal(read_array(path), np.rot90(values, -1))
    assert picture_size(path) == (6, 9)


@pytest.mark.parametrize(("ending", "channels"), [("tiff", 3), ("tiff", 1), ("pfm", 3), ("pfm", 1), ("hdr", 3)])
def test_floats_are_linear(tmp_path: Path, ending: str, channels: int) -> None:
    path = tmp_path / f"light.{ending}"
    values = np.random.default_rng(0).uniform(0.5, 10, (6, 9, channels)).astype(np.float32)
    assert cv2.imwrite(str(path), values[:, :, ::-1])
    found = read_array(path)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, values, atol=10 / 128 if ending == "hdr" else 0)  # HDR shares its exponents
    assert picture_size(path) == (9, 6)


def test_exr_sizes_are_read_from_the_header(tmp_path: Path) -> None:
    OpenEXR = pytest.importorskip("OpenEXR", reason="the OpenEXR package is not installed")
    with OpenEXR.File({}, dict.fromkeys("RGB", np.ones((4, 7), np.float32))) as file:
        file.write(str(tmp_path / "light.exr"))
    assert picture_size(tmp_path / "light.exr") == (7, 4)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (200, 40, 20)).save(tmp_path / "red.avif", quality=95)
    np.testing.assert_allclose(read_array(tmp_path / "red.avif")[8, 8], (200, 40, 20), atol=4)


# What must not be decoded ----------------------------------------------------------------------------------------

POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
(touched) (w) file closefile
showpage
"""


@pytest.mark.parametrize("name", ["page.png", "page.eps", "page.jpg"])
def test_postscript_reaches_no_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "gs").write_text(f"#!/bin/sh\necho called > {tmp_path / 'called'}\n")
    (bin / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")
    path = tmp_path / name
    path.write_bytes(POSTSCRIPT)
    for read in (read_array, picture_size):
        with pytest.raises(BadPicture, match="is no picture that can be read"):
            read(path)
    assert not (tmp_path / "called").exists()
    with Image.open(path) as image, pytest.raises(OSError):  # without `formats` Pillow does call it
        image.load()
    assert (tmp_path / "called").exists()


def test_only_plain_formats_are_tried(tmp_path: Path) -> None:
    for ending in ("ico", "pcx", "sgi"):
        Image.new("RGB", (16, 16)).save(tmp_path / f"1.{ending}")
        with pytest.raises(BadPicture, match="is no picture that can be read: convert it to PNG or JPEG"):
            read_array(tmp_path / f"1.{ending}")


# Limits ----------------------------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(side: int, pixels: bytes, depth: int = 8) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


HEADERS = {
    "1.png": b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 13000, 13000, 8, 2, 0, 0, 0))
    + chunk(b"IDAT", b""),
    "1.ppm": b"P6 13000 13000 255\n",
    "1.pfm": b"PF\n13000 13000\n-1\n",
    "1.hdr": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 13000 +X 13000\n",
    "1.bmp": struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, 13000, 13000, 1, 24, 0, 0, 0, 0, 0, 0),
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.filterwarnings("ignore:Image size")
def test_too_many_pixels_are_refused_by_the_header(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(HEADERS[name] + bytes(64))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (read_array, picture_size):
        with pytest.raises(UsageError) as caught:
            read(path)
        assert str(caught.value) == f"{path} has more than 150 million pixels: make a smaller copy of it"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_an_exr_with_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    OpenEXR = pytest.importorskip("OpenEXR", reason="the OpenEXR package is not installed")
    with OpenEXR.File({}, dict.fromkeys("RGB", np.ones((4, 7), np.float32))) as file:
        file.write(str(tmp_path / "light.exr"))
    monkeypatch.setattr(reading, "LARGEST", 27)
    with pytest.raises(BadPicture, match="has more than"):
        read_array(tmp_path / "light.exr")


@pytest.mark.parametrize(
    ("read", "depth", "said"),
    [
        ("picture.read_picture", 8, 15),  # 2.3 GB for 150 million pixels, which is what the picture itself takes, and 3
        ("reading.read_array", 8, 7),
        ("reading.read_array", 16, 12),
    ],
)
def test_reading_takes_the_memory_that_is_said(tmp_path: Path, read: str, depth: int, said: int) -> None:
    if depth == 16:
        pytest.importorskip("cv2", reason="OpenCV is not installed")
    side = 4000
    path = tmp_path / "large.png"
    # What does not compress at all is the dearest: a file as large as its pixels.
    row = b"\0" + np.random.default_rng(0).integers(0, 256, side * 3 * depth // 8, np.uint8).tobytes()
    path.write_bytes(png_of(side, zlib.compress(row * side, 0 if depth == 16 else 1), depth))
    module, _, function = read.partition(".")
    code = (
        "import resource, sys; import PIL.Image, PIL.ImageOps, cv2\n"
        f"from treadle.images.{module} import {function} as read\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"values = read({str(path)!r})\n"
        f"print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / {side**2})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < said + 1.5  # bytes a pixel


# Messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["deep.png", "deep.tiff", "deep.ppm", "light.tiff", "light.hdr"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_what_opencv_decodes_and_was_cut_off_is_noticed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    path = tmp_path / name
    values = np.random.default_rng(0).random((64, 64, 3), np.float32) if "light" in name else deep(3, 64, 64)
    assert cv2.imwrite(str(path), values)
    path.write_bytes(path.read_bytes()[: -len(path.read_bytes()) // 3])
    capfd.readouterr()
    with pytest.raises(BadPicture, match="is damaged"):
        read_array(path)
    assert capfd.readouterr().err == ""  # one line says it, which is the error's


def test_two_channels_of_floats_are_no_picture(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile", reason="it comes with scikit-image")
    tifffile.imwrite(
        tmp_path / "two.tif", np.ones((5, 6, 2), np.float32), photometric="minisblack", planarconfig="contig"
    )
    with pytest.raises(BadPicture, match=r"two\.tif (has 2 channels|is damaged, or of a kind)"):
        read_array(tmp_path / "two.tif")


def test_colours_of_32_bits_are_refused(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile", reason="it comes with scikit-image")
    tifffile.imwrite(tmp_path / "wide.tif", np.ones((5, 6, 3), np.int32), photometric="rgb")
    with pytest.raises(BadPicture, match="holds values of type int32: convert it to 8 or 16 bit, or float EXR"):
        read_array(tmp_path / "wide.tif")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "1.png"
    Image.new("L", (4, 4)).save(path)
    path.chmod(0)
    with pytest.raises(BadPicture, match=r"cannot be read \(Permission denied\)"):
        read_array(path)


def test_a_large_picture_that_is_not_too_large_is_read_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("1", (9500, 9500)).save(path)  # one bit a pixel; more than Pillow warns of
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert picture_size(path) == (9500, 9500)
