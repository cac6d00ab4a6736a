"""The guard against bad steps, for loops of one's own; a trainer has its setting `on_bad_step` instead."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from treadle.engine.bad_steps import BadStep, NonFiniteError, SpikeDetector
from treadle.engine.loss import check_finite
from treadle.engine.objective import Losses
from treadle.errors import UsageError


class BadStepGuard:
    """Keeps a bad step out of the parameters: one whose loss or gradient is NaN or Inf, or whose loss is a spike.

    `check`, called between `backward` and the optimizer's step, raises `BadStep` for one; nothing has been touched by
    it then. Inside a `with` block the bad step is skipped: the block ends there, without its gradients and with the
    buffers (batch statistics) that it began with, and the loop goes on behind it. The batch counts as done: count it
    after the block. To go back instead, catch `BadStep` and `restore` a state.

    The guard has state, so it is among the objects that are captured: losses to compare with, and how many were bad.

    Args:
        parts: a module, or several modules and parameters: their gradients are checked, their buffers kept. Under a
            GradScaler call its `unscale_` before `check`.
        spike: a loss more than this many standard deviations above the mean of the last 100 is bad too; None: no loss.
        most: steps that may be skipped in all; the next one that is bad is raised out of the block.

    Example:
        for batch in feed.epoch(epoch):
            with guard:
                loss = model(batch).square().mean()
                loss.backward()
                guard.check(loss)
                optimizer.step()
            optimizer.zero_grad()
    """

    def __init__(
        self, parts: nn.Module | Sequence[nn.Module | Tensor], *, spike: float | None = None, most: int = 10
    ) -> None:
        if spike is not None and not spike > 0:
            raise UsageError(f"spike is {spike!r}: expected how many standard deviations, more than 0, or None")
        self._parts = [parts] if isinstance(parts, nn.Module) else list(parts)
        self._spikes = SpikeDetector(spike) if spike is not None else None
        self._most = most
        self._buffers: list[tuple[Tensor, Tensor]] = []
        self.count = 0
        """Steps that were skipped."""

    def check(self, loss: Tensor | Losses) -> None:
        """Look at the loss (a scalar tensor, or what an Objective gives) and at all gradients; waits for the device.

        Raises:
            NonFiniteError: one is NaN or Inf; the message names the loss term or the parameter.
            LossSpike: the loss is a spike.
        """
        total = loss.total if isinstance(loss, Losses) else loss
        if not isinstance(total, Tensor) or total.numel() != 1:
            raise UsageError(f"check got a {type(total).__name__}: give it the loss, a scalar tensor or Losses")
        check_finite(total, loss if isinstance(loss, Losses) else {})
        found = {name: p.grad for name, p in self._parameters().items() if p.grad is not None}
        entries = {name: gradient._values() if gradient.is_sparse else gradient for name, gradient in found.items()}
        if entries and not math.isfinite(torch.nn.utils.get_total_norm(entries.values(), torch.inf).item()):
            name = next(name for name, entry in entries.items() if not torch.isfinite(entry).all())
            kind = "NaN" if torch.isnan(entries[name]).any() else "Inf"
            raise NonFiniteError(f"the gradient of {name}, shape {tuple(found[name].shape)}, is {kind}")
        if self._spikes is not None:  # last: the losses to compare with are those of good steps
            self._spikes.check(total.item())

    def __enter__(self) -> Self:
        self._buffers = [(b, b.detach().clone()) for part in self._modules() for b in part.buffers()]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        before, self._buffers = self._buffers, []
        if not isinstance(error, BadStep):
            return False
        if self.count >= self._most:
            raise type(error)(f"{error.what} (given up after {self.count} skipped steps)") from None
        self.count += 1
        for buffer, kept in before:
            buffer.data.copy_(kept)
        for p in self._parameters().values():
            p.grad = None
        return True

    def _modules(self) -> list[nn.Module]:
        return [part for part in self._parts if isinstance(part, nn.Module)]

    def _parameters(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for index, part in enumerate(self._parts):
            if isinstance(part, Tensor):
                found[str(index)] = part
            else:
                found |= {f"{index}.{name}": p for name, p in part.named_parameters()}
        return found

    def state_dict(self) -> dict[str, Any]:
        """How many steps were skipped, and the losses that the next one is compared with."""
        return {"count": self.count, "spikes": self._spikes.state_dict() if self._spikes is not None else None}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.count = state["count"]
        if self._spikes is not None and state["spikes"] is not None:
            self._spikes.load_state_dict(state["spikes"])
