"""Label maps as classes: each colour of a palette is one, and a network is given a plane of 0 and 1 for each.

As colours, classes have an order that means nothing: that red lies between black and yellow. Label maps are often JPEG
files, whose colours are off by a few levels and blend at edges: a pixel belongs to the nearest colour of the palette.
"""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.errors import UsageError
from treadle.gans.values import Array, Values
from treadle.images.pixels import with_channels
from treadle.images.reading import Pixels

MOST = 256
"""Classes that there can be."""
AROUND = 16
"""Levels by which a colour of a lossy file is off, at most."""
FLAT = 8
"""Levels between neighbours, up to which both lie within one class."""
SHARE = 0.0005
"""Of all pixels, what a colour of lossy files must hold to be a class."""
DARK = 64
"""The lightest gray of index maps: of more classes, most can be told apart as they are."""
COVERED = 0.5
"""Of all pixels, what the classes of lossy files must hold together: photographs have no such colours."""


@dataclass(frozen=True)
class Palette:
    """The colours of the classes of label maps, each (red, green, blue), in the order of the classes.

    Raises UsageError for fewer than two colours, more than `MOST`, and one that comes twice.

    Example:
        palette = Palette.parse("#000000 #800000 #000080")       # or: find_palette(label_maps)
        planes = palette.one_hot(label_map)                      # (3, H, W)
    """

    colors: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.colors) <= MOST:
            raise UsageError(f"{len(self.colors)} colours of classes: expected 2 to {MOST}")
        if len(set(self.colors)) < len(self.colors):
            twice = next(color for color in self.colors if self.colors.count(color) > 1)
            raise UsageError(f"the colour {_hex(twice)} is named for two classes: name it once")

    @classmethod
    def parse(cls, text: str) -> Palette:
        """The palette of which `text` is the colours, "#rrggbb" each, with spaces or commas between."""
        found = []
        for word in re.split(r"[\s,]+", text.strip()):
            if not re.fullmatch("#[0-9a-fA-F]{6}", word):
                raise UsageError(f"the colour {word!r} of a class: expected '#rrggbb', such as '#800000'")
            value = int(word[1:], 16)
            found.append((value >> 16, value >> 8 & 255, value & 255))
        return cls(tuple(found))

    def __str__(self) -> str:
        """What `parse` reads."""
        return " ".join(map(_hex, self.colors))

    def __len__(self) -> int:
        return len(self.colors)

    def indices(self, picture: Pixels) -> NDArray[np.uint8]:
        """The class of each pixel, that of the nearest colour: (H, W, 1, 3 or 4) uint8 to (H, W) uint8."""
        pixels = with_channels(picture, 3).astype(np.float32)
        # |p - c|^2 = |p|^2 - 2 (p c - |c|^2 / 2), in whole numbers and halves that float32 holds exactly.
        colors, offsets = self._table
        found: NDArray[np.uint8] = (pixels @ colors - offsets).argmax(-1).astype(np.uint8)
        return found

    def one_hot(self, picture: Pixels) -> Tensor:
        """A label map (H, W, 1, 3 or 4) uint8 as float32 (classes, H, W): 1 in the plane of its class, 0 elsewhere."""
        planes = self.indices(picture) == np.arange(len(self), dtype=np.uint8)[:, None, None]
        return torch.from_numpy(planes.astype(np.float32))

    def shown(self, planes: Tensor) -> Pixels:
        """Planes (..., classes, H, W), on any device, in the colours of their largest: (..., H, W, 3) uint8.

        Index maps, whose pixels are the numbers of classes and would all look black, get colours of other hues.
        """
        return self._visible[planes.argmax(-3).cpu().numpy()]

    @cached_property
    def _visible(self) -> Pixels:
        """The colours to be looked at, (classes, 3) uint8."""
        if any(len(set(color)) > 1 or max(color) > DARK for color in self.colors):
            return np.array(self.colors, np.uint8)
        # Steps of the golden ratio around the circle of hues: however many classes, none lie close together.
        shades = [colorsys.hsv_to_rgb(gray * 0.618034 % 1, 0.75, 0.95 - gray % 3 * 0.2) for gray, *_ in self.colors]
        return np.rint(np.array(shades) * 255).astype(np.uint8)

    @cached_property
    def _table(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        colors = np.array(self.colors, np.float32)
        return np.ascontiguousarray(colors.T), (colors**2).sum(1) / 2


@dataclass(frozen=True, kw_only=True)
class Labels(Values):
    """The numbers of label maps: colours outside, a plane for each class within."""

    palette: Palette

    @property
    def planes(self) -> int:
        """The classes."""
        return len(self.palette)

    def encode(self, picture: Array) -> Tensor:
        """A label map (H, W, channels) uint8 as the network takes it: float32 (classes, H, W), one-hot."""
        return self.palette.one_hot(picture)

    def decode(self, made: Tensor) -> Pixels:
        """Planes (..., classes, H, W) in the colours of their largest: uint8 (..., H, W, 3)."""
        return self.palette.shown(made)

    shown = decode

    def describe(self) -> str:
        """In words: "9 classes"."""
        return f"{len(self.palette)} classes"


def parse_classes(text: object) -> Palette | None:
    """The palette that the setting `classes` names; None for "auto", which the training data decide."""
    if not isinstance(text, str):
        raise UsageError(f"classes is {text!r}: expected auto, or colours such as '#000000 #800000'")
    return None if text == "auto" else Palette.parse(text)


def find_palette(pictures: Iterable[Pixels]) -> Palette:
    """The colours of label maps, the most frequent first.

    Where they have `MOST` different ones or fewer, as lossless files do, all are classes. Else those are that hold a
    share of the pixels, with the few levels by which lossy files miss a colour; edges, where they blend, are left out.

    Args:
        pictures: label maps, (H, W, 1, 3 or 4) uint8 each.

    Raises:
        UsageError: there are no such colours, as in photographs.
    """
    every: NDArray[np.int64] = np.zeros(0, np.int64)
    inner: list[NDArray[np.int64]] = []
    total = 0
    for picture in pictures:
        pixels = with_channels(picture, 3).astype(np.int64)
        packed = pixels @ np.array([1 << 16, 1 << 8, 1])
        total += packed.size
        if every.size <= MOST:
            every = np.union1d(every, packed)
        inner.append(packed[_flat(pixels)])
    if every.size <= MOST:
        values, counts = np.unique(np.concatenate([*inner, every]), return_counts=True)
        return Palette(tuple(map(_unpacked, values[np.argsort(-counts, kind="stable")])))
    values, counts = np.unique(np.concatenate(inner), return_counts=True)
    colors = np.array([_unpacked(value) for value in values])
    found: list[tuple[int, int, int]] = []
    left, covered = counts.copy(), 0.0
    while left.any() and len(found) < MOST:
        distance = np.abs(colors - colors[(first := int(left.argmax()))]).max(1)
        share = left[distance <= AROUND].sum() / total
        if share < SHARE:
            break
        found.append(_unpacked(values[first]))
        covered += share
        left[distance <= 2 * AROUND] = 0
    if covered < COVERED:
        raise UsageError(
            f"no classes found in the input pictures: {len(found)} colours hold {covered:.0%} of them; are they label "
            "maps? Name the colours, as in classes='#000000 #800000', or set classes to null"
        )
    return Palette(tuple(found))


def _flat(pixels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(H, W): which pixels are like their neighbours to the right and below."""
    flat = np.ones(pixels.shape[:2], bool)
    flat[:, :-1] &= np.abs(np.diff(pixels, axis=1)).max(2) <= FLAT
    flat[:-1] &= np.abs(np.diff(pixels, axis=0)).max(2) <= FLAT
    return flat


def _unpacked(value: int) -> tuple[int, int, int]:
    return int(value) >> 16, int(value) >> 8 & 255, int(value) & 255


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
