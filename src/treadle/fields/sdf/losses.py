"""What a distance field is compared by. Sums are taken in one fixed order, whatever the number of threads."""

from __future__ import annotations

from torch import Tensor

HUBER = 0.01
"""Where the Huber loss turns from squares to magnitudes, in units of the solid."""

RELATIVE = 0.01
"""What is added to the magnitude of a distance before an error is divided by it: instant-ngp's."""

BAND = 0.05
"""How near the surface colours count."""

_ROW = 4096


def mean(values: Tensor) -> Tensor:
    """The mean of all entries, a scalar: torch's own sum depends, in its last bit, on the number of threads."""
    flat = values.flatten()
    whole = flat.numel() // _ROW * _ROW
    total = flat[whole:].sum()
    if whole:
        total = flat[:whole].reshape(-1, _ROW).sum(1).sum() + total
    return total / max(1, flat.numel())


def l1(found: Tensor, wanted: Tensor) -> Tensor:
    """The mean magnitude of the errors."""
    return mean((found - wanted).abs())


def l2(found: Tensor, wanted: Tensor) -> Tensor:
    """The mean square of the errors."""
    return mean((found - wanted).square())


def huber(found: Tensor, wanted: Tensor) -> Tensor:
    """The mean of errors' squares / (2 * HUBER) where they are small, of their magnitudes less HUBER / 2 elsewhere."""
    error = (found - wanted).abs()
    small = error.clamp(max=HUBER)
    return mean(small * (error - small / 2) / HUBER)


def mape(found: Tensor, wanted: Tensor) -> Tensor:
    """The mean of errors relative to the distance, which is counted as .01 larger: instant-ngp's loss for distances."""
    return mean((found - wanted).abs() / (wanted.abs() + RELATIVE))


def eikonal(gradients: Tensor) -> Tensor:
    """The mean square of how far the length of gradients (n, 3) is from 1 (Gropp et al. 2020)."""
    return mean((gradients.norm(dim=1) - 1).square())


def color(found: Tensor, wanted: Tensor, distances: Tensor) -> Tensor:
    """The mean magnitude of the errors of colours (n, 3) where the `distances` (n, 1) are within BAND, over all."""
    return mean((found - wanted).abs() * (distances.abs() < BAND))


DISTANCE = {"l1": l1, "l2": l2, "huber": huber, "mape": mape}
"""The losses of distances, by name."""
