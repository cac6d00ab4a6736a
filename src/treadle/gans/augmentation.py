"""Augmentation of picture pairs: the geometry of both together, the appearance of the input alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from math import isfinite, pi
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from treadle.errors import UsageError, nearest
from treadle.gans import appearance, deformation
from treadle.images.reading import Pixels

if TYPE_CHECKING:
    from PIL import Image

Range = float | tuple[float, float]
"""How strong something is: the most of it, or the least and the most, between which it is drawn uniformly."""

OCCASIONAL = ("elastic", "distortion", "cutout", "blur", "motion_blur", "jitter", "gamma", "noise", "jpeg")
"""What `chances` may name: it is done to every picture, or by chance."""

FACTORS = ("jitter", "gamma")
"""Settings whose ranges are around 1, where nothing changes: 0.2 is 0.8 to 1.2."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to a pair (x, y) of pictures, (H, W, C); as in pix2pix (Isola 2017) unless asked for more.

    Both are resized to `load_size` x `load_size` (whatever their shape), then cut, mirrored, turned and deformed as
    one. They may be uint8, uint16 or float32, of any channels, and stay of their type; of four, the fourth is alpha.
    What is random comes from the generator given, and from nothing else: equal generators, equal bits. A strength is a
    number, the most there may be, or two, the least and the most, between which it is drawn; 0 is never. `chances` says
    what is done by chance only.
    """

    load_size: int = 286
    """Side of the square both pictures are resized to, in pixels; bicubic, with antialiasing."""
    crop_size: int = 256
    """Side of the square cut from it, at a place drawn uniformly; at most `load_size`."""
    flip: float = 0.5
    """Probability of mirroring left to right."""
    vertical_flip: float = 0.0
    """Probability of mirroring upside down."""
    rotate: bool = False
    """Whether to turn by 0, 90, 180 or 270 degrees, each as probable: for pictures without an up, such as maps."""
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
        for name, size in (("load_size", self.load_size), ("crop_size", self.crop_size)):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise UsageError(f"{name} is {size!r}: expected a whole number of pixels, at least 1")
        if self.crop_size > self.load_size:
            raise UsageError(
                f"crop_size is {self.crop_size}, but load_size {self.load_size}: it must be as large at least"
            )
        for name in ("flip", "vertical_flip", "gray"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)!r}: expected 0 to 1")
        if not (self.elastic_sigma > 0 and isfinite(self.elastic_sigma)):
            raise UsageError(f"elastic_sigma is {self.elastic_sigma!r}: expected a number of pixels above 0")
        for name in (*OCCASIONAL, "cutout_size"):
            _check_range(name, getattr(self, name))
        for name, chance in self.chances.items():
            if name not in OCCASIONAL:
                raise UsageError(f"chances names {name!r}{nearest(name, OCCASIONAL)}")
            if not 0 <= chance <= 1:
                raise UsageError(f"chances.{name} is {chance!r}: expected 0 to 1")
            if not getattr(self, name):
                raise UsageError(f"chances.{name} is {chance!r}, but {name} is 0, which is never: set {name}, too")

    def still(self) -> Augmentation:
        """The same size of output without anything random: the whole picture, resized to `crop_size`."""
        return Augmentation(
            load_size=self.crop_size,
            crop_size=self.crop_size,
            flip=0.0,
            label_input=self.label_input,
        )

    def geometry(self) -> Augmentation:
        """This without what is done to the input only."""
        kept = {name: chance for name, chance in self.chances.items() if name in ("elastic", "distortion")}
        defaults: dict[str, Any] = {each.name: each.default for each in fields(self) if each.name in _INPUT_ONLY}
        return replace(self, **defaults, chances=kept)

    def resize(self, x: Pixels, *, labels: bool = False) -> Pixels:
        """`x` as (load_size, load_size, C): what does not depend on chance, and can be kept. `x` itself if it fits."""
        from PIL import Image

        if x.shape[:2] == (self.load_size, self.load_size):
            return x
        method = Image.Resampling.NEAREST if labels else Image.Resampling.BICUBIC
        return _pixels(_image(x).resize((self.load_size, self.load_size), method))

    def vary(self, resized: tuple[NDArray[Any], ...], rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
        """What is random, done to pictures from `resize`: geometry to all of them alike, appearance to the first.

        Returns (crop_size, crop_size, C) of their types. Those that are only cut, mirrored and turned are views.
        """
        side = self.crop_size
        top, left = (int(place) for place in rng.integers(self.load_size - side + 1, size=2))
        mirrored = rng.random() < self.flip
        turns = int(rng.integers(4)) if self.rotate else 0
        upside_down = self.vertical_flip > 0 and rng.random() < self.vertical_flip
        if self.elastic or self.distortion:
            places = self._deformed(deformation.window(top, left, side, side), rng)
            pictures = [
                deformation.taken(picture, places, nearest=self.label_input and number == 0)
                for number, picture in enumerate(resized)
            ]
        else:
            pictures = [picture[top : top + side, left : left + side] for picture in resized]
        for number, picture in enumerate(pictures):
            if mirrored:
                picture = picture[:, ::-1]
            if upside_down:
                picture = picture[::-1]
            pictures[number] = np.rot90(picture, turns) if turns else picture
        if self.cutout and self._happens("cutout", rng):
            cut = self._cut(side, rng)
            for number, ends in enumerate((self.in_range, self.out_range)[: len(pictures) if self.cutout_both else 1]):
                black, _ = _black_and_white(pictures[number], ends)
                pictures[number] = deformation.without(pictures[number], cut, black)
        if any(getattr(self, name) for name in _APPEARANCE):
            pictures[0] = self._looking(pictures[0], rng)
        return tuple(pictures)

    def __call__(self, x: NDArray[Any], y: NDArray[Any], rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """Both steps on a pair of pictures of any size, (H, W, C)."""
        x, y = self.vary((self.resize(x, labels=self.label_input), self.resize(y)), rng)
        return x, y

    def _happens(self, name: str, rng: np.random.Generator) -> bool:
        return name not in self.chances or rng.random() < self.chances[name]

    def _drawn(self, name: str, rng: np.random.Generator) -> float:
        low, high = _ends(name, getattr(self, name))
        return low + (high - low) * rng.random()

    def _deformed(self, places: deformation.Places, rng: np.random.Generator) -> deformation.Places:
        if self.distortion and self._happens("distortion", rng):
            places = deformation.lens(places, self._drawn("distortion", rng))
        if self.elastic and self._happens("elastic", rng):
            places = deformation.elastic(places, self._drawn("elastic", rng), self.elastic_sigma, rng)
        return places

    def _cut(self, side: int, rng: np.random.Generator) -> list[tuple[slice, slice]]:
        fewest, most = _ends("cutout", self.cutout)
        count = int(rng.integers(max(1, round(fewest)), round(most) + 1))
        return deformation.rectangles(side, side, count, _ends("cutout_size", self.cutout_size), rng)

    def _looking(self, x: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """A picture as it looks after all that is done to the input's appearance."""
        black, white = _black_and_white(x, self.in_range)
        shares = before = (x.astype(np.float32) - np.float32(black)) / np.float32(white - black)
        if self.blur and self._happens("blur", rng):
            shares = appearance.blurred(shares, self._drawn("blur", rng))
        if self.motion_blur and self._happens("motion_blur", rng):
            shares = appearance.moved(shares, self._drawn("motion_blur", rng), pi * rng.random())
        if self.jitter and self._happens("jitter", rng):
            shares = appearance.jittered(shares, *(self._drawn("jitter", rng) for _ in range(3)))
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


