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

BLOCK, HALL = 2, 4
"""Empty blocks of 2^BLOCK cells along a side are crossed at once, and empty halls of 2^HALL."""

ROOM = 8
"""Stretches of a ray that are kept between counting its samples and writing them; with more it is followed twice."""


@compiled()
def coarsen(grid: Any, blocks: Any, part: int, parts: int) -> None:
    """What is occupied of the blocks of `grid` (cascades, R, R, R): 2, a cell; 1, none, but one of its hall; else 0."""
    cascades, side, few = grid.shape[0], grid.shape[1], blocks.shape[1]
    span = 1 << (HALL - BLOCK)
    halls = (few + span - 1) // span
    for row in range(cascades * halls * part // parts, cascades * halls * (part + 1) // parts):
        k, low = row // halls, row % halls * span
        high = min(few, low + span)
        for a in range(low, high):
            for b in range(few):
                for c in range(few):
                    blocks[k, a, b, c] = 0
        for x in range(low << BLOCK, min(side, high << BLOCK)):
            for y in range(side):
                for z in range(side):
                    if grid[k, x, y, z]:
                        blocks[k, x >> BLOCK, y >> BLOCK, z >> BLOCK] = 2
        for hall in range(halls * halls):
            y, z, found = hall // halls * span, hall % halls * span, 0
            for sweep in range(2):  # first look whether there is a cell, then say so in all blocks
                for a in range(low, high):
                    for b in range(y, min(few, y + span)):
                        for c in range(z, min(few, z + span)):
                            if sweep == 0:
                                found |= blocks[k, a, b, c]
                            elif found and blocks[k, a, b, c] == 0:
                                blocks[k, a, b, c] = 1


@compiled()
def lookup(grid: Any, blocks: Any, children: Any, first: Any, level: int, k: int, x: int, y: int, z: int) -> Any:
    """The number of cell x, y, z, or -1 where it is empty, and how large (as a power of 2) the block is that is alike.

    A tree (`children` is not empty) numbers its cells in the order of their Morton codes, counted from the root on.
    """
    if len(grid):
        block = blocks[k, x >> BLOCK, y >> BLOCK, z >> BLOCK]
        if block < 2:
            return -1, BLOCK if block else HALL
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
def enter(o: Any, d: Any, ends: Any, near: float, far: float) -> Any:
    """Where a ray enters and leaves each of the nested boxes, in `ends` (cascades, 2); False where it meets none."""
    for k in range(len(ends)):
        half = 2.0**k
        low, high = near, far
        for axis in range(3):
            if d[axis] == 0.0:
                if not -half <= o[axis] <= half:
                    high = -np.inf
                continue
            a, b = (-half - o[axis]) / d[axis], (half - o[axis]) / d[axis]
            low, high = max(low, min(a, b)), min(high, max(a, b))
        ends[k, 0], ends[k, 1] = (low, high) if low < high < np.inf else (np.inf, -np.inf)
    return ends[-1, 0] < np.inf


@compiled()
def across(o: float, d: float, start: float, half: float, width: float, side: int) -> Any:
    """Of one axis: the cell at `start`; the distance at which plane i is crossed, as a slope and that of plane 0; and 1
    where the ray rises, so that it leaves a cell by its upper plane, else 0."""
    cell = min(max(math.floor((o + start * d + half) / width), 0), side - 1)
    if abs(d) < 1e-30:  # nor with less, of which the inverse may overflow
        return cell, 0.0, np.inf, 0
    return cell, width / d, (-half - o) / d, 1 if d > 0.0 else 0


@compiled()
def beyond(cell: int, size: int, up: int, left: bool, place: float, side: int) -> Any:
    """Of one axis: the cell behind a block, which a ray leaves by this axis' plane or, at `place`, by another's."""
    low = (cell >> size) << size
    if left:
        return low + (1 << size) if up else low - 1
    if size == 0:
        return cell
    return min(max(math.floor(place), low), min(low + (1 << size), side) - 1)


@compiled()
def walk(
    o: Any, d: Any, ends: Any, grid: Any, blocks: Any, children: Any, first: Any, level: int, side: int, step: float,
    cone: float, gap: float, room: int, base: int, stretches: Any,
) -> Any:  # fmt: skip
    """Follow one ray; returns how many stretches within occupied cells it has, of which the first `room` are written.

    Args:
        o, d: (3,) where the ray starts and which way it goes.
        ends: (cascades, 2), as `enter` gives them.
        step, cone: of the samples; a stretch ends where the longest step changes. `step` is 0 where there are none.
        gap: stretches no farther apart than this are one: 0 for those that adjoin, less for none.
        base: the row of `stretches` (..., 4) for the first one. Columns are entries and exits; then, where there is no
            step, cells; otherwise how many steps the ray has behind it, less `progress`, and how long a step may be.
    """
    cascades, count, last = len(ends), 0, -np.inf
    reached, offset, cap = 0.0, 0.0, 0.0
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
        half, least = 2.0**k, 1e-12 * (1.0 + end)  # what is shorter than this is rounding: the next cell has it too
        width = 2.0 * half / side
        if step > 0.0:
            cap = max(step, width)
            offset = reached - progress(start, step, cone, cap)  # steps are counted on from one leg to the next
            reached = progress(end, step, cone, cap) + offset
            last = -np.inf
        scale = 1.0 / width
        x, slope_x, zero_x, up_x = across(o[0], d[0], start, half, width, side)
        y, slope_y, zero_y, up_y = across(o[1], d[1], start, half, width, side)
        z, slope_z, zero_z, up_z = across(o[2], d[2], start, half, width, side)
        t, inside = start, True
        while inside:
            number, size = lookup(grid, blocks, children, first, level, k, x, y, z)
            leave_x = (((x >> size) + up_x) << size) * slope_x + zero_x
            leave_y = (((y >> size) + up_y) << size) * slope_y + zero_y
            leave_z = (((z >> size) + up_z) << size) * slope_z + zero_z
            leave = min(leave_x, min(leave_y, leave_z))
            there = leave if leave > t + least else t
            there = there if there < end - least else end
            if number >= 0 and there > t:
                if t - last <= gap:
                    if count <= room:
                        stretches[base + count - 1, 1] = there
                else:
                    if count < room:
                        stretches[base + count, 0], stretches[base + count, 1] = t, there
                        stretches[base + count, 2] = offset if step > 0.0 else np.float64(number)
                        stretches[base + count, 3] = cap
                    count += 1
                last = there
            if there >= end:
                break
            x = beyond(x, size, up_x, leave_x <= leave, (o[0] + there * d[0] + half) * scale, side)
            y = beyond(y, size, up_y, leave_y <= leave, (o[1] + there * d[1] + half) * scale, side)
            z = beyond(z, size, up_z, leave_z <= leave, (o[2] + there * d[2] + half) * scale, side)
            inside = min(x, min(y, z)) >= 0 and max(x, max(y, z)) < side
            t = there
    return count


@compiled()
def trace(
    origins: Any, directions: Any, nears: Any, fars: Any, grid: Any, blocks: Any, children: Any, first: Any, level: int,
    side: int, cascades: int, gap: float, fill: bool, starts: Any, rays: Any, stretches: Any, part: int, parts: int,
) -> None:  # fmt: skip
    """Count the stretches of a share of the rays in `starts[1:]`, or, with `fill`, write them from `starts` on."""
    o, d, ends = np.empty(3), np.empty(3), np.empty((cascades, 2))
    total = len(origins)
    for ray in range(total * part // parts, total * (part + 1) // parts):
        for axis in range(3):
            o[axis], d[axis] = origins[ray, axis], directions[ray, axis]
        count, base, room = 0, 0, 0
        if fill:
            base, room = starts[ray], starts[ray + 1] - starts[ray]
            for row in range(base, base + room):
                rays[row] = ray
        if (room or not fill) and enter(o, d, ends, nears[ray], fars[ray]):
            count = walk(o, d, ends, grid, blocks, children, first, level, side, 0.0, 0.0, gap, room,
                         base, stretches)  # fmt: skip
        if not fill:
            starts[ray + 1] = count


@compiled()
def place(stretches: Any, base: int, count: int, shift: float, step: float, cone: float, most: int) -> Any:
    """Which samples lie in each stretch of a ray, first and behind the last, in place of entries and exits.

    Sample i lies at i + `shift` steps. Returns how many there are, `most` at most.
    """
    total, last, behind = 0, 0, -np.inf
    for row in range(base, base + count):
        entry, end, offset, cap = stretches[row, 0], stretches[row, 1], stretches[row, 2], stretches[row, 3]
        ahead = last
        if entry != behind:
            ahead = max(ahead, math.ceil(progress(entry, step, cone, cap) + offset - shift - 1e-6))
            while regress(ahead + shift - offset, step, cone, cap) < entry:
                ahead += 1
        last = max(ahead, math.ceil(progress(end, step, cone, cap) + offset - shift - 1e-6))
        while regress(last + shift - offset, step, cone, cap) < end:
            last += 1
        last = min(last, ahead + most - total)
        stretches[row, 0], stretches[row, 1] = ahead, last
        total += last - ahead
        behind = end
    return total


@compiled()
def march(
    origins: Any, directions: Any, nears: Any, fars: Any, grid: Any, blocks: Any, children: Any, first: Any, level: int,
    side: int, cascades: int, shifts: Any, step: float, cone: float, most: int, fill: bool, starts: Any, counts: Any,
    stretches: Any, rays: Any, distances: Any, deltas: Any, part: int, parts: int,
) -> None:  # fmt: skip
    """Count the samples of a share of the rays in `starts[1:]`, or, with `fill`, write them from `starts` on.

    What is found of a ray in the first pass, `counts` (r,) and `stretches` (r ROOM, 4), is used in the second.
    """
    o, d, ends = np.empty(3), np.empty(3), np.empty((cascades, 2))
    more, total = np.empty((0, 4)), len(origins)
    for ray in range(total * part // parts, total * (part + 1) // parts):
        row = starts[ray] if fill else 0
        if fill and row == starts[ray + 1]:
            continue
        shift, found, base, room = shifts[ray], stretches, ray * ROOM, ROOM
        known = fill and counts[ray] <= ROOM
        if not known:
            for axis in range(3):
                o[axis], d[axis] = origins[ray, axis], directions[ray, axis]
            count = counts[ray] if fill else 0
            going = enter(o, d, ends, nears[ray], fars[ray])
            while going:
                if count > room:
                    if count > len(more):
                        more = np.empty((2 * count, 4))
                    found, base, room = more, 0, count
                count = walk(o, d, ends, grid, blocks, children, first, level, side, step, cone, 0.0,
                             room, base, found)  # fmt: skip
                going = count > room
            number = place(found, base, count, shift, step, cone, most)
            if not fill:
                counts[ray], starts[ray + 1] = count, number
                continue
        # Entries and exits have become numbers of samples.
        for stretch in range(base, base + counts[ray]):
            offset, cap = found[stretch, 2], found[stretch, 3]
            for index in range(int(found[stretch, 0]), int(found[stretch, 1])):
                at = regress(index + shift - offset, step, cone, cap)
                rays[row], distances[row], deltas[row] = ray, at, min(max(step, cone * at), cap)
                row += 1
