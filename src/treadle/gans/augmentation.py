"""Augmentation of picture pairs: the geometry of both together, the appearance of the input alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError, nearest
from treadle.images.resizing import resize

if TYPE_CHECKING:
    from PIL import Image

Array = NDArray[Any]
"""A picture, (H, W, C): uint8, uint16 or float32, of any number of channels."""
Size = tuple[int, int]
"""Height and width in pixels."""
Preprocess = Literal["resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "none"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to a pair (x, y) of pictures, (H, W, C); as in pix2pix (Isola 2017) unless asked for more.

    Both are brought to a size, then cut, mirrored and turned as one. What is random comes from the generator given, and
    from nothing else: equal generators, equal bits.
    """

    load_size: int | Size = 286
    """What both pictures are resized to, in pixels: the side of a square, or (height, width); bicubic, with
    antialiasing. Where only the width is scaled that is meant."""
    crop_size: int | Size = 256
    """What is cut from it, at a place drawn uniformly: the side of a square, or (height, width)."""
    preprocess: Preprocess = "resize_and_crop"
    """How they are brought to a size, in the words of the official pix2pix and CycleGAN: "resize_and_crop" (to
    `load_size`, whatever their shape), "crop" (not resized at all), "scale_width" (to the width of `load_size` in their
    own shape, and not cut), "scale_width_and_crop", or "none"."""
    flip: float = 0.5
    """Probability of mirroring left to right."""
    rotate: bool = False
    """Whether to turn by 0, 90, 180 or 270 degrees, each as probable, and by 0 or 180 what is no square: for pictures
    without an up, such as maps."""
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
        if self.preprocess not in get_args(Preprocess):
            raise UsageError(f"preprocess is {self.preprocess!r}{nearest(str(self.preprocess), get_args(Preprocess))}")
        for name, size in (("load_size", self.load_size), ("crop_size", self.crop_size)):
            numbers = size if isinstance(size, tuple) else (size, size)
            if len(numbers) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in numbers):
                raise UsageError(
                    f"{name} is {size!r}: expected a whole number of pixels, at least 1, or two of them: height and "
                    "width"
                )
        load, crop = sides(self.load_size), sides(self.crop_size)
        if (self.preprocess == "resize_and_crop" and crop[0] > load[0]) or (self.resizes and crop[1] > load[1]):
            raise UsageError(
                f"crop_size is {self.crop_size}, but load_size {self.load_size}: it must be as large at least"
            )
        for name, value, most in (("flip", self.flip, 1), ("jitter", self.jitter, 1), ("noise", self.noise, 1)):
            if not 0 <= value <= most:
                raise UsageError(f"{name} is {value!r}: expected 0 to {most}")
        if not (self.blur >= 0 and isfinite(self.blur)):
            raise UsageError(f"blur is {self.blur!r}: expected a number of pixels, 0 or more")

    @property
    def resizes(self) -> bool:
        """Whether pictures are resized at all."""
        return self.preprocess not in ("crop", "none")

    @property
    def crops(self) -> bool:
        """Whether a part of `crop_size` is cut from each."""
        return self.preprocess in ("resize_and_crop", "crop", "scale_width_and_crop")

    @property
    def fixed(self) -> bool:
        """Whether pictures of every shape come out in one."""
        return self.preprocess == "resize_and_crop"

    def still(self) -> Augmentation:
        """The whole picture as it is evaluated, without anything random.

        It is resized to `crop_size` where all are brought to one shape, and else keeps its own: scaled to the width of
        `load_size`, or as it is.
        """
        load, how = self.load_size, self.preprocess
        if how == "resize_and_crop":
            load = self.crop_size
        elif how == "scale_width_and_crop":
            how = "scale_width"
        elif how == "crop":
            how = "none"
        return Augmentation(
            load_size=load, crop_size=self.crop_size, preprocess=how, flip=0.0, label_input=self.label_input
        )

    def geometry(self) -> Augmentation:
        """This without what is done to the input only."""
        return replace(self, jitter=0.0, noise=0.0, blur=0.0, label_input=False)

    def resized(self, size: Size) -> Size:
        """The height and width that `resize` gives a picture of this size."""
        if not self.resizes:
            return size
        load, crop = sides(self.load_size), sides(self.crop_size)
        if self.preprocess == "resize_and_crop":
            return load
        height = max(1, round(load[1] * size[0] / size[1]))
        return (max(height, crop[0]) if self.crops else height), load[1]

    def size(self, size: Size) -> Size:
        """The height and width of what is made of a picture of this size.

        Raises UsageError for one that is too small to cut from.
        """
        height, width = self.resized(size)
        if not self.crops:
            return height, width
        crop = sides(self.crop_size)
        if height < crop[0] or width < crop[1]:
            raise UsageError(
                f"a picture of {width} x {height} pixels is too small to cut {crop[1]} x {crop[0]} from: choose a "
                "smaller size, or preprocess resize_and_crop"
            )
        return crop

    def resize(self, x: Array, *, labels: bool = False, like: Size | None = None) -> Array:
        """What does not depend on chance, and can be kept: `x` at the size of `resized`. `x` itself if it fits.

        `like` is the size of the picture that it goes with, so that both of a pair come out alike.
        """
        return resize(x, self.resized(like or x.shape[:2]), nearest=labels)

    def vary(self, resized: tuple[Array, ...], rng: np.random.Generator) -> tuple[Array, ...]:
        """What is random, done to pictures from `resize`: geometry to all of them alike, appearance to the first.

        Returns (H, W, C) of the same type each. Cut, mirrored and turned pictures are views of those given.
        """
        place = (0, 0)
        height, width = resized[0].shape[:2]
        if self.crops:
            room = (height - sides(self.crop_size)[0] + 1, width - sides(self.crop_size)[1] + 1)
            # Of a square one draw of two numbers, as it has always been.
            place = tuple(rng.integers(room[0] if room[0] == room[1] else room, size=2))
            height, width = sides(self.crop_size)
        mirrored = rng.random() < self.flip
        turns = int(rng.integers(4)) if self.rotate else 0
        if height != width:
            turns -= turns % 2
        first, *others = (_moved(picture, place, (height, width), mirrored, turns) for picture in resized)
        return (self._appearance(first, rng), *others)

    def __call__(self, x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """Both steps on a pair of pictures of any size, (H, W, C)."""
        like = x.shape[:2]
        self.size(like)
        x, y = self.vary((self.resize(x, labels=self.label_input), self.resize(y, like=like)), rng)
        return x, y

    def _appearance(self, x: Array, rng: np.random.Generator) -> Array:
        if self.blur or self.jitter:
            x = self._coloured(x, rng)
        if self.noise:
            deviation = np.float32(255 * self.noise * rng.random())
            noisy = x + deviation * rng.standard_normal(x.shape, dtype=np.float32)
            x = np.rint(noisy).clip(0, 255).astype(np.uint8)
        return x

    def _coloured(self, x: Array, rng: np.random.Generator) -> Array:
        from PIL import ImageEnhance, ImageFilter

        image = _image(x)
        if self.blur:
            image = image.filter(ImageFilter.GaussianBlur(self.blur * rng.random()))
        if self.jitter:
            for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                image = enhance(image).enhance(1 + self.jitter * (2 * rng.random() - 1))
        return _pixels(image)


def sides(size: int | Size) -> Size:
    """Height and width of a setting that is one number where they are equal."""
    return size if isinstance(size, tuple) else (size, size)


def _moved(picture: Array, place: tuple[int, ...], size: Size, mirrored: bool, turns: int) -> Array:
    (top, left), (height, width) = place, size
    picture = picture[top : top + height, left : left + width]
    if mirrored:
        picture = picture[:, ::-1]
    return np.rot90(picture, turns) if turns else picture


def _image(x: Array) -> Image.Image:
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(x[:, :, 0] if x.shape[2] == 1 else x))


def _pixels(image: Image.Image) -> Array:
    return np.asarray(image).reshape(image.height, image.width, -1)
