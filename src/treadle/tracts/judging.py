"""How well the next direction is told: point by point, line by line, beside what needs no training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from treadle.tracts.batch import LineBatch
from treadle.tracts.getters.getter import DirectionGetter
from treadle.tracts.signal.harmonics import basis, half_sphere, order_of
from treadle.tracts.signal.tensor import fit_tensors, principal
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import Subject

_MANY = 30
"""Directions in which a signal is looked at: enough for a tensor."""


def disagreement(directions: Tensor, targets: Tensor) -> Tensor:
    """1 - cos of the angle between directions and targets (n, 3): (n,), 0 where they agree; 1 for a direction of 0."""
    return 1 - torch.nn.functional.cosine_similarity(directions, targets, dim=1, eps=1e-12)


def principal_directions(features: np.ndarray, kind: str) -> np.ndarray | None:
    """The axis of strongest diffusion at each point: (p, 3) float32; None where features of that kind tell none.

    Args:
        features: (p, f): what a volume holds there.
        kind: as in `VolumeInfo`: a tensor's is its eigenvector, that of a signal's harmonics the eigenvector of the
            tensor fitted to the signal.
    """
    if kind == "tensor":
        return principal(features[:, :6])
    if kind != "sh":
        return None
    directions = half_sphere(_MANY)
    signal = np.clip(features @ basis(order_of(features.shape[1]), directions).T, 1e-3, 1.0)
    signal = np.concatenate([np.ones((len(signal), 1)), signal], axis=1)
    bvalues = np.append(0.0, np.full(_MANY, 1000.0))  # its size does not matter to an eigenvector
    return principal(fit_tensors(signal, bvalues, np.concatenate([np.zeros((1, 3)), directions])))


@dataclass(frozen=True, eq=False)
class Judged:
    """Every point of every line of a feed, in the order of the lines, whatever that of the batches is."""

    offsets: np.ndarray
    """(n + 1,) int64: line k has the rows `offsets[k]:offsets[k + 1]` of all that follows."""
    lines: np.ndarray
    """(n,) int64: the number of each line among all of the feed's; see `LineBatch`."""
    subject: np.ndarray
    """(n,) int64: the number of its subject."""
    points: np.ndarray
    """(p, 3) float32, in voxel space."""
    targets: np.ndarray
    """(p, 3) float32, in mm; 0 where there is none."""
    angle: np.ndarray
    """(p,) float32: 1 - cos between the likeliest direction and the target; NaN where there is none."""
    loss: np.ndarray
    """(p,) float32: the direction getter's own loss; NaN where there is none."""
    copying: np.ndarray
    """(p,) float32: 1 - cos between the previous direction and the target; NaN at a line's first point."""
    principal: np.ndarray
    """(p,) float32: 1 - |cos| between the principal axis of diffusion and the target; NaN where none is told."""
    end: np.ndarray
    """(p,) float32: how likely the line ends here."""
    last: np.ndarray
    """(p,) bool: where it does."""

    def figures(self, chosen: np.ndarray | None = None) -> dict[str, float]:
        """Means over the points (of the lines `chosen`, (n,) bool) that have a previous direction and a target.

        The same points for all three: "angle", "copying" and, where it is told, "principal"; "loss" over all points
        that have one; "step_mm"; with ends also "end_missed" and "end_false": the shares of ends that are told not
        to be, and of other points that are told to be one (at 1/2).
        """
        mask = np.ones(len(self.angle), bool)
        if chosen is not None:
            mask = np.repeat(chosen, np.diff(self.offsets))
        common = mask & ~np.isnan(self.angle) & ~np.isnan(self.copying)
        found = {"angle": _mean(self.angle[common]), "copying": _mean(self.copying[common])}
        if not np.isnan(self.principal[common]).all():
            found["principal"] = _mean(self.principal[common & ~np.isnan(self.principal)])
        found["loss"] = _mean(self.loss[mask & ~np.isnan(self.loss)])
        found["step_mm"] = _mean(np.linalg.norm(self.targets[common], axis=1))
        if self.last.any():
            found["end_missed"] = _mean(self.end[mask & self.last] < 0.5)
            found["end_false"] = _mean(self.end[mask & ~self.last] >= 0.5)
        return found

    def per_line(self, values: np.ndarray) -> np.ndarray:
        """(n,) float64: the mean of values (p,) over each line, without those that are NaN; NaN where all are."""
        known = ~np.isnan(values)
        which = np.repeat(np.arange(len(self.lines)), np.diff(self.offsets))
        count = np.bincount(which[known], minlength=len(self.lines))
        total = np.bincount(which[known], values[known], len(self.lines))
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def streamlines(self, subject: int, space: Space) -> Streamlines:
        """The lines of one subject with the figures of each point and line, to be looked at in a viewer."""
        mine = np.flatnonzero(self.subject == subject)
        rows = np.concatenate([np.arange(*self.offsets[[k, k + 1]]) for k in mine]) if len(mine) else np.zeros(0, int)
        lengths = np.diff(self.offsets)[mine]
        offsets = np.append(0, np.cumsum(lengths))
        per_point = {name: getattr(self, name)[rows, None] for name in ("angle", "loss", "copying")}
        if self.last.any():
            per_point["end"] = self.end[rows, None]
            per_point["end_error"] = np.abs(self.end[rows, None] - self.last[rows, None])
        per_point = {name: np.nan_to_num(values).astype(np.float32) for name, values in per_point.items()}
        per_line = {
            name: np.nan_to_num(self.per_line(getattr(self, name))[mine, None]).astype(np.float32)
            for name in ("angle", "loss")
        }
        found = Streamlines(self.points[rows], offsets, per_line, per_point)
        return found if self.last.any() else _with_ends(found, self.targets[rows], space)


