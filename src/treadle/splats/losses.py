"""The loss terms beside the picture itself: what keeps splats small, faint and round, and where surfaces are known.

Sums over many values are taken in one fixed order, whatever the number of threads: torch's own sum over everything
depends on that, and with it the last digit of what is logged.
"""

from __future__ import annotations

import torch
from torch import Tensor

from treadle.data.views import Target
from treadle.splats.model import Splats
from treadle.splats.rendering import Rendered

ROUND_ENOUGH = 10.0
"""The ratio of longest to shortest axis that is no needle yet (PhysGaussian, https://arxiv.org/abs/2311.12198)."""

_ROW = 4096


def total(values: Tensor) -> Tensor:
    """The sum over all entries, a scalar, in an order that does not depend on the number of threads."""
    flat = values.flatten()
    whole = flat.numel() // _ROW * _ROW
    rest = flat[whole:].sum()
    return flat[:whole].reshape(-1, _ROW).sum(1).sum() + rest if whole else rest


def mean(values: Tensor) -> Tensor:
    """The mean of all entries, a scalar, as `total` adds them up; 0 where there are none."""
    return total(values) / max(1, values.numel())


def opacity(model: Splats) -> Tensor:
    """The mean opacity: splats that nothing needs fade."""
    return mean(model.opacities())


def scale(model: Splats) -> Tensor:
    """The mean standard deviation, in units of the scene: splats that nothing needs shrink."""
    return mean(model.scales())


def needles(model: Splats) -> Tensor:
    """The mean of how far the ratio of longest to shortest axis is above 10."""
    logs = model.log_scales
    ratio = (logs.amax(1) - logs.amin(1)).exp()
    return mean(ratio.clamp(min=ROUND_ENOUGH) - ROUND_ENOUGH)


def depth(rendered: Rendered, target: Target, extent: float) -> Tensor:
    """The mean difference of 1 / depth where a depth is known, times the scene's `extent`: without a unit."""
    assert rendered.depth is not None and target.depth is not None
    known = target.depth > 0
    if target.mask is not None:
        known = known & target.mask
    wrong = (_inverse(rendered.depth) - _inverse(target.depth)).abs() * known
    return total(wrong) / known.sum().clamp(min=1) * extent


def points(rendered: Rendered, target: Target, extent: float) -> Tensor:
    """The same at single points of the picture, such as COLMAP's."""
    assert rendered.depth is not None
    height, width = rendered.depth.shape
    column, row = target.points[:, 0].floor().long(), target.points[:, 1].floor().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (target.points[:, 2] > 0)
    at = (row * width + column)[inside]
    found = rendered.depth.flatten().index_select(0, at)
    return mean((_inverse(found) - 1 / target.points[inside, 2]).abs()) * extent


def normals(rendered: Rendered, target: Target) -> Tensor:
    """The mean of 1 - cos between rendered and known normals, where these are known; less where little is seen."""
    assert rendered.normals is not None and target.normals is not None
    known = (target.normals != 0).any(2)
    if target.mask is not None:
        known = known & target.mask
    wrong = (rendered.alpha - (rendered.normals * target.normals).sum(2)) * known
    return total(wrong) / known.sum().clamp(min=1)


def _inverse(depth: Tensor) -> Tensor:
    return torch.where(depth > 0, 1 / depth.clamp(min=1e-6), 0.0)
