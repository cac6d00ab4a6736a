"""Rows of a dictionary chosen by logits, in plain torch: the definition, and what a GPU runs.

A row of logits chooses the entry of its level's dictionary with the largest one (the first, where several are equal).
That has no slope, so the gradient to the logits is that of the mean of all entries, weighted by the softmax of the
logits: the straight-through estimator (Bengio et al. 2013), as in VQAD (Takikawa et al. 2022,
https://arxiv.org/abs/2206.07707). The gradient to the dictionary is that of the choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional


def chosen_reference(logits: Tensor, dictionary: Tensor, first_row: Sequence[int], sharpness: float = 1.0) -> Tensor:
    """The entry that each row chooses, with differentiable torch operations.

    Args:
        logits: (rows, entries).
        dictionary: (levels, entries, features), of the dtype and on the device of `logits`.
        first_row: of each level, and at the end the number of rows.
        sharpness: a factor of the logits within the softmax, the inverse of its temperature.

    Returns:
        (rows, features).
    """
    found = []
    for level, (start, stop) in enumerate(pairwise(first_row)):
        own = logits[start:stop]
        soft = (sharpness * own).softmax(1)
        hard = functional.one_hot(own.argmax(1), logits.shape[1]).to(soft.dtype)
        found.append(hard @ dictionary[level] + (soft - soft.detach()) @ dictionary[level].detach())
    return torch.cat(found)
