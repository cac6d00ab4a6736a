"""The tractometer: valid and invalid bundles and streamlines, and how well valid ones cover the true volume.

Côté et al., Tractometer (Medical Image Analysis, 2013), as scilpy computes it (Renauld et al., Scientific Reports,
2023). A line is a valid streamline (VS) of a bundle whose two regions it links, if it meets what else is asked of that
bundle; a wrong-path connection (WPC) if it does not; an invalid connection (IC) if it links two regions that no bundle
links; and no connection (NC) otherwise. VB and IB count the bundles of which there is a line.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from treadle.errors import UsageError
from treadle.kernels.traversal import traverse
from treadle.tracts.masks import at_points, dilated
from treadle.tracts.scoring.geometry import ends_of, walked, winding
from treadle.tracts.scoring.truth import Limits, TrueBundle, Truth
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines


@dataclass(frozen=True, eq=False)
class BundleScores:
    """One bundle: its valid lines, and the voxels they go through beside those that are true."""

    valid: np.ndarray
    """(n,) int64: which lines are valid streamlines of it."""
    wrong: np.ndarray
    """(n,) int64: which link its regions otherwise."""
    rejected: Mapping[str, int]
    """How many lines that link its regions each criterion has refused."""
    hit: int = 0
    """True voxels that valid lines go through (TP)."""
    beyond: int = 0
    """Other voxels that they go through (FP)."""
    missed: int = 0
    """True voxels that they do not go through (FN)."""
    ends_hit: int = 0
    """True voxels in which a valid line ends."""
    ends_beyond: int = 0
    """Other voxels in which one ends."""
    regions_hit: float = 0.0
    """Share of the true voxels of its two end regions in which a valid line ends."""
    scored: bool = True
    """Whether its true voxels are known."""

    @property
    def overlap(self) -> float:
        """OL: the share of the true voxels that valid lines go through."""
        return self.hit / max(1, self.hit + self.missed)

    @property
    def overreach(self) -> float:
        """OR by the ground truth: other voxels that valid lines go through, over the number of true ones."""
        return self.beyond / max(1, self.hit + self.missed)

    @property
    def overreach_of_bundle(self) -> float:
        """OR by the bundle: other voxels that valid lines go through, over all that they go through; 0 without any."""
        return self.beyond / max(1, self.hit + self.beyond)

    @property
    def f1(self) -> float:
        """The F1 score, which is Dice's."""
        return 2 * self.hit / max(1, 2 * self.hit + self.beyond + self.missed)

    def as_dict(self) -> dict[str, Any]:
        """By scilpy's names."""
        if not self.scored:
            return {"VS": len(self.valid), "WPC": len(self.wrong), "Scoring skipped": "No gt_mask provided"}
        return {
            "VS": len(self.valid),
            "WPC": len(self.wrong),
            "TP": self.hit,
            "FP": self.beyond,
            "FN": self.missed,
            "OL": self.overlap,
            "OR_pct_gt": self.overreach,
            "OR_pct_vs": self.overreach_of_bundle,
            "f1": self.f1,
            "endpoints_OL": self.ends_hit,
            "endpoints_OR": self.ends_beyond,
            "regions_OL": self.regions_hit,
        }


