"""What `minimize` takes for a loss, and when one is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from treadle.engine.bad_steps import NonFiniteError
from treadle.engine.objective import Losses
from treadle.errors import UsageError


def as_loss(loss: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The scalar to differentiate and its named terms, of a tensor, `Losses`, or a mapping of tensors (summed).

    Raises UsageError for anything else, a tensor with more than one entry, or one that does not require gradients.
    """
    total = loss
    terms: Mapping[str, Tensor] = {}
    if isinstance(loss, Tensor):  # asked first: nearly every loss is one, and the other questions are slow
        pass
    elif isinstance(loss, Losses):
        total, terms = loss.total, loss
    elif isinstance(loss, Mapping) and loss:
        total = sum(loss.values(), start=torch.zeros((), device=next(iter(loss.values())).device))
        terms = loss
    if not isinstance(total, Tensor):
        raise UsageError(f"minimize got a {type(total).__name__}: give it a scalar tensor, Losses or a dict of them")
    if total.numel() != 1:
        raise UsageError(f"minimize got a loss of shape {tuple(total.shape)}: reduce it to one number, e.g. .mean()")
    if not total.requires_grad:
        raise UsageError("minimize got a loss without gradients: compute it from the model's parameters, not detached")
    return total, terms


def check_finite(total: Tensor, terms: Mapping[str, Tensor]) -> None:
    """Raise NonFiniteError naming the first non-finite term, or the loss itself. Reads the device."""
    try:
        if math.isfinite(total.item()):
            return
    except TypeError:
        raise UsageError("minimize got a complex loss: give it a real one, such as loss.abs() or loss.real") from None
    for name, value in terms.items():
        number = value.item()
        if not math.isfinite(number):
            raise NonFiniteError(f"loss term {name!r} is {number}")
    raise NonFiniteError(f"the loss is {total.item()}")
