"""The multiresolution hash-grid encoding, alone or with a perceptron over it, differentiable by all they depend on.

On a CPU, in float32 and float64, compiled loops run (`hashgrid_loops`, `mlp_loops`); everywhere else, and in every
other dtype, the torch reference (`hashgrid_reference`) does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from treadle.errors import UsageError
from treadle.kernels import threads
from treadle.kernels.hashgrid_reference import encode_reference
from treadle.kernels.layout import BLOCK, GridLayout
from treadle.kernels.mlp import COMPILED_DTYPES, Array, array, back, compiles, flat, mlp, mlp_reference, pack, shape_of


def encode(points: Tensor, table: Tensor, layout: GridLayout, levels: int | None = None) -> Tensor:
    """Encode points as the blended rows of every level.

    Args:
        points: (n, d) coordinates in [-1, 1], d = layout.dimensions, n >= 0; those outside are clipped to the border.
        table: (layout.rows, layout.features) learnt rows, of the dtype and on the device of `points`.
        layout: where the rows lie.
        levels: how many levels count, from the coarsest on; features of finer ones are 0, and their rows get no
            gradient. None takes all.

    Returns:
        (n, layout.width) features, level by level. On a CPU the result and both gradients are bitwise equal on any
        number of threads. The compiled path can be differentiated once; for second derivatives call `encode_reference`.

    Raises:
        UsageError: shapes, dtypes or devices that do not fit each other or the layout.
    """
    _check(points, table, layout)
    if points.device.type == "cpu" and points.dtype in COMPILED_DTYPES:
        features: Tensor = _Encode.apply(points, table, layout, layout.levels if levels is None else levels)
        return features[:, : points.shape[0]].transpose(0, 1).reshape(points.shape[0], layout.width)
    return encode_reference(points, table, layout, levels)


def decode(
    points: Tensor, table: Tensor, layout: GridLayout, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> Tensor:
    """Encode points and map what comes of it by linear layers with ReLU between them: `mlp(encode(...))`, in one.

    Args:
        points, table, layout: as for `encode`.
        weights, biases: as for `mlp`; the first layer takes layout.width features, or fewer: then those of the
            coarsest levels, whole ones; finer levels are not read and get no gradient.

    Returns:
        (n, outputs of the last layer). On a CPU, in float32 and float64 and without autocast, compiled loops do all of
        it for a block of points that stays in the cache: bitwise equal on any number of threads, and differentiable
        once, by all but the layout; for second derivatives call `decode_reference`. Elsewhere it is `mlp(encode(...))`.

    Raises:
        UsageError: shapes, dtypes or devices that do not fit.
    """
    _check(points, table, layout)
    used = weights[0].shape[1]
    if used % layout.features or not 0 < used <= layout.width:
        raise UsageError(
            f"hash grid: the first layer takes {used} values: expected {layout.width}, or a multiple of "
            f"{layout.features} below it for the coarser levels alone"
        )
    if compiles(points, table, *weights, *biases):
        out: Tensor = _Field.apply(points, table, layout, used // layout.features, *weights, *biases)
        return out
    return mlp(encode(points, table, layout)[:, :used], weights, biases)


def decode_reference(
    points: Tensor, table: Tensor, layout: GridLayout, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> Tensor:
    """The same in plain torch: differentiable any number of times, on any device and in any floating dtype."""
    features = encode_reference(points, table, layout)
    return mlp_reference(features[:, : weights[0].shape[1]], weights, biases)


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
    """Features level by level, (levels, padded, features)."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, layout: GridLayout, levels: int) -> Tensor:
        from treadle.kernels import hashgrid_loops

        coordinates, table = _coordinates(points), table.contiguous()
        ctx.save_for_backward(coordinates, table)
        ctx.grid, ctx.points = _Grid.of(layout, points.dtype, levels), points.shape[0]
        out = points.new_zeros(layout.levels, coordinates.shape[1], layout.features)
        threads.spread(
            hashgrid_loops.encode, threads.parts_for(coordinates.shape[1] // BLOCK),
            flat(coordinates), ctx.points, flat(table), *ctx.grid, flat(out),
        )  # fmt: skip
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        coordinates, table = ctx.saved_tensors
        return (*_grid_gradients(ctx, coordinates, table, grad.contiguous()), None, None)


class _Field(torch.autograd.Function):
    """Encoding and perceptron: only a chunk of points has features at a time."""

    @staticmethod
    def forward(
        ctx: Any, points: Tensor, table: Tensor, layout: GridLayout, levels: int, *parameters: Tensor
    ) -> Tensor:
        from treadle.kernels import mlp_loops

        layers = len(parameters) // 2
        weights, biases = parameters[:layers], parameters[layers:]
        coordinates, table = _coordinates(points), table.contiguous()
        ctx.grid, ctx.points = _Grid.of(layout, points.dtype, levels), points.shape[0]
        ctx.shape = shape = shape_of((levels * layout.features, *(weight.shape[0] for weight in weights)))
        ctx.packed = packed = pack(shape, weights, biases)
        parts = threads.parts_for(coordinates.shape[1] // BLOCK)
        keep = any(ctx.needs_input_grad)
        rows = coordinates.shape[1]
        if not keep:
            rows = parts * min(mlp_loops.CHUNK, -(-rows // BLOCK // parts) * BLOCK)
        features = points.new_empty(levels, rows, layout.features)
        out = points.new_empty(ctx.points, weights[-1].shape[0])
        threads.spread(
            mlp_loops.forward_encoded, parts,
            flat(coordinates), flat(table), *ctx.grid, shape.rows, packed, flat(features), keep, array(out),
        )  # fmt: skip
        if keep:
            ctx.save_for_backward(coordinates, table, features)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        coordinates, table, features = ctx.saved_tensors
        inputs_too = any(ctx.needs_input_grad[:2])
        slopes, weights, biases = back(ctx.shape, ctx.packed, features, ctx.grid.unit, grad, inputs_too)
        found = (None, None) if slopes is None else _grid_gradients(ctx, coordinates, table, slopes)
        return (*found, None, None, *weights, *biases)


def _grid_gradients(ctx: Any, coordinates: Tensor, table: Tensor, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of points and table, where needed, from those of the features."""
    from treadle.kernels import hashgrid_loops

    grid: _Grid = ctx.grid
    grad_points = grad_table = None
    if ctx.needs_input_grad[1]:
        grad_table = torch.empty_like(table)
        grad_table[int(grid.levels[-1, 1] + grid.levels[-1, 2]) + 1 :] = 0  # levels that were not asked for
        threads.spread(
            hashgrid_loops.table_gradient, threads.parts_for(len(grid.levels)),
            flat(coordinates), ctx.points, flat(grad), *grid, flat(grad_table),
        )  # fmt: skip
    if ctx.needs_input_grad[0]:
        slopes = torch.empty_like(coordinates)
        threads.spread(
            hashgrid_loops.point_gradient, threads.parts_for(coordinates.shape[1] // BLOCK),
            flat(coordinates), ctx.points, flat(grad), flat(table), *grid, flat(slopes),
        )  # fmt: skip
        grad_points = slopes[:, : ctx.points].t()
    return grad_points, grad_table


def _coordinates(points: Tensor) -> Tensor:
    """Points axis by axis, (d, padded): whole blocks, whose last ones are 0."""
    count, dimensions = points.shape
    found = points.new_zeros(dimensions, -(-count // BLOCK) * BLOCK)
    found[:, :count] = points.detach().t()
    return found


class _Grid(NamedTuple):
    """The layout as the loops read it."""

    levels: Array
    scales: Array
    axes: tuple[float, ...]
    unit: tuple[float, ...]

    @staticmethod
    @lru_cache(maxsize=64)
    def of(layout: GridLayout, dtype: torch.dtype, levels: int) -> _Grid:
        """The coarsest `levels` of it."""
        hashed = [not dense for dense in layout.dense]
        columns = (layout.resolutions, layout.offsets, [size - 1 for size in layout.sizes], hashed)
        scales = torch.tensor(layout.scales, dtype=dtype).numpy()
        return _Grid(
            np.array(columns, np.int64).T[:levels].copy(), scales, (0.0,) * layout.dimensions, (0.0,) * layout.features
        )
