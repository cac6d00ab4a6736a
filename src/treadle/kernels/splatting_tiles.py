"""The compiled loops that sort splats into tiles and blend them there, forward and backward.

A row of `packed` is a visible splat, by depth: centre x and y, the conic as what 2^ is taken of (see `bin_splats`),
opacity, half-width and half-height of the box, channels. A *slot* is one (splat, tile) pair: those of a splat follow
one another, so that what its tiles give is summed per splat in a fixed order. Tiles are drawn from a shared counter by
whoever is free, and write nothing that another reads: results are bitwise equal on any number of threads.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, var-annotated, assignment"
from __future__ import annotations

import math

import numba
import numpy as np

from treadle.kernels.compiling import compiled
from treadle.kernels.lanes import choose, exp2, fill, lesser, load, some, steps_from, store, take, total
from treadle.kernels.splatting_points import samples
from treadle.kernels.splatting_reference import LEAST_ALPHA, LEAST_TRANSMITTANCE, MOST_ALPHA, TILE

HEAD = 8
"""Numbers of a packed splat before its channels: x, y, three of the conic, opacity, half-width and half-height."""
MOMENTS = 6
"""Numbers of a slot before its channels' gradients: sums of dpower times 1, dx, dy, dx dx, dx dy, dy dy."""
AREA = TILE * TILE
_LOG2E = 1.4426950408889634
_LN2 = 0.6931471805599453
_BATCH = 32
"""Splats that a tile fetches together, so that their way from memory is waited for once; then it looks whether it is
finished."""
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
def _scratch(count, like):
    # Numbers that begin where a line of the cache does: lanes that lie across two take twice as long to load.
    whole = np.empty(count + TILE, like.dtype)
    start = -whole.ctypes.data % 64 // like.itemsize
    return whole[start : start + count]


@numba.njit(inline="always")
def _within(value, least, most):
    if value < least:
        return least
    if value > most:
        return most
    return value


@numba.njit(inline="always")
def _meets(left, top, splat, least):
    # Whether the exponent of a splat reaches `least` anywhere in a tile whose first sample is at (left, top) from its
    # centre. Where the centre is outside, the greatest is on one of the sides that face it.
    zero = left - left
    right, bottom = left + (TILE - 1), top + (TILE - 1)
    xx, xy, yy = splat[2], splat[3], splat[4]
    x, y = _within(zero, left, right), _within(zero, top, bottom)
    if x == zero and y == zero:
        return True
    if x != zero:
        beside = _within(-xy * x / (yy + yy), top, bottom)
        if xx * x * x + xy * x * beside + yy * beside * beside >= least:
            return True
    if y != zero:
        beside = _within(-xy * y / (xx + xx), left, right)
        if xx * beside * beside + xy * beside * y + yy * y * y >= least:
            return True
    return False


