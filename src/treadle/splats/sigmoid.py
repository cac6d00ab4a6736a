"""The sigmoid, to the same bits on any number of threads.

torch cuts a tensor into as many parts as there are threads and computes the last few entries of each part in another
way than those before them. For most functions both ways agree to the last bit; for its sigmoid they do not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def sigmoid(logits: Tensor) -> Tensor:
    """1 / (1 + exp(-x)) of every entry; differentiable."""
    found: Tensor = _Sigmoid.apply(logits)
    return found


class _Sigmoid(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, logits: Tensor) -> Tensor:
        small = (-logits.abs()).exp()  # never overflows
        values = torch.where(logits >= 0, 1.0, small) / (1 + small)
        context.save_for_backward(values)
        return values

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        (values,) = context.saved_tensors
        return gradients[0] * (values * (1 - values))
