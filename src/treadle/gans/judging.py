"""All that is said of translated pictures: how near their targets they are, and how like real ones all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from treadle.checkpoint.plain import Stateless
from treadle.images.fid import FID
from treadle.images.lpips import lpips_metric
from treadle.images.metrics import measure
from treadle.images.texture import FIGURES, Texture, lattice, sharpness

OF_SETS = (*FIGURES, "fid")
"""The figures of all pictures together."""
CHOOSING = ("texture", "fid")
"""Those of them that may say which model is best where there are several directions."""

WORDS = {
    "l1": "mean difference of the pixels; from black to white it is 1",
    "psnr": "the squared difference, in decibels",
    "ssim": "likeness of small windows; 1 where all are equal",
    "lpips": "difference as a network trained on photographs sees it",
    "cycle": "mean difference after the way there and back; 0 also where nothing was translated",
    "sharpness": "strength of edges and grain over that of real pictures: 1 is right, .3 is fog, and above 1 are noise "
    "and checkerboards",
    "lattice": "decibels by which a checkerboard, or a pattern of 4 or 8 pixels, stands out more than in real "
    "pictures: 0 is right; of a single picture 2 is chance, 5 can be seen",
    "spectrum": "how far fine and coarse structures are from their right strength: 0 is right, 0.7 is wrong by a "
    "factor of 2, and pictures blurred by 2 pixels have 1.2",
    "swd": "distance of small patches from those of real pictures, at several scales: 0 is right, and further real "
    "pictures have .05 to .1",
    "texture": "the four in one, which neither fog nor checkerboards please: 0 is right, further real pictures have "
    ".2, pictures blurred by a pixel 1.5",
    "fid": "distance of the two sets as a network trained on photographs sees them; the fewer pictures, the larger",
}
"""What each figure says, for who has never heard of it."""
NOTE = (
    "L1 alone prefers fog, and so do PSNR and SSIM: where the input does not say which of many details is right, a "
    "blurred mean of all of them costs least. Sharpness, lattice, spectrum and swd ask what the pictures are made of, "
    "wherever it lies: they see fog, noise and checkerboards, but not a window in the wrong place. Read both, and look "
    "at the pictures."
)
"""How to read them."""


class Judge(Stateless):
    """Measures translated pictures, each against its target, and all of them against all real ones.

    Args:
        lpips_weights, fid_weights: safetensors files (see `lpips_metric` and `FID`); None leaves that metric out.
        ways: the directions of translation, each of which has two sets of its own; one without a name where there is
            one only.
        deep: measure L1, PSNR and SSIM of values that are not rounded to 8 bits.

    Raises:
        UsageError: a file that is not there, or not what it should be.
    """

    def __init__(
        self,
        lpips_weights: Path | None = None,
        fid_weights: Path | None = None,
        ways: Sequence[str] = ("",),
        *,
        deep: bool = False,
    ) -> None:
        self._deep = deep
        self._lpips = lpips_metric(lpips_weights) if lpips_weights is not None else None
        fid = FID(fid_weights) if fid_weights is not None else None
        self._fids = {way: fid.another() for way in ways} if fid is not None else {}
        self._textures = {way: Texture() for way in ways}
        self._found: dict[str, float] = {}
        self.figures: Mapping[str, Figure] = {name: Figure(self, name) for name in self._names()}
        """The figures of all pictures together as metric objects, which a `validation_step` can return."""

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, list[float]]:
        """L1, PSNR, SSIM and, with weights, LPIPS of two batches (N, C, H, W) in [-1, 1]: N figures each."""
        measured = measure(outputs, targets, deep=self._deep)
        if self._lpips is not None:
            measured["lpips"] = self._lpips(outputs, targets)
        return measured

    def compare(self, outputs: Tensor, targets: Tensor) -> list[dict[str, float]]:
        """The figures of each picture of a batch against its target: those of `measure`, sharpness and lattice."""
        measured = self.measure(outputs, targets)
        for name, figure in (("sharpness", sharpness), ("lattice", lattice)):
            measured[name] = [figure(*pair) for pair in zip(outputs, targets, strict=True)]
        return [dict(zip(measured, values, strict=True)) for values in zip(*measured.values(), strict=True)]

    def gather(self, outputs: Tensor, real: Tensor, way: str = "") -> None:
        """Add two batches (N, C, H, W) in [-1, 1] to the sets of translated and of real pictures of a direction."""
        self._found = {}
        self._textures[way].add(outputs, real)
        if way in self._fids:
            self._fids[way].add(outputs, real)

    def overall(self) -> dict[str, float]:
        """The figures of all pictures together, by name: those of `Texture` and, with weights, FID (of one: NaN).

        With several directions they have names such as "sharpness_ab"; "texture" and "fid", which may choose a model,
        are the means of them.
        """
        if not self._found:
            found = {way: texture.figures() for way, texture in self._textures.items()}
            for way, fid in self._fids.items():
                found[way]["fid"] = fid.value() if min(fid.counts) > 1 else math.nan
            self._found = found[""] if "" in found else _of_all(found)
        return dict(self._found)

    def reset(self) -> None:
        """Forget all that was gathered."""
        self._found = {}
        self._textures = {way: Texture() for way in self._textures}
        self._fids = {way: fid.another() for way, fid in self._fids.items()}

    def _names(self) -> list[str]:
        names = [name for name in OF_SETS if name != "fid" or self._fids]
        return (
            names if "" in self._textures else list(_of_all({way: dict.fromkeys(names, 0.0) for way in self._textures}))
        )


class Figure:
    """A figure of all pictures that a judge has gathered, as an evaluation takes metrics: computed at the end."""

    def __init__(self, judge: Judge, name: str) -> None:
        self.judge, self.name = judge, name

    def update(self, outputs: Tensor, real: Tensor, way: str = "") -> None:
        """Add pictures to the judge's sets, for all of its figures; see `Judge.gather`."""
        self.judge.gather(outputs, real, way)

    def compute(self) -> float:
        """The figure."""
        return self.judge.overall()[self.name]

    def reset(self) -> None:
        """Begin anew."""
        self.judge.reset()


def _of_all(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Figures by name and direction, and of those that may choose a model the mean."""
    names = list(next(iter(found.values())))
    each = {f"{name}_{way}": found[way][name] for name in names for way in found if name != "texture"}
    both = {name: sum(figures[name] for figures in found.values()) / len(found) for name in names if name in CHOOSING}
    return each | both
