"""A fit beside its target, for the eye."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from treadle.images.display import to_display
from treadle.images.panels import panel
from treadle.images.picture import Picture
from treadle.images.reading import Pixels

ERROR_GAIN = 10
"""What errors are multiplied by to be seen."""

LONGEST = 1024
"""Longest side of a picture in the panel, in pixels; larger ones are scaled down."""


def comparison(fit: Picture, target: Picture, psnr: float) -> Pixels:
    """A panel (H, W, 3) for the eye: fit, target, |error| (of what is shown, colours averaged) times `ERROR_GAIN`."""
    seen, wanted = (to_display(picture.values, linear=picture.linear) for picture in (fit, target))
    error = np.abs(seen - wanted).mean(axis=2) * ERROR_GAIN
    captions = (f"fit, {psnr:.2f} dB", f"target: {Path(target.name).name}", f"|error| x {ERROR_GAIN}")
    return panel([(seen, wanted, error)], captions, largest=LONGEST)
