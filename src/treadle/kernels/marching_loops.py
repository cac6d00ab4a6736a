"""The compiled loops of `marching`: a ray at a time through occupied cells, from one that is crossed to the next.

The walk is that of Amanatides and Woo (1987), in steps of whole empty blocks: planes are crossed by number, so that a
cell ends exactly where the next begins, and nothing is lost or met twice between two of them.
"""

# mypy: disable-error-code="call-arg"
from __future__ import annotations

import math
from typing import Any

import numpy as np

from treadle.kernels.compiling import compiled

BLOCK = 2
"""Empty blocks of 2^BLOCK cells along a side are crossed at once."""


@compiled()
def coarsen(grid: Any, coarse: Any, part: int, parts: int) -> None:
    """Which blocks of `grid` (cascades, R, R, R) hold an occupied cell."""
    cascades, side, few = grid.shape[0], grid.shape[1], coarse.shape[1]
    for block_row in range(cascades * few * part // parts, cascades * few * (part + 1) // parts):
        k, block = block_row // few, block_row % few
        coarse[k, block] = 0
        for x in range(block << BLOCK, min(side, (block + 1) << BLOCK)):
            for y in range(side):
                for z in range(side):
                    if grid[k, x, y, z]:
                        coarse[k, block, y >> BLOCK, z >> BLOCK] = 1


@compiled()
def lookup(grid: Any, coarse: Any, children: Any, first: Any, level: int, k: int, x: int, y: int, z: int) -> Any:
    """The number of cell x, y, z, or -1 where it is empty, and how large (as a power of 2) the block is that is alike.

    A tree (`children` is not empty) numbers its cells in the order of their Morton codes, counted from the root on.
    """
    if len(children) == 0:
        if coarse[k, x >> BLOCK, y >> BLOCK, z >> BLOCK] == 0:
            return -1, BLOCK
        if grid[k, x, y, z]:
            side = grid.shape[1]
            return ((k * side + x) * side + y) * side + z, 0
        return -1, 0
    node = 0
    for height in range(level - 1, -1, -1):
        child = (((x >> height) & 1) << 2) | (((y >> height) & 1) << 1) | ((z >> height) & 1)
        mask = int(children[node])
        if not (mask >> child) & 1:
            return -1, height
        before, count = mask & ((1 << child) - 1), 0
        while before:
            before &= before - 1
            count += 1
        node = first[node] + count
    return node, 0


@compiled()
def progress(t: float, step: float, cone: float, cap: float) -> Any:
    """How many steps there are up to t, but for a constant: the integral of 1 / step."""
    if cone == 0.0:
        return t / step
    if t * cone <= step:
        return t / step
    if t * cone <= cap:
        return (1.0 + math.log(t * cone / step)) / cone
    return (1.0 + math.log(cap / step)) / cone + (t - cap / cone) / cap


@compiled()
def regress(s: float, step: float, cone: float, cap: float) -> Any:
    """The t for which `progress` is s."""
    if cone == 0.0:
        return s * step
    grown = s * cone - 1.0
    if grown <= 0.0:
        return s * step
    longest = math.log(cap / step)
    if grown <= longest:
        return step / cone * math.exp(grown)
    return cap / cone + (s - (1.0 + longest) / cone) * cap


@compiled()
def walk(
    o: Any, d: Any, cell: Any, ends: Any, near: float, far: float, shift: float, grid: Any, coarse: Any, children: Any,
    first: Any, level: int, side: int, step: float, cone: float, most: int, intervals: bool, fill: bool, base: int,
    numbers: Any, ones: Any, others: Any,
) -> Any:  # fmt: skip
    """Follow one ray; returns how many samples, or stretches within occupied cells, it has.

    Args:
        o, d: (3,) where the ray starts and which way it goes.
        cell: (3,) scratch. ends: (cascades, 2) scratch: where the ray enters and leaves each cascade.
        shift: of the samples within their steps, from 0 to 1.
        intervals: whether stretches are wanted: then `most` is 1 where adjoining ones are to be one, 0 where not.
        fill: whether to write what is found from row `base` on: cell numbers (of stretches alone); distances or
            entries; deltas or exits.
    """
    cascades = len(ends)
    for k in range(cascades):
        half = 2.0**k
        ends[k, 0], ends[k, 1] = near, far
        for axis in range(3):
            if d[axis] == 0.0:
                if not -half <= o[axis] <= half:
                    ends[k, 1] = -np.inf
                continue
            a, b = (-half - o[axis]) / d[axis], (half - o[axis]) / d[axis]
            ends[k, 0], ends[k, 1] = max(ends[k, 0], min(a, b)), min(ends[k, 1], max(a, b))
        if not ends[k, 0] < ends[k, 1]:
            ends[k, 0], ends[k, 1] = np.inf, -np.inf
    if not ends[cascades - 1, 1] < np.inf:
        return 0
    count, index, running, last = 0, 0, False, -np.inf
    reached, offset = 0.0, 0.0
    for leg in range(2 * cascades - 1):
        # Inwards through the nested boxes, and out again; where the next inner one is missed, through to the other end.
        k = cascades - 1 - leg if leg < cascades else leg - cascades + 1
        start, end = ends[k, 0], ends[k, 1]
        if leg < cascades - 1 and ends[k - 1, 0] < ends[k - 1, 1]:
            end = ends[k - 1, 0]
        elif leg >= cascades:
            start = ends[k - 1, 1] if ends[k - 1, 0] < ends[k - 1, 1] else np.inf
        if not start < end:
            continue
        half = 2.0**k
        width = 2.0 * half / side
        cap = max(step, width)
        if not intervals:
            here = progress(start, step, cone, cap)
            offset = reached - here  # steps are counted on where the longest step changes
            reached = progress(end, step, cone, cap) + offset
        for axis in range(3):
            cell[axis] = min(max(math.floor((o[axis] + start * d[axis] + half) / width), 0), side - 1)
        t, inside = start, True
        while inside:
            number, size = lookup(grid, coarse, children, first, level, k, cell[0], cell[1], cell[2])
            leave = np.inf
            for axis in range(3):
                if d[axis] != 0.0:
                    plane = ((cell[axis] >> size) + (1 if d[axis] > 0.0 else 0)) << size
                    leave = min(leave, (plane * width - half - o[axis]) / d[axis])
            exit_ = min(max(t, leave), end)
            if number >= 0 and exit_ > t:
                if intervals:
                    if most == 1 and count > 0 and last == t:
                        if fill:
                            others[base + count - 1] = exit_
                    else:
                        if fill:
                            numbers[base + count] = number
                            ones[base + count], others[base + count] = t, exit_
                        count += 1
                    last = exit_
                else:
                    if not running:
                        index = max(index, math.ceil(progress(t, step, cone, cap) + offset - shift - 1e-6))
                    at = regress(index + shift - offset, step, cone, cap)
                    while at < exit_:
                        if at >= t:
                            if count == most:
                                return count
                            if fill:
                                ones[base + count], others[base + count] = at, min(max(step, cone * at), cap)
                            count += 1
                        index += 1
                        at = regress(index + shift - offset, step, cone, cap)
            running = number >= 0
            if exit_ >= end:
                break
            for axis in range(3):
                low = (cell[axis] >> size) << size
                high = low + (1 << size)
                if d[axis] != 0.0:
                    ahead = high if d[axis] > 0.0 else low
                    if (ahead * width - half - o[axis]) / d[axis] <= leave:
                        cell[axis] = ahead if d[axis] > 0.0 else ahead - 1
                        inside &= 0 <= cell[axis] < side
                        continue
                if size > 0:
                    place = math.floor((o[axis] + exit_ * d[axis] + half) / width)
                    cell[axis] = min(max(place, low), min(high, side) - 1)
            t = exit_
    return count


@compiled()
def follow(
    origins: Any, directions: Any, nears: Any, fars: Any, shifts: Any, grid: Any, coarse: Any, children: Any,
    first: Any, level: int, side: int, cascades: int, step: float, cone: float, most: int, intervals: bool, fill: bool,
    starts: Any, rays: Any, numbers: Any, ones: Any, others: Any, part: int, parts: int,
) -> None:  # fmt: skip
    """Follow a share of the rays: count what each has in `starts[1:]`, or, with `fill`, write it from `starts` on."""
    o, d, cell, ends = np.empty(3), np.empty(3), np.empty(3, np.int64), np.empty((cascades, 2))
    total = len(origins)
    for ray in range(total * part // parts, total * (part + 1) // parts):
        for axis in range(3):
            o[axis], d[axis] = origins[ray, axis], directions[ray, axis]
        base = starts[ray] if fill else 0
        if fill and starts[ray + 1] == base:
            continue
        count = walk(
            o, d, cell, ends, float(nears[ray]), float(fars[ray]), float(shifts[ray]), grid, coarse, children, first,
            level, side, step, cone, most, intervals, fill, base, numbers, ones, others,
        )  # fmt: skip
        if fill:
            for i in range(base, base + count):
                rays[i] = ray
        else:
            starts[ray + 1] = count