def judge(
    call: Callable[[LineBatch], Tensor], getter: DirectionGetter, batches: Iterable[LineBatch], width: int, kind: str
) -> Judged:
    """Judge every point of some batches.

    Args:
        call: what the getter reads for each point of a batch, (p, k).
        getter: what reads it.
        batches: of a feed that changes nothing about the lines.
        width: features of the volume at a point; those of its neighbours come after them.
        kind: what they are; see `VolumeInfo`.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in Judged.__dataclass_fields__}
    for batch in batches:
        parameters = call(batch)
        there = batch.targets.abs().sum(1) > 0
        own = _own_loss(getter, parameters, batch)
        moved = batch.previous.abs().sum(1) > 0
        axis = principal_directions(batch.features[:, :width].numpy(), kind) if width else None
        found = {
            "offsets": batch.offsets.diff(),
            "lines": batch.lines,
            "subject": batch.subject,
            "points": batch.points,
            "targets": batch.targets,
            "angle": _where(there, disagreement(getter.direction(parameters), batch.targets)),
            "loss": _where(there, own),
            "copying": _where(there & moved, disagreement(batch.previous, batch.targets)),
            "principal": _where(there, _axis(axis, batch.targets)),
            "end": getter.end(parameters),
            "last": batch.last,
        }
        for name, values in found.items():
            parts[name].append(values.detach().cpu().numpy())
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    lengths = joined.pop("offsets")
    order = np.argsort(joined["lines"], kind="stable")
    rows = np.argsort(np.repeat(joined["lines"], lengths), kind="stable")
    ordered = {name: values[order if name in ("lines", "subject") else rows] for name, values in joined.items()}
    return Judged(np.append(0, np.cumsum(lengths[order])), **ordered)


def groups_of(judged: Judged, subjects: Sequence[Subject], lines: str) -> dict[str, np.ndarray]:
    """The lines of each bundle, where the data names them ("bundle" of each line), else of each subject: (n,) bool."""
    if not all("bundle" in subject.lines[lines].per_line for subject in subjects):
        return {subject.name: judged.subject == number for number, subject in enumerate(subjects)}
    bundles = np.concatenate([subject.streamlines(lines).per_line["bundle"][:, 0] for subject in subjects])
    mine = bundles[judged.lines]
    return {f"bundle {number:g}": mine == number for number in np.unique(mine)}


def _own_loss(getter: DirectionGetter, parameters: Tensor, batch: LineBatch) -> Tensor:
    direction, _ = getter.loss(parameters, batch.targets, batch.last)
    if len(direction) == len(batch.points):
        return direction
    whole = direction.new_full((len(batch.points),), torch.nan)
    whole[~batch.last] = direction
    return whole


def _axis(axis: np.ndarray | None, targets: Tensor) -> Tensor:
    if axis is None:
        return torch.full((len(targets),), torch.nan)
    return 1 - torch.nn.functional.cosine_similarity(torch.from_numpy(axis), targets.cpu(), dim=1, eps=1e-12).abs()


def _where(there: Tensor, values: Tensor) -> Tensor:
    return torch.where(there.to(values.device), values, torch.nan)


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values, dtype=np.float64)) if len(values) else float("nan")


def _with_ends(lines: Streamlines, targets: np.ndarray, space: Space) -> Streamlines:
    """The lines with their last points, which are where the last directions lead."""
    last = lines.offsets[1:] - 1
    ends = lines.points[last] + (targets[last] / space.voxel_sizes).astype(np.float32)
    after = lines.offsets[1:]
    points = np.insert(lines.points, after, ends, axis=0)
    per_point = {name: np.insert(values, after, values[last], axis=0) for name, values in lines.per_point.items()}
    return Streamlines(points, lines.offsets + np.arange(len(lines.offsets)), lines.per_line, per_point)
