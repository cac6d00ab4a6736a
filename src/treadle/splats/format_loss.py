"""What a format with fewer bits has changed: each attribute's largest and mean error, in units that one can judge."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from treadle.splats.cloud import Cloud

SH_C0 = 0.28209479177387814


class Loss(NamedTuple):
    """The error of one attribute."""

    largest: float
    rms: float
    """Root of the mean square."""
    unit: str


def losses(before: Cloud, after: Cloud) -> dict[str, Loss]:
    """The errors of `after` against `before`, splat by splat, which must be in the same order, by attribute.

    Positions count as distance; scales as their ratio, less 1; rotations as the angle between them, up to the symmetry
    of a Gaussian that both share; opacity and colour in shares of 1.
    """
    found = {
        "position": _loss((after.means - before.means).double().norm(dim=1), "units"),
        "scale": _loss(torch.expm1((after.log_scales - before.log_scales).abs().double()), "of itself"),
        "rotation": _loss(_degrees(before.quaternions, after.quaternions), "degrees"),
        "opacity": _loss((after.logits.sigmoid() - before.logits.sigmoid()).double(), "of 1"),
        "colour": _loss((after.dc - before.dc).double() * SH_C0, "of 1"),
    }
    if before.rest.numel():
        found["harmonics"] = _loss((after.rest - before.rest).double(), "of 1")
    return found


def _loss(errors: Tensor, unit: str) -> Loss:
    return Loss(float(errors.abs().max()), float(errors.square().mean().sqrt()), unit)


def _degrees(first: Tensor, second: Tensor) -> Tensor:
    """By the sine of half the angle, which small ones need: 1 - cos of them is lost in rounding."""
    one, other = (torch.nn.functional.normalize(q.double(), dim=1) for q in (first, second))
    apart = torch.minimum((one - other).norm(dim=1), (one + other).norm(dim=1))
    return torch.rad2deg(4 * torch.asin((apart / 2).clamp(max=1)))
