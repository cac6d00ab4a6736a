"""Pictures in 8 bits, and as the tensors that networks take and give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from treadle.errors import UsageError
from treadle.images.reading import BadPicture, Pixels, read_array

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's name of pictures with so many channels."""


def read_pixels(path: str | Path, channels: int = 3) -> Pixels:
    """Read a picture as (H, W, channels) uint8; see `decode` and `with_channels`."""
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


def with_channels(picture: Pixels, channels: int) -> Pixels:
    """A picture (H, W, 1, 3 or 4) as (H, W, channels): 1 gray (ITU-R 601 luma), 3 RGB or 4 RGBA.

    With 1 and 3 channels, what is transparent shows white.
    """
    from PIL import Image

    check_channels(channels)
    if picture.shape[2] == channels:
        return picture
    image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert(MODES[channels])).reshape(*picture.shape[:2], channels)


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


def _levels(pictures: Tensor) -> Tensor:
    """Values in [-1, 1] as 0, 1 ... 255, float32."""
    return ((pictures.detach().float() + 1) * 127.5).round().clamp(0, 255)
