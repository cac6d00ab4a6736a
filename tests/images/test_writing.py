"""Pictures written in any format are read back as they were: 8 and 16 bits, floats, alpha, many channels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from treadle.errors import UsageError
from treadle.images.reading import read_array
from treadle.images.writing import DEEP, encoded_picture, holds, write_picture

RNG = np.random.default_rng(0)


def picture(dtype, channels, height=11, width=14):
    if dtype == "float32":
        return RNG.normal(0, 3, (height, width, channels)).astype(np.float32)
    return RNG.integers(0, np.iinfo(dtype).max + 1, (height, width, channels), dtype)


@pytest.mark.parametrize("ending", [ending for ending in DEEP if ending != ".npy"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_a_format_holds_comes_back(tmp_path, ending, dtype, channels):
    given = picture(dtype, channels)
    if not holds(ending, dtype, channels):
        with pytest.raises(UsageError, match=rf"{ending} files cannot hold {dtype} with {channels} channels: take \."):
            write_picture(tmp_path / f"it{ending}", given)
        assert not list(tmp_path.iterdir())
        return
    if dtype == "float32" and channels > 1 and ending == ".tif":
        pytest.importorskip("cv2")
    write_picture(tmp_path / f"it{ending}", given)
    back = read_array(tmp_path / f"it{ending}")
    if ending in (".jpg", ".jpeg", ".jfif"):
        assert back.shape == given.shape
    else:
        assert back.dtype == given.dtype
        np.testing.assert_array_equal(back, given.repeat(3, 2) if ending == ".webp" and channels == 1 else given)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_gray_with_alpha(tmp_path, dtype):
    given = picture(dtype, 2)
    write_picture(tmp_path / "it.png", given)
    back = read_array(tmp_path / "it.png")  # as RGB with alpha
    np.testing.assert_array_equal(back[:, :, [0, 3]], given)


def test_many_channels_and_numpys_own(tmp_path):
    import tifffile

    given = picture("uint16", 7)
    write_picture(tmp_path / "it.tif", given)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "it.tif"), given)
    given = picture("float32", 5)
    write_picture(tmp_path / "it.npy", given)
    np.testing.assert_array_equal(np.load(tmp_path / "it.npy", allow_pickle=False), given)


def test_a_photograph_keeps_its_colours_in_jpeg():
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    given = np.stack([ramp[None].repeat(64, 0), ramp[:, None].repeat(64, 1), 255 - ramp[None].repeat(64, 0)], 2)
    import io

    back = np.asarray(Image.open(io.BytesIO(encoded_picture(given, ".jpg"))))
    assert np.abs(back.astype(int) - given).max() <= 6


def test_a_deep_png_is_one_to_other_programs():
    import io

    given = picture("uint16", 1, 40, 30)
    with Image.open(io.BytesIO(encoded_picture(given, ".png"))) as image:
        assert image.mode.startswith("I") and image.size == (30, 40)
        np.testing.assert_array_equal(np.asarray(image), given[:, :, 0])
