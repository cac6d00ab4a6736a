"""The multiresolution hash-grid encoding, differentiable with respect to its table and its points.

On a CPU, in float32 and float64, compiled loops run (`hashgrid_loops`); everywhere else, and in every other dtype, the
torch reference (`hashgrid_reference`) does.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from treadle.errors import UsageError
from treadle.kernels import threads
from treadle.kernels.hashgrid_reference import encode_reference
from treadle.kernels.layout import GridLayout

if TYPE_CHECKING:
    import numpy as np

COMPILED_DTYPES = (torch.float32, torch.float64)


def encode(points: Tensor, table: Tensor, layout: GridLayout) -> Tensor:
    """Encode points as the blended rows of every level.

    Args:
        points: (n, d) coordinates in [-1, 1], d = layout.dimensions, n >= 0; those outside are clipped to the border.
        table: (layout.rows, layout.features) learnt rows, of the dtype and on the device of `points`.
        layout: where the rows lie.

    Returns:
        (n, layout.width) features, level by level. On a CPU the result and both gradients are bitwise equal on any
        number of threads. The compiled path can be differentiated once; for second derivatives call `encode_reference`.

    Raises:
        UsageError: shapes, dtypes or devices that do not fit each other or the layout.
    """
    _check(points, table, layout)
    if points.device.type == "cpu" and points.dtype in COMPILED_DTYPES:
        return _Encode.apply(points, table, layout)
    return encode_reference(points, table, layout)


def _check(points: Tensor, table: Tensor, layout: GridLayout) -> None:
    if points.dim() != 2 or points.shape[1] != layout.dimensions:
        raise UsageError(
            f"hash grid: points must have shape (n, {layout.dimensions}), got {tuple(points.shape)}: "
            f"reshape them, or build the grid with other dimensions"
        )
    if tuple(table.shape) != (layout.rows, layout.features):
        raise UsageError(
            f"hash grid: the layout needs a table of shape ({layout.rows}, {layout.features}), got {tuple(table.shape)}"
        )
    if not points.is_floating_point() or points.dtype != table.dtype:
        raise UsageError(
            f"hash grid: points and table must have the same floating dtype, got {points.dtype} and {table.dtype}"
        )
    if points.device != table.device:
        raise UsageError(f"hash grid: points are on {points.device}, the table on {table.device}: move one of them")


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, layout: GridLayout) -> Tensor:
        from treadle.kernels import hashgrid_loops

        points, table = points.contiguous(), table.contiguous()
        ctx.layout = layout
        ctx.save_for_backward(points, table)
        out = points.new_empty(points.shape[0], layout.width)
        blocks = -(-points.shape[0] // hashgrid_loops.BLOCK)
        threads.launch(
            _loop("forward", layout),
            threads.parts_for(blocks),
            _array(points),
            _array(table),
            *_constants(layout),
            _array(out),
        )
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        from treadle.kernels import hashgrid_loops

        points, table = ctx.saved_tensors
        layout: GridLayout = ctx.layout
        grad = grad.contiguous()
        grad_points = grad_table = None
        if ctx.needs_input_grad[1]:
            grad_table = torch.zeros_like(table)
            threads.launch(
                _loop("table_gradient", layout),
                threads.parts_for(layout.levels),
                _array(points), _array(grad), *_constants(layout), _array(grad_table),
            )  # fmt: skip
        if ctx.needs_input_grad[0]:
            grad_points = torch.empty_like(points)
            blocks = -(-points.shape[0] // hashgrid_loops.BLOCK)
            threads.launch(
                _loop("point_gradient", layout),
                threads.parts_for(blocks),
                _array(points), _array(grad), _array(table), *_constants(layout), _array(grad_points),
            )  # fmt: skip
        return grad_points, grad_table, None


def _loop(name: str, layout: GridLayout) -> Any:
    from treadle.kernels import hashgrid_loops

    return getattr(hashgrid_loops, f"{name}_{layout.dimensions}d")


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().numpy()


@lru_cache(maxsize=64)
def _constants(layout: GridLayout) -> tuple[np.ndarray[Any, Any], tuple[float, ...]]:
    """The layout as the loops read it: per level (resolution, offset, rows - 1, dense), and the tuple of features."""
    import numpy as np

    columns = (layout.resolutions, layout.offsets, [size - 1 for size in layout.sizes], layout.dense)
    return np.array(columns, dtype=np.int64).T.copy(), (0.0,) * layout.features
