"""Every band, page and bit of a file: NPY, TIFF of any make, and what `read_array` reads."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from treadle.images.bands import Header, read_bands, read_header
from treadle.images.reading import BadPicture
from treadle.images.writing import write_picture

KINDS = st.sampled_from(["uint8", "uint16", "float32"])
SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 7))


def noise(*shape, dtype="uint16"):
    values = np.random.default_rng(0).integers(0, 65536, shape)
    return (values / 65535).astype(np.float32) if dtype == "float32" else values.astype(dtype)


def assert_reads(path, expected):
    header, values = read_header(path), read_bands(path)
    assert header == Header(*values.shape, str(values.dtype))
    assert values.dtype == expected.dtype
    np.testing.assert_array_equal(values, expected)


@settings(deadline=None, max_examples=40)
@given(SHAPES, KINDS, st.sampled_from([".npy", ".tif"]), st.data())
def test_what_is_written_is_read_whatever_its_type_and_channels(tmp_path_factory, shape, kind, ending, data):
    elements = st.floats(-1e9, 1e9, width=32) if kind == "float32" else None
    picture = data.draw(arrays.arrays(kind, shape, elements=elements))
    path = tmp_path_factory.mktemp("bands") / f"a{ending}"
    write_picture(path, picture)
    if picture.shape[2] == 2 and kind == "uint8" and ending == ".tif":  # gray and alpha, which Pillow writes as such
        picture = picture[:, :, [0, 0, 0, 1]]
    assert_reads(path, picture)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_png_keeps_all_bits(tmp_path, channels):
    picture = noise(7, 9, channels)
    write_picture(tmp_path / "a.png", picture)
    assert_reads(tmp_path / "a.png", picture)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(
    ("axes", "layout"),
    [
        ((0, 1, 2), {"photometric": "minisblack", "planarconfig": "contig"}),
        ((2, 0, 1), {"photometric": "minisblack", "planarconfig": "separate"}),
        ((2, 0, 1), {"photometric": "minisblack"}),  # pages
        ((2, 0, 1), {"photometric": "minisblack", "compression": "zlib"}),
    ],
)
def test_bands_and_pages_are_channels(tmp_path, dtype, axes, layout):
    picture = noise(8, 11, 6, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", picture.transpose(axes), **layout)
    assert_reads(tmp_path / "a.tif", picture)


def test_pages_of_colours_are_stacked_and_a_preview_is_none(tmp_path):
    first, second = noise(6, 8, 3, dtype="uint8"), noise(6, 8, 3, dtype="uint8")[::-1]
    pages = [Image.fromarray(np.ascontiguousarray(each)) for each in (first, second)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert_reads(tmp_path / "a.tif", np.concatenate([first, second], axis=2))
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=[pages[1].resize((4, 3))])
    assert_reads(tmp_path / "b.tif", first)


def test_a_fourth_band_that_is_no_alpha_is_not_dropped(tmp_path):
    picture = noise(5, 6, 4, dtype="uint8")
    tifffile.imwrite(tmp_path / "a.tif", picture, photometric="rgb", extrasamples=["unspecified"])
    assert_reads(tmp_path / "a.tif", picture)


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        (np.array([[-1000, 3000]], np.int16), np.float32),
        (np.array([[0, 100_000]], np.int32), np.float32),
        (np.array([[0.25, 1e-7]], np.float64), np.float32),
        (np.array([[0.5, 2]], np.float16), np.float32),
        (np.array([[True, False]]), np.uint8),
    ],
)
def test_other_types_become_floats_and_truth_black_and_white(tmp_path, stored, read):
    np.save(tmp_path / "a.npy", stored)
    expected = stored[:, :, None].astype(read) * (255 if stored.dtype == bool else 1)
    assert_reads(tmp_path / "a.npy", expected.astype(read))
    if stored.dtype != bool and stored.dtype != np.float16:
        tifffile.imwrite(tmp_path / "a.tif", stored)
        assert_reads(tmp_path / "a.tif", expected.astype(read))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 3, 4, 5), np.uint8), r"a\.npy holds an array of shape \(2, 3, 4, 5\); expected \(H, W\) or"),
        (np.zeros((2, 3), complex), r"a\.npy holds values of type complex128"),
        (np.array([[1.0, np.nan]]), r"a\.npy has 1 values that are NaN or infinite"),
        (np.array([[2**24 + 1]]), r"a\.npy holds whole numbers beyond 16777216"),
        (np.array([[{}]], object), r"a\.npy is damaged, or no array of numbers"),
    ],
)
def test_arrays_that_are_no_pictures_are_named(tmp_path, values, message):
    np.save(tmp_path / "a.npy", values, allow_pickle=True)
    with pytest.raises(BadPicture, match=message) as raised:
        read_bands(tmp_path / "a.npy")
    assert "\n" not in str(raised.value)


def test_what_cannot_be_decompressed_says_what_to_do(tmp_path):
    pages = [Image.fromarray(noise(8, 9)) for _ in range(2)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    try:
        assert_reads(tmp_path / "a.tif", np.stack([np.asarray(page) for page in pages], axis=2))
    except BadPicture as error:  # where imagecodecs is not installed
        assert "a.tif is compressed with LZW: save it with deflate, or pip install imagecodecs" in str(error)


def test_files_cut_off_are_named(tmp_path):
    for ending in (".npy", ".tif"):
        path = tmp_path / f"a{ending}"
        write_picture(path, noise(20, 20, 5))
        path.write_bytes(path.read_bytes()[:-300])
        with pytest.raises(BadPicture, match=rf"a\{ending} is damaged"):
            read_bands(path)
