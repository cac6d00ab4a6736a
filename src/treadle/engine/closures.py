"""Optimizers that evaluate the loss themselves: which must, and the way back when one has gone astray."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer's `step` has to be given a function that evaluates the loss (LBFGS)."""
    try:
        parameters = inspect.signature(type(optimizer).step).parameters
    except (TypeError, ValueError):  # a step without a signature
        return False
    return "closure" in parameters and parameters["closure"].default is inspect.Parameter.empty


class Backup:
    """Parameters as they are now, and with `state` what their optimizer keeps of them, to be put back."""

    def __init__(self, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], *, state: bool) -> None:
        self._optimizer = optimizer
        self._entries = [(p, p.detach().clone()) for p in parameters if not is_lazy(p)]
        self._state = {p: _copied(kept) for p, kept in optimizer.state.items()} if state else None

    def restore(self) -> None:
        """Put it back."""
        for p, entries in self._entries:
            p.data.copy_(entries)
        if self._state is not None:
            self._optimizer.state.clear()
            self._optimizer.state.update(self._state)


def _copied(value: Any) -> Any:
    """A copy of nested state with tensors of its own."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return type(value)(map(_copied, value)) if isinstance(value, list | tuple) else value
