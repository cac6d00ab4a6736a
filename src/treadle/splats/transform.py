"""Turning, scaling and cutting a cloud: a similarity moves positions, rotations, scales and colours' harmonics alike.

The harmonics of one degree turn among themselves. How they do is found by evaluating them in a few directions before
and after the turn (the values at turned directions are linear in the values at the old ones), in float64: exact, and
with no other source of signs than the basis itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.errors import UsageError
from treadle.splats.cloud import Cloud

Matrix = NDArray[np.float64]


def select(cloud: Cloud, rows: Tensor) -> Cloud:
    """The splats that `rows`, indices or a mask, choose."""
    return replace(
        cloud,
        means=cloud.means[rows],
        quaternions=cloud.quaternions[rows],
        log_scales=cloud.log_scales[rows],
        logits=cloud.logits[rows],
        dc=cloud.dc[rows],
        rest=cloud.rest[rows],
        extra={name: values[rows] for name, values in cloud.extra.items()},
    )


def transformed(cloud: Cloud, similarity: Matrix) -> Cloud:
    """The cloud in other coordinates; seen from anywhere it looks as it did, from where that is now.

    Args:
        cloud: the splats; `extra` stays as it is.
        similarity: (4, 4), from the cloud's coordinates to the others: a rotation times a factor, and a translation.

    Raises:
        UsageError: another matrix, such as one that stretches one axis: harmonics cannot follow it.
    """
    factor, rotation = _parts(similarity)
    means = cloud.means.double() @ torch.from_numpy(factor * rotation).T + torch.from_numpy(similarity[:3, 3])
    quaternions = _product(torch.from_numpy(_quaternion(rotation)), cloud.quaternions.double())
    parts = [torch.zeros_like(cloud.rest)[:, :0]]
    for degree in range(1, cloud.degree + 1):
        band = cloud.rest[:, degree**2 - 1 : (degree + 1) ** 2 - 1].double()
        parts.append(torch.einsum("ij,njc->nic", torch.from_numpy(harmonic_rotation(rotation, degree)), band).float())
    return replace(
        cloud,
        means=means.float(),
        quaternions=quaternions.float(),
        log_scales=cloud.log_scales + math.log(factor),
        rest=torch.cat(parts, 1),
    )


def harmonic_rotation(rotation: Matrix, degree: int) -> Matrix:
    """The matrix D of one degree, (2 degree + 1) squared: coefficients c become D c when what they colour is turned.

    For every direction d, basis(rotation d) . (D c) == basis(d) . c.
    """
    directions, inverse = _directions(degree)
    return np.asarray(inverse @ harmonics(directions @ rotation, degree))


def harmonics(directions: Matrix, degree: int) -> Matrix:
    """The real spherical harmonics of one degree, 0 to 3, at unit vectors (n, 3): (n, 2 degree + 1).

    Their order and signs are those of 3D Gaussian Splatting.
    """
    x, y, z = directions.T
    if degree == 0:
        return np.full((len(directions), 1), 0.28209479177387814)
    if degree == 1:
        return 0.4886025119029199 * np.stack([-y, z, -x], 1)
    if degree == 2:
        return np.stack([1.0925484305920792 * x * y, -1.0925484305920792 * y * z,
                         0.31539156525252005 * (2 * z * z - x * x - y * y), -1.0925484305920792 * x * z,
                         0.5462742152960396 * (x * x - y * y)], 1)  # fmt: skip
    return np.stack([-0.5900435899266435 * y * (3 * x * x - y * y), 2.890611442640554 * x * y * z,
                     -0.4570457994644658 * y * (4 * z * z - x * x - y * y),
                     0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y),
                     -0.4570457994644658 * x * (4 * z * z - x * x - y * y), 1.445305721320277 * z * (x * x - y * y),
                     -0.5900435899266435 * x * (x * x - 3 * y * y)], 1)  # fmt: skip


def inside(cloud: Cloud, box: Sequence[float]) -> Tensor:
    """Which splats have their centres in a box (x0, y0, z0, x1, y1, z1), (n,) bool.

    Raises:
        UsageError: not six finite numbers, or a lower corner that is above the upper one.
    """
    if len(box) != 6 or not all(map(math.isfinite, box)) or any(a >= b for a, b in zip(box[:3], box[3:], strict=True)):
        raise UsageError(
            f"--crop {','.join(f'{x:g}' for x in box)}: expected x0,y0,z0,x1,y1,z1, the lower corner first"
        )
    corners = torch.tensor(box, dtype=torch.float64).view(2, 3)
    means = cloud.means.double()
    return ((means >= corners[0]) & (means <= corners[1])).all(1)


def opaque(cloud: Cloud, least: float) -> Tensor:
    """Which splats have at least this opacity, (n,) bool; raises UsageError unless it is in [0, 1]."""
    if not 0 <= least <= 1:
        raise UsageError(f"--min-opacity {least:g}: expected 0 to 1")
    return cloud.logits.sigmoid() >= least


@cache
def _directions(degree: int) -> tuple[Matrix, Matrix]:
    """As many directions as fix a degree's harmonics well, spread evenly, and the inverse of the harmonics there."""
    count = 4 * degree + 4
    heights = 1 - (2 * np.arange(count) + 1) / count
    turns = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    flat = np.sqrt(1 - heights**2)
    directions = np.stack([flat * np.cos(turns), flat * np.sin(turns), heights], 1)
    return directions, np.asarray(np.linalg.pinv(harmonics(directions, degree)), np.float64)


def _parts(similarity: Matrix) -> tuple[float, Matrix]:
    """The factor and the rotation of a similarity."""
    matrix = np.asarray(similarity, np.float64)
    if matrix.shape == (4, 4) and np.isfinite(matrix).all() and np.array_equal(matrix[3], [0, 0, 0, 1]):
        determinant = float(np.linalg.det(matrix[:3, :3]))
        factor = math.cbrt(determinant)
        if factor > 0 and np.abs(matrix[:3, :3] @ matrix[:3, :3].T / factor**2 - np.eye(3)).max() < 1e-5:
            left, _, right = np.linalg.svd(matrix[:3, :3])
            return factor, left @ right  # orthonormal to the last digit
    raise UsageError("splats can be turned, scaled alike along all axes and moved: the matrix given is none of that")


def _quaternion(rotation: Matrix) -> Matrix:
    """(4,) w, x, y, z of a rotation: an eigenvector (Bar-Itzhack, 2000), which is sound at any angle."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    symmetric = np.array([[a + e + i, h - f, c - g, d - b], [h - f, a - e - i, b + d, c + g],
                          [c - g, b + d, e - a - i, f + h], [d - b, c + g, f + h, i - a - e]])  # fmt: skip
    return np.asarray(np.linalg.eigh(symmetric)[1][:, -1])


def _product(first: Tensor, second: Tensor) -> Tensor:
    """Hamilton's product of quaternion (4,) with quaternions (n, 4)."""
    w, x, y, z = first.tolist()
    matrix = torch.tensor([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]], dtype=second.dtype)
    return second @ matrix.T
