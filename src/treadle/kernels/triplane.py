"""Features in three planes per level, differentiable with respect to the table and the points.

On a CPU, in float32 and float64, compiled loops run (`triplane_loops`); everywhere else, and in every other dtype, the
torch reference (`triplane_reference`) does.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from treadle.errors import UsageError
from treadle.kernels import threads
from treadle.kernels.triplane_reference import encode_reference, first_rows

if TYPE_CHECKING:
    import numpy as np

COMPILED_DTYPES = (torch.float32, torch.float64)


def encode(points: Tensor, table: Tensor, base: int, levels: int) -> Tensor:
    """Encode points as the blended rows of every plane of levels `base` to `base + levels - 1`.

    Args:
        points: (n, 3) coordinates in [-1, 1], n >= 0; those outside are taken at the border.
        table: (first_rows(base, levels)[-1], features) learnt rows, of the dtype and on the device of `points`.
        base, levels: see above; level l has planes of (2^l + 1)^2 rows.

    Returns:
        (n, levels * 3 * features), level by level, plane by plane. On a CPU the result and both gradients are bitwise
        equal on any number of threads. The compiled path can be differentiated once; for second derivatives call
        `encode_reference`.

    Raises:
        UsageError: shapes, dtypes or devices that do not fit each other.
    """
    if points.dim() != 2 or points.shape[1] != 3:
        raise UsageError(f"triplane: points must have shape (n, 3), got {tuple(points.shape)}")
    rows = first_rows(base, levels)[-1]
    if table.dim() != 2 or len(table) != rows:
        raise UsageError(f"triplane: {rows} rows belong to its planes, got a table of shape {tuple(table.shape)}")
    if not points.is_floating_point() or points.dtype != table.dtype:
        raise UsageError(
            f"triplane: points and table must have the same floating dtype, got {points.dtype} and {table.dtype}"
        )
    if points.device != table.device:
        raise UsageError(f"triplane: points are on {points.device}, the table on {table.device}: move one of them")
    if points.device.type == "cpu" and points.dtype in COMPILED_DTYPES:
        return _Encode.apply(points, table, base, levels)
    return encode_reference(points, table, base, levels)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, base: int, levels: int) -> Tensor:
        from treadle.kernels import triplane_loops

        points, table = points.contiguous(), table.contiguous()
        out = points.new_empty(len(points), levels * 3 * table.shape[1])
        planes = _first(base, levels), base, levels, _unit(table)
        threads.spread(triplane_loops.forward, _parts(points), _array(points), _array(table), *planes, _array(out))
        ctx.planes = planes
        ctx.save_for_backward(points, table)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        from treadle.kernels import triplane_loops

        points, table = ctx.saved_tensors
        given = _array(points), _array(grad.contiguous())
        grad_points = grad_table = None
        if ctx.needs_input_grad[1]:
            grad_table = torch.zeros_like(table)
            parts = threads.parts_for(3 * ctx.planes[2])
            threads.spread(triplane_loops.table_gradient, parts, *given, *ctx.planes, _array(grad_table))
        if ctx.needs_input_grad[0]:
            grad_points = torch.empty_like(points)
            loop = triplane_loops.point_gradient
            threads.spread(loop, _parts(points), *given, _array(table), *ctx.planes, _array(grad_points))
        return grad_points, grad_table, None, None


@lru_cache(maxsize=64)
def _first(base: int, levels: int) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.array(first_rows(base, levels), dtype=np.int64)


def _parts(points: Tensor) -> int:
    from treadle.kernels.triplane_loops import BLOCK

    return threads.parts_for(-(-len(points) // BLOCK))


def _unit(table: Tensor) -> tuple[float, ...]:
    return (0.0,) * table.shape[1]


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().numpy()
