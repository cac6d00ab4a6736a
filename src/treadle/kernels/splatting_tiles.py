"""The compiled loops that sort splats into tiles and blend them there, forward and backward.

A row of `packed` is a visible splat, by depth: centre x and y, the conic as what 2^ is taken of (see `pack`), opacity,
half-height of the box, channels. A *slot* is one (splat, tile) pair: those of a splat follow one another, so that what
its tiles give is summed per splat in a fixed order. Tiles are drawn from a shared counter by whoever is free, and write
nothing that another reads: results are bitwise equal on any number of threads.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, var-annotated, assignment"
from __future__ import annotations

import math

import numba
import numpy as np

from treadle.kernels.compiling import compiled
from treadle.kernels.lanes import choose, exp2, fill, lesser, load, some, steps_from, store, take, total
from treadle.kernels.splatting_reference import LEAST_ALPHA, LEAST_TRANSMITTANCE, MOST_ALPHA, TILE

HEAD = 7
"""Numbers of a packed splat before its channels: x, y, three of the conic, opacity, half-height."""
MOMENTS = 6
"""Numbers of a slot before its channels' gradients: sums of dpower times 1, dx, dy, dx dx, dx dy, dy dy."""
AREA = TILE * TILE
_LOG2E = 1.4426950408889634
_LN2 = 0.6931471805599453
_CHECK = 31
"""A tile looks whether it is finished after every so many splats, plus one."""
_DIGIT = 11
_SLACK = 1.0001
"""Ellipses are widened by so much when tiles are chosen: a pair kept in vain costs time, one that is lost, pixels."""


@compiled()
def depth_order(depths, keys, order, spare):
    """Sort the splats listed in `order` by depth, equal ones as they are listed: a radix sort, digit by digit.

    `keys` are the bits of `depths` as unsigned numbers, whose order is that of the depths since all are above 0.
    """
    count = order.shape[0]
    bits = 8 * keys.itemsize
    mask = keys.dtype.type((1 << _DIGIT) - 1)
    passes = (bits + _DIGIT - 1) // _DIGIT
    starts = np.zeros((passes, (1 << _DIGIT) + 1), np.int64)
    for i in range(count):
        key = keys[order[i]]
        for p in range(passes):
            starts[p, np.int64((key >> keys.dtype.type(p * _DIGIT)) & mask) + 1] += 1
    source, target = order, spare
    flips = 0
    for p in range(passes):
        shift = keys.dtype.type(p * _DIGIT)
        if count and starts[p, np.int64((keys[order[0]] >> shift) & mask) + 1] == count:
            continue  # all have the same digit
        for digit in range(1 << _DIGIT):
            starts[p, digit + 1] += starts[p, digit]
        for i in range(count):
            digit = np.int64((keys[source[i]] >> shift) & mask)
            target[starts[p, digit]] = source[i]
            starts[p, digit] += 1
        source, target = target, source
        flips += 1
    if flips % 2:
        for i in range(count):
            order[i] = spare[i]


@numba.njit(inline="always")
def _samples(center, extent, pixels):
    # The first and the last pixel whose sample lies within `extent` of `center`; none (1, 0) also where one is NaN.
    low, high = math.ceil(center - extent - 0.5), math.floor(center + extent - 0.5)
    if low < 0:
        low = 0.0
    if high > pixels - 1:
        high = pixels - 1.0
    if low <= high:
        return np.int64(low), np.int64(high)
    return 1, 0


@numba.njit(inline="always")
def _within(value, least, most):
    if value < least:
        return least
    if value > most:
        return most
    return value


@compiled()
def _meets(left, top, xx, xy, yy, most):
    """Whether xx x^2 + 2 xy x y + yy y^2 <= most at any point of a tile whose first sample is at (left, top)."""
    right, bottom = left + (TILE - 1), top + (TILE - 1)
    x = _within(left - left, left, right)
    y = _within(top - top, top, bottom)
    if x == 0 and y == 0:
        return True
    if x != 0:
        beside = _within(-xy * x / yy, top, bottom)
        if xx * x * x + 2 * xy * x * beside + yy * beside * beside <= most:
            return True
    if y != 0:
        beside = _within(-xy * y / xx, left, right)
        if xx * beside * beside + 2 * xy * beside * y + yy * y * y <= most:
            return True
    return False


