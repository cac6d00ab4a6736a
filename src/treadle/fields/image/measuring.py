"""How good a fit is, over all pixels, and pictures of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from treadle.fields.image.panels import LONGEST, comparison
from treadle.fields.image.picture_field import PictureField
from treadle.fields.image.tiles import Preview, TiledPicture, centres
from treadle.images.display import to_display, write_png
from treadle.images.metrics import psnr_of
from treadle.images.picture import Picture

CHUNK = 2**20
"""Pixels of a tiled picture looked at together."""


def measure_whole(model: PictureField, picture: Picture, directory: Path) -> dict[str, Any]:
    """Write `fit.png` and `comparison.png` into `directory`; returns "psnr" in dB."""
    output = model.render(*picture.size)
    targets = model.targets(picture).reshape(output.shape)
    psnr = psnr_of(functional.mse_loss(output.cpu(), targets).item())
    fit = Picture(model.values(output), picture.linear, "fit")
    write_png(directory / "fit.png", to_display(fit.values, linear=True) if fit.linear else fit.values)
    write_png(directory / "comparison.png", comparison(fit, picture, psnr))
    return {"psnr": psnr}


def measure_tiled(model: PictureField, picture: TiledPicture, directory: Path) -> dict[str, Any]:
    """The same for a picture that is not to be in memory as floats; `fit.png`, in 8 bits, is."""
    squares, height, width = 0.0, *picture.size
    small = Preview(picture.size, picture.channels, LONGEST)
    shown = np.empty((height, width, 3 if picture.linear else picture.channels), np.uint8)
    for first in range(0, len(picture), CHUNK):
        indices = np.arange(first, min(first + CHUNK, len(picture)))
        rows, columns = picture.places(indices)
        output = model.evaluate(centres(rows, columns, picture.size)).cpu()
        squares += float((output - model.encode(torch.from_numpy(picture.values(indices)))).double().square().sum())
        values = model.values(output)
        small.add(rows, columns, values)
        seen = to_display(values[None], linear=True)[0] if picture.linear else values
        shown[rows, columns] = seen * 255 + 0.5
    psnr = psnr_of(squares / (len(picture) * picture.channels))
    write_png(directory / "fit.png", shown)
    fit = Picture(small.means(), picture.linear, "fit")
    write_png(directory / "comparison.png", comparison(fit, picture.preview(LONGEST), psnr))
    return {"psnr": psnr}
