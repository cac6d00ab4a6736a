"""Channels of pictures, pictures in 8 bits, and as the tensors that networks take and give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.errors import UsageError
from treadle.images.reading import BadPicture, Pixels, read_array

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's name of pictures with so many channels."""

LUMA = (0.299, 0.587, 0.114)
"""The shares of red, green and blue in gray: ITU-R 601."""


def read_pixels(path: str | Path, channels: int = 3) -> Pixels:
    """Read a picture as (H, W, channels) uint8; see `decode` and `with_channels`."""
    check_channels(channels)
    return with_channels(decode(path), channels)


def decode(path: str | Path, *, upright: bool = True) -> Pixels:
    """Read a picture in 8 bits: (H, W, C) uint8, C 1, 3 or 4; `upright` and the rest as for `read_array`.

    16 bits of gray are scaled to 8 and rounded, of 16-bit colour the upper 8 are taken; floats are taken for what is
    shown, and must lie in [0, 1]. Raises BadPicture.
    """
    values = read_array(path, deep=False, upright=upright)
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if not (values.min() >= 0 and values.max() <= 1):  # so that NaN is out of range, too
        what = f"holds values from {values.min():g} to {values.max():g}; expected 0.0 to 1"
        raise BadPicture(Path(path), what, "save it with 8 or 16 bits")
    return np.rint(values * np.float32(255)).astype(np.uint8)


def with_channels(picture: NDArray[Any], channels: int) -> NDArray[Any]:
    """A picture (H, W, C) uint8, uint16 or float as (H, W, channels): itself where it has as many.

    1 (gray), 3 (RGB) and 4 (RGB and alpha) become one another: gray is ITU-R 601 luma, what is transparent shows white
    where alpha is left out, and what had none is opaque. White is the largest whole number of the type, or 1.

    Raises UsageError where one of the two is another number of channels.
    """
    given = picture.shape[2]
    if given == channels:
        return picture
    if given not in MODES or channels not in MODES:
        raise UsageError(
            f"the picture has {given} channels, not {channels}: only 1, 3 and 4 (gray, RGB, RGBA) become one another"
        )
    return _eight_bits_with(picture, channels) if picture.dtype == np.uint8 else _deep_with(picture, channels)


def _eight_bits_with(picture: Pixels, channels: int) -> Pixels:
    from PIL import Image

    image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert(MODES[channels])).reshape(*picture.shape[:2], channels)


def _deep_with(picture: NDArray[Any], channels: int) -> NDArray[Any]:
    whole = picture.dtype.kind in "iu"
    white = float(np.iinfo(picture.dtype).max) if whole else 1.0
    values = picture.astype(np.float64)
    if values.shape[2] == 4:
        alpha = values[:, :, 3:] / white
        values = values[:, :, :3] * alpha + white * (1 - alpha)
    if channels == 1 and values.shape[2] == 3:
        values = values @ np.array(LUMA)[:, None]
    elif channels > 1 and values.shape[2] == 1:
        values = values.repeat(3, axis=2)
    if channels == 4:
        values = np.concatenate([values, np.full_like(values[:, :, :1], white)], axis=2)
    return (np.rint(values).clip(0, white) if whole else values).astype(picture.dtype)


def check_channels(channels: int) -> None:
    """Raises UsageError unless `channels` is 1, 3 or 4."""
    if channels not in MODES:
        raise UsageError(f"channels is {channels!r}: expected 1 (gray), 3 (RGB) or 4 (RGBA)")


def to_tensor(picture: Pixels) -> Tensor:
    """(H, W, C) uint8 as float32 (C, H, W) in [-1, 1]: x / 127.5 - 1."""
    planes = np.array(picture.transpose(2, 0, 1), order="C")  # a copy: what Pillow gives cannot be written to
    return torch.from_numpy(planes).to(torch.float32).div_(127.5).sub_(1)


def to_pixels(picture: Tensor) -> Pixels:
    """Floats (..., C, H, W) in [-1, 1], on any device, as uint8 (..., H, W, C): rounded, clipped, NaN as 0."""
    return _levels(picture).nan_to_num(0).to(torch.uint8).movedim(-3, -1).cpu().numpy()


def seen_by_networks(pictures: Tensor) -> Tensor:
    """Pictures (N, 1 to 4 channels, H, W) in [-1, 1] as published networks take them: (N, 3, H, W) float32 in [-1, 1].

    Rounded to 8 bits as when they are saved; gray is repeated, alpha left out.
    """
    colours = pictures[:, :1] if pictures.shape[1] < 3 else pictures[:, :3]
    return (_levels(colours) / 127.5 - 1).expand(-1, 3, -1, -1)


def spread(pictures: Tensor) -> Tensor:
    """Pictures of many channels as three, for the eye: (..., C, H, W) to (..., 3, H, W).

    The first channel is red, the last blue and the middle green; those between are shared by their neighbours, and each
    colour is the weighted mean of its channels. So three channels stay as they are, equal channels show gray, and a
    difference in any of them shows.
    """
    channels = pictures.shape[-3]
    places = torch.linspace(0, 2, channels, dtype=torch.float64) if channels > 1 else torch.ones(1, dtype=torch.float64)
    shares = (1 - (places - torch.arange(3, dtype=torch.float64)[:, None]).abs()).clamp(min=0)
    shares[shares.sum(1) == 0] = 1  # of one or two channels, a colour that lies between them is their mean
    shares /= shares.sum(1, keepdim=True)
    flat = pictures.float().flatten(-2)
    return (shares.to(flat) @ flat).unflatten(-1, pictures.shape[-2:])


def _levels(pictures: Tensor) -> Tensor:
    """Values in [-1, 1] as 0, 1 ... 255, float32."""
    return ((pictures.detach().float() + 1) * 127.5).round().clamp(0, 255)