@dataclass(frozen=True, eq=False)
class Scores:
    """All there is to say of a tractogram."""

    bundles: Mapping[str, BundleScores]
    invalid: Mapping[tuple[str, str], np.ndarray]
    """Of each pair of regions that no bundle links, and some line does: which lines (n,) int64."""
    invalid_voxels: Mapping[tuple[str, str], int]
    """How many voxels those go through."""
    unconnected: np.ndarray
    """(n,) int64: the lines that are nothing else (NC)."""
    wrong_apart: bool
    """Whether wrong paths count for themselves; else they are among the unconnected."""

    def as_dict(self) -> dict[str, Any]:
        """By scilpy's names; of a line that belongs to several bundles each is counted, as there."""
        valid = sum(len(each.valid) for each in self.bundles.values())
        wrong = sum(len(each.wrong) for each in self.bundles.values()) if self.wrong_apart else 0
        linked = sum(map(len, self.invalid.values()))
        none = len(self.unconnected)
        total = valid + wrong + linked + none
        found: dict[str, Any] = {"total_streamlines": total, "VB": sum(len(b.valid) > 0 for b in self.bundles.values())}
        counts = {"VS": valid, "IS": linked + none, "IC": linked, "NC": none}
        for name, count in (counts | ({"WPC": wrong} if self.wrong_apart else {})).items():
            found |= {name: count, f"{name}_ratio": count / max(1, total)}
        found["IB"] = len(self.invalid)
        if self.wrong_apart:
            found["WPC_bundle"] = sum(len(each.wrong) > 0 for each in self.bundles.values())
        scored = [each for each in self.bundles.values() if each.scored]
        if scored:
            means = {"mean_OL": "overlap", "mean_OR_gt": "overreach", "mean_OR_vs": "overreach_of_bundle"}
            for name, attribute in (means | {"mean_f1": "f1"}).items():
                found[name] = float(np.mean([getattr(each, attribute) for each in scored]))
        found["bundle_wise"] = {name: each.as_dict() for name, each in self.bundles.items()}
        found["bundle_wise"]["IB"] = {
            "_".join(pair): {"IC": len(lines), "nb_voxels": self.invalid_voxels[pair]}
            for pair, lines in self.invalid.items()
        }
        return found


def score(
    lines: Streamlines,
    truth: Truth,
    space: Space,
    *,
    unique: bool = False,
    wrong_paths: bool = False,
    dilate_ends: int = 0,
) -> Scores:
    """Score a tractogram.

    Args:
        lines: in voxel space with corner origin.
        truth: what there is.
        space: the grid of the lines.
        unique: a line belongs to the first bundle it fits alone; else to each, and lines that are valid for one may
            be invalid connections of other regions, too, where regions overlap.
        wrong_paths: count wrong-path connections for themselves, not among the invalid streamlines.
        dilate_ends: grow the end regions by so many voxels.

    Raises:
        UsageError: the truth lies in another grid, or points are not finite.
    """
    if not truth.space.same(space):
        raise UsageError("the streamlines lie in another grid than the masks that they are scored by")
    if not np.isfinite(lines.points).all():
        raise UsageError("some points of the streamlines are NaN or infinite")
    seen = _Seen(lines, truth, space, dilate_ends)
    everyone = np.arange(len(lines))
    left = everyone
    bundles: dict[str, BundleScores] = {}
    for name, bundle in truth.bundles.items():
        linking = left[seen.link(bundle.head, bundle.tail)[left]]
        valid, refused, rejected = seen.judge(linking, bundle)
        if unique:
            left = np.setdiff1d(left, valid, assume_unique=True)
        bundles[name] = seen.cover(valid, refused, rejected, bundle)
    valid = np.unique(np.concatenate([np.zeros(0, np.int64), *(each.valid for each in bundles.values())]))
    if unique:
        bundles = {name: _without(each, valid) for name, each in bundles.items()}
    wrong = np.concatenate([np.zeros(0, np.int64), *(each.wrong for each in bundles.values())])
    taken = np.union1d(valid, wrong) if wrong_paths else valid
    left = np.setdiff1d(everyone, taken) if unique else everyone

    true_pairs = {frozenset((bundle.head, bundle.tail)) for bundle in truth.bundles.values()}
    invalid: dict[tuple[str, str], np.ndarray] = {}
    for first, second in itertools.combinations(sorted(truth.regions), 2):
        if frozenset((first, second)) in true_pairs:
            continue
        found = left[seen.link(first, second)[left]]
        if len(found):
            invalid[first, second] = found
            if unique:
                left = np.setdiff1d(left, found, assume_unique=True)
    nothing = np.setdiff1d(everyone, np.concatenate([taken, *invalid.values()]))
    voxels = {pair: int(np.count_nonzero(seen.volume(found))) for pair, found in invalid.items()}
    return Scores(bundles, invalid, voxels, nothing, wrong_paths)


def _without(bundle: BundleScores, valid: np.ndarray) -> BundleScores:
    """Without the wrong paths that are valid lines of another bundle."""
    return BundleScores(**(vars(bundle) | {"wrong": np.setdiff1d(bundle.wrong, valid)}))


