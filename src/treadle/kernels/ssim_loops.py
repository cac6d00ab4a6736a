"""The compiled loops of `ssim`: L1 and SSIM in one pass over the picture, and the gradient in a second.

A picture is read as rows of width x channels numbers: the same pixel's neighbour to the right is `channels` numbers on,
so that channels need not be told apart. A row's blurs across are kept for as long as eleven rows need them. Only the
mean of x^2 + y^2 enters SSIM, not each alone: four blurs forward and three backward.

No two threads write the same number and sums are taken row by row: results are bitwise equal on any number of threads.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, var-annotated, assignment"
from __future__ import annotations

import numba
import numpy as np

from treadle.kernels.compiling import compiled
from treadle.kernels.lanes import COUNT, choose, fill, load, store, take, total
from treadle.kernels.ssim_reference import C1, C2, TAPS

HALF = TAPS // 2
BLURS, SLOPES = 4, 3
"""What is blurred: x, y, x^2 + y^2 and x y; and the derivatives by their blurs, of which that by y's is not needed."""


@numba.njit(inline="always")
def _blur(values, at, step, w):
    # The weighted sum of eleven lanes, `step` numbers apart.
    return (
        load(values, at) * w[0]
        + load(values, at + step) * w[1]
        + load(values, at + 2 * step) * w[2]
        + load(values, at + 3 * step) * w[3]
        + load(values, at + 4 * step) * w[4]
        + load(values, at + 5 * step) * w[5]
        + load(values, at + 6 * step) * w[6]
        + load(values, at + 7 * step) * w[7]
        + load(values, at + 8 * step) * w[8]
        + load(values, at + 9 * step) * w[9]
        + load(values, at + 10 * step) * w[10]
    )


@compiled()
def _measure(counter, strip, image, target, mask, channels, taps, sums, slopes):
    real = image.dtype.type
    zero, one, two, c1, c2 = real(0), real(1), real(2), real(C1), real(C2)
    height, length = image.shape
    wide = (length + COUNT - 1) // COUNT * COUNT
    edge = HALF * channels
    masked, sloping = mask.shape[0] > 0, slopes.shape[0] > 0
    lines = np.zeros((BLURS, wide + 2 * edge), image.dtype)
    ring = np.empty(TAPS * BLURS * wide, image.dtype)
    counts = np.zeros(wide, image.dtype)
    for k in range(length):
        counts[k] = one
    down = np.empty(TAPS, image.dtype)
    w = (taps[0], taps[1], taps[2], taps[3], taps[4], taps[5], taps[6], taps[7], taps[8], taps[9], taps[10])
    while True:
        first = take(counter) * strip
        if first >= height:
            return
        last = min(first + strip, height)
        for row in range(first - HALF, last + HALF):
            slot = (row + TAPS) % TAPS * BLURS * wide
            if row < 0 or row >= height:
                for k in range(0, BLURS * wide, COUNT):
                    store(ring, slot + k, fill(zero))
            else:
                for k in range(length):
                    x, y = image[row, k], target[row, k]
                    if masked:
                        share = mask[row, k // channels]
                        x, y = x * share, y * share
                    lines[0, edge + k] = x
                    lines[1, edge + k] = y
                    lines[2, edge + k] = x * x + y * y
                    lines[3, edge + k] = x * y
                for q in range(BLURS):
                    line = lines[q]
                    for k in range(0, wide, COUNT):
                        store(ring, slot + q * wide + k, _blur(line, k, channels, w))
                if first <= row < last:
                    apart = fill(zero)
                    for k in range(edge, edge + wide, COUNT):
                        difference = load(lines[0], k) - load(lines[1], k)
                        apart = apart + choose(difference > zero, difference, zero - difference)
                    sums[row, 0] = total(apart)
            if row < first + HALF:
                continue
            # Eleven rows are there: row - 10 to row, around `row - HALF`.
            here = row - HALF
            for tap in range(TAPS):
                down[(here - HALF + tap + TAPS) % TAPS] = taps[tap]
            v = (down[0], down[1], down[2], down[3], down[4], down[5], down[6], down[7], down[8], down[9], down[10])
            if masked:
                for k in range(length):
                    counts[k] = mask[here, k // channels]
            alike = fill(zero)
            for k in range(0, wide, COUNT):
                step = BLURS * wide
                mx, my = _blur(ring, k, step, v), _blur(ring, wide + k, step, v)
                squares, products = _blur(ring, 2 * wide + k, step, v), _blur(ring, 3 * wide + k, step, v)
                both, mean = mx * my, mx * mx + my * my
                a1, a2 = both * two + c1, (products - both) * two + c2
                b1, b2 = mean + c1, squares - mean + c2
                count = load(counts, k)
                over = count / (b1 * b2)
                value = a1 * a2 * over
                alike = alike + value
                if sloping:
                    store(lines[0], edge + k, (my * (a2 - a1) * over - value * mx * (one / b1 - one / b2)) * two)
                    store(lines[1], edge + k, zero - value / b2)
                    store(lines[2], edge + k, a1 * over * two)
            sums[here, 1] = total(alike)
            if sloping:
                for q in range(SLOPES):
                    line, target_line = lines[q], slopes[HALF + here, q]
                    for k in range(0, wide, COUNT):
                        store(target_line, k, _blur(line, k, channels, w))


@compiled()
def _slope(counter, image, target, mask, channels, taps, slopes, by_l1, by_ssim, grad):
    real = image.dtype.type
    zero, two = real(0), real(2)
    height, length = image.shape
    wide = slopes.shape[2]
    masked = mask.shape[0] > 0
    flat = slopes.ravel()
    x, y, out = np.zeros(wide, image.dtype), np.zeros(wide, image.dtype), np.empty(wide, image.dtype)
    w = (taps[0], taps[1], taps[2], taps[3], taps[4], taps[5], taps[6], taps[7], taps[8], taps[9], taps[10])
    while True:
        row = take(counter)
        if row >= height:
            return
        for k in range(length):
            share = mask[row, k // channels] if masked else real(1)
            x[k], y[k] = image[row, k] * share, target[row, k] * share
        step = SLOPES * wide
        for k in range(0, wide, COUNT):
            at = row * step + k
            here, there = load(x, k), load(y, k)
            value = _blur(flat, at, step, w) + _blur(flat, at + wide, step, w) * here * two
            value = value + _blur(flat, at + 2 * wide, step, w) * there
            side = choose(here > there, fill(by_l1), choose(here < there, fill(zero - by_l1), zero))
            store(out, k, value * by_ssim + side)
        for k in range(length):
            grad[row, k] = out[k] * mask[row, k // channels] if masked else out[k]


@compiled()
def compare(
    backward, counter, strip, image, target, mask, channels, taps, sums, slopes, by_l1, by_ssim, grad, part, parts
):
    """Forward or backward; one entry for both, since it takes a second to compile.

    Forward writes each row's sums of absolute differences and of SSIM to `sums` (H, 2). Where `slopes` (H + 10, 3, W C
    rounded up to 16) has rows, its inner ones get the derivatives of the sum by the blurred x, x^2 + y^2 and x y,
    blurred across. Whoever is free takes the next `strip` rows. `mask` has no rows where all pixels count.

    Backward writes the gradient of by_l1 times the sum of absolute differences plus by_ssim times that of SSIM.
    """
    real = image.dtype.type
    if backward:
        _slope(counter, image, target, mask, channels, taps, slopes, real(by_l1), real(by_ssim), grad)
    else:
        _measure(counter, strip, image, target, mask, channels, taps, sums, slopes)
