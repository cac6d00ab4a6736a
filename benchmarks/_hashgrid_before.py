"""The field as it was before its kernels were rewritten, frozen: what the hash grid's benchmark is measured against.

Treadle 0.1.0's compiled loops of the encoding, one after another over all points, and its perceptron, a chunk of points
at a time by torch's matrix products. Only for grids with `flat_border`.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

from functools import lru_cache
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from treadle.fields.hash_field import HashField
from treadle.kernels import threads
from treadle.kernels.compiling import compiled
from treadle.kernels.layout import GridLayout


class Before(nn.Module):
    """A hash field of today, computed as then."""

    def __init__(self, field: HashField) -> None:
        super().__init__()
        self.field = field

    def forward(self, points: Tensor) -> Tensor:
        """(n, outputs), before a sigmoid."""
        grid, layers = self.field.grid, self.field.decoder.layers
        features = _Encode.apply(points, grid.table, grid.layout)
        weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
        values: Tensor = _Chunked.apply(features, *weights, *biases)
        return values


BLOCK = 512
"""Points worked on together: their outputs stay in the first-level cache while all levels pass over them."""

_PRIME_Y = np.uint32(2654435761)
_PRIME_Z = np.uint32(805459861)


@numba.njit(inline="always")
def _clip(u, zero, last):
    # Written so that NaN passes through, to be seen in the result.
    if u < zero:
        return zero
    if u > last:
        return last
    return u


@numba.njit(inline="always")
def _cell(u, n):
    # In range for every u: NaN compares false and reads cell 0.
    if u > 0:
        return min(np.int32(u), np.int32(n - 2))
    return np.int32(0)


@numba.njit(inline="always")
def _row2(x, y, n, mask, dense):
    if dense:
        return np.int64(x) + n * np.int64(y)
    return np.int64((np.uint32(x) ^ (np.uint32(y) * _PRIME_Y)) & mask)


@numba.njit(inline="always")
def _row3(x, y, z, n, mask, dense):
    if dense:
        return np.int64(x) + n * (np.int64(y) + n * np.int64(z))
    return np.int64((np.uint32(x) ^ (np.uint32(y) * _PRIME_Y) ^ (np.uint32(z) * _PRIME_Z)) & mask)


@numba.njit(inline="always")
def _share(count, part, parts):
    # The range of points of a part: whole blocks, so that a block is the same work wherever it runs.
    blocks = (count + BLOCK - 1) // BLOCK
    return min(blocks * part // parts * BLOCK, count), min(blocks * (part + 1) // parts * BLOCK, count)


@compiled(parallel=True)
def forward_2d(points, table, levels, unit, out, parts):
    """Encode points (n, 2) into out (n, levels * features); `levels` rows are (resolution, offset, rows - 1, dense)."""
    real = points.dtype.type
    zero, one = real(0), real(1)
    features = len(unit)
    for part in numba.prange(parts):
        start, stop = _share(points.shape[0], part, parts)
        for low in range(start, stop, BLOCK):
            high = min(low + BLOCK, stop)
            for level in range(levels.shape[0]):
                n = levels[level, 0]
                rows = table[levels[level, 1] :]
                mask = np.uint32(levels[level, 2])
                dense = levels[level, 3] != 0
                scale, last = real(0.5) * real(n), real(n - 1)
                first = level * features
                for i in range(low, high):
                    u, v = (
                        _clip((points[i, 0] + one) * scale, zero, last),
                        _clip((points[i, 1] + one) * scale, zero, last),
                    )
                    x, y = _cell(u, n), _cell(v, n)
                    a, b = u - real(x), v - real(y)
                    r00, r10 = _row2(x, y, n, mask, dense), _row2(x + 1, y, n, mask, dense)
                    r01, r11 = _row2(x, y + 1, n, mask, dense), _row2(x + 1, y + 1, n, mask, dense)
                    s00, s10, s01, s11 = (one - a) * (one - b), a * (one - b), (one - a) * b, a * b
                    for f in range(features):
                        out[i, first + f] = (
                            s00 * rows[r00, f] + s10 * rows[r10, f] + s01 * rows[r01, f] + s11 * rows[r11, f]
                        )


@compiled(parallel=True)
def table_gradient_2d(points, grad, levels, unit, grad_table, parts):
    """Add to `grad_table` the gradient from all points; part k sums levels k, k + parts, k + 2 parts ..."""
    real = points.dtype.type
    zero, one = real(0), real(1)
    features = len(unit)
    for part in numba.prange(parts):
        for low in range(0, points.shape[0], BLOCK):
            high = min(low + BLOCK, points.shape[0])
            for level in range(part, levels.shape[0], parts):
                n = levels[level, 0]
                rows = grad_table[levels[level, 1] :]
                mask = np.uint32(levels[level, 2])
                dense = levels[level, 3] != 0
                scale, last = real(0.5) * real(n), real(n - 1)
                first = level * features
                for i in range(low, high):
                    u, v = (
                        _clip((points[i, 0] + one) * scale, zero, last),
                        _clip((points[i, 1] + one) * scale, zero, last),
                    )
                    x, y = _cell(u, n), _cell(v, n)
                    a, b = u - real(x), v - real(y)
                    r00, r10 = _row2(x, y, n, mask, dense), _row2(x + 1, y, n, mask, dense)
                    r01, r11 = _row2(x, y + 1, n, mask, dense), _row2(x + 1, y + 1, n, mask, dense)
                    s00, s10, s01, s11 = (one - a) * (one - b), a * (one - b), (one - a) * b, a * b
                    for f in range(features):
                        g = grad[i, first + f]
                        rows[r00, f] += s00 * g
                        rows[r10, f] += s10 * g
                        rows[r01, f] += s01 * g
                        rows[r11, f] += s11 * g


@compiled(parallel=True)
def point_gradient_2d(points, grad, table, levels, unit, grad_points, parts):
    """Write the gradient to the points (n, 2); zero along an axis where the point was clipped."""
    real = points.dtype.type
    zero, one = real(0), real(1)
    features = len(unit)
    for part in numba.prange(parts):
        start, stop = _share(points.shape[0], part, parts)
        for i in range(start, stop):
            total_x, total_y = zero, zero
            for level in range(levels.shape[0]):
                n = levels[level, 0]
                rows = table[levels[level, 1] :]
                mask = np.uint32(levels[level, 2])
                dense = levels[level, 3] != 0
                scale, last = real(0.5) * real(n), real(n - 1)
                u_free, v_free = (points[i, 0] + one) * scale, (points[i, 1] + one) * scale
                u, v = _clip(u_free, zero, last), _clip(v_free, zero, last)
                x, y = _cell(u, n), _cell(v, n)
                a, b = u - real(x), v - real(y)
                r00, r10 = _row2(x, y, n, mask, dense), _row2(x + 1, y, n, mask, dense)
                r01, r11 = _row2(x, y + 1, n, mask, dense), _row2(x + 1, y + 1, n, mask, dense)
                slope_x, slope_y = zero, zero
                for f in range(features):
                    g = grad[i, level * features + f]
                    t00, t10, t01, t11 = rows[r00, f], rows[r10, f], rows[r01, f], rows[r11, f]
                    slope_x += g * ((one - b) * (t10 - t00) + b * (t11 - t01))
                    slope_y += g * ((one - a) * (t01 - t00) + a * (t11 - t10))
                if u_free == u:
                    total_x += slope_x * scale
                if v_free == v:
                    total_y += slope_y * scale
            grad_points[i, 0] = total_x
            grad_points[i, 1] = total_y


@compiled(parallel=True)
def forward_3d(points, table, levels, unit, out, parts):
    """As `forward_2d`, over eight corners."""
    real = points.dtype.type
    zero, one = real(0), real(1)
    features = len(unit)
    for part in numba.prange(parts):
        start, stop = _share(points.shape[0], part, parts)
        for low in range(start, stop, BLOCK):
            high = min(low + BLOCK, stop)
            for level in range(levels.shape[0]):
                n = levels[level, 0]
                rows = table[levels[level, 1] :]
                mask = np.uint32(levels[level, 2])
                dense = levels[level, 3] != 0
                scale, last = real(0.5) * real(n), real(n - 1)
                first = level * features
                for i in range(low, high):
                    u, v = (
                        _clip((points[i, 0] + one) * scale, zero, last),
                        _clip((points[i, 1] + one) * scale, zero, last),
                    )
                    w = _clip((points[i, 2] + one) * scale, zero, last)
                    x, y, z = _cell(u, n), _cell(v, n), _cell(w, n)
                    a, b, c = u - real(x), v - real(y), w - real(z)
                    r000, r100 = _row3(x, y, z, n, mask, dense), _row3(x + 1, y, z, n, mask, dense)
                    r010, r110 = _row3(x, y + 1, z, n, mask, dense), _row3(x + 1, y + 1, z, n, mask, dense)
                    r001, r101 = _row3(x, y, z + 1, n, mask, dense), _row3(x + 1, y, z + 1, n, mask, dense)
                    r011, r111 = _row3(x, y + 1, z + 1, n, mask, dense), _row3(x + 1, y + 1, z + 1, n, mask, dense)
                    s00, s10, s01, s11 = (one - a) * (one - b), a * (one - b), (one - a) * b, a * b
                    for f in range(features):
                        near = s00 * rows[r000, f] + s10 * rows[r100, f] + s01 * rows[r010, f] + s11 * rows[r110, f]
                        far = s00 * rows[r001, f] + s10 * rows[r101, f] + s01 * rows[r011, f] + s11 * rows[r111, f]
                        out[i, first + f] = (one - c) * near + c * far


@compiled(parallel=True)
def table_gradient_3d(points, grad, levels, unit, grad_table, parts):
    """As `table_gradient_2d`, over eight corners."""
    real = points.dtype.type
    zero, one = real(0), real(1)
    features = len(unit)
    for part in numba.prange(parts):
        for low in range(0, points.shape[0], BLOCK):
            high = min(low + BLOCK, points.shape[0])
            for level in range(part, levels.shape[0], parts):
                n = levels[level, 0]
                rows = grad_table[levels[level, 1] :]
                mask = np.uint32(levels[level, 2])
                dense = levels[level, 3] != 0
                scale, last = real(0.5) * real(n), real(n - 1)
                first = level * features
                for i in range(low, high):
                    u, v = (
                        _clip((points[i, 0] + one) * scale, zero, last),
                        _clip((points[i, 1] + one) * scale, zero, last),
                    )
                    w = _clip((points[i, 2] + one) * scale, zero, last)
                    x, y, z = _cell(u, n), _cell(v, n), _cell(w, n)
                    a, b, c = u - real(x), v - real(y), w - real(z)
                    for corner in range(8):
                        dx, dy, dz = corner & 1, (corner >> 1) & 1, corner >> 2
                        row = _row3(x + dx, y + dy, z + dz, n, mask, dense)
                        share = (a if dx else one - a) * (b if dy else one - b) * (c if dz else one - c)
                        for f in range(features):
                            rows[row, f] += share * grad[i, first + f]


@compiled(parallel=True)
def point_gradient_3d(points, grad, table, levels, unit, grad_points, parts):
    """As `point_gradient_2d`, over eight corners."""
    real = points.dtype.type
    zero, one = real(0), real(1)
    features = len(unit)
    for part in numba.prange(parts):
        start, stop = _share(points.shape[0], part, parts)
        for i in range(start, stop):
            total_x, total_y, total_z = zero, zero, zero
            for level in range(levels.shape[0]):
                n = levels[level, 0]
                rows = table[levels[level, 1] :]
                mask = np.uint32(levels[level, 2])
                dense = levels[level, 3] != 0
                scale, last = real(0.5) * real(n), real(n - 1)
                u_free, v_free = (points[i, 0] + one) * scale, (points[i, 1] + one) * scale
                w_free = (points[i, 2] + one) * scale
                u, v, w = _clip(u_free, zero, last), _clip(v_free, zero, last), _clip(w_free, zero, last)
                x, y, z = _cell(u, n), _cell(v, n), _cell(w, n)
                a, b, c = u - real(x), v - real(y), w - real(z)
                slope_x, slope_y, slope_z = zero, zero, zero
                for corner in range(8):
                    dx, dy, dz = corner & 1, (corner >> 1) & 1, corner >> 2
                    row = _row3(x + dx, y + dy, z + dz, n, mask, dense)
                    value = zero
                    for f in range(features):
                        value += grad[i, level * features + f] * rows[row, f]
                    p, q, r = a if dx else one - a, b if dy else one - b, c if dz else one - c
                    slope_x += value * q * r * (one if dx else -one)
                    slope_y += value * p * r * (one if dy else -one)
                    slope_z += value * p * q * (one if dz else -one)
                if u_free == u:
                    total_x += slope_x * scale
                if v_free == v:
                    total_y += slope_y * scale
                if w_free == w:
                    total_z += slope_z * scale
            grad_points[i, 0] = total_x
            grad_points[i, 1] = total_y
            grad_points[i, 2] = total_z


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, layout: GridLayout) -> Tensor:
        points, table = points.contiguous(), table.contiguous()
        ctx.layout = layout
        ctx.save_for_backward(points, table)
        out = points.new_empty(points.shape[0], layout.width)
        blocks = -(-points.shape[0] // BLOCK)
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
            blocks = -(-points.shape[0] // BLOCK)
            threads.launch(
                _loop("point_gradient", layout),
                threads.parts_for(blocks),
                _array(points), _array(grad), _array(table), *_constants(layout), _array(grad_points),
            )  # fmt: skip
        return grad_points, grad_table, None


def _loop(name: str, layout: GridLayout) -> Any:
    return globals()[f"{name}_{layout.dimensions}d"]


def _array(tensor: Tensor) -> Any:
    return tensor.detach().numpy()


@lru_cache(maxsize=64)
def _constants(layout: GridLayout) -> tuple[Any, tuple[float, ...]]:
    """The layout as the loops read it: per level (resolution, offset, rows - 1, dense), and the tuple of features."""
    columns = (layout.resolutions, layout.offsets, [size - 1 for size in layout.sizes], layout.dense)
    return np.array(columns, dtype=np.int64).T.copy(), (0.0,) * layout.features


CHUNK = 16384
"""Points that go through all layers together: their activations, 64 wide, fill four megabytes a layer."""

SHARES = 8
"""Shares that a chunk's points are cut into for the weights' gradients."""


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, *parameters: Tensor) -> Tensor:
        layers = len(parameters) // 2
        weights, biases = parameters[:layers], parameters[layers:]
        kept: list[list[Tensor]] = []
        out = points.new_empty(points.shape[0], weights[-1].shape[0])
        keep = any(ctx.needs_input_grad)
        for low in range(0, points.shape[0], CHUNK):
            hidden = points[low : low + CHUNK]
            activations = [hidden]
            for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
                hidden = torch.addmm(bias, hidden, weight.t()).relu_()
                activations.append(hidden)
            torch.addmm(biases[-1], hidden, weights[-1].t(), out=out[low : low + CHUNK])
            if keep:
                kept.append(activations)
        ctx.kept = kept
        ctx.save_for_backward(points, *weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        points, *weights = ctx.saved_tensors
        last = len(weights) - 1
        grad_points = torch.empty_like(points) if ctx.needs_input_grad[0] else None
        grad_weights = [torch.zeros_like(weight) for weight in weights]
        grad_biases = [weight.new_zeros(weight.shape[0]) for weight in weights]
        ones = points.new_ones(min(CHUNK, points.shape[0]))
        for chunk, low in enumerate(range(0, points.shape[0], CHUNK)):
            slope = grad[low : low + CHUNK]
            for layer in range(last, -1, -1):
                inputs = ctx.kept[chunk][layer]
                transposed = slope.t()
                _add_product(grad_weights[layer], slope, inputs)
                grad_biases[layer].addmv_(transposed, ones[: slope.shape[0]])
                if layer:
                    slope = slope @ weights[layer]
                    torch.ops.aten.threshold_backward.grad_input(slope, inputs, 0, grad_input=slope)
                elif grad_points is not None:
                    torch.mm(slope, weights[0], out=grad_points[low : low + CHUNK])
        return (grad_points, *grad_weights, *grad_biases)


def _add_product(total: Tensor, slope: Tensor, inputs: Tensor) -> None:
    """Add slope^T inputs to `total`: a small product of long factors, which in eight shares uses both caches better."""
    rows = slope.shape[0]
    if rows % SHARES:
        total.addmm_(slope.t(), inputs)
        return
    shares = (SHARES, rows // SHARES, -1)
    total += torch.bmm(slope.reshape(shares).transpose(1, 2), inputs.reshape(shares)).sum(0)