def _black_and_white(picture: NDArray[Any], ends: tuple[float, float] | None) -> tuple[float, float]:
    if ends is None:
        return (0.0, float(np.iinfo(picture.dtype).max)) if picture.dtype.kind in "iu" else (0.0, 1.0)
    return ends


_APPEARANCE = ("blur", "motion_blur", "jitter", "gamma", "gray", "noise", "jpeg")
_INPUT_ONLY = (*_APPEARANCE, "cutout", "cutout_size", "cutout_both", "label_input")

_MOST: dict[str, float] = {"jitter": 1, "gamma": 1, "noise": 1, "cutout_size": 1, "jpeg": 100, "distortion": 1}
"""The largest strength there may be, where there is one."""


def _ends(name: str, strength: Range) -> tuple[float, float]:
    """The least and the most of a strength."""
    if isinstance(strength, tuple):
        return strength
    if name in FACTORS:
        return 1 - strength, 1 + strength
    if name == "distortion":
        return -strength, strength
    return (strength, 100.0) if name == "jpeg" else (0.0, strength)


def _check_range(name: str, strength: Range) -> None:
    """Raise UsageError unless a strength is a number, or two, that it can be."""
    numbers = strength if isinstance(strength, tuple) else (strength,)
    both = name in FACTORS and len(numbers) == 2
    least = -1 if name == "distortion" and len(numbers) == 2 else 0
    most = float("inf") if both else _MOST.get(name, float("inf"))
    if not all(isfinite(number) and least <= number <= most for number in numbers):
        bound = f"{least} to {most}" if isfinite(most) else "0 or more"
        raise UsageError(f"{name} is {strength!r}: expected {bound}" + (", finite" if not isfinite(most) else ""))
    if len(numbers) == 2 and numbers[0] > numbers[1]:
        raise UsageError(f"{name} is {list(numbers)}: expected the least first, then the most")


def _image(x: Pixels) -> Image.Image:
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(x[:, :, 0] if x.shape[2] == 1 else x))


def _pixels(image: Image.Image) -> Pixels:
    return np.asarray(image).reshape(image.height, image.width, -1)
