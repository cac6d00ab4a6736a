"""Reading a volume of features at points between its voxels, and in a neighbourhood of each.

On a CPU, in float32, a compiled loop runs (`trilinear_loops`); everywhere else the torch reference does
(`trilinear_reference`, which says what is read). No gradient goes through the compiled loop.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from treadle.errors import UsageError
from treadle.kernels import threads
from treadle.kernels.trilinear_reference import interpolate_reference

KINDS = ("none", "axes", "grid")
"""The neighbourhoods there are."""


def interpolate(volume: Tensor, points: Tensor, offsets: Tensor | None = None) -> Tensor:
    """Read a volume at points, and at points beside them.

    Args:
        volume: (x, y, z, features) float32; contiguous, or it is copied.
        points: (n, 3) float32, in voxel space with corner origin: the centre of voxel i is at i + .5. Outside the
            volume the nearest voxel inside is read; where a coordinate is NaN, what is read is NaN.
        offsets: (k, 3) float32 in voxels, as from `neighbourhood`; None reads at the points alone.

    Returns:
        (n, k * features) float32: the features at the first offset, then those at the second, and so on. On a CPU it
        is bitwise equal on any number of threads.

    Raises:
        UsageError: shapes, dtypes or devices that do not fit each other, or a volume with an empty axis.
    """
    given = {"volume": volume, "points": points} | ({} if offsets is None else {"offsets": offsets})
    if volume.dim() != 4 or 0 in volume.shape[:3]:
        raise UsageError(f"trilinear: the volume must have shape (x, y, z, features), got {tuple(volume.shape)}")
    for name, tensor in given.items():
        if name != "volume" and (tensor.dim() != 2 or tensor.shape[1] != 3):
            raise UsageError(f"trilinear: {name} must have shape (n, 3), got {tuple(tensor.shape)}")
        if not tensor.is_floating_point() or tensor.dtype != volume.dtype:
            raise UsageError(f"trilinear: {name} is {tensor.dtype}, the volume {volume.dtype}: expected one floating")
        if tensor.device != volume.device:
            raise UsageError(f"trilinear: {name} is on {tensor.device}, the volume on {volume.device}: move one")
    if volume.device.type != "cpu" or volume.dtype != torch.float32:
        return interpolate_reference(volume, points, offsets)
    from treadle.kernels import trilinear_loops

    features = volume.shape[3]
    beside = points.new_zeros(1, 3) if offsets is None else offsets
    # By NumPy: memory that it has given back is warm, while torch's aligned one is often mapped anew, page by page.
    out = torch.from_numpy(np.empty((len(points), len(beside) * features), np.float32))
    parts = threads.parts_for(-(-len(points) // trilinear_loops.BLOCK))
    arrays = [tensor.detach().contiguous().numpy() for tensor in (points, beside)]
    flat = volume.detach().contiguous().view(-1).numpy()
    sizes = volume.shape[0], volume.shape[1], volume.shape[2]
    threads.spread(trilinear_loops.interpolate, parts, flat, sizes, features, *arrays, out.view(-1).numpy())
    return out


def neighbourhood(kind: str, radius: float | Sequence[float] = 1.0) -> Tensor:
    """Where to read beside a point, as offsets for `interpolate`.

    Args:
        kind: "none": the point alone. "axes": before and behind it along each axis, at every radius: 7 points for one
            radius, 13 for two. "grid": the cube around it, spaced by the radius: 27 points for one radius, 125 for two.
        radius: in voxels, above 0, one or two; of a "grid" the second must be twice the first.

    Returns:
        (k, 3) float32 in voxels, the point itself first.

    Raises:
        UsageError: another kind, or radii it has no points for.
    """
    radii = [float(each) for each in ([radius] if isinstance(radius, int | float) else radius)]
    if kind not in KINDS:
        raise UsageError(f"{kind!r} is no neighbourhood: expected one of {', '.join(map(repr, KINDS))}")
    if kind == "none":
        return torch.zeros(1, 3)
    rising = all(low < high for low, high in itertools.pairwise([0.0, *radii]))
    if len(radii) not in (1, 2) or not rising or radii[-1] == float("inf"):
        raise UsageError(f"the radius of a neighbourhood is {radius!r}: expected one or two rising numbers above 0")
    if kind == "axes":
        signs = (1.0, -1.0)
        rows = [[r * s * (a == axis) for a in range(3)] for r in radii for axis in range(3) for s in signs]
        return torch.tensor([[0.0, 0.0, 0.0], *rows])
    if len(radii) == 2 and abs(radii[1] - 2 * radii[0]) > 1e-6 * radii[0]:
        raise UsageError(f"the radii of a grid are {radius!r}: expected the second to be twice the first")
    steps = [0.0, *(sign * r for r in radii for sign in (-1, 1))]
    cube = list(itertools.product(sorted(steps), repeat=3))
    return torch.tensor([(0.0, 0.0, 0.0), *(row for row in cube if any(row))])
