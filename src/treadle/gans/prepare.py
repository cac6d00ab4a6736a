"""Paired data on disk: pictures A|B side by side in `root/train`, `root/val` and `root/test`, made whole or not at all.

What is prepared is a list of `Pair`s, from two folders (`joined`), from photographs and their edges (`edge_pairs`) or
from the facade grammar (`facade_pairs`), or of files as they are (`treadle.gans.splitting`); `write_pairs` makes and
writes them one after another.
"""

from __future__ import annotations

import functools
import math
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from treadle.errors import RunError, UsageError
from treadle.gans.facades import facade
from treadle.gans.layouts import SKIP_UNMATCHED, by_name, partners
from treadle.gans.splitting import PARTS, Shares, checked, part_at, part_of
from treadle.images.pixels import read_pixels
from treadle.images.reading import BadPicture, Pixels

Fit = Literal["crop", "stretch"]


@dataclass(frozen=True)
class Pair:
    """A pair that can be made: the part it belongs to, its file's name without ending, and how it is made."""

    part: str
    name: str
    make: Callable[[], tuple[Pixels, Pixels]]

    def write(self, root: Path) -> None:
        """Write it as `root`/part/name.png, A left and B right. Raises BadPicture."""
        picture = np.concatenate(self.make(), axis=1)
        (root / self.part).mkdir(parents=True, exist_ok=True)
        _save(picture, root / self.part / f"{self.name}.png")


class Writable(Protocol):
    """What `write_pairs` writes, one after another."""

    @property
    def part(self) -> str:
        """ "train", "val" or "test"."""

    def write(self, root: Path) -> None:
        """Write it into its part of the data set `root`. Raises BadPicture where its pictures cannot be used."""


# Pairs -----------------------------------------------------------------------------------------------------------


def joined(
    a: Path,
    b: Path,
    size: int,
    *,
    shares: Shares,
    seed: int = 0,
    fit: Fit = "crop",
    labels: str = "",
    skip_unmatched: bool = False,
) -> tuple[list[Pair], list[Path]]:
    """Pairs of the pictures in two folders that have the same name, whatever their endings.

    Args:
        a: the folder of the left halves.
        b: the folder of the right halves.
        size: width and height of a half in pixels; see `fitted`.
        shares: of train, val and test.
        seed: of the split.
        fit: "crop" or "stretch"; see `fitted`.
        labels: the sides that hold label maps, "", "A", "B" or "AB": resized without mixing colours.
        skip_unmatched: leave out pictures without a partner instead of refusing.

    Returns:
        The pairs, and the files left out.

    Raises:
        UsageError: a folder without pictures, two pictures of one name, pictures without a partner, a part that has a
            share and gets no pair.
    """
    both, alone = partners(a, b, skip_unmatched=skip_unmatched, remedy=SKIP_UNMATCHED)
    pairs = []
    for name, (left, right) in both.items():
        make = functools.partial(_join, left, right, size, fit, labels)
        pairs.append(Pair(part_of(name, seed, shares), name, make))
    return checked(pairs, shares), alone


def _join(a: Path, b: Path, size: int, fit: Fit, labels: str) -> tuple[Pixels, Pixels]:
    left, right = read_pixels(a, 3), read_pixels(b, 3)
    ratio = left.shape[0] * right.shape[1] / (left.shape[1] * right.shape[0])
    if fit == "crop" and not 0.98 < ratio < 1.02:
        shapes = f"{right.shape[1]} x {right.shape[0]} and {left.shape[1]} x {left.shape[0]} pixels"
        raise BadPicture(b, f"has other proportions than {a} ({shapes})", "crop one of them, or use --fit stretch")
    return fitted(left, size, fit, labels="A" in labels), fitted(right, size, fit, labels="B" in labels)


def edge_pairs(
    photos: Path, size: int, *, shares: Shares, seed: int = 0, fit: Fit = "crop", sigma: float = 1.5
) -> list[Pair]:
    """Pairs of edges (left) and photograph (right); see `edges`. Raises UsageError as `joined`, and without skimage."""
    try:
        import skimage.feature  # noqa: F401
    except ImportError:
        raise UsageError("finding edges needs scikit-image: pip install 'treadle[gans]'") from None
    if not (math.isfinite(sigma) and sigma > 0):
        raise UsageError(f"sigma is {sigma}: expected a width in pixels above 0, such as 1.5")

    def make(path: Path) -> tuple[Pixels, Pixels]:
        photo = fitted(read_pixels(path, 3), size, fit)
        return edges(photo, sigma), photo

    pairs = []
    for name, path in by_name(photos).items():
        pairs.append(Pair(part_of(name, seed, shares), name, functools.partial(make, path)))
    return checked(pairs, shares)


