"""Augmentation of picture pairs: the geometry of both together, the appearance of the input alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from treadle.errors import UsageError
from treadle.images.reading import Pixels

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to a pair (x, y) of pictures, (H, W, C) uint8; as in pix2pix (Isola 2017) unless asked for more.

    Both are resized to `load_size` x `load_size` (whatever their shape), then cut, mirrored and turned as one. What is
    random comes from the generator given, and from nothing else: equal generators, equal bits.
    """

    load_size: int = 286
    """Side of the square both pictures are resized to, in pixels; bicubic, with antialiasing."""
    crop_size: int = 256
    """Side of the square cut from it, at a place drawn uniformly; at most `load_size`."""
    flip: float = 0.5
    """Probability of mirroring left to right."""
    rotate: bool = False
    """Whether to turn by 0, 90, 180 or 270 degrees, each as probable: for pictures without an up, such as maps."""
    jitter: float = 0.0
    """Input only: brightness, contrast and saturation are each scaled by a factor from U(1 - jitter, 1 + jitter)."""
    noise: float = 0.0
    """Input only: Gaussian noise per value; its standard deviation from U(0, noise), as a fraction of full range."""
    blur: float = 0.0
    """Input only: Gaussian blur; its standard deviation from U(0, blur) pixels."""
    label_input: bool = False
    """Resize the input by nearest neighbour: bicubic blends the colours of a label map into ones that are no label."""

    def __post_init__(self) -> None:
        """Check ranges; raises UsageError naming the setting."""
        for name, size in (("load_size", self.load_size), ("crop_size", self.crop_size)):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise UsageError(f"{name} is {size!r}: expected a whole number of pixels, at least 1")
        if self.crop_size > self.load_size:
            raise UsageError(
                f"crop_size is {self.crop_size}, but load_size {self.load_size}: it must be as large at least"
            )
        for name, value, most in (("flip", self.flip, 1), ("jitter", self.jitter, 1), ("noise", self.noise, 1)):
            if not 0 <= value <= most:
                raise UsageError(f"{name} is {value!r}: expected 0 to {most}")
        if not (self.blur >= 0 and isfinite(self.blur)):
            raise UsageError(f"blur is {self.blur!r}: expected a number of pixels, 0 or more")

    def still(self) -> Augmentation:
        """The same size of output without anything random: the whole picture, resized to `crop_size`."""
        return Augmentation(load_size=self.crop_size, crop_size=self.crop_size, flip=0.0, label_input=self.label_input)

    def geometry(self) -> Augmentation:
        """This without what is done to the input only."""
        return replace(self, jitter=0.0, noise=0.0, blur=0.0, label_input=False)

    def resize(self, x: Pixels, *, labels: bool = False) -> Pixels:
        """`x` as (load_size, load_size, C): what does not depend on chance, and can be kept. `x` itself if it fits."""
        from PIL import Image

        if x.shape[:2] == (self.load_size, self.load_size):
            return x
        method = Image.Resampling.NEAREST if labels else Image.Resampling.BICUBIC
        return _pixels(_image(x).resize((self.load_size, self.load_size), method))

    def vary(self, resized: tuple[Pixels, ...], rng: np.random.Generator) -> tuple[Pixels, ...]:
        """What is random, done to pictures from `resize`: geometry to all of them alike, appearance to the first.

        Returns (crop_size, crop_size, C) uint8 each. Cut, mirrored and turned pictures are views of those given.
        """
        top, left = rng.integers(self.load_size - self.crop_size + 1, size=2)
        mirrored = rng.random() < self.flip
        turns = int(rng.integers(4)) if self.rotate else 0
        first, *others = (_moved(picture, top, left, self.crop_size, mirrored, turns) for picture in resized)
        return (self._appearance(first, rng), *others)

    def __call__(self, x: Pixels, y: Pixels, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """Both steps on a pair of pictures of any size, (H, W, C) uint8."""
        x, y = self.vary((self.resize(x, labels=self.label_input), self.resize(y)), rng)
        return x, y

    def _appearance(self, x: Pixels, rng: np.random.Generator) -> Pixels:
        if self.blur or self.jitter:
            x = self._coloured(x, rng)
        if self.noise:
            deviation = np.float32(255 * self.noise * rng.random())
            noisy = x + deviation * rng.standard_normal(x.shape, dtype=np.float32)
            x = np.rint(noisy).clip(0, 255).astype(np.uint8)
        return x

    def _coloured(self, x: Pixels, rng: np.random.Generator) -> Pixels:
        from PIL import ImageEnhance, ImageFilter

        image = _image(x)
        if self.blur:
            image = image.filter(ImageFilter.GaussianBlur(self.blur * rng.random()))
        if self.jitter:
            for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                image = enhance(image).enhance(1 + self.jitter * (2 * rng.random() - 1))
        return _pixels(image)


def _moved(picture: Pixels, top: int, left: int, side: int, mirrored: bool, turns: int) -> Pixels:
    picture = picture[top : top + side, left : left + side]
    if mirrored:
        picture = picture[:, ::-1]
    return np.rot90(picture, turns) if turns else picture


def _image(x: Pixels) -> Image.Image:
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(x[:, :, 0] if x.shape[2] == 1 else x))


def _pixels(image: Image.Image) -> Pixels:
    return np.asarray(image).reshape(image.height, image.width, -1)
