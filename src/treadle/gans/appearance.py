"""How a picture looks: colours, gamma, blur, noise and compression of float32 (H, W, C) in [0, 1]; alpha, the fourth of
four channels, is left as it is but by the blurs.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from math import cos, sin
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from treadle.images.pixels import MODES

if TYPE_CHECKING:
    from PIL import Image

Shares = NDArray[np.float32]
"""A picture (H, W, C) as shares of its full range: 0 is black, 1 white."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""ITU-R 601, as everywhere here."""


def jittered(x: Shares, brightness: float, contrast: float, saturation: float, *, eight_bits: bool = False) -> Shares:
    """Brightness scaled from black, contrast from the mean gray, saturation from each pixel's gray.

    `eight_bits` says that each value is one of 256, which Pillow then computes with; so do the other functions' here.
    To the bit that is what it was in 0.1 and 0.2, so that their runs go on with the pictures that they have seen.
    """
    if eight_bits:
        return _by_pillow(x, lambda image: _enhanced(image, brightness, contrast, saturation))
    colours = (_colours(x) * np.float32(brightness)).clip(0, 1)
    mean = (colours @ _LUMA).mean() if colours.shape[2] == 3 else colours.mean()
    colours = (mean + np.float32(contrast) * (colours - mean)).clip(0, 1)
    if colours.shape[2] == 3:
        gray = (colours @ _LUMA)[..., None]
        colours = (gray + np.float32(saturation) * (colours - gray)).clip(0, 1)
    return _with_alpha(colours, x)


def with_gamma(x: Shares, gamma: float) -> Shares:
    """Every value to the power of `gamma`: above 1 is darker."""
    return _with_alpha(_colours(x).clip(0, 1) ** np.float32(gamma), x)


def grayed(x: Shares) -> Shares:
    """Gray in all channels: the luma of three colours, of other numbers of channels the mean."""
    colours = _colours(x)
    gray = colours @ _LUMA if colours.shape[2] == 3 else colours.mean(2)
    return _with_alpha(np.repeat(gray[..., None], colours.shape[2], 2), x)


def noisy(x: Shares, deviation: float, rng: np.random.Generator) -> Shares:
    """With Gaussian noise on every value."""
    colours = _colours(x)
    return _with_alpha(colours + np.float32(deviation) * rng.standard_normal(colours.shape, dtype=np.float32), x)


def blurred(x: Shares, deviation: float, *, eight_bits: bool = False) -> Shares:
    """Smoothed by a Gaussian, its standard deviation in pixels; the border is continued by its own pixels."""
    if eight_bits:
        return _by_pillow(x, lambda image: _smoothed(image, deviation))
    reach = round(3 * deviation)
    if reach == 0:
        return x
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    kernel /= kernel.sum()
    return _filtered(_filtered(x, kernel[:, None]), kernel[None])


def moved(x: Shares, length: float, angle: float) -> Shares:
    """As if the camera had moved by `length` pixels in the direction `angle`, in radians, while it took the picture."""
    reach = int(np.ceil(length / 2))
    if reach == 0:
        return x
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    for place in np.linspace(-length / 2, length / 2, 8 * reach + 1):
        row, column = reach + place * sin(angle), reach + place * cos(angle)
        top, left = min(int(row), 2 * reach - 1), min(int(column), 2 * reach - 1)
        down, right = row - top, column - left
        kernel[top : top + 2, left : left + 2] += np.outer([1 - down, down], [1 - right, right])
    return _filtered(x, kernel / kernel.sum())


def compressed(x: Shares, quality: int) -> Shares:
    """With what JPEG compression of this quality (1 to 100) adds to the picture in 8 bits.

    Deeper pictures keep their depth: to them is added what the compression changed. Where there are neither one nor
    three channels, each is compressed by itself.
    """
    colours = _colours(x)
    eight_bits = np.rint(colours.clip(0, 1) * 255).astype(np.uint8)
    apart = colours.shape[2] not in (1, 3)
    parts = [eight_bits[..., index : index + 1] for index in range(colours.shape[2])] if apart else [eight_bits]
    found = np.concatenate([_through_jpeg(part, quality) for part in parts], axis=2)
    return _with_alpha(colours + (found.astype(np.float32) - eight_bits) / 255, x)


def _by_pillow(x: Shares, change: Callable[[Image.Image], Image.Image]) -> Shares:
    from PIL import Image

    pixels = np.rint(x * 255).astype(np.uint8)
    changed = change(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    return np.asarray(changed).reshape(pixels.shape).astype(np.float32) / np.float32(255)


def _enhanced(image: Image.Image, brightness: float, contrast: float, saturation: float) -> Image.Image:
    from PIL import ImageEnhance

    image = ImageEnhance.Brightness(image).enhance(brightness)
    return ImageEnhance.Color(ImageEnhance.Contrast(image).enhance(contrast)).enhance(saturation)


def _smoothed(image: Image.Image, deviation: float) -> Image.Image:
    from PIL import ImageFilter

    return image.filter(ImageFilter.GaussianBlur(deviation))


def _through_jpeg(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    with io.BytesIO() as file:
        image.save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file).convert(MODES[pixels.shape[2]])).reshape(pixels.shape)


def _filtered(x: Shares, kernel: NDArray[np.float64]) -> Shares:
    """Each channel of a picture convolved with a kernel of odd sides."""
    planes = torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))[:, None]
    rows, columns = (size // 2 for size in kernel.shape)
    padded = functional.pad(planes, (columns, columns, rows, rows), mode="replicate")
    out = functional.conv2d(padded, torch.from_numpy(kernel.astype(np.float32))[None, None])
    return out[:, 0].permute(1, 2, 0).numpy()


def _colours(x: Shares) -> Shares:
    """All channels but alpha."""
    return x[..., :3] if x.shape[2] == 4 else x


def _with_alpha(colours: Shares, x: Shares) -> Shares:
    """`colours` with the alpha of `x`, where it has one."""
    return np.concatenate([colours, x[..., 3:]], axis=2) if x.shape[2] == 4 else colours
