"""The compiled loops of splatting as differentiable functions of CPU tensors, float32 or float64.

Each can be differentiated once. What they allocate and pass on is here, what they compute in `splatting_points` (splats
one by one) and `splatting_tiles` (what happens in the picture).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from treadle.kernels import splatting_points as points
from treadle.kernels import splatting_tiles as tiling
from treadle.kernels import threads
from treadle.kernels.splatting_reference import TILE, Projection

Array = NDArray[Any]
_BIN_SHARE = 2048
"""Splats that are worth a thread when they are sorted into tiles."""


def _array(tensor: Tensor) -> Array:
    return tensor.detach().contiguous().numpy()


def _point_parts(count: int) -> int:
    return threads.parts_for(-(-count // points.BLOCK))


def project(
    cloud: tuple[Tensor, Tensor, Tensor, Tensor],
    pose: Tensor,
    lens: tuple[float, ...],
    size: tuple[int, int],
    options: tuple[float, float, float],
) -> Projection:
    """`splatting.project`; `cloud` are means, quaternions, scales and opacities, `options` near, eps2d, antialiased."""
    return Projection(*_Project.apply(*cloud, pose, lens, size, options))


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, means: Tensor, quaternions: Tensor, scales: Tensor, opacities: Tensor, pose: Tensor,
        lens: tuple[float, ...], size: tuple[int, int], options: tuple[float, float, float],
    ) -> tuple[Tensor, ...]:  # fmt: skip
        count = len(means)
        outputs = [means.new_empty(count, *shape) for shape in ((2,), (3,), (), (), (2,))]
        threads.spread(
            points.project, _point_parts(count),
            *map(_array, (means, quaternions, scales, opacities, pose)), lens, size, options,
            tuple(map(_array, outputs)),
        )  # fmt: skip
        centers, conics, depths, compensations, extents = outputs
        ctx.save_for_backward(means, quaternions, scales, pose, conics, compensations, extents)
        ctx.camera = lens, size, options
        ctx.mark_non_differentiable(*([extents] if options[2] else [compensations, extents]))
        return centers, conics, depths, compensations, extents

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        means, quaternions, scales, pose, *saved = ctx.saved_tensors
        count = len(means)
        outputs = [torch.empty(value.shape, dtype=value.dtype) for value in (means, quaternions, scales)]
        totals = np.zeros((-(-count // points.BLOCK), 4, 4), _array(means).dtype)
        threads.spread(
            points.project_back, _point_parts(count),
            *map(_array, (means, quaternions, scales, pose)), *ctx.camera,
            tuple(map(_array, saved)), tuple(map(_array, grads[:4])), tuple(map(_array, outputs)), totals,
        )  # fmt: skip
        return *outputs, None, _sum(totals, pose), None, None, None


def _sum(totals: Array, like: Tensor) -> Tensor:
    """The sum over the first axis, in double precision and always in the same order."""
    return torch.from_numpy(np.asarray(totals.sum(axis=0, dtype=np.float64))).to(like.dtype)


def spherical_harmonics(
    dc: Tensor, rest: Tensor, means: Tensor, eye: Tensor, degree: int, visible: Tensor | None
) -> Tensor:
    """`splatting.spherical_harmonics`."""
    if visible is None:
        visible = torch.ones(len(dc), dtype=torch.bool)
    colors: Tensor = _Harmonics.apply(dc, rest, means, eye, degree, visible)
    return colors


class _Harmonics(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dc: Tensor, rest: Tensor, means: Tensor, eye: Tensor, degree: int, visible: Tensor) -> Tensor:
        colors = torch.empty(dc.shape, dtype=dc.dtype)
        threads.spread(
            points.harmonics, _point_parts(len(dc)),
            *map(_array, (dc, rest, means, eye)), degree, _array(visible), _array(colors),
        )  # fmt: skip
        ctx.save_for_backward(dc, rest, means, eye, visible, colors)
        ctx.degree = degree
        return colors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        dc, rest, means, eye, visible, colors = ctx.saved_tensors
        outputs = [torch.zeros(tensor.shape, dtype=tensor.dtype) for tensor in (dc, rest, means)]
        totals = np.zeros((-(-len(dc) // points.BLOCK), 3), _array(dc).dtype)
        threads.spread(
            points.harmonics_back, _point_parts(len(dc)),
            *map(_array, (dc, rest, means, eye)), ctx.degree, *map(_array, (visible, colors, grad, *outputs)), totals,
        )  # fmt: skip
        return *outputs, -_sum(totals, eye), None, None


class _Lists(NamedTuple):
    """Which splats touch which tiles: `order` are the visible ones by depth; see `splatting_tiles`."""

    order: Array
    packed: Array
    firsts: Array
    tiles: Array
    ranks: Array
    slots: Array
    parts: int


def _lists(projection: Projection, opacities: Tensor, channels: Tensor, size: tuple[int, int]) -> _Lists:
    centers, conics, depths, extents = map(
        _array, (projection.centers, projection.conics, projection.depths, projection.extents)
    )
    shown, values = _array(opacities), _array(channels)
    order = np.flatnonzero(extents[:, 0] > 0).astype(np.int32)
    keys = depths.view(np.uint32 if depths.itemsize == 4 else np.uint64)
    tiling.depth_order(depths, keys, order, np.empty_like(order))
    packed = np.empty((len(order), tiling.HEAD + values.shape[1]), centers.dtype)
    parts = threads.parts_for(max(1, len(order) // _BIN_SHARE))
    count = -(-size[0] // TILE) * -(-size[1] // TILE)
    source = order, (centers, conics, shown, extents, values), packed, size
    cursors, firsts = np.zeros((parts, count), np.int64), np.zeros(len(order) + 1, np.int64)
    none = np.empty(0, np.int32)
    threads.spread(tiling.bin_splats, parts, False, *source, cursors, firsts[1:], none, none)
    np.cumsum(firsts, out=firsts)
    # A tile's list holds what the first part found, then what the second did, ...: all by depth, as the parts are.
    starts = np.concatenate((np.zeros(1, np.int64), cursors.T.ravel().cumsum()))
    cursors = starts[:-1].reshape(count, parts).T.copy()
    ranks, slots = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.int32)
    threads.spread(tiling.bin_splats, parts, True, *source, cursors, firsts[:-1], ranks, slots)
    return _Lists(order, packed, firsts, starts[::parts].copy(), ranks, slots, parts)


def _draw(lists: _Lists, background: Array, size: tuple[int, int], tallies: Array) -> tuple[Array, Array, Array, Array]:
    """The image, alpha, and per tile the final transmittances and the lengths of the lists that led to them."""
    kind, (width, height), count = lists.packed.dtype, size, len(lists.tiles) - 1
    image, alphas = np.empty((height, width, len(background)), kind), np.empty((height, width), kind)
    finals, lasts = np.empty((count, TILE * TILE), kind), np.empty((count, TILE * TILE), kind)
    threads.spread(
        tiling.blend, threads.parts_for(count), False, np.zeros(1, np.int64), lists.tiles, lists.ranks, lists.slots,
        lists.packed, background, size, image, alphas, finals, lasts, tallies,
    )  # fmt: skip
    return image, alphas, finals, lasts


def rasterize(
    projection: Projection, opacities: Tensor, channels: Tensor, size: tuple[int, int], background: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`splatting.rasterize`."""
    if background is None:
        background = channels.new_zeros(channels.shape[1])
    flat = projection.centers, projection.conics, opacities, channels, background
    image, alphas = _Rasterize.apply(*flat, projection.depths.detach(), projection.extents, size)
    return image, alphas


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, centers: Tensor, conics: Tensor, opacities: Tensor, channels: Tensor, background: Tensor,
        depths: Tensor, extents: Tensor, size: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        lists = _lists(Projection(centers, conics, depths, depths, extents), opacities, channels, size)
        none = np.empty((0, 2), lists.packed.dtype)
        image, alphas, finals, lasts = _draw(lists, _array(background), size, none)
        ctx.save_for_backward(conics, opacities, background)
        ctx.drawn = lists, size, finals, lasts
        return torch.from_numpy(image), torch.from_numpy(alphas)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_image: Tensor, grad_alphas: Tensor) -> tuple[Tensor | None, ...]:
        conics, opacities, background = ctx.saved_tensors
        lists, size, finals, lasts = ctx.drawn
        channels, kind, tiles = len(background), finals.dtype, len(finals)
        grads = np.empty((len(lists.slots), tiling.MOMENTS + channels), kind)
        threads.spread(
            tiling.blend, threads.parts_for(tiles), True, np.zeros(1, np.int64), lists.tiles, lists.ranks, lists.slots,
            lists.packed, _array(background), size, _array(grad_image), _array(grad_alphas), finals, lasts, grads,
        )  # fmt: skip
        outputs = [conics.new_zeros(len(conics), *shape) for shape in ((2,), (3,), (), (channels,))]
        threads.spread(
            tiling.gather, lists.parts, lists.order, lists.firsts, grads, _array(conics), _array(opacities),
            *map(_array, outputs),
        )  # fmt: skip
        grad_background = None
        if ctx.needs_input_grad[4]:
            left = _in_rows(finals, size)[..., None] * _array(grad_image)
            grad_background = _sum(left.reshape(-1, channels), background)
        return *outputs, grad_background, None, None, None


def _in_rows(values: Array, size: tuple[int, int]) -> Array:
    """(tiles, 256) as a picture (H, W)."""
    width, height = size
    across = -(-width // TILE)
    whole = values.reshape(-1, across, TILE, TILE).swapaxes(1, 2).reshape(-1, across * TILE)
    return whole[:height, :width]


def contributions(projection: Projection, opacities: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """`splatting.contributions`."""
    lists = _lists(projection, opacities, opacities[:, None][:, :0], size)
    tallies = np.zeros((len(lists.slots), 2), lists.packed.dtype)
    _draw(lists, np.zeros(0, lists.packed.dtype), size, tallies)
    weights, pixels = torch.zeros_like(opacities, requires_grad=False), torch.zeros(len(opacities), dtype=torch.int64)
    owners = np.repeat(lists.order, np.diff(lists.firsts))
    for target, column in ((weights, 0), (pixels, 1)):
        sums = np.bincount(owners, tallies[:, column], minlength=len(opacities))
        target.copy_(torch.from_numpy(sums))
    return weights.detach(), pixels