@compiled()
def _bin(first, last, order, centers, conics, opacities, extents, size, cursor, firsts, ranks, slots):
    """Count, or where `ranks` has room write, the tiles of the splats first ... last - 1 by depth.

    `cursor` (tiles,) counts, or says where the next splat of each tile goes. `firsts` gets how many tiles each splat
    has, or says which is its first slot.
    """
    across = (size[0] + TILE - 1) // TILE
    writing = ranks.shape[0] > 0
    for rank in range(first, last):
        i = order[rank]
        x, y = centers[i, 0], centers[i, 1]
        left, right = _samples(x, extents[i, 0], size[0])
        top, bottom = _samples(y, extents[i, 1], size[1])
        most = 2 * math.log(opacities[i] / LEAST_ALPHA) * _SLACK
        slot = firsts[rank] if writing else 0
        lone = left // TILE == right // TILE and top // TILE == bottom // TILE
        if left <= right and top <= bottom:
            for row in range(top // TILE, bottom // TILE + 1):
                for column in range(left // TILE, right // TILE + 1):
                    if lone or _meets(
                        np.float64(column * TILE + 0.5 - x), np.float64(row * TILE + 0.5 - y),
                        np.float64(conics[i, 0]), np.float64(conics[i, 1]), np.float64(conics[i, 2]), most,
                    ):  # fmt: skip
                        tile = row * across + column
                        if writing:
                            ranks[cursor[tile]] = rank
                            slots[cursor[tile]] = slot
                        cursor[tile] += 1
                        slot += 1
        if not writing:
            firsts[rank] = slot


@compiled(parallel=True)
def bin_splats(order, centers, conics, opacities, extents, size, cursors, firsts, ranks, slots, parts):
    """Count or write the (splat, tile) pairs: see `_bin`. Part k has row k of `cursors` and a share of the order."""
    count = order.shape[0]
    for part in numba.prange(parts):
        _bin(
            count * part // parts, count * (part + 1) // parts, order, centers, conics, opacities, extents, size,
            cursors[part], firsts, ranks, slots,
        )  # fmt: skip


@compiled()
def pack(order, centers, conics, opacities, extents, channels, packed):
    """Copy the splats of `order` to rows of `packed`, the conic times what makes it an exponent of 2."""
    for rank in range(order.shape[0]):
        i = order[rank]
        packed[rank, 0] = centers[i, 0]
        packed[rank, 1] = centers[i, 1]
        packed[rank, 2] = -0.5 * _LOG2E * conics[i, 0]
        packed[rank, 3] = -_LOG2E * conics[i, 1]
        packed[rank, 4] = -0.5 * _LOG2E * conics[i, 2]
        packed[rank, 5] = opacities[i]
        packed[rank, 6] = extents[i, 1]
        for c in range(channels.shape[1]):
            packed[rank, HEAD + c] = channels[i, c]


@compiled()
def _draw(counter, tiles, ranks, slots, packed, background, size, image, alphas, finals, lasts, tallies):
    """Blend tiles until none is left. `tallies`, if it has rows, gets each slot's sum of weights and its pixels."""
    real = packed.dtype.type
    zero, one, half = real(0), real(1), real(0.5)
    most, least, end = real(MOST_ALPHA), real(LEAST_ALPHA), real(LEAST_TRANSMITTANCE)
    channels = packed.shape[1] - HEAD
    across = (size[0] + TILE - 1) // TILE
    tallying = tallies.shape[0] > 0
    sums = np.empty(AREA * max(channels, 1), packed.dtype)
    alive = np.empty(TILE, np.bool_)
    while True:
        tile = take(counter)
        if tile >= tiles.shape[0] - 1:
            return
        left, top = tile % across * TILE, tile // across * TILE
        columns, rows = min(TILE, size[0] - left), min(TILE, size[1] - top)
        # What lies outside the picture is finished from the start.
        inside = steps_from(zero) < real(columns)
        through, last = finals[tile], lasts[tile]
        for row in range(TILE):
            alive[row] = row < rows
            store(through, row * TILE, choose(inside, fill(one), -one) if row < rows else fill(-one))
            store(last, row * TILE, fill(zero))
            for c in range(channels):
                store(sums, (c * TILE + row) * TILE, fill(zero))
        start = tiles[tile]
        for entry in range(start, tiles[tile + 1]):
            splat = packed[ranks[entry]]
            y, opacity = splat[1], splat[5]
            dx = steps_from(real(left) + half - splat[0])
            constant, slope, curve = dx * dx * splat[2], dx * splat[3], splat[4]
            low, high = _samples(y, splat[6], size[1])
            weight, pixels = fill(zero), fill(zero)
            number = real(entry - start + 1)
            for row in range(max(low - top, 0), min(high - top, TILE - 1) + 1):
                if not alive[row]:
                    continue
                dy = real(top + row) + half - y
                power = constant + slope * dy + curve * dy * dy
                alpha = lesser(exp2(power) * opacity, most)
                seen = (power <= zero) & (alpha >= least)
                if some(seen):
                    at = row * TILE
                    before = load(through, at)
                    after = before - alpha * before
                    # A pixel that is finished has its transmittance negated: no splat passes this comparison again.
                    added = seen & (after > end)
                    share = choose(added, alpha * before, zero)
                    store(through, at, choose(seen, choose(added, after, lesser(before, zero - before)), before))
                    store(last, at, choose(added, fill(number), load(last, at)))
                    for c in range(channels):
                        place = (c * TILE + row) * TILE
                        store(sums, place, load(sums, place) + share * splat[HEAD + c])
                    if tallying:
                        weight = weight + share
                        pixels = pixels + choose(added, fill(one), zero)
            if tallying:
                tallies[slots[entry], 0] = total(weight)
                tallies[slots[entry], 1] = total(pixels)
            if (entry - start) & _CHECK == _CHECK:
                going = False
                for row in range(rows):
                    alive[row] = some(load(through, row * TILE) > zero)
                    going = going or alive[row]
                if not going:
                    break
        for row in range(rows):
            for column in range(columns):
                at = row * TILE + column
                rest = abs(through[at])
                through[at] = rest
                alphas[top + row, left + column] = one - rest
                for c in range(channels):
                    image[top + row, left + column, c] = sums[c * AREA + at] + rest * background[c]


@compiled(parallel=True)
def draw(counter, tiles, ranks, slots, packed, background, size, image, alphas, finals, lasts, tallies, parts):
    """Blend all tiles: see `_draw`. Also writes what the backward pass needs, (tiles, 256) each: final transmittances
    and how many entries of the tile's list it took to reach them."""
    for _ in numba.prange(parts):
        _draw(counter, tiles, ranks, slots, packed, background, size, image, alphas, finals, lasts, tallies)


@compiled()
def _trace_back(counter, tiles, ranks, slots, packed, background, size, grad_image, grad_alphas, finals, lasts, grads):
    """Go through the lists of tiles from back to front until no tile is left, and write the moments of every slot."""
    real = packed.dtype.type
    zero, one, half = real(0), real(1), real(0.5)
    most, least = real(MOST_ALPHA), real(LEAST_ALPHA)
    channels = packed.shape[1] - HEAD
    across = (size[0] + TILE - 1) // TILE
    slopes = np.empty(AREA * channels, packed.dtype)  # the gradient of the image here, channel by channel
    through, behind = np.empty(AREA, packed.dtype), np.empty(AREA, packed.dtype)
    deepest = np.empty(TILE, np.int64)
    colors = np.empty(TILE * channels, packed.dtype)
    while True:
        tile = take(counter)
        if tile >= tiles.shape[0] - 1:
            return
        left, top = tile % across * TILE, tile // across * TILE
        columns, rows = min(TILE, size[0] - left), min(TILE, size[1] - top)
        last, final = lasts[tile], finals[tile]
        longest = 0
        for row in range(TILE):
            deepest[row] = 0
            for column in range(TILE):
                at = row * TILE + column
                through[at] = final[at]
                behind[at] = zero
                if row < rows and column < columns:
                    deepest[row] = max(deepest[row], np.int64(last[at]))
                    value = -grad_alphas[top + row, left + column]
                    for c in range(channels):
                        slope = grad_image[top + row, left + column, c]
                        slopes[c * AREA + at] = slope
                        value += slope * background[c]
                    behind[at] = final[at] * value
                else:
                    for c in range(channels):
                        slopes[c * AREA + at] = zero
            longest = max(longest, deepest[row])
        start = tiles[tile]
        for entry in range(start + longest, tiles[tile + 1]):
            for k in range(MOMENTS + channels):
                grads[slots[entry], k] = zero
        for entry in range(start + longest - 1, start - 1, -1):
            splat = packed[ranks[entry]]
            y, opacity = splat[1], splat[5]
            dx = steps_from(real(left) + half - splat[0])
            constant, slope, curve = dx * dx * splat[2], dx * splat[3], splat[4]
            low, high = _samples(y, splat[6], size[1])
            number = entry - start
            sum0, sum1, sum2 = fill(zero), fill(zero), fill(zero)
            for c in range(channels):
                store(colors, c * TILE, fill(zero))
            for row in range(max(low - top, 0), min(high - top, TILE - 1) + 1):
                if number >= deepest[row]:
                    continue
                dy = real(top + row) + half - y
                power = constant + slope * dy + curve * dy * dy
                at = row * TILE
                full = exp2(power) * opacity
                seen = (power <= zero) & (full >= least) & (load(last, at) > real(number))
                if some(seen):
                    alpha = choose(seen, lesser(full, most), zero)
                    over = one / (one - alpha)
                    before = load(through, at) * over
                    store(through, at, before)
                    share = alpha * before
                    value = fill(zero)
                    for c in range(channels):
                        slopes_here = load(slopes, c * AREA + at)
                        value = value + slopes_here * splat[HEAD + c]
                        store(colors, c * TILE, load(colors, c * TILE) + slopes_here * share)
                    rest = load(behind, at)
                    store(behind, at, rest + share * value)
                    push = choose(full <= most, alpha * (before * value - rest * over), zero)
                    sum0 = sum0 + push
                    push = push * dy
                    sum1 = sum1 + push
                    sum2 = sum2 + push * dy
            slot = grads[slots[entry]]
            slot[0], slot[1], slot[2] = total(sum0), total(sum0 * dx), total(sum1)
            slot[3], slot[4], slot[5] = total(sum0 * dx * dx), total(sum1 * dx), total(sum2)
            for c in range(channels):
                slot[MOMENTS + c] = total(load(colors, c * TILE))


@compiled(parallel=True)
def trace_back(
    counter, tiles, ranks, slots, packed, background, size, grad_image, grad_alphas, finals, lasts, grads, parts
):
    """Write the gradient of every slot: see `_trace_back`."""
    for _ in numba.prange(parts):
        _trace_back(
            counter, tiles, ranks, slots, packed, background, size, grad_image, grad_alphas, finals, lasts, grads
        )


@compiled(parallel=True)
def gather(order, firsts, grads, conics, opacities, grad_centers, grad_conics, grad_opacities, grad_channels, parts):
    """Sum the slots of every visible splat, in their order, into its gradients; `firsts` has one entry more."""
    count, channels = order.shape[0], grad_channels.shape[1]
    for part in numba.prange(parts):
        for rank in range(count * part // parts, count * (part + 1) // parts):
            i = order[rank]
            first = firsts[rank]
            if first == firsts[rank + 1]:
                continue
            sums = grads[first]
            for slot in range(first + 1, firsts[rank + 1]):
                for k in range(MOMENTS + channels):
                    sums[k] += grads[slot, k]
            xx, xy, yy = conics[i, 0], conics[i, 1], conics[i, 2]
            grad_centers[i, 0] = xx * sums[1] + xy * sums[2]
            grad_centers[i, 1] = xy * sums[1] + yy * sums[2]
            grad_conics[i, 0] = -0.5 * sums[3]
            grad_conics[i, 1] = -sums[4]
            grad_conics[i, 2] = -0.5 * sums[5]
            if opacities[i] > 0:
                grad_opacities[i] = sums[0] / opacities[i]
            for c in range(channels):
                grad_channels[i, c] = sums[MOMENTS + c]
