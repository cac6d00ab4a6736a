"""How like real pictures the texture of made ones is, judged without any pretrained network.

L1 and SSIM prefer fog: where a generator cannot know which of many details is right, their mean costs least. The
figures here compare what pictures are made of and not where it lies, so a detail in the wrong place costs nothing and
one that is missing does:

sharpness   the gradients of the pictures over those of the targets; 1 is right, below is fog, above is noise
spectrum    how far the amplitudes at each frequency are from the targets'; 0 is right
swd         the sliced Wasserstein distance of small patches at several scales; 0 is right
lattice     by how many dB a pattern of 2, 4 or 8 pixels stands out more than in the targets; 0 is right
texture     one figure of all four, to choose a model by; 0 is right

Sharpness and lattice are figures of a picture and its target too; the others are figures of two sets, which need not
be pairs. Pictures are tensors (C, H, W) or batches (N, C, H, W) of floats in [-1, 1], clipped to that, of any size and
on any device. What is measured is the luminance of 3 and 4 channels (ITU-R 601; alpha is left out) and the mean of any
other number of channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from treadle.errors import UsageError
from treadle.images.patches import Patches

Array = NDArray[np.float64]

UNSEEN = (5 * 2 / 255) ** 2
"""The power of noise of 5 grey levels in 255, which is hardly seen: spectra are compared above it, so that what differs
where neither has anything to show does not count."""

RINGS = 32
"""Rings of frequencies that spectra are averaged over: around 1/64, 2/64 ... 32/64 of the sampling frequency."""

TILE = 32
"""Side of the tiles in which a lattice is looked for, in pixels; smaller pictures are continued by reflection."""

LATTICES = (2, 4, 8)
"""Sides of the squares that repeat in a lattice, in pixels: what one, two and three doublings leave behind."""


def sharpness(output: Tensor, target: Tensor) -> float:
    """The mean absolute gradient of a picture (C, H, W) over that of its target: 1 is right.

    The gradient is the difference of neighbouring pixels in luminance, along both axes. NaN where a value is not
    finite; inf where the target alone is flat.
    """
    return _ratio(*(look.gradient for look in _pair(output, target)))


def lattice(output: Tensor, target: Tensor) -> float:
    """By how many dB the strongest lattice of a picture (C, H, W) stands out more than its target's; 0 where none does.

    Windowed tiles of 32 x 32 pixels are transformed, and their power averaged. A pattern that repeats after 2 pixels,
    a checkerboard say, is power at half the sampling frequency in one direction or both, and one that repeats after 4
    or 8 at the multiples of a quarter or an eighth. Each of these peaks is taken over the power around it, so that
    texture is no lattice, and the highest of one kind is compared with the target's highest of that kind; what is below
    its surroundings is no peak of either. Transposed convolutions leave such patterns (Odena, Dumoulin and Olah 2016,
    https://distill.pub/2016/deconv-checkerboard).

    Of one picture the figure is a rough one: a regular front has peaks too. NaN where a value is not finite.
    """
    return _excess(*(look.tiles for look in _pair(output, target)))


def texture(outputs: Tensor, targets: Tensor) -> dict[str, float]:
    """All figures of two sets (N, C, H, W) and (M, C, H, W), by name: see `Texture`."""
    sets = Texture()
    sets.add(outputs, targets)
    return sets.figures()


class Texture:
    """Gathers made pictures and real ones, batch by batch, and compares the two sets.

    Sets are described by means over their pictures, and by 128 patches of each at each scale, of which no more than
    `Patches.most` are kept. Everything is computed in the same way each time: patches and directions come from fixed
    seeds. Equal sets in equal order have swd, spectrum and lattice 0 and sharpness 1.
    """

    def __init__(self) -> None:
        self._outputs, self._targets = _Set(), _Set()

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Add made pictures (N, C, H, W) and real ones (M, C, H, W); either batch may be empty.

        Raises UsageError for anything but batches.
        """
        self._outputs.add(outputs)
        self._targets.add(targets)

    def figures(self) -> dict[str, float]:
        """Sharpness, spectrum, swd, lattice and texture of all that was added, by name.

        NaN where a picture had values that are not finite, or a set none. Each of them:

        - sharpness: the mean of the mean absolute gradients, over that of the targets.
        - spectrum: power spectra of the luminance, under a Hann window (or the edges of a picture, which do not fit
          each other, would hide all high frequencies), averaged over rings of equal frequency and over the pictures.
          The figure is the mean over the rings of |ln(a / b)|, where a and b are the amplitudes of the two sets above
          noise of 5 grey levels: 0.7 says that they are wrong by a factor of 2. It takes in frequencies up to half the
          sampling frequency in any direction. Photographs of fronts at 128 pixels, blurred by 2 pixels: 1.2; one half
          of 88 against the other: .07.
        - swd: the sliced Wasserstein distance of patches of 7 x 7 over a Laplacian pyramid, the mean over its levels
          (Karras, Aila, Laine and Lehtinen 2018, https://arxiv.org/abs/1710.10196, who print it times 1000).
        - lattice: as `lattice` has it, of the power averaged over all tiles of a set.
        - texture: see `texture_of`.
        """
        made, real = self._outputs, self._targets
        if not (made.count and real.count and made.finite and real.finite):
            return dict.fromkeys(FIGURES, math.nan)
        found = {
            "sharpness": _ratio(made.gradient / made.count, real.gradient / real.count),
            "spectrum": _distance(made, real),
            "swd": made.patches.distance(real.patches),
            "lattice": _excess(made.tiles / made.count, real.tiles / real.count),
        }
        return found | {"texture": texture_of(found)}


FIGURES = ("sharpness", "spectrum", "swd", "lattice", "texture")
"""What `Texture` gives, in its order."""
NEAR_1_IS_BETTER = frozenset({"sharpness"})
"""Those of which neither more nor less is better, but 1 is right."""


def texture_of(figures: Mapping[str, float]) -> float:
    """One figure of four: |ln sharpness| + spectrum + swd + lattice / 20; 0 is right.

    Any one of the four can be pleased by what is not right: a checkerboard over fog has the right sharpness, noise
    brings back sharpness and spectrum, a picture with the right spectrum may have no edges, and fog has no lattice.
    What pleases one costs another more, so they are summed. They can be, since each says how wrong amplitudes are: by
    what factor those of neighbouring pixels and of each frequency are, as a natural logarithm; how far patches are from
    real ones, in standard deviations of these; and by how many powers of ten a pattern stands out that should not be
    there (powers of ten, since it is one frequency among many). No weight was fitted to anything.

    It knows nothing of where things are: what keeps a translation true to its input are the losses, and L1 beside it.
    """
    if math.isnan(figures["sharpness"]):
        return math.nan
    sharp = min(max(figures["sharpness"], 0.01), 100.0)  # a flat picture is bad, not infinitely so
    return abs(math.log(sharp)) + figures["spectrum"] + figures["swd"] + figures["lattice"] / 20


def luminance(pictures: Tensor) -> Array:
    """The luminance (N, H, W) of pictures (N, C, H, W), clipped to [-1, 1], float64."""
    values = pictures.detach().double().clamp(-1, 1).cpu().numpy()
    if values.shape[1] in (3, 4):
        return np.einsum("nchw,c->nhw", values[:, :3], np.array([0.299, 0.587, 0.114]))
    return np.asarray(values.mean(axis=1))


@dataclass(frozen=True)
class _Look:
    """What is measured of one picture: its mean gradient, and the mean power of its tiles and rings."""

    gradient: float
    tiles: Array
    rings: Array


class _Set:
    """The sums of what was measured of many pictures, and their patches."""

    def __init__(self) -> None:
        self.count = 0
        self.finite = True
        self.gradient = 0.0
        self.tiles: Array = np.zeros((TILE, TILE))
        self.rings: Array = np.zeros(RINGS)
        self.filled: NDArray[np.int64] = np.zeros(RINGS, np.int64)
        self.patches = Patches()

    def add(self, pictures: Tensor) -> None:
        if pictures.dim() != 4 or 0 in pictures.shape[1:]:
            raise UsageError(f"expected a batch of pictures (N, C, H, W), got {tuple(pictures.shape)}")
        if not pictures.isfinite().all():
            self.finite = False
            return
        for look in _looks(pictures):
            self.count += 1
            self.gradient += look.gradient
            self.tiles += look.tiles
            there = ~np.isnan(look.rings)  # a small picture has no frequency in some rings
            self.rings[there] += look.rings[there]
            self.filled += there
        self.patches.add(pictures)


def _pair(output: Tensor, target: Tensor) -> list[_Look]:
    """What is measured of two pictures (C, H, W)."""
    for picture in (output, target):
        if picture.dim() != 3 or picture.numel() == 0:
            raise UsageError(f"expected one picture (C, H, W), got {tuple(picture.shape)}")
    return [next(_looks(picture[None])) for picture in (output, target)]


def _looks(pictures: Tensor) -> Iterator[_Look]:
    for picture in luminance(pictures):
        finite = bool(np.isfinite(picture).all())
        yield _Look(_gradient(picture), _tiles(picture), _rings(picture)) if finite else _NOT_FINITE


_NOT_FINITE = _Look(math.nan, np.full((TILE, TILE), math.nan), np.full(RINGS, math.nan))


def _gradient(picture: Array) -> float:
    """The mean absolute difference of neighbours, along both axes alike; 0 for a single pixel."""
    along = [np.abs(np.diff(picture, axis=axis)).mean() for axis in (0, 1) if picture.shape[axis] > 1]
    return float(np.mean(along)) if along else 0.0


def _ratio(first: float, second: float) -> float:
    if first == second:
        return 1.0
    return first * math.inf if second == 0 else first / second


def _power(pictures: Array, window: Array) -> Array:
    """Power spectra (..., H, W) under a window, in units of the variance of white noise; without the mean."""
    mean = (pictures * window).sum((-2, -1), keepdims=True) / window.sum()
    found = np.fft.fft2((pictures - mean) * window)
    return np.asarray((found.real**2 + found.imag**2) / np.square(window).sum())


@lru_cache(8)
def _hann(height: int, width: int) -> Array:
    """A Hann window that is nowhere 0."""
    first, second = (np.hanning(side + 2)[1:-1] for side in (height, width))
    return np.asarray(np.outer(first, second))


# Spectra ------------------------------------------------------------------------------------------------------------


def _rings(picture: Array) -> Array:
    """The mean power in each ring of frequencies, NaN where the picture has none there."""
    ring, cells = _ring_of(*picture.shape)
    power = _power(picture, _hann(*picture.shape))
    sums = np.bincount(ring.ravel(), power.ravel(), RINGS + 2)[1 : RINGS + 1]
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / cells)


