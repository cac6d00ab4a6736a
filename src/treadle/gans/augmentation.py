"""Augmentation of picture pairs: the geometry of both together, the appearance of the input alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from math import isfinite, pi
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError, nearest
from treadle.gans import appearance, deformation
from treadle.gans.strengths import OCCASIONAL, Range, check_chances, check_strength, ends
from treadle.images.pixels import MODES
from treadle.images.resizing import resize

Array = NDArray[Any]
"""A picture, (H, W, C): uint8, uint16 or float32, of any number of channels."""
Size = tuple[int, int]
"""Height and width in pixels."""
Preprocess = Literal["resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "none"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to a pair (x, y) of pictures, (H, W, C); as in pix2pix (Isola 2017) unless asked for more.

    Both are brought to a size, then cut, mirrored, turned and deformed as one. Their types are kept; of four channels,
    the fourth is alpha. What is random comes from the generator given, and from nothing else: equal generators, equal
    bits. A strength is a number, the most there may be, or two, the least and the most, between which it is drawn; 0 is
    never. `chances` says what is done by chance only.
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
    vertical_flip: float = 0.0
    """Probability of mirroring upside down."""
    rotate: bool = False
    """Whether to turn by 0, 90, 180 or 270 degrees, each as probable, and by 0 or 180 what is no square: for pictures
    without an up, such as maps."""
    elastic: Range = 0.0
    """Standard deviation of smooth random displacements, in pixels; below a third of `elastic_sigma` nothing folds."""
    elastic_sigma: float = 16.0
    """How smooth these displacements are: standard deviation of the Gaussian that smooths them, in pixels."""
    distortion: Range = 0.0
    """Radial distortion as of a lens, to either side: k of r (1 + k r^2 + k r^4), r in widths of the picture."""
    cutout: Range = 0.0
    """Input only: how many black rectangles are cut out."""
    cutout_size: Range = (0.05, 0.25)
    """Their sides, as shares of the picture's."""
    cutout_both: bool = False
    """Whether the same rectangles are cut out of the target, too."""
    blur: Range = 0.0
    """Input only: standard deviation of Gaussian blur, in pixels."""
    motion_blur: Range = 0.0
    """Input only: length of a motion in any direction, in pixels."""
    jitter: Range = 0.0
    """Input only: brightness, contrast and saturation are each scaled by a factor from 1 - jitter to 1 + jitter."""
    gamma: Range = 0.0
    """Input only: values in 0 to 1 are raised to a power from 1 - gamma to 1 + gamma."""
    gray: float = 0.0
    """Input only: probability of turning it gray."""
    noise: Range = 0.0
    """Input only: standard deviation of Gaussian noise per value, as a fraction of full range."""
    jpeg: Range = 0.0
    """Input only: quality of JPEG compression, 1 to 100: from this to 100, or between two."""
    chances: Mapping[str, float] = field(default_factory=dict)
    """Probabilities of what is done by chance, by name (see `OCCASIONAL`); 1 for those that are not named."""
    label_input: bool = False
    """Take the input's nearest pixels where it is resized or deformed, as in label maps, whose colours do not blend."""
    in_range: tuple[float, float] | None = None
    """Black and white of inputs; null: all that their type can hold, of floats 0 and 1."""
    out_range: tuple[float, float] | None = None
    """Black and white of targets."""

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
        cut = self.resizes and self.crops
        if (cut and crop[1] > load[1]) or (self.fixed and crop[0] > load[0]):
            raise UsageError(
                f"crop_size is {self.crop_size}, but load_size {self.load_size}: it must be as large at least"
            )
        for name in ("flip", "vertical_flip", "gray"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)!r}: expected 0 to 1")
        if not (self.elastic_sigma > 0 and isfinite(self.elastic_sigma)):
            raise UsageError(f"elastic_sigma is {self.elastic_sigma!r}: expected a number of pixels above 0")
        for name in (*OCCASIONAL, "cutout_size"):
            check_strength(name, getattr(self, name))
        check_chances(self.chances, vars(self))

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
        kept = {name: chance for name, chance in self.chances.items() if name in ("elastic", "distortion")}
        defaults: dict[str, Any] = {each.name: each.default for each in fields(self) if each.name in _INPUT_ONLY}
        return replace(self, **defaults, chances=kept)

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

        Returns (H, W, C) of the same type each. Those that are only cut, mirrored and turned are views of those given.
        """
        top = left = 0
        height, width = resized[0].shape[:2]
        if self.crops:
            room = (height - sides(self.crop_size)[0] + 1, width - sides(self.crop_size)[1] + 1)
            # Of a square one draw of two numbers, as it has always been.
            top, left = (int(at) for at in rng.integers(room[0] if room[0] == room[1] else room, size=2))
            height, width = sides(self.crop_size)
        mirrored = rng.random() < self.flip
        turns = int(rng.integers(4)) if self.rotate else 0
        if height != width:
            turns -= turns % 2
        upside_down = self.vertical_flip > 0 and rng.random() < self.vertical_flip
        if self.elastic or self.distortion:
            places = self._deformed(deformation.window(top, left, height, width), rng)
            pictures = [
                deformation.taken(picture, places, nearest=self.label_input and number == 0)
                for number, picture in enumerate(resized)
            ]
        else:
            pictures = [picture[top : top + height, left : left + width] for picture in resized]
        for number, picture in enumerate(pictures):
            picture = picture[:, ::-1] if mirrored else picture
            picture = picture[::-1] if upside_down else picture
            pictures[number] = np.rot90(picture, turns) if turns else picture
        if self.cutout and self._happens("cutout", rng):
            self._cut(pictures, rng)
        if any(getattr(self, name) for name in _APPEARANCE):
            pictures[0] = self._looking(pictures[0], rng)
        return tuple(pictures)

    def __call__(self, x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """Both steps on a pair of pictures of any size, (H, W, C)."""
        like = x.shape[:2]
        self.size(like)
        x, y = self.vary((self.resize(x, labels=self.label_input), self.resize(y, like=like)), rng)
        return x, y

    def _happens(self, name: str, rng: np.random.Generator) -> bool:
        return name not in self.chances or rng.random() < self.chances[name]

    def _drawn(self, name: str, rng: np.random.Generator) -> float:
        low, high = ends(name, getattr(self, name))
        return low + (high - low) * rng.random()

    def _deformed(self, places: deformation.Places, rng: np.random.Generator) -> deformation.Places:
        if self.distortion and self._happens("distortion", rng):
            places = deformation.lens(places, self._drawn("distortion", rng))
        if self.elastic and self._happens("elastic", rng):
            places = deformation.elastic(places, self._drawn("elastic", rng), self.elastic_sigma, rng)
        return places

    def _cut(self, pictures: list[Array], rng: np.random.Generator) -> None:
        fewest, most = ends("cutout", self.cutout)
        count = int(rng.integers(max(1, round(fewest)), max(1, round(most)) + 1))
        height, width = pictures[0].shape[:2]
        holes = deformation.rectangles(height, width, count, ends("cutout_size", self.cutout_size), rng)
        for number, whole in enumerate((self.in_range, self.out_range)[: len(pictures) if self.cutout_both else 1]):
            black, _ = _black_and_white(pictures[number], whole)
            pictures[number] = deformation.without(pictures[number], holes, black)

    def _looking(self, x: Array, rng: np.random.Generator) -> Array:
        """A picture as it looks after all that is done to the input's appearance."""
        black, white = _black_and_white(x, self.in_range)
        shares = before = (x.astype(np.float32) - np.float32(black)) / np.float32(white - black)
        eight_bits = x.dtype == np.uint8 and (black, white) == (0, 255) and x.shape[2] in MODES
        if self.blur and self._happens("blur", rng):
            shares = appearance.blurred(shares, self._drawn("blur", rng), eight_bits=eight_bits)
        if self.motion_blur and self._happens("motion_blur", rng):
            shares = appearance.moved(shares, self._drawn("motion_blur", rng), pi * rng.random())
        if self.jitter and self._happens("jitter", rng):
            factors = (self._drawn("jitter", rng) for _ in range(3))
            shares = appearance.jittered(shares, *factors, eight_bits=eight_bits and not self.motion_blur)
        if self.gamma and self._happens("gamma", rng):
            shares = appearance.with_gamma(shares, self._drawn("gamma", rng))
        if self.gray and rng.random() < self.gray:
            shares = appearance.grayed(shares)
        if self.noise and self._happens("noise", rng):
            shares = appearance.noisy(shares, self._drawn("noise", rng), rng)
        if self.jpeg and self._happens("jpeg", rng):
            shares = appearance.compressed(shares, max(1, round(self._drawn("jpeg", rng))))
        if shares is before:
            return x
        values = shares.clip(0, 1) * np.float32(white - black) + np.float32(black)
        return (np.rint(values) if x.dtype.kind in "iu" else values).astype(x.dtype)


_APPEARANCE = ("blur", "motion_blur", "jitter", "gamma", "gray", "noise", "jpeg")
_INPUT_ONLY = (*_APPEARANCE, "cutout", "cutout_size", "cutout_both", "label_input")


def _black_and_white(picture: Array, whole: tuple[float, float] | None) -> tuple[float, float]:
    if whole is None:
        return (0.0, float(np.iinfo(picture.dtype).max)) if picture.dtype.kind in "iu" else (0.0, 1.0)
    return whole


def sides(size: int | Size) -> Size:
    """Height and width of a setting that is one number where they are equal."""
    return size if isinstance(size, tuple) else (size, size)