class _Seen:
    """Lines beside the truth: what of them is looked at more than once."""

    def __init__(self, lines: Streamlines, truth: Truth, space: Space, dilate_ends: int) -> None:
        self._lines, self._space = lines, space
        self._voxels, self._bounds = traverse(lines.points, lines.offsets, space.shape)
        self._ends = ends_of(lines)
        self._regions = {name: dilated(region, dilate_ends) for name, region in truth.regions.items()}
        self._in = {
            name: tuple(at_points(region, ends) for ends in self._ends) for name, region in self._regions.items()
        }

    def link(self, first: str, second: str) -> np.ndarray:
        """(n,) bool: which lines go from one region to the other, either way."""
        (a, b), (c, d) = self._in[first], self._in[second]
        return np.asarray((a & d) | (b & c))

    def volume(self, which: np.ndarray) -> np.ndarray:
        """(x, y, z) bool: the voxels that these lines go through."""
        mask = np.zeros(self._space.shape, bool)
        mask.reshape(-1)[self._through(which)[1]] = True
        return mask

    def _through(self, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The place of each line among `which`, and the flat voxel, for all voxels that these lines go through."""
        counts = np.diff(self._bounds)[which]
        place = np.repeat(np.arange(len(which)), counts)
        starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
        rows = np.arange(len(place)) - starts[place] + self._bounds[which][place]
        return place, self._voxels[rows]

    def judge(self, linking: np.ndarray, bundle: TrueBundle) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
        """Of lines that link a bundle's regions: the valid ones, the others, and what refused how many."""
        rejected: dict[str, int] = {"linking its regions": len(linking)}
        valid = linking

        def keep(name: str, good: np.ndarray) -> None:
            nonlocal valid
            rejected[name] = int((~good).sum())
            valid = valid[good]

        if bundle.all_mask is not None:
            keep("all_mask", ~self._touches(valid, ~bundle.all_mask))
        if bundle.any_mask is not None:
            keep("any_mask", self._touches(valid, bundle.any_mask))
        if bundle.length is not None:
            part = self._lines.select(valid)
            keep("length", _between(part.millimetres(self._space.voxel_sizes), bundle.length))
        for name, limits in (("length of axes", bundle.along), ("absolute length of axes", bundle.along_abs)):
            if limits is not None:
                part = self._lines.select(valid)
                far = walked(self._space.to_world(part.points), part.offsets, to_and_fro=limits is bundle.along_abs)
                keep(name, np.logical_and.reduce([_between(far[:, axis], limits[axis]) for axis in range(3)]))
        if bundle.angle is not None:
            part = self._lines.select(valid)
            keep("angle", winding(part.points * self._space.voxel_sizes, part.offsets) < bundle.angle)
        return valid, np.setdiff1d(linking, valid, assume_unique=True), rejected

    def _touches(self, which: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """(n,) bool: which of these lines go through a voxel of the mask."""
        place, voxels = self._through(which)
        return np.bincount(place[mask.reshape(-1)[voxels]], minlength=len(which)) > 0

    def cover(
        self, valid: np.ndarray, wrong: np.ndarray, rejected: Mapping[str, int], bundle: TrueBundle
    ) -> BundleScores:
        """How well valid lines cover a bundle."""
        if bundle.mask is None:
            return BundleScores(valid, wrong, rejected, scored=False)
        true, covered = bundle.mask, self.volume(valid)
        ends = np.zeros(true.shape, bool)
        for points in self._ends:
            voxels = np.floor(points[valid]).astype(np.int64)
            ends[tuple(voxels.T)] = True  # they lie in the bundle's regions, so in the volume
        regions = (self._regions[bundle.head] | self._regions[bundle.tail]) & true
        return BundleScores(
            valid,
            wrong,
            rejected,
            hit=int((covered & true).sum()),
            beyond=int((covered & ~true).sum()),
            missed=int((~covered & true).sum()),
            ends_hit=int((ends & true).sum()),
            ends_beyond=int((ends & ~true).sum()),
            regions_hit=float((ends & regions).sum() / max(1, regions.sum())),
        )


def _between(values: np.ndarray, limits: Limits) -> np.ndarray:
    return np.asarray((values > limits[0]) & (values < limits[1]))
