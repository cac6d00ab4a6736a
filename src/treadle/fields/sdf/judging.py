"""How near a field is to the solid that it was trained on: on points in the box, and on the surfaces themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.fields.sdf.distance import closest
from treadle.fields.sdf.field import SDFField
from treadle.fields.sdf.solid import Solid
from treadle.fields.sdf.topology import Topology, topology

HIGHER = ("iou",)
"""Figures of which more is better."""

NEAR = 0.05
"""Distances below it count as near the surface."""


def figures(found: Tensor, wanted: Tensor) -> dict[str, float]:
    """What distances `found` (n, 1) at uniform points of the box are worth, where they should be `wanted`.

    Returns:
        "iou" of the insides, "error" the mean magnitude of the errors, "near" that of those within NEAR of the surface
        (NaN where there are none), in units of the solid.
    """
    inside, truly = found < 0, wanted < 0
    union = int((inside | truly).sum())
    error = (found - wanted).abs().double().flatten()
    near = error[wanted.abs().flatten() < NEAR]
    return {
        "iou": int((inside & truly).sum()) / union if union else 1.0,
        "error": float(error.mean()),
        "near": float(near.mean()) if len(near) else float("nan"),
    }


def iou(field: SDFField, solid: Solid, count: int = 1_000_000, seed: int = 0) -> float:
    """Intersection over union of the insides, on `count` uniform points in the box, none of which was trained on."""
    generator = torch.Generator().manual_seed(seed)
    both = either = 0
    for start in range(0, count, 1 << 18):
        points = torch.rand(min(1 << 18, count - start), 3, generator=generator, dtype=torch.float64) * 2 - 1
        points = points.float()
        found = (field.evaluate(points) < 0).flatten().cpu().numpy()
        truly = solid.inside(points.double().numpy())
        both += int((found & truly).sum())
        either += int((found | truly).sum())
    return both / either if either else 1.0


@dataclass(frozen=True)
class Apart:
    """How far two surfaces are from one another; distances in units of the solid.

    Attributes:
        from_fit: the mean exact distance of points on the fit from the solid.
        to_fit: the mean exact distance of points on the solid from the fit.
        largest: the farthest of all these points.
        relative: the mean of the two means, as a share of the solid's diagonal.
        fit: how the fit's faces hang together.
    """

    from_fit: float
    to_fit: float
    largest: float
    relative: float
    fit: Topology


def apart(vertices: NDArray[Any], faces: NDArray[Any], solid: Solid, count: int = 100_000, seed: int = 0) -> Apart:
    """Compare a mesh, in the solid's coordinates, with a solid, at `count` points on each, evenly by area."""
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.rand(count, 3, generator=generator, dtype=torch.float64).numpy() for _ in range(2)]
    vertices, faces = np.asarray(vertices, np.float64), np.asarray(faces, np.int64)
    fit = Solid(vertices, faces, None, np.zeros(3), 1.0)
    from_fit = closest(solid.vertices, solid.faces, fit.surface(draws[0])[0])[0]
    to_fit = closest(vertices, faces, solid.surface(draws[1])[0])[0]
    means = float(from_fit.mean()), float(to_fit.mean())
    return Apart(
        *means,
        max(float(from_fit.max()), float(to_fit.max())),
        sum(means) / 2 / solid.diagonal,
        topology(faces),
    )


def normal_error(field: SDFField, solid: Solid, count: int = 50_000, seed: int = 0, step: float = 0.002) -> float:
    """The mean angle in degrees between the field's normals and those of the faces, at points on the solid."""
    generator = torch.Generator().manual_seed(seed)
    places, faces = solid.surface(torch.rand(count, 3, generator=generator, dtype=torch.float64).numpy())
    points = torch.from_numpy(places).float()
    with torch.no_grad():
        device = field.to_input.device
        found = torch.cat([field.normals(part.to(device), step).cpu() for part in points.split(1 << 14)])
    cosine = (found.double().numpy() * solid.normals[faces]).sum(1)
    return float(np.degrees(np.arccos(cosine.clip(-1, 1))).mean())
