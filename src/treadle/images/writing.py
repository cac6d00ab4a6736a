"""Writing pictures in common formats, in the depth that they have: 8 and 16 bits, floats, any number of channels."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError
from treadle.files import write_whole

Array = NDArray[Any]

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""What a picture of so many channels is called: L is gray, A alpha."""

DEEP = {
    ".bmp": ("uint8",),
    ".jfif": ("uint8",),
    ".jpeg": ("uint8",),
    ".jpg": ("uint8",),
    ".npy": ("uint8", "uint16", "float32"),
    ".pgm": ("uint8", "uint16"),
    ".png": ("uint8", "uint16"),
    ".pnm": ("uint8", "uint16"),
    ".ppm": ("uint8", "uint16"),
    ".tga": ("uint8",),
    ".tif": ("uint8", "uint16", "float32"),
    ".tiff": ("uint8", "uint16", "float32"),
    ".webp": ("uint8",),
}
"""Endings of the files that can be written, and the types of numbers that each of them holds."""

_CHANNELS = {
    ".bmp": (1, 3), ".jfif": (1, 3), ".jpeg": (1, 3), ".jpg": (1, 3), ".pgm": (1, 3), ".png": (1, 2, 3, 4),
    ".pnm": (1, 3), ".ppm": (1, 3), ".tga": (1, 2, 3, 4), ".webp": (1, 2, 3, 4),
}  # fmt: skip
"""The numbers of channels that each holds, where not any: 2 and 4 are with alpha."""

_PILLOW: dict[str, dict[str, Any]] = {
    ".bmp": {"format": "BMP"},
    ".png": {"format": "PNG", "compress_level": 4},  # in 0.4 of the time of Pillow's 6, files 5 % larger
    ".tga": {"format": "TGA"},
    ".tif": {"format": "TIFF", "compression": "tiff_lzw"},
    ".tiff": {"format": "TIFF", "compression": "tiff_lzw"},
    ".webp": {"format": "WEBP", "lossless": True, "exact": True},
}

QUALITY = 95
"""Of JPEG, from 1 to 100."""


def holds(ending: str, dtype: str, channels: int) -> bool:
    """Whether files that end so, in lower case, hold numbers of this type and so many channels."""
    return dtype in DEEP.get(ending, ()) and channels in _CHANNELS.get(ending, (channels,))


def who_holds(dtype: str, channels: int) -> str:
    """The endings of files that hold such pictures, in words."""
    return ", ".join(ending for ending in DEEP if holds(ending, dtype, channels))


def write_picture(path: Path, picture: Array) -> None:
    """Write a picture, (H, W, C) uint8, uint16 or float32, whole or not at all, in the format that `path` ends in.

    JPEG has a quality of 95 and full colour. WebP is lossless, gray becomes RGB. TIFFs that Pillow cannot write are not
    compressed. Of 2 and 4 channels the last is alpha.

    Raises UsageError for an ending that is unknown or does not hold such numbers, OSError where the disk refuses.
    """
    write_whole(path, encoded_picture(picture, path.suffix.lower()))


def encoded_picture(picture: Array, ending: str) -> bytes:
    """The content of a file that ends in `ending`, such as ".png"; see `write_picture`."""
    dtype, channels = picture.dtype.name, picture.shape[2]
    if not holds(ending, dtype, channels):
        others = who_holds(dtype, channels) or "others"
        raise UsageError(f"{ending} files cannot hold {dtype} with {channels} channels: take {others}")
    buffer = io.BytesIO()
    if ending == ".npy":
        np.save(buffer, picture, allow_pickle=False)
    elif ending in (".pgm", ".pnm", ".ppm"):
        return _pnm(picture)
    elif ending == ".png" and picture.dtype == np.uint16:
        return _deep_png(picture)
    elif ending in (".tif", ".tiff") and (picture.dtype != np.uint8 or picture.shape[2] > 4):
        _deep_tiff(buffer, picture)
    else:
        _with_pillow(buffer, picture, ending)
    return buffer.getvalue()


def _with_pillow(buffer: io.BytesIO, picture: Array, ending: str) -> None:
    from PIL import Image

    how = _PILLOW.get(ending, {"format": "JPEG", "quality": QUALITY, "subsampling": 0})
    image = Image.fromarray(np.ascontiguousarray(picture[:, :, 0] if picture.shape[2] == 1 else picture))
    assert image.mode == MODES[picture.shape[2]]
    image.save(buffer, **how)


def _deep_png(picture: Array) -> bytes:
    """PNG of 16 bits per channel (https://www.w3.org/TR/png-3), each row as its difference to the one above."""
    height, width, channels = picture.shape
    rows = np.ascontiguousarray(picture.astype(">u2")).view(np.uint8).reshape(height, width * channels * 2)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = 2  # the filter "up"
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _pnm(picture: Array) -> bytes:
    height, width, channels = picture.shape
    white = np.iinfo(picture.dtype).max
    kind = b"P5" if channels == 1 else b"P6"
    return kind + f"\n{width} {height}\n{white}\n".encode() + picture.astype(picture.dtype.newbyteorder(">")).tobytes()


def _deep_tiff(buffer: io.BytesIO, picture: Array) -> None:
    try:
        import tifffile
    except ImportError:
        raise UsageError("writing TIFF of more than 8 bits needs tifffile: pip install 'treadle[gans]'") from None
    channels = picture.shape[2]
    values = np.ascontiguousarray(picture[:, :, 0] if channels == 1 else picture)
    colours = "rgb" if channels in (3, 4) else "minisblack"
    extra = ("unassalpha",) if channels in (2, 4) else ("unspecified",) * (channels - 1) if channels > 4 else None
    planes: dict[str, Any] = {} if channels == 1 else {"planarconfig": "contig", "extrasamples": extra}
    tifffile.imwrite(buffer, values, photometric=colours, metadata=None, **planes)
