"""Exponential moving average of a module's weights (Polyak averaging), and of its buffers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from treadle.errors import StateError, UsageError


class EMA:
    """A moving average of a module's parameters: `shadow <- decay * shadow + (1 - decay) * parameter`.

    As an attribute of a trainer it is updated after every update of an optimizer that holds one of the module's
    parameters, saved with the run, and used for validation and the best model (unless `evaluate=False`).

    Args:
        module: whose parameters are averaged, real and complex ones.
        decay: in (0, 1).
        warm_up: use `min(decay, (1 + n) / (10 + n))` after n updates, so that the first weights are soon forgotten.
        evaluate: whether validation sees the average.
        buffers: average the module's buffers too, such as the statistics of BatchNorm; whole numbers stay as they are.
            By default validation sees the module's own.

    Raises UsageError for a decay out of its range, and for a lazy module that has seen no batch yet.
    """

    def __init__(
        self,
        module: nn.Module,
        decay: float = 0.999,
        *,
        warm_up: bool = False,
        evaluate: bool = True,
        buffers: bool = False,
    ):
        if not 0 < decay < 1:
            raise UsageError(f"EMA decay is {decay}: expected a number between 0 and 1")
        self.module = module
        self.decay = decay
        self.warm_up = warm_up
        self.evaluate = evaluate
        self.updates = 0
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if is_lazy(tensor):
                raise UsageError(
                    f"EMA: {name!r} has no shape yet: let the lazy module see a batch before it is averaged"
                )
        self._shadows = {name: p.detach().clone() for name, p in module.named_parameters() if _has_fractions(p)}
        self._buffers = {
            name: b.detach().clone() for name, b in module.named_buffers() if buffers and _has_fractions(b)
        }

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the current parameters."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warm_up else self.decay
        current = dict(self.module.named_parameters())
        shadows = list(self._shadows.values())
        if shadows:
            torch._foreach_lerp_(shadows, [current[name].detach() for name in self._shadows], 1 - decay)
        if self._buffers:
            self._average_buffers(1 - decay)

    def _average_buffers(self, weight: float) -> None:
        current = dict(self.module.named_buffers())
        for name, average in self._buffers.items():
            if average.shape != current[name].shape:  # a table that has grown: its average starts anew
                average.data = current[name].detach().clone()
        torch._foreach_lerp_(list(self._buffers.values()), [current[name] for name in self._buffers], weight)

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that are averaged."""
        current = dict(self.module.named_parameters())
        return [current[name] for name in self._shadows]

    def buffers(self) -> dict[str, Tensor]:
        """The averages of buffers by name, not copies."""
        return dict(self._buffers)

    def shadow_of(self, parameter: Tensor) -> Tensor | None:
        """The average of a parameter or buffer (the tensor itself, not a copy), or None where it is not averaged."""
        for name, p in self.module.named_parameters():
            if p is parameter:
                return self._shadows.get(name)
        for name, average in self._buffers.items():
            if self.module.get_buffer(name) is parameter:
                return average
        return None

    def to(self, device: torch.device) -> None:
        """Move the averages to `device`."""
        for shadow in [*self._shadows.values(), *self._buffers.values()]:
            shadow.data = shadow.data.to(device)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the module has the averages; gradients and optimizers are not touched."""
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
        for name, average in self._buffers.items():
            buffer = self.module.get_buffer(name)
            buffer.data, average.data = average.data, buffer.data

    def state_dict(self) -> dict[str, Any]:
        """Averages by name, and the number of updates."""
        state: dict[str, Any] = {"updates": self.updates, "shadows": dict(self._shadows)}
        return state | {"buffers": dict(self._buffers)} if self._buffers else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; shapes may differ from the ones the module was built with."""
        buffers = state.get("buffers", {})
        if buffers.keys() != self._buffers.keys():
            there, here = (", ".join(names) or "no buffers" for names in (buffers, self._buffers))
            raise StateError(f"the checkpoint's average has {there}, this one {here}: give EMA the buffers= it had")
        self.updates = int(state["updates"])
        for averages, saved in ((self._shadows, state["shadows"]), (self._buffers, buffers)):
            for name, average in averages.items():
                average.data = saved[name].to(device=average.device, dtype=average.dtype, copy=True)


def _has_fractions(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