@lru_cache(8)
def _ring_of(height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The ring of each frequency (0: none yet, RINGS + 1: none any more), and how many each ring has."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    ring = np.minimum(np.rint(frequency * 2 * RINGS), RINGS + 1).astype(np.int64)
    return ring, np.bincount(ring.ravel(), minlength=RINGS + 2)[1 : RINGS + 1]


def _distance(made: _Set, real: _Set) -> float:
    both = (made.filled > 0) & (real.filled > 0)
    if not both.any():
        return 0.0  # single pixels
    first, second = (each.rings[both] / each.filled[both] + UNSEEN for each in (made, real))
    return float(np.abs(np.log(first / second)).mean() / 2)


# Lattices -----------------------------------------------------------------------------------------------------------


def _tiles(picture: Array) -> Array:
    """The mean power spectrum of the tiles of a picture, which overlap by half; of large ones no more than 32 x 32."""
    picture = picture[np.ix_(*map(continued, picture.shape))]
    steps = [max(TILE // 2, (side - TILE) // 31) for side in picture.shape]
    tiles = np.lib.stride_tricks.sliding_window_view(picture, (TILE, TILE))[:: steps[0], :: steps[1]]
    return np.asarray(_power(tiles, _hann(TILE, TILE)).mean((0, 1)))


def continued(side: int) -> NDArray[np.int64]:
    """The rows of a picture of so many that tiles are cut from: all of them, and by reflection at least `TILE`."""
    return np.pad(np.arange(side), (0, max(0, TILE - side)), mode="reflect")


def _excess(made: Array, real: Array) -> float:
    """By how many dB the peaks of one mean power spectrum of tiles stand out more than those of another.

    What is below its surroundings, or as weak as they are, is no peak: a dip of the targets is nothing to stand out of.
    """
    if not (np.isfinite(made).all() and np.isfinite(real).all()):
        return math.nan
    return max(0.0, *(max(0.0, _peak(made, side)) - max(0.0, _peak(real, side)) for side in LATTICES))


def _peak(power: Array, side: int) -> float:
    """How far the highest frequency of patterns of `side` pixels stands out of those around it, in dB."""
    peaks, around = lattice_places(side)
    levels = 10 * np.log10(power.ravel() + UNSEEN)
    return max(float(levels[peak] - levels[near].mean()) for peak, near in zip(peaks, around, strict=True))


@cache
def lattice_places(side: int) -> tuple[list[int], list[list[int]]]:
    """Where in a tile's spectrum the peaks of a lattice are, those of coarser ones left out, and what is around each.

    Both count the cells of a spectrum (TILE, TILE) row by row.

    Around is what is two cells away (a peak under the window covers its nearest neighbours); on the axes, where
    pictures have more power than beside them, two cells away along the axis.
    """
    step = TILE // side
    peaks, around = [], []
    for row in range(0, TILE, step):
        for column in range(0, TILE, step):
            if row % (2 * step) == 0 and column % (2 * step) == 0:
                continue
            ring = [(i, j) for i in range(-2, 3) for j in range(-2, 3) if max(abs(i), abs(j)) == 2]
            if row == 0 or column == 0:
                ring = [(2 * (row > 0), 2 * (column > 0)), (-2 * (row > 0), -2 * (column > 0))]
            peaks.append(row * TILE + column)
            around.append([(row + i) % TILE * TILE + (column + j) % TILE for i, j in ring])
    return peaks, around
