"""Pictures of any type and number of channels at another size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def resize(picture: NDArray[Any], size: tuple[int, int], *, nearest: bool = False) -> NDArray[Any]:
    """A picture (H, W, C) uint8, uint16 or float32, of any channels, at `size` (height, width); itself where it fits.

    Bicubic with antialiasing as Pillow has it: 8 bits of 1, 3 or 4 channels are what `Image.resize` gives, to the bit
    (so colours count by their alpha); everything else is computed channel by channel in floats, and whole numbers are
    rounded and kept within their type. With `nearest` every pixel is one of the picture's.
    """
    from PIL import Image

    if picture.shape[:2] == tuple(size):
        return picture
    (height, width), method = size, Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC

    def resized(values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(Image.fromarray(np.ascontiguousarray(values)).resize((width, height), method))

    channels = picture.shape[2]
    if picture.dtype == np.uint8 and channels in (1, 3, 4):
        return resized(picture[:, :, 0] if channels == 1 else picture).reshape(height, width, channels)
    made = np.empty((height, width, channels), picture.dtype)
    for channel in range(channels):
        values = resized(picture[:, :, channel].astype(np.float32))
        if picture.dtype.kind in "iu":
            ends = np.iinfo(picture.dtype)
            values = np.rint(values).clip(ends.min, ends.max)
        made[:, :, channel] = values
    return made
