"""The loss terms: how colours are compared, and what keeps rays from seeing what is not there.

Sums over rays are taken in one fixed order, whatever the number of threads: see `total`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

HUBER = 0.1
"""The error from which on "huber" is linear."""

_ROW = 4096


def total(values: Tensor) -> Tensor:
    """The sum over all entries, a scalar, in an order that does not depend on the number of threads."""
    flat = values.flatten()
    whole = flat.numel() // _ROW * _ROW
    rest = flat[whole:].sum()
    return flat[:whole].reshape(-1, _ROW).sum(1).sum() + rest if whole else rest


def mean(values: Tensor) -> Tensor:
    """The mean of all entries, a scalar, as `total` adds them up; 0 where there are none."""
    return total(values) / max(1, values.numel())


def l2(colors: Tensor, wanted: Tensor) -> Tensor:
    """The mean squared error."""
    return mean((colors - wanted).square())


def l1(colors: Tensor, wanted: Tensor) -> Tensor:
    """The mean absolute error."""
    return mean((colors - wanted).abs())


def huber(colors: Tensor, wanted: Tensor) -> Tensor:
    """Squared errors below `HUBER`, absolute ones above, of one slope; of the size of `l2`."""
    return mean(2 * functional.huber_loss(colors, wanted, reduction="none", delta=HUBER))


def mape(colors: Tensor, wanted: Tensor) -> Tensor:
    """The mean of errors relative to what is wanted; a hundredth is added, for what is black."""
    return mean((colors - wanted).abs() / (wanted.abs() + 1e-2))


COLORS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"l2": l2, "l1": l1, "huber": huber, "mape": mape}
"""How colours (n, 3) are compared with those of photographs, by the setting's name."""


def opacity(found: Tensor, alpha: Tensor | None) -> Tensor:
    """How far the opacities (n,) of rays are from the photographs' alpha (n,), or, without one, from 0 and 1."""
    if alpha is not None:
        return mean((found - alpha).abs())
    return mean(found * (1 - found))


def depth(found: Tensor, opacity: Tensor, wanted: Tensor) -> Tensor:
    """How far rays that see a surface at a known distance (n,) are from doing so; 0 where it is not known.

    The mean of |found - wanted| / (1 + wanted) and of the light that goes past it: what is far away is not known as
    exactly as what is near.
    """
    known = wanted > 0
    wrong = ((found - wanted).abs() / (1 + wanted) + (1 - opacity)) * known
    return total(wrong) / torch.count_nonzero(known).clamp(min=1)
