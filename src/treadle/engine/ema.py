"""Exponential moving average of a module's weights (Polyak averaging)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from treadle.errors import UsageError


class EMA:
    """A moving average of a module's parameters: `shadow <- decay * shadow + (1 - decay) * parameter`.

    As an attribute of a trainer it is updated after every update of an optimizer that holds one of the module's
    parameters, saved with the run, and used for validation and the best model (unless `evaluate=False`).

    Args:
        module: whose floating-point parameters are averaged; buffers are taken from the module as they are.
        decay: in (0, 1).
        warm_up: use `min(decay, (1 + n) / (10 + n))` after n updates, so that the first weights are soon forgotten.
        evaluate: whether validation sees the average.
    """

    def __init__(self, module: nn.Module, decay: float = 0.999, *, warm_up: bool = False, evaluate: bool = True):
        if not 0 < decay < 1:
            raise UsageError(f"EMA decay is {decay}: expected a number between 0 and 1")
        self.module = module
        self.decay = decay
        self.warm_up = warm_up
        self.evaluate = evaluate
        self.updates = 0
        self._shadows: dict[str, Tensor] = {
            name: p.detach().clone() for name, p in module.named_parameters() if p.is_floating_point()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the current parameters."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warm_up else self.decay
        current = dict(self.module.named_parameters())
        shadows = list(self._shadows.values())
        torch._foreach_lerp_(shadows, [current[name].detach() for name in self._shadows], 1 - decay)

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that are averaged."""
        current = dict(self.module.named_parameters())
        return [current[name] for name in self._shadows]

    def shadow_of(self, parameter: Tensor) -> Tensor | None:
        """The average of `parameter` (the tensor itself, not a copy), or None where it is not averaged."""
        for name, p in self.module.named_parameters():
            if p is parameter:
                return self._shadows.get(name)
        return None

    def to(self, device: torch.device) -> None:
        """Move the averages to `device`."""
        for shadow in self._shadows.values():
            shadow.data = shadow.data.to(device)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the module's parameters are the averages; gradients and optimizers are not touched."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, p in self.module.named_parameters():
            if name in self._shadows:
                shadow = self._shadows[name]
                p.data, shadow.data = shadow.data, p.data

    def state_dict(self) -> dict[str, Any]:
        """Averages by parameter name, and the number of updates."""
        return {"updates": self.updates, "shadows": dict(self._shadows)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; shapes may differ from the ones the module was built with."""
        self.updates = int(state["updates"])
        for name, shadow in self._shadows.items():
            shadow.data = state["shadows"][name].to(device=shadow.device, dtype=shadow.dtype, copy=True)