@compiled()
def _bin(first, last, writing, order, flat, packed, size, cursor, firsts, ranks, slots):
    real = packed.dtype.type
    centers, conics, opacities, extents, channels = flat
    half = real(0.5)
    across = (size[0] + TILE - 1) // TILE
    for rank in range(first, last):
        splat = packed[rank]
        if not writing:
            i = order[rank]
            splat[0], splat[1] = centers[i, 0], centers[i, 1]
            splat[2], splat[3] = real(-0.5 * _LOG2E) * conics[i, 0], real(-_LOG2E) * conics[i, 1]
            splat[4], splat[5] = real(-0.5 * _LOG2E) * conics[i, 2], opacities[i]
            splat[6], splat[7] = extents[i, 0], extents[i, 1]
            for c in range(channels.shape[1]):
                splat[HEAD + c] = channels[i, c]
        x, y = splat[0], splat[1]
        left, right = samples(x, splat[6], size[0])
        top, bottom = samples(y, splat[7], size[1])
        slot = firsts[rank] if writing else 0
        lone = left // TILE == right // TILE and top // TILE == bottom // TILE
        least = real(0)
        if not lone:
            least = -math.log2(splat[5] / real(LEAST_ALPHA)) * real(_SLACK) - real(_SLACK - 1)
        # What is no number is not drawn: zero times it is none either.
        drawn = splat[5] >= real(LEAST_ALPHA) and real(0) * (splat[2] + splat[3] + splat[4]) == real(0)
        if drawn and left <= right and top <= bottom:
            for row in range(top // TILE, bottom // TILE + 1):
                for column in range(left // TILE, right // TILE + 1):
                    if lone or _meets(real(column * TILE) + half - x, real(row * TILE) + half - y, splat, least):
                        tile = row * across + column
                        if writing:
                            ranks[cursor[tile]] = rank
                            slots[cursor[tile]] = slot
                        cursor[tile] += 1
                        slot += 1
        if not writing:
            firsts[rank] = slot


@compiled()
def bin_splats(writing, order, flat, packed, size, cursors, firsts, ranks, slots, part, parts):
    """Pack splats and count their (splat, tile) pairs, or write those; part k takes the k-th share of the order.

    Of `flat`, which is centers, conics, opacities, extents and channels, the splats of `order` are copied to rows of
    `packed`, with the conic times what makes it an exponent of 2. Row k of `cursors` (parts, tiles) counts the part's
    pairs, or says where the next pair of each tile goes; `firsts` gets how many each splat has, or says which is its
    first slot.
    """
    count = order.shape[0]
    start, stop = count * part // parts, count * (part + 1) // parts
    _bin(start, stop, writing, order, flat, packed, size, cursors[part], firsts, ranks, slots)


@compiled()
def _draw(counter, tiles, ranks, slots, packed, background, size, image, alphas, finals, lasts, tallies):
    """Blend tiles until none is left. `tallies`, if it has rows, gets each slot's sum of weights and its pixels."""
    real = packed.dtype.type
    zero, one, half = real(0), real(1), real(0.5)
    most, least, end = real(MOST_ALPHA), real(LEAST_ALPHA), real(LEAST_TRANSMITTANCE)
    channels = packed.shape[1] - HEAD
    across = (size[0] + TILE - 1) // TILE
    tallying = tallies.shape[0] > 0
    sums, through, last = _scratch(AREA * channels, packed), _scratch(AREA, packed), _scratch(AREA, packed)
    alive = np.empty(TILE, np.bool_)
    batch = np.empty((_BATCH, packed.shape[1]), packed.dtype)
    while True:
        tile = take(counter)
        if tile >= tiles.shape[0] - 1:
            return
        left, top = tile % across * TILE, tile // across * TILE
        columns, rows = min(TILE, size[0] - left), min(TILE, size[1] - top)
        # What lies outside the picture is finished from the start.
        inside = steps_from(zero) < real(columns)
        for row in range(TILE):
            alive[row] = False
            store(through, row * TILE, choose(inside, fill(one), -one) if row < rows else fill(-one))
            store(last, row * TILE, fill(zero))
            for c in range(channels):
                store(sums, (c * TILE + row) * TILE, fill(zero))
        start = tiles[tile]
        for entry in range(start, tiles[tile + 1]):
            place = (entry - start) % _BATCH
            if place == 0:
                going = False
                for row in range(rows):
                    alive[row] = some(load(through, row * TILE) > zero)
                    going = going or alive[row]
                if not going:
                    break
                for k in range(min(_BATCH, tiles[tile + 1] - entry)):
                    rank = ranks[entry + k]
                    for j in range(packed.shape[1]):
                        batch[k, j] = packed[rank, j]
            splat = batch[place]
            y, opacity = splat[1], splat[5]
            dx = steps_from(real(left) + half - splat[0])
            constant, slope, curve = dx * dx * splat[2], dx * splat[3], splat[4]
            low, high = samples(y, splat[7], size[1])
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
        for at in range(AREA):
            finals[tile, at] = abs(through[at])
            lasts[tile, at] = last[at]
        for row in range(rows):
            for column in range(columns):
                at = row * TILE + column
                rest = abs(through[at])
                alphas[top + row, left + column] = one - rest
                for c in range(channels):
                    image[top + row, left + column, c] = sums[c * AREA + at] + rest * background[c]


@compiled()
def _trace_back(counter, tiles, ranks, slots, packed, background, size, grad_image, grad_alphas, finals, lasts, grads):
    """Go through the lists of tiles from back to front until no tile is left, and write the moments of every slot."""
    real = packed.dtype.type
    zero, one, half = real(0), real(1), real(0.5)
    most, least = real(MOST_ALPHA), real(LEAST_ALPHA)
    channels = packed.shape[1] - HEAD
    across = (size[0] + TILE - 1) // TILE
    slopes = _scratch(AREA * channels, packed)  # the gradient of the image here, channel by channel
    through, behind, last = _scratch(AREA, packed), _scratch(AREA, packed), _scratch(AREA, packed)
    deepest = np.empty(TILE, np.int64)
    colors = _scratch(TILE * channels, packed)
    batch = np.empty((_BATCH, packed.shape[1]), packed.dtype)
    while True:
        tile = take(counter)
        if tile >= tiles.shape[0] - 1:
            return
        left, top = tile % across * TILE, tile // across * TILE
        columns, rows = min(TILE, size[0] - left), min(TILE, size[1] - top)
        final = finals[tile]
        longest = 0
        for row in range(TILE):
            deepest[row] = 0
            for column in range(TILE):
                at = row * TILE + column
                through[at] = final[at]
                last[at] = lasts[tile, at]
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
            place = (start + longest - 1 - entry) % _BATCH
            if place == 0:
                for k in range(min(_BATCH, entry - start + 1)):
                    rank = ranks[entry - k]
                    for j in range(packed.shape[1]):
                        batch[k, j] = packed[rank, j]
            splat = batch[place]
            y, opacity = splat[1], splat[5]
            dx = steps_from(real(left) + half - splat[0])
            constant, slope, curve = dx * dx * splat[2], dx * splat[3], splat[4]
            low, high = samples(y, splat[7], size[1])
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


@compiled()
def blend(
    backward, counter, tiles, ranks, slots, packed, background, size, image, alphas, finals, lasts, extras, part, parts
):
    """Blend all tiles or, with the gradients in place of `image` and `alphas`, trace them back; one entry for both, as
    each takes a second to compile.

    Forward writes `finals` and `lasts` (tiles, 256), which the backward pass reads: final transmittances, and how many
    entries of the tile's list it took to reach them. `extras` are the tallies, or the gradients of the slots.
    """
    if backward:
        _trace_back(counter, tiles, ranks, slots, packed, background, size, image, alphas, finals, lasts, extras)
    else:
        _draw(counter, tiles, ranks, slots, packed, background, size, image, alphas, finals, lasts, extras)


@compiled()
def gather(
    order, firsts, grads, conics, opacities, grad_centers, grad_conics, grad_opacities, grad_channels, part, parts
):
    """Sum the slots of every visible splat, in their order, into its gradients; `firsts` has one entry more."""
    count, channels = order.shape[0], grad_channels.shape[1]
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
        grad_opacities[i] = sums[0] / opacities[i]
        for c in range(channels):
            grad_channels[i, c] = sums[MOMENTS + c]
