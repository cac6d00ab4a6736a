"""A strip of a held-out view: what it should be, what was rendered, how they differ, and its depth."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from treadle.images.depth import shown_depth
from treadle.images.judging import as_pixels
from treadle.images.reading import Pixels

ERROR_GAIN = 4
"""What errors are multiplied by to be seen."""

STRIP = ("target", "render", f"|error| x {ERROR_GAIN}", "depth")


def strip(image: Tensor, target: Tensor, depth: Tensor, alpha: Tensor) -> list[Pixels]:
    """Target, render, error times `ERROR_GAIN` and depth of a view, (H, W, 3) uint8 each.

    Args:
        image, target: (H, W, 3) from 0 to 1.
        depth, alpha: (H, W).
    """
    seen, wanted = as_pixels(image).numpy(), as_pixels(target).numpy()
    error = np.abs(seen.astype(np.int16) - wanted).mean(2).clip(0, 255 / ERROR_GAIN) * ERROR_GAIN
    return [wanted, seen, np.repeat(error.astype(np.uint8)[:, :, None], 3, 2), shown_depth(depth, alpha)]
