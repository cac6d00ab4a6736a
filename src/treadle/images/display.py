"""Pictures to look at: whatever an array holds as 8 bits, as RGB, and as a PNG file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError
from treadle.files import write_whole
from treadle.images.reading import Pixels


def to_uint8(picture: Any, name: str = "picture") -> Pixels:
    """A picture as uint8 of shape (H, W, C), C = 1, 3 or 4.

    Takes (H, W) or (H, W, C); uint8, bool, or floats in [0, 1], which are clipped, rounded to nearest, NaN shown as 0.
    Raises UsageError naming `name` for anything else.
    """
    array = np.asarray(picture)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.size == 0:
        raise UsageError(
            f"picture {name!r} has shape {np.shape(picture)}: expected (H, W) or (H, W, C), not empty, C = 1, 3 or 4"
        )
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if not np.issubdtype(array.dtype, np.floating):
        raise UsageError(f"picture {name!r} has dtype {array.dtype}: expected uint8, or floats between 0 and 1")
    clipped = np.clip(np.nan_to_num(array.astype(np.float32), nan=0.0), 0.0, 1.0)
    return (clipped * 255.0 + 0.5).astype(np.uint8)


def to_display(picture: NDArray[Any], *, linear: bool = False) -> NDArray[np.float32]:
    """A picture's values as RGB to look at: (height, width, 3) in [0, 1].

    Takes (H, W) or (H, W, C), uint8 or floats of any range: gray, gray and alpha, RGB, or RGB and alpha. Linear values
    are clipped to [0, 1] and given the sRGB curve; gray is repeated; what alpha leaves open shows a light checkerboard.

    Raises UsageError for other shapes and types.
    """
    values = picture[:, :, None] if picture.ndim == 2 else picture
    known = values.dtype == np.uint8 or np.issubdtype(values.dtype, np.floating)
    if values.ndim != 3 or values.shape[2] not in (1, 2, 3, 4) or values.size == 0 or not known:
        raise UsageError(
            f"a picture of shape {picture.shape} and type {picture.dtype} cannot be shown: expected uint8 or floats, "
            "(H, W, C) of 1 to 4 channels"
        )
    shares = values / np.float32(255) if values.dtype == np.uint8 else np.asarray(values, np.float32).clip(0, 1)
    has_alpha = values.shape[2] in (2, 4)
    colours = shares[:, :, :-1] if has_alpha else shares
    if linear:
        colours = np.where(colours <= 0.0031308, 12.92 * colours, 1.055 * np.power(colours, 1 / 2.4) - 0.055)
    if colours.shape[2] == 1:
        colours = colours.repeat(3, axis=2)
    if has_alpha:
        alpha = shares[:, :, -1:]
        rows, columns = np.indices(values.shape[:2]) // 8
        board = np.where((rows + columns) % 2, 0.75, 0.9)[:, :, None]
        colours = colours * alpha + board * (1 - alpha)
    return colours.astype(np.float32)


def png(picture: Any, name: str = "picture") -> bytes:
    """A picture as the content of a PNG file; see `to_uint8` for what it may be."""
    from PIL import Image

    array = to_uint8(picture, name)
    buffer = io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(buffer, "PNG")
    return buffer.getvalue()


def write_png(path: Path, picture: Any) -> None:
    """Write a picture, see `to_uint8`, as a PNG file: whole or not at all. Raises OSError where the disk refuses."""
    write_whole(path, png(picture, path.stem))
