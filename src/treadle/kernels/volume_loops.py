"""The compiled loops of `volume`: a ray at a time, its samples front to back, and back to front for the gradients.

What is added up is added up in double precision: to Numba `float` of a single is a single, hence `np.float64`.
"""

# mypy: disable-error-code="call-arg"
from __future__ import annotations

import math
from typing import Any

import numpy as np

from treadle.kernels.compiling import compiled


@compiled()
def first_ray(starts: Any, part: int, parts: int) -> Any:
    """Where part `part` of the rays begins, so that all parts have about as many samples."""
    if part <= 0:
        return 0
    if part >= parts:
        return len(starts) - 1
    wanted, low, high = starts[-1] * part // parts, 0, len(starts) - 1
    while low < high:
        middle = (low + high) // 2
        if starts[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low


@compiled()
def forward(
    density: Any, values: Any, distances: Any, deltas: Any, starts: Any, stop: float, weights: Any, left: Any,
    sums: Any, totals: Any, part: int, parts: int,
) -> None:  # fmt: skip
    """See `volume.composite`.

    `left` (m,) is the transmittance behind each sample, -1 where it was not reached; `totals` (r, 3) are opacity, mean
    distance and distortion.
    """
    channels = values.shape[1]
    colour = np.zeros(channels)
    for ray in range(first_ray(starts, part, parts), first_ray(starts, part + 1, parts)):
        colour[:] = 0.0
        through, opacity, moment, distortion = 1.0, 0.0, 0.0, 0.0
        for i in range(starts[ray], starts[ray + 1]):
            if through < stop:
                weights[i] = 0.0
                left[i] = -1.0
                continue
            depth, t = np.float64(density[i]) * np.float64(deltas[i]), np.float64(distances[i])
            weight = -math.expm1(-depth) * through
            through *= math.exp(-depth)
            # All pairs of samples, each with those before it (Barron et al. 2022, equation 15).
            distortion += 2.0 * weight * (t * opacity - moment) + weight * weight * np.float64(deltas[i]) / 3.0
            opacity += weight
            moment += weight * t
            for c in range(channels):
                colour[c] += weight * values[i, c]
            weights[i] = weight
            left[i] = through
        for c in range(channels):
            sums[ray, c] = colour[c]
        totals[ray, 0] = opacity
        totals[ray, 1] = moment / opacity if opacity > 1e-10 else 0.0
        totals[ray, 2] = distortion


@compiled()
def backward(
    values: Any, distances: Any, deltas: Any, starts: Any, weights: Any, left: Any, by_sums: Any, by_totals: Any,
    by_weights: Any, by_density: Any, by_values: Any, part: int, parts: int,
) -> None:  # fmt: skip
    """The gradients to `density` and to `values` (no rows where those are not wanted).

    A sample's weight grows with its own density as the light that is left behind it, and takes from all behind it.
    """
    channels, wanted = values.shape[1], len(by_values) > 0
    for ray in range(first_ray(starts, part, parts), first_ray(starts, part + 1, parts)):
        opacity, moment = 0.0, 0.0
        for i in range(starts[ray], starts[ray + 1]):
            opacity += np.float64(weights[i])
            moment += np.float64(weights[i]) * np.float64(distances[i])
        mean = moment / opacity if opacity > 1e-10 else 0.0
        by_mean = np.float64(by_totals[ray, 1]) / opacity if opacity > 1e-10 else 0.0
        by_opacity, by_distortion = np.float64(by_totals[ray, 0]), np.float64(by_totals[ray, 2])
        behind, behind_moment, taken = 0.0, 0.0, 0.0
        for i in range(starts[ray + 1] - 1, starts[ray] - 1, -1):
            if left[i] < 0.0:
                by_density[i] = 0.0
                if wanted:
                    for c in range(channels):
                        by_values[i, c] = 0.0
                continue
            weight, t, delta = np.float64(weights[i]), np.float64(distances[i]), np.float64(deltas[i])
            slope = by_opacity + np.float64(by_weights[i]) + by_mean * (t - mean)
            for c in range(channels):
                slope += np.float64(by_sums[ray, c]) * np.float64(values[i, c])
            if by_distortion != 0.0:
                before, before_moment = opacity - behind - weight, moment - behind_moment - weight * t
                apart = t * (before - behind) - before_moment + behind_moment
                slope += by_distortion * (2.0 * apart + 2.0 / 3.0 * weight * delta)
            by_density[i] = delta * (np.float64(left[i]) * slope - taken)
            taken += weight * slope
            behind += weight
            behind_moment += weight * t
            if wanted:
                for c in range(channels):
                    by_values[i, c] = weight * by_sums[ray, c]


@compiled()
def reach(density: Any, deltas: Any, starts: Any, stop: float, reached: Any, part: int, parts: int) -> None:
    """See `volume.reached`."""
    for ray in range(first_ray(starts, part, parts), first_ray(starts, part + 1, parts)):
        through = 1.0
        for i in range(starts[ray], starts[ray + 1]):
            reached[i] = through >= stop
            through *= math.exp(-np.float64(density[i]) * np.float64(deltas[i]))
