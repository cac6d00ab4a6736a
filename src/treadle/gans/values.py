"""How the numbers of a picture become those that a network takes, and how what a network gives becomes a picture."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.errors import UsageError
from treadle.images.bands import Kind
from treadle.images.pixels import spread, to_pixels, to_tensor, with_channels
from treadle.images.reading import Pixels

Array = NDArray[Any]
"""A picture, (H, W, C): uint8, uint16 or float32, of any number of channels."""

WHOLE = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0)}
"""The range that is used where none is said: all that the type holds. Floats have no such range."""


@dataclass(frozen=True, kw_only=True)
class Values:
    """The numbers of the pictures on one side of a translation: their type, their range, their channels.

    `encode` makes of a picture what a network takes, linearly: `low` becomes -1 and `high` 1. `decode` is the way back,
    rounded for whole numbers; both cut off what lies outside the range. Whole numbers come back as they were; floats
    within a 2**-23rd of the range.

    A `TranslationConfig` has `input_values` and `output_values`; since a model's config is kept beside its weights, so
    is this.

    Args:
        channels: of the pictures.
        dtype: "uint8", "uint16" or "float32", of arrays and files.
        range: the numbers that are -1 and 1 for the network; None for all that whole numbers of this type can be.

    Raises:
        UsageError: a type that is none of these, a range that is empty or not finite, floats without a range.

    Example:
        values = Values(channels=2, dtype="uint16", range=(0, 4095))     # twelve bits, two channels
        picture = values.decode(model(values.encode(picture)[None]))[0]
    """

    channels: int = 3
    dtype: Kind = "uint8"
    range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.dtype not in ("uint8", "uint16", "float32"):
            raise UsageError(f"dtype is {self.dtype!r}: expected 'uint8', 'uint16' or 'float32'")
        if isinstance(self.channels, bool) or not isinstance(self.channels, int) or self.channels < 1:
            raise UsageError(f"channels is {self.channels!r}: expected a whole number of at least 1")
        if self.range is None and self.dtype == "float32":
            raise UsageError("floats have no range of their own: say which are darkest and brightest, as [0, 1]")
        low, high = self.ends
        if not (isfinite(low) and isfinite(high) and low < high):
            raise UsageError(f"range is [{low:g}, {high:g}]: expected two numbers, the smaller one first")

    @property
    def ends(self) -> tuple[float, float]:
        """The numbers that are -1 and 1 for the network."""
        return WHOLE[self.dtype] if self.range is None else self.range

    @property
    def planes(self) -> int:
        """The channels of what the network takes or gives."""
        return self.channels

    @property
    def deep(self) -> bool:
        """Whether 8 bits would lose some of it: such pictures are measured by their values, others as 8 bits."""
        return self.dtype != "uint8"

    def conform(self, picture: Array) -> Array:
        """`picture`, (H, W, any channels) uint8, uint16 or floats, as (H, W, channels) of this type.

        Channels: 1, 3 and 4 become one another (see `with_channels`). Whole numbers of 8 and 16 bits keep their share
        of full range, rounded; by it floats of [0, 1] become whole numbers; whole numbers become floats as they are.

        Raises UsageError for other channels, and for floats outside [0, 1] where whole numbers are wanted.
        """
        return conform(picture, self.channels, self.dtype)

    def encode(self, picture: Array) -> Tensor:
        """A picture (H, W, channels) of this type as the network takes it: float32 (planes, H, W) in [-1, 1].

        Raises UsageError for another type or number of channels: see `conform`.
        """
        if picture.ndim != 3 or picture.shape[2] != self.channels or picture.dtype != self.dtype:
            raise UsageError(
                f"the picture is {picture.dtype} of shape {picture.shape}: expected {self.dtype} "
                f"(H, W, {self.channels})"
            )
        if self.dtype == "uint8" and self.range is None:
            return to_tensor(picture)
        low, high = self.ends
        planes = torch.from_numpy(np.array(picture.transpose(2, 0, 1), np.float64, order="C"))
        return planes.sub_(low).mul_(2 / (high - low)).sub_(1).clamp_(-1, 1).float()

    def decode(self, made: Tensor) -> Array:
        """What a network gave, floats (..., planes, H, W), as (..., H, W, channels) of this type; NaN becomes `low`."""
        if self.dtype == "uint8" and self.range is None:
            return to_pixels(made)
        low, high = self.ends
        values = made.detach().cpu().double().nan_to_num(-1).clamp(-1, 1).add(1).mul((high - low) / 2).add(low)
        if self.dtype != "float32":
            values = values.round().clamp(*WHOLE[self.dtype])
        return values.movedim(-3, -1).numpy().astype(self.dtype)

    def shown(self, made: Tensor) -> Pixels:
        """What a network takes or gives, floats (..., planes, H, W), for the eye: uint8 (..., H, W, 1, 3 or 4).

        `low` is black and `high` white, so pictures side by side compare; more channels than colours are spread over
        red, green and blue in their order (see `spread`). What 8 bits hold is shown as it is.
        """
        return to_pixels(made if self.planes in (1, 3, 4) else spread(made))

    def describe(self) -> str:
        """In words: "uint16 from 0 to 4095, 2 channels"."""
        low, high = self.ends
        return f"{self.dtype} from {low:g} to {high:g}, {self.channels} channel{'s' * (self.channels > 1)}"


def conform(picture: Array, channels: int, dtype: Kind) -> Array:
    """`picture` with so many channels, of another type: see `Values.conform`. Itself where it is that already."""
    return as_dtype(with_channels(picture, channels), dtype)


def as_dtype(picture: Array, dtype: Kind) -> Array:
    """`picture` as uint8, uint16 or float32: see `Values.conform`. Itself where it is that already."""
    if picture.dtype == dtype:
        return picture
    if dtype == "float32":
        return picture.astype(np.float32)
    if picture.dtype == np.uint8:  # to 16 bits
        return picture.astype(np.uint16) * np.uint16(257)
    if picture.dtype == np.uint16:
        return ((picture.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if not (picture.min() >= 0 and picture.max() <= 1):  # so that NaN is out of range, too
        found = f"from {picture.min():g} to {picture.max():g}"
        raise UsageError(f"floats {found} cannot be {dtype}: expected 0.0 to 1; say dtype float32, and their range")
    return np.rint(picture * WHOLE[dtype][1]).astype(dtype)
