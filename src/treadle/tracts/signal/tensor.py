"""Diffusion tensors: fitted to a signal, and what they say.

A tensor is six numbers, xx xy xz yy yz zz, along the same axes as the gradients' directions: here the grid's own.
Signal S of gradient g and b-value b: log S = log S0 - b g^T D g (Basser, Mattiello and Le Bihan, 1994).
"""

from __future__ import annotations

import numpy as np

from treadle.errors import UsageError

_PIECE = 1 << 16
"""Voxels fitted at a time."""

_AT = np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])
"""Where each entry of the matrix stands among the six."""

_ROW, _COLUMN = np.triu_indices(3)


def fit_tensors(dwi: np.ndarray, bvalues: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """The tensor of each voxel, by weighted linear least squares.

    The logarithm of the signal is fitted twice: all volumes alike, then each weighted by the squared signal that the
    first fit says it has, since noise weighs more on the logarithm of a weak signal (Salvador et al., 2005). A signal
    that is not above 0 counts as the smallest one that is.

    Args:
        dwi: (..., n) the signal; any real dtype.
        bvalues: (n,) in s/mm^2; some below the others, or the tensor's size is not known.
        directions: (n, 3) the gradients' directions; of length 1, or whatever where the b-value is 0.

    Returns:
        (..., 6) float32 in mm^2/s. 0 in voxels with no signal above 0 or one that is NaN or infinite.

    Raises:
        UsageError: shapes that do not fit each other, or gradients that leave a tensor undetermined.
    """
    dwi, bvalues = np.asarray(dwi), np.asarray(bvalues, np.float64)
    directions = checked_directions(dwi, bvalues, directions)
    products = directions[:, _ROW] * directions[:, _COLUMN] * np.where(_ROW == _COLUMN, 1.0, 2.0)
    # In 1e-3 mm^2/s, so that all unknowns are of one size.
    design = np.concatenate([-1e-3 * bvalues[:, None] * products, np.ones((len(bvalues), 1))], axis=1)
    if len(bvalues) == 0 or np.linalg.matrix_rank(design) < 7:
        raise UsageError(
            f"{len(bvalues)} gradients do not determine a tensor: it takes six directions that differ and b-values "
            "that do"
        )
    flat = dwi.reshape(-1, len(bvalues))
    found = np.zeros((len(flat), 6), np.float32)
    ordinary = np.linalg.pinv(design)
    outer = (design[:, :, None] * design[:, None, :]).reshape(len(design), 49)
    usable = flat[(flat > 0) & np.isfinite(flat)]
    least = float(usable.min()) if usable.size else 1.0
    for start in range(0, len(flat), _PIECE):
        piece = flat[start : start + _PIECE].astype(np.float64)
        good = np.isfinite(piece).all(axis=1) & (piece > 0).any(axis=1)
        logarithm = np.log(np.maximum(piece[good], least))
        fitted = logarithm @ ordinary.T @ design.T
        weights = np.exp(2 * (fitted - fitted.max(axis=1, keepdims=True)))
        weights = np.maximum(weights, 1e-12)
        left = (weights @ outer).reshape(-1, 7, 7)
        right = ((weights * logarithm) @ design)[:, :, None]
        values = np.linalg.solve(left, right)[:, :6, 0]
        found[start : start + _PIECE][good] = 1e-3 * values
    return found.reshape(*dwi.shape[:-1], 6)


def matrices(tensors: np.ndarray) -> np.ndarray:
    """Tensors (..., 6) as symmetric matrices (..., 3, 3)."""
    return np.asarray(np.asarray(tensors)[..., _AT])


def normalised(tensors: np.ndarray) -> np.ndarray:
    """Tensors (..., 6) with the trace 1, float32: what they say of directions, whatever the scanner and the water.

    Eigenvalues below 0, which only noise gives, are taken as 0; a tensor without any above is 0.
    """
    values, vectors = np.linalg.eigh(matrices(np.asarray(tensors, np.float64)))
    values = np.maximum(values, 0)
    total = values.sum(axis=-1, keepdims=True)
    values = np.divide(values, total, out=np.zeros_like(values), where=total > 0)
    whole = (vectors * values[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    return whole[..., _ROW, _COLUMN].astype(np.float32)


def principal(tensors: np.ndarray) -> np.ndarray:
    """(..., 3) float32: the direction of strongest diffusion of tensors (..., 6), of length 1; 0 where all is 0.

    It is an axis: its sign says nothing.
    """
    tensors = np.asarray(tensors, np.float64)
    vectors = np.linalg.eigh(matrices(tensors))[1][..., 2]
    return np.where((tensors == 0).all(axis=-1, keepdims=True), 0.0, vectors).astype(np.float32)


def fractional_anisotropy(tensors: np.ndarray) -> np.ndarray:
    """(...) float32 from 0 (round) to 1 (a line) of tensors (..., 6); eigenvalues below 0 are taken as 0."""
    values = np.maximum(np.linalg.eigvalsh(matrices(np.asarray(tensors, np.float64))), 0)
    spread = ((values - values.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
    size = (values**2).sum(axis=-1)
    return np.sqrt(1.5 * np.divide(spread, size, out=np.zeros_like(size), where=size > 0)).astype(np.float32)


def rotation_matrix(rotation: np.ndarray) -> np.ndarray:
    """(..., 6, 6) float64: what turns the six numbers of a tensor as `rotation` (..., 3, 3) turns directions."""
    rotation = np.asarray(rotation, np.float64)
    # (R D R^T)_ij = sum over k, l of R_ik R_jl D_kl; off the diagonal D_kl stands for D_lk, too.
    products = rotation[..., _ROW, :, None] * rotation[..., _COLUMN, None, :]
    both = products[..., _ROW, _COLUMN] + products[..., _COLUMN, _ROW]
    return np.asarray(both * np.where(_ROW == _COLUMN, 0.5, 1.0))


def rotate(tensors: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Tensors (..., 6) turned by `rotation` (3, 3): D becomes R D R^T. Of the dtype of `tensors`."""
    tensors = np.asarray(tensors)
    return np.asarray((tensors @ rotation_matrix(rotation).T).astype(tensors.dtype))


def checked_directions(dwi: np.ndarray, bvalues: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """The directions (n, 3) as float64. Raises UsageError where they, b-values and volumes are not equally many."""
    directions = np.asarray(directions, np.float64)
    if bvalues.ndim != 1 or directions.shape != (len(bvalues), 3) or dwi.ndim < 1 or dwi.shape[-1] != len(bvalues):
        raise UsageError(
            f"a signal of shape {dwi.shape} with b-values {bvalues.shape} and directions {directions.shape}: expected "
            "as many volumes as b-values and directions (n, 3)"
        )
    if not (np.isfinite(bvalues).all() and np.isfinite(directions).all()):
        raise UsageError("a b-value or a gradient's direction is NaN or infinite")
    return directions
