"""A picture in memory with its values as numbers, of whatever range its format has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError
from treadle.images.reading import BadPicture, read_array

Array = NDArray[np.float32]

CHANNELS = {1: "gray", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Picture:
    """A picture in memory.

    Attributes:
        values: (height, width, channels) float32; channels 1 (gray), 3 (RGB) or 4 (RGB and alpha, not premultiplied).
            Of integer formats in [0, 1] as stored (sRGB); of float formats the linear values as stored, any range.
        linear: whether the values come from a float format.
        name: what to call it: the file's path, or "astronaut".
    """

    values: Array
    linear: bool
    name: str

    def __post_init__(self) -> None:
        shape = self.values.shape
        if len(shape) != 3 or shape[2] not in CHANNELS:
            raise UsageError(f"{self.name}: shape {shape} is no picture: expected (height, width, channels), 1, 3 or 4")
        if 0 in shape:
            raise UsageError(f"{self.name}: a picture of {shape[1]} x {shape[0]} pixels has no pixels")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.values.shape[0], self.values.shape[1]

    @property
    def channels(self) -> int:
        """1, 3 or 4."""
        return self.values.shape[2]


def default_picture() -> Picture:
    """The 512 x 512 photograph of astronaut Eileen Collins that scikit-image ships (public domain)."""
    try:
        from skimage import data
    except ImportError:
        remedy = "install it with: pip install 'treadle[fields]', or name a picture with --data"
        raise UsageError(f"the default picture needs scikit-image: {remedy}") from None
    return Picture(data.astronaut().astype(np.float32) / np.float32(255), linear=False, name="astronaut")


def read_picture(path: str | Path) -> Picture:
    """Read a picture of 1, 3 or 4 channels: 8 or 16 bit PNG, JPEG, TIFF, WebP, BMP, PNM ..., float EXR, HDR and TIFF.

    Raises BadPicture and UsageError as `read_array`, and for values that are not finite.
    """
    path = Path(path)
    values = read_array(path)
    if values.dtype == np.float32:
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise BadPicture(path, f"has {bad} values that are NaN or infinite", "replace them with finite ones")
        return Picture(values, linear=True, name=str(path))
    top = np.float32(np.iinfo(values.dtype).max)
    return Picture(np.divide(values, top, dtype=np.float32), linear=False, name=str(path))