def edges(photo: Pixels, sigma: float = 1.5) -> Pixels:
    """Canny's edges (1986) of a photograph, black on white: uint8 (H, W, 3) of uint8 (H, W, 3).

    `sigma`, in pixels, blurs details away before edges are looked for. The thresholds follow the picture: the strongest
    10% of gradients start an edge and the strongest 20% continue it, but for gradients so weak that they are noise.
    """
    from scipy import ndimage
    from skimage.feature import canny

    gray = photo @ np.array([0.299, 0.587, 0.114]) / 255
    smooth = ndimage.gaussian_filter(gray, sigma, mode="nearest")
    strength = np.hypot(ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1))
    low, high = np.maximum(np.quantile(strength, (0.8, 0.9)), (0.05, 0.1))
    found = canny(gray, sigma, low, high, mode="nearest")
    drawn: Pixels = np.where(found, np.uint8(0), np.uint8(255))[..., None].repeat(3, axis=2)
    return drawn


def facade_pairs(count: int, size: int, *, shares: Shares, seed: int = 0) -> list[Pair]:
    """The first `count` house fronts of the data set `seed`: label map left, picture right; split in their order."""
    if count < 1:
        raise UsageError(f"count is {count}: expected at least 1")
    digits, pairs = max(4, len(str(count))), []
    for index in range(count):
        part = part_at((index + 0.5) / count, shares)
        pairs.append(Pair(part, f"{index:0{digits}}", functools.partial(facade, seed, index, size)))
    return checked(pairs, shares)


def fitted(picture: Pixels, size: int, fit: Fit = "crop", *, labels: bool = False) -> Pixels:
    """A picture at size x size: uint8 (size, size, 3) of uint8 (H, W, 3).

    "crop" scales the shorter side to `size` and takes the middle; "stretch" scales both sides. Photographs are scaled
    with Lanczos' filter, label maps (`labels`) take the nearest pixel, so that no colour is new. Raises UsageError for
    a size outside 1..16384.
    """
    from PIL import Image

    if not 1 <= size <= 16384:
        raise UsageError(f"size is {size}: expected a number of pixels from 1 to 16384, such as 256")
    height, width = picture.shape[:2]
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side) if fit == "crop" else (0, 0, width, height)
    how = Image.Resampling.NEAREST if labels else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(picture).resize((size, size), how, box))


# Writing ---------------------------------------------------------------------------------------------------------


def write_pairs(
    pairs: Sequence[Writable],
    root: Path,
    *,
    skip_bad: bool = False,
    progress: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> tuple[dict[str, int], list[BadPicture]]:
    """Write each pair into its part of `root`: a `Pair` as `root/<part>/<name>.png`.

    Everything is written into a hidden folder beside `root`, which takes its name when all is done: `root` is whole or
    not there at all. Only SIGKILL and a crash of the machine leave the hidden folder behind.

    Args:
        pairs: what to make and write.
        root: a folder that does not exist yet, or is empty.
        skip_bad: leave out pairs with a picture that cannot be used instead of refusing.
        progress: wraps the pairs, to show how far it is.

    Returns:
        How many pairs went to each part, and what was wrong with those left out.

    Raises:
        UsageError: `root` holds something; pictures cannot be used, or so many that a part would have none.
        RunError: the disk refuses a file. Nothing is left behind.
    """
    _refuse_existing(root)
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    except OSError as error:
        raise UsageError(f"{root} cannot be made: {error.strerror or error}") from None
    made = temporary / "root"  # not `temporary` itself, which only its owner may read
    try:
        counts, bad = _write(progress(pairs), made)
        if bad and not skip_bad:
            more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
            raise UsageError(f"{bad[0]}{more}; --skip-bad leaves such pairs out")
        if lost := {pair.part for pair in pairs} - counts.keys():
            raise UsageError(f"no pair is left for {min(lost)}: {bad[0]}")
        made.rename(root)
    except OSError as error:
        _refuse_existing(root)  # someone else may have made it meanwhile
        raise RunError(f"cannot write {root}: {error.strerror or error}; nothing is left of it") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return {part: counts[part] for part in PARTS if counts[part]}, bad


def _write(pairs: Iterable[Writable], root: Path) -> tuple[Counter[str], list[BadPicture]]:
    """Make and write the pairs, all that can be: how many went to each part, and what was wrong with the others."""
    counts, bad = Counter[str](), list[BadPicture]()
    for pair in pairs:
        try:
            pair.write(root)
        except BadPicture as error:
            bad.append(error)
        else:
            counts[pair.part] += 1
    return counts, bad


def _refuse_existing(root: Path) -> None:
    if root.is_dir():
        if any(root.iterdir()):
            raise UsageError(f"{root} is not empty: choose a new folder for --out, or remove this one first")
    elif os.path.lexists(root):
        raise UsageError(f"{root} is a file: choose a new folder for --out")


def _save(picture: Pixels, path: Path) -> None:
    from PIL import Image

    with path.open("xb") as file:  # where capitals do not count, a file would replace another
        Image.fromarray(picture).save(file, "PNG")
