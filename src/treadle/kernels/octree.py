"""Features in a sparse octree, differentiable with respect to the table and the points.

On a CPU, in float32 and float64, compiled loops run (`octree_loops`); everywhere else, and in every other dtype, the
torch reference (`octree_reference`) does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from treadle.errors import UsageError
from treadle.kernels import threads
from treadle.kernels.octree_index import OctreeIndex
from treadle.kernels.octree_reference import encode_reference

if TYPE_CHECKING:
    import numpy as np

COMPILED_DTYPES = (torch.float32, torch.float64)


def encode(points: Tensor, table: Tensor, index: OctreeIndex) -> Tensor:
    """Encode points as the blended corners of the cells they are in, level by level.

    Args:
        points: (n, 3), n >= 0. Where a level has no cell around a point, and outside of [-1, 1]^3, features are zero.
        table: (index.rows, features) learnt rows, of the dtype and on the device of `points`.
        index: where the rows lie.

    Returns:
        (n, levels * features). On a CPU the result and both gradients are bitwise equal on any number of threads. The
        compiled path can be differentiated once; for second derivatives call `encode_reference`.

    Raises:
        UsageError: shapes, dtypes or devices that do not fit each other or the index.
    """
    if points.dim() != 2 or points.shape[1] != 3:
        raise UsageError(f"octree: points must have shape (n, 3), got {tuple(points.shape)}")
    if table.dim() != 2 or len(table) != index.rows:
        raise UsageError(f"octree: {index.rows} rows belong to its cells, got a table of shape {tuple(table.shape)}")
    if not points.is_floating_point() or points.dtype != table.dtype:
        raise UsageError(
            f"octree: points and table must have the same floating dtype, got {points.dtype} and {table.dtype}"
        )
    if not points.device == table.device == index.records.device:
        raise UsageError(
            f"octree: points are on {points.device}, the table on {table.device}, "
            f"the cells on {index.records.device}: move them together"
        )
    if points.device.type == "cpu" and points.dtype in COMPILED_DTYPES:
        return _Encode.apply(points, table, index)
    return encode_reference(points, table, index)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, index: OctreeIndex) -> Tensor:
        from treadle.kernels import octree_loops

        points, table = points.contiguous(), table.contiguous()
        out = points.new_empty(len(points), index.levels * table.shape[1])
        found = torch.empty(len(points), index.levels, dtype=torch.int32)
        threads.spread(
            octree_loops.forward, _parts(points), _array(points), _array(table), _array(index.roots),
            _array(index.records), index.base, index.levels, _unit(table), _array(out), _array(found),
        )  # fmt: skip
        ctx.index = index
        ctx.save_for_backward(points, table, found)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        from treadle.kernels import octree_loops

        points, table, found = ctx.saved_tensors
        index: OctreeIndex = ctx.index
        given = _array(points), _array(grad.contiguous()), _array(found)
        octree = _array(index.records), index.base, index.levels, _unit(table)
        grad_points = grad_table = None
        if ctx.needs_input_grad[1]:
            grad_table = torch.zeros_like(table)
            parts = threads.parts_for(index.levels)
            threads.spread(octree_loops.table_gradient, parts, *given, *octree, _array(grad_table))
        if ctx.needs_input_grad[0]:
            grad_points = torch.empty_like(points)
            loop = octree_loops.point_gradient
            threads.spread(loop, _parts(points), *given, _array(table), *octree, _array(grad_points))
        return grad_points, grad_table, None


def _parts(points: Tensor) -> int:
    from treadle.kernels.octree_loops import BLOCK

    return threads.parts_for(-(-len(points) // BLOCK))


def _unit(table: Tensor) -> tuple[float, ...]:
    return (0.0,) * table.shape[1]


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().numpy()
