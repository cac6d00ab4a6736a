"""Spherical harmonics of a diffusion signal.

The basis is dipy's `descoteaux07`, not legacy: real, of even degrees, ordered by degree l and then by m from -l to l.
With Y_l^m the complex spherical harmonics, of norm 1 and with the Condon-Shortley phase:

    m < 0: sqrt(2) Re Y_l^m        m = 0: Y_l^0        m > 0: sqrt(2) Im Y_l^m

(Descoteaux et al., 2007). Coefficients of order L are (L + 1)(L + 2) / 2: 6 at 2, 15 at 4, 28 at 6, 45 at 8. The
legacy variant has |m| for m: other signs where m is negative and odd. MRtrix's basis (`tournier07`) has another order.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from treadle.errors import UsageError
from treadle.tracts.signal.tensor import checked_directions

B0_BELOW = 50.0
"""b-values up to this, in s/mm^2, count as none."""

_PIECE = 1 << 16
"""Voxels fitted at a time."""


def count_of(order: int) -> int:
    """How many coefficients an even order has. Raises UsageError for an odd or a negative one."""
    if order < 0 or order % 2:
        raise UsageError(f"spherical harmonics of order {order}: expected an even number of at least 0")
    return (order + 1) * (order + 2) // 2


def order_of(count: int) -> int:
    """The order that has so many coefficients. Raises UsageError where there is none."""
    order = 0
    while count_of(order) < count:
        order += 2
    if count_of(order) != count:
        raise UsageError(f"{count} values are no coefficients of spherical harmonics: expected 1, 6, 15, 28, 45 ...")
    return order


def degrees(order: int) -> np.ndarray:
    """(c,) int64: the degree l of each coefficient."""
    return np.repeat(np.arange(0, order + 1, 2), 2 * np.arange(0, order + 1, 2) + 1)


def basis(order: int, directions: np.ndarray) -> np.ndarray:
    """The functions of the basis at directions (..., 3) of length 1: (..., c) float64."""
    count = count_of(order)
    directions = np.asarray(directions, np.float64)
    x, y, z = directions[..., 0], directions[..., 1], directions[..., 2]
    found = np.empty((*directions.shape[:-1], count))
    # Y_l^m = N P_l^m(z) (x + i y)^m, where P_l^m is the associated Legendre function without its factor sin^m.
    legendre: dict[int, np.ndarray] = {}
    cosine, sine = np.ones_like(z), np.zeros_like(z)
    diagonal = math.sqrt(1 / (4 * math.pi))
    for m in range(order + 1):
        if m:
            cosine, sine = x * cosine - y * sine, x * sine + y * cosine
            diagonal *= -math.sqrt((2 * m + 1) / (2 * m))
        # Normalised from the start: no factorials, and no overflow.
        legendre = {m: np.full_like(z, diagonal)}
        for degree in range(m + 1, order + 1):
            scale = math.sqrt((4 * degree**2 - 1) / (degree**2 - m**2))
            value = z * legendre[degree - 1]
            if degree - 2 >= m:
                below = math.sqrt(((degree - 1) ** 2 - m**2) / (4 * (degree - 1) ** 2 - 1))
                value = value - below * legendre[degree - 2]
            legendre[degree] = scale * value
        for degree in range(m + m % 2, order + 1, 2):
            centre = degree * (degree + 1) // 2
            if m:
                found[..., centre - m] = (-1) ** m * math.sqrt(2) * legendre[degree] * cosine
                found[..., centre + m] = math.sqrt(2) * legendre[degree] * sine
            else:
                found[..., centre] = legendre[degree]
    return found


def fit_harmonics(
    dwi: np.ndarray,
    bvalues: np.ndarray,
    directions: np.ndarray,
    order: int = 6,
    *,
    smooth: float = 0.006,
    shell: float | None = None,
) -> np.ndarray:
    """The spherical harmonics of the signal of one shell, divided by the signal without a gradient.

    Regularised least squares: the Laplace-Beltrami operator of the fitted function is kept small (Descoteaux et al.,
    2007). The signal divided by the mean of the volumes without a gradient is cut to 0 to 1.

    Args:
        dwi: (..., n) the signal; any real dtype.
        bvalues: (n,) in s/mm^2. Those up to `B0_BELOW` are the volumes without a gradient.
        directions: (n, 3) the gradients' directions.
        order: even; with a regularisation it may have more coefficients than there are directions.
        smooth: weight of the regularisation.
        shell: its b-value, of which 10 % is allowed more or less; None: the only one.

    Returns:
        (..., c) float32. 0 in voxels with no signal above 0 without a gradient, or one that is NaN or infinite.

    Raises:
        UsageError: shapes that do not fit each other, no volume without a gradient, several shells, none of that
            b-value, an odd order.
    """
    dwi, bvalues = np.asarray(dwi), np.asarray(bvalues, np.float64)
    directions = checked_directions(dwi, bvalues, directions)
    plain = bvalues <= B0_BELOW
    if not plain.any():
        raise UsageError(
            f"there is no volume without a gradient (the smallest b-value is {bvalues.min(initial=np.inf):g}): the "
            "signal is divided by it"
        )
    chosen = ~plain if shell is None else ~plain & (np.abs(bvalues - shell) <= 0.1 * shell)
    if not chosen.any() or np.ptp(bvalues[chosen]) > 0.2 * bvalues[chosen].mean():
        there = ", ".join(f"{value:g}" for value in np.unique(np.round(bvalues[~plain], -2)))
        problem = f"no shell at b = {shell:g}" if shell is not None else "not one shell"
        raise UsageError(
            f"there is {problem}, but there are the b-values {there or 'of none'}: give shell= one of them"
        )
    lengths = np.linalg.norm(directions[chosen], axis=1, keepdims=True)
    if (lengths == 0).any():
        raise UsageError("a gradient of the shell has the direction 0 0 0: look at the table of gradients")
    solve = _solution(directions[chosen] / lengths, order, smooth)
    flat = dwi.reshape(-1, len(bvalues))
    found = np.zeros((len(flat), count_of(order)), np.float32)
    for start in range(0, len(flat), _PIECE):
        piece = flat[start : start + _PIECE].astype(np.float64)
        without = piece[:, plain].mean(axis=1)
        good = np.isfinite(piece).all(axis=1) & (without > 0)
        signal = np.clip(piece[good][:, chosen] / without[good, None], 0, 1)
        found[start : start + _PIECE][good] = signal @ solve.T
    return found.reshape(*dwi.shape[:-1], -1)


def _solution(directions: np.ndarray, order: int, smooth: float) -> np.ndarray:
    """(c, n): from the signal in n directions to the coefficients."""
    functions = basis(order, directions)
    degree = degrees(order)
    penalty = smooth * np.diag((degree * (degree + 1.0)) ** 2)
    return np.asarray(np.linalg.pinv(functions.T @ functions + penalty) @ functions.T)


def half_sphere(count: int) -> np.ndarray:
    """(count, 3) float64: directions spread evenly over half a sphere, by the golden angle."""
    z = 1 - (np.arange(count) + 0.5) / count
    angle = np.pi * (3 - math.sqrt(5)) * np.arange(count)
    around = np.sqrt(1 - z**2)
    return np.stack([around * np.cos(angle), around * np.sin(angle), z], axis=1)


@lru_cache(8)
def _sphere(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Directions enough for the order, and (c, n) from values there to coefficients."""
    directions = half_sphere(3 * count_of(order))
    return directions, np.linalg.pinv(basis(order, directions))


def rotation_matrix(order: int, rotation: np.ndarray) -> np.ndarray:
    """(..., c, c) float64: what turns coefficients as `rotation` (..., 3, 3) turns directions.

    The turned function has at d what the other has at R^T d, and is of the same order: it is found, exactly but for
    rounding, from its values in many directions. Degrees do not mix, and that is seen to.
    """
    directions, inverse = _sphere(order)
    # d R is R^T d for each row.
    matrix = inverse @ basis(order, directions @ np.asarray(rotation, np.float64))
    degree = degrees(order)
    return np.asarray(np.where(degree[:, None] == degree, matrix, 0.0))


def rotate(coefficients: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Coefficients (..., c) of functions turned by `rotation` (3, 3). Of the dtype of `coefficients`."""
    coefficients = np.asarray(coefficients)
    matrix = rotation_matrix(order_of(coefficients.shape[-1]), rotation)
    return np.asarray((coefficients @ matrix.T).astype(coefficients.dtype))
