"""Rays through occupied cells: the stretches within them, and samples a step apart; empty cells cost one jump.

Space is a grid over [-1, 1]^3, or nested ones, cascade k over [-2^k, 2^k]^3, of which the finest that holds a place
counts (Müller et al. 2022, https://arxiv.org/abs/2201.05989, appendix E); or a sparse tree of cells.

On a CPU compiled loops run (`marching_loops`), elsewhere the torch reference does.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from treadle.errors import UsageError
from treadle.kernels import threads
from treadle.kernels.marching_reference import march_reference, raytrace_reference


class Tree(NamedTuple):
    """Cells of side 2^(1 - level) in [-1, 1]^3, below the larger ones that hold them; level 0 is the whole box.

    Attributes:
        children: (nodes,) uint8 of all nodes above the cells, level by level, each level in the order of Morton codes:
            bit 4 x + 2 y + z says whether the child at x, y, z (0 or 1) is there.
        first: (nodes,) int64: the number of a node's first child; nodes count from the root on, cells after all others.
        level: how often the box is halved.
    """

    children: Tensor
    first: Tensor
    level: int


class Samples(NamedTuple):
    """Places along r rays, m in all, front to back within each.

    Attributes:
        starts: (r + 1,) int64: those of ray k are `starts[k]:starts[k + 1]`.
        rays: (m,) int64, whose each is.
        distances: (m,) along the ray.
        deltas: (m,) the step at each: the length that it stands for.
    """

    starts: Tensor
    rays: Tensor
    distances: Tensor
    deltas: Tensor


class Intervals(NamedTuple):
    """Stretches of r rays within occupied cells, m in all, front to back within each ray.

    Attributes:
        starts: (r + 1,) int64: those of ray k are `starts[k]:starts[k + 1]`.
        rays: (m,) int64, whose each is.
        cells: (m,) int64, the number of the cell: its place in the flattened grid, or in the tree's list of cells; of
            the first, where adjoining stretches are one.
        entries, exits: (m,) distances along the ray; one begins exactly where the one before ends if they adjoin.
    """

    starts: Tensor
    rays: Tensor
    cells: Tensor
    entries: Tensor
    exits: Tensor


def march(
    origins: Tensor,
    directions: Tensor,
    occupied: Tensor | Tree,
    *,
    step: float,
    cone: float = 0.0,
    jitter: Tensor | None = None,
    near: float | Tensor = 0.0,
    far: float | Tensor = math.inf,
    most: int = 1 << 20,
) -> Samples:
    """Samples along rays where cells are occupied, a step apart, as if every step of the ray had been looked at.

    Steps are counted from where the ray enters the outermost box. Sample i lies `jitter` of the way through step i; of
    all of them those in occupied cells stay. A step is `step` long, or `cone` times the distance where that is more,
    but then no longer than the cells of the cascade that it is in.

    Args:
        origins, directions: (r, 3) float32 or float64, finite.
        occupied: (cascades, R, R, R) bool or uint8, by x, y, z; or a tree.
        step: the (shortest) step.
        cone: how the step grows with the distance; instant-ngp takes 1/256 for scenes larger than the box.
        jitter: (r,) in [0, 1), where in their steps the samples of a ray lie; the middle where None.
        near, far: between which distances, for all rays or (r,) each.
        most: samples of a ray; it ends after them.

    Returns:
        Distances and deltas have the dtype of `origins`.

    Raises:
        UsageError: shapes that do not fit, rays that are not finite, or a step that is not positive.
    """
    if not (math.isfinite(step) and step > 0 and math.isfinite(cone) and cone >= 0 and most >= 1):
        raise UsageError(f"march: step is {step:g}, cone {cone:g}, most {most}: expected a positive step, a cone of at "
                         "least 0, and at least one sample")  # fmt: skip
    nears, fars = _check(origins, directions, occupied, near, far)
    count = len(origins)
    if jitter is not None and jitter.shape != (count,):
        raise UsageError(f"march: expected jitter ({count},), got {tuple(jitter.shape)}")
    shifts = origins.new_full((count,), 0.5) if jitter is None else jitter.to(origins)
    if origins.device.type != "cpu":
        return Samples(*march_reference(origins, directions, _dense(occupied), step, cone, shifts, nears, fars, most))
    loops, parts = _loops(), _parts(count)
    inputs = [_array(tensor) for tensor in (origins, directions, nears, fars)]
    inputs += [*_space(occupied, parts), _array(shifts), float(step), float(cone), int(most)]
    counts, kept = np.empty(count, np.int64), np.empty((count * loops.ROOM, 4))
    starts, none, nothing = torch.zeros(count + 1, dtype=torch.int64), np.empty(0, np.int64), np.empty(0)
    threads.spread(loops.march, parts, *inputs, False, starts.numpy(), counts, kept, none, nothing, nothing)
    starts = starts.cumsum(0)
    rays = torch.empty(int(starts[-1]), dtype=torch.int64)
    lengths = torch.empty(2, len(rays), dtype=torch.float64)
    threads.spread(loops.march, parts, *inputs, True, starts.numpy(), counts, kept, rays.numpy(), *lengths.numpy())
    distances, deltas = lengths.to(origins.dtype)
    return Samples(starts, rays, distances, deltas)


def raytrace(
    origins: Tensor,
    directions: Tensor,
    occupied: Tensor | Tree,
    *,
    near: float | Tensor = 0.0,
    far: float | Tensor = math.inf,
    merged: bool = False,
) -> Intervals:
    """The stretches of rays within occupied cells; arguments are those of `march`.

    Args:
        merged: whether stretches that adjoin are to be one.
    """
    nears, fars = _check(origins, directions, occupied, near, far)
    if origins.device.type != "cpu":
        return Intervals(*raytrace_reference(origins, directions, _dense(occupied), nears, fars, merged))
    loops, parts = _loops(), _parts(len(origins))
    inputs = [_array(tensor) for tensor in (origins, directions, nears, fars)]
    inputs += [*_space(occupied, parts), 0.0 if merged else -1.0]
    starts = torch.zeros(len(origins) + 1, dtype=torch.int64)
    threads.spread(loops.trace, parts, *inputs, False, starts.numpy(), np.empty(0, np.int64), np.empty((0, 4)))
    starts = starts.cumsum(0)
    rays = torch.empty(int(starts[-1]), dtype=torch.int64)
    stretches = torch.empty(len(rays), 4, dtype=torch.float64)
    threads.spread(loops.trace, parts, *inputs, True, starts.numpy(), rays.numpy(), stretches.numpy())
    cells = stretches[:, 2].long()
    if isinstance(occupied, Tree):
        cells -= len(occupied.children)
    entries, exits = stretches[:, :2].to(origins.dtype).T.contiguous()
    return Intervals(starts, rays, cells, entries, exits)


def dense(tree: Tree) -> Tensor:
    """A tree as (1, R, R, R) bool: R is 2^level."""
    nodes = torch.zeros(1, 3, dtype=torch.int64, device=tree.children.device)
    bits = torch.arange(8, device=nodes.device)
    corners = torch.stack((bits >> 2, bits >> 1 & 1, bits & 1), 1)
    begin = 0
    for _ in range(tree.level):
        there = (tree.children[begin : begin + len(nodes), None] >> bits & 1).bool()
        begin += len(nodes)
        nodes = (2 * nodes[:, None] + corners)[there]
    side = 1 << tree.level
    grid = torch.zeros(1, side, side, side, dtype=torch.bool, device=nodes.device)
    grid[0, nodes[:, 0], nodes[:, 1], nodes[:, 2]] = True
    return grid


def _dense(occupied: Tensor | Tree) -> Tensor:
    return dense(occupied) if isinstance(occupied, Tree) else occupied


def _check(
    origins: Tensor, directions: Tensor, occupied: Tensor | Tree, near: float | Tensor, far: float | Tensor
) -> tuple[Tensor, Tensor]:
    """`near` and `far` as one number for each ray, if all else is as it has to be."""
    if origins.dim() != 2 or origins.shape[1] != 3 or directions.shape != origins.shape:
        raise UsageError(f"rays: expected origins and directions (r, 3), got {tuple(origins.shape)} and "
                         f"{tuple(directions.shape)}")  # fmt: skip
    if origins.dtype not in (torch.float32, torch.float64) or directions.dtype != origins.dtype:
        raise UsageError(f"rays: expected float32 or float64, got {origins.dtype} and {directions.dtype}")
    if not (torch.isfinite(origins).all() and torch.isfinite(directions).all()):
        bad = ~(torch.isfinite(origins) & torch.isfinite(directions)).all(1)
        raise UsageError(f"rays: {int(bad.sum())} of {len(origins)} have coordinates that are not finite")
    if isinstance(occupied, Tensor):
        cube = occupied.dim() == 4 and len(set(occupied.shape[1:])) == 1 and 0 not in occupied.shape
        if not cube or occupied.dtype not in (torch.bool, torch.uint8):
            raise UsageError(f"rays: expected occupied cells (cascades, R, R, R) bool, got {tuple(occupied.shape)} "
                             f"{occupied.dtype}")  # fmt: skip
    ends = []
    for name, end in (("near", near), ("far", far)):
        each = torch.as_tensor(end, dtype=origins.dtype, device=origins.device)
        if each.dim() and each.shape != (len(origins),):
            raise UsageError(f"rays: expected {name} as a number or ({len(origins)},), got {tuple(each.shape)}")
        if bool((each < 0).any()) or bool(each.isnan().any()):
            raise UsageError(f"rays: {name} has to be at least 0")
        ends.append(each.expand(len(origins)).contiguous())
    return ends[0], ends[1]


def _parts(count: int) -> int:
    """Handing a part over costs as much as some dozen rays."""
    return threads.parts_for(-(-count // 64))


def _array(tensor: Tensor) -> Any:
    """In float64, whatever it was: the loops are compiled once."""
    return tensor.detach().double().contiguous().numpy()


def _space(occupied: Tensor | Tree, parts: int) -> tuple[Any, ...]:
    """Grid, its blocks, a tree's children and first ones, its level, cells a side, cascades."""
    loops = _loops()
    if isinstance(occupied, Tree):
        empty = np.empty((0, 0, 0, 0), np.uint8)
        tree = occupied.children.contiguous().numpy(), occupied.first.contiguous().numpy()
        return empty, empty, *tree, occupied.level, 1 << occupied.level, 1
    grid = occupied.contiguous().view(torch.uint8).numpy()
    cascades, side = grid.shape[:2]
    few = -(-side >> loops.BLOCK)
    blocks = np.empty((cascades, few, few, few), np.uint8)
    threads.spread(loops.coarsen, min(parts, cascades), grid, blocks)
    return grid, blocks, np.empty(0, np.uint8), np.empty(0, np.int64), 0, side, cascades


@lru_cache
def _loops() -> Any:
    """Compiled at the first call, and kept on disk: importing this module costs nothing."""
    from treadle.kernels import marching_loops

    return marching_loops
