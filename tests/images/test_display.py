"""Pictures as 8 bits, as RGB to look at, and as PNG files."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from treadle.errors import UsageError
from treadle.images.display import png, to_display, to_uint8, write_png


def flat(colour, size=(128, 128)):
    """A picture of one colour, a tuple of as many channels."""
    return np.broadcast_to(np.array(colour, np.uint8), (*size, len(colour))).copy()


@pytest.mark.parametrize(("shape", "mode"), [((4, 6), "L"), ((4, 6, 1), "L"), ((4, 6, 3), "RGB"), ((4, 6, 4), "RGBA")])
def test_png_keeps_every_pixel(shape: tuple[int, ...], mode: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with Image.open(io.BytesIO(png(picture))) as image:
        assert image.mode == mode
        np.testing.assert_array_equal(np.asarray(image).reshape(to_uint8(picture).shape), to_uint8(picture))


def test_floats_are_clipped_and_rounded() -> None:
    values = np.array([[0.0, 1.0, -3.0, 7.0, np.nan, 0.5, 254.6 / 255, np.inf]])
    assert to_uint8(values)[0, :, 0].tolist() == [0, 255, 0, 255, 0, 128, 255, 255]
    assert to_uint8(np.array([[True, False]]))[0, :, 0].tolist() == [255, 0]


BAD = [np.zeros(3), np.zeros((2, 2, 2)), np.zeros((0, 4, 3)), np.zeros((2, 2), dtype=np.int64), "x"]


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_picture_is_refused(bad: object) -> None:
    with pytest.raises(UsageError, match="picture 'probe' has"):
        to_uint8(bad, "probe")


def test_to_display():
    gray = np.full((8, 8, 1), 0.25, np.float32)
    assert (to_display(gray, linear=False) == 0.25).all()
    np.testing.assert_allclose(to_display(gray, linear=True), 0.5371, atol=1e-3)  # sRGB of 0.25
    np.testing.assert_allclose(to_display(np.full((8, 8, 3), 9.0, np.float32), linear=True), 1, atol=1e-6)
    clear = np.zeros((16, 16, 4), np.float32)
    np.testing.assert_allclose(np.unique(to_display(clear, linear=False)), [0.75, 0.9], atol=1e-6)
    clear[...] = (0.4, 0.4, 0.4, 0.5)
    np.testing.assert_allclose(np.unique(to_display(clear, linear=False)), [0.575, 0.65], atol=1e-6)
    clear[...] = (0, 0, 0, 1)
    assert (to_display(clear, linear=False) == 0).all()
    assert to_display(clear, linear=False).shape == (16, 16, 3)


def test_eight_bits_and_any_channels_to_display():
    def seen(picture):
        return to_uint8(to_display(picture))

    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(seen(levels), levels[:, :, None].repeat(3, axis=2))
    assert seen(flat((200, 0, 9)))[0, 0].tolist() == [200, 0, 9]
    assert seen(flat((200, 0, 9, 255)))[0, 0].tolist() == [200, 0, 9]
    assert seen(flat((7, 255)))[0, 0].tolist() == [7, 7, 7]
    for colours in (flat((200, 0, 9, 0)), flat((7, 0))):
        assert {tuple(colour) for colour in seen(colours).reshape(-1, 3)} == {(191,) * 3, (230,) * 3}
    assert seen(flat((0, 0, 0, 128)))[0, 0].tolist() == [114, 114, 114]
    for bad in (flat((1, 2, 3, 4, 5)), flat((1,)).astype(np.int64), np.zeros((0, 4)), np.zeros(3)):
        with pytest.raises(UsageError, match="cannot be shown"):
            to_display(bad)


def test_a_png_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "red.png"
    write_png(path, flat((200, 0, 9), (4, 5)))
    with Image.open(path) as image:
        assert image.size == (5, 4) and image.getpixel((0, 0)) == (200, 0, 9)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="picture 'red'"):
        write_png(path, np.zeros((4, 5, 7)))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
