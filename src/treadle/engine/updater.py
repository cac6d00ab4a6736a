"""One optimizer's updates: accumulate, `pre_update`, finite check, clip, update, EMA, count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from treadle.engine.bad_steps import NonFiniteError, SpikeDetector
from treadle.engine.ema import EMA
from treadle.engine.optim import backpropagate, prefer_fused, take_step
from treadle.engine.settings import TrainerConfig
from treadle.errors import UsageError


class Updater:
    """One optimizer with everything that belongs to its updates: its counter, accumulation, clipping, scaler, EMAs.

    Args:
        name: the optimizer's attribute name on the trainer.
        optimizer: any torch optimizer.
        device: of the parameters.
        settings: accumulation, clipping, precision (fp16 has a `GradScaler`), fused kernels, and what counts as a bad
            step: unless that ends the run, the verdict on gradients is read at every update, wherever it is.
    """

    def __init__(
        self, name: str, optimizer: torch.optim.Optimizer, device: torch.device, settings: TrainerConfig
    ) -> None:
        self.name = name
        self.optimizer = optimizer
        self.accumulate = settings.accumulate
        self.clip_norm, self.clip_value = settings.clip_norm, settings.clip_value
        self.finite_check = settings.finite_check
        self.fuse = settings.fused
        self.check_at_once = settings.on_bad_step != "stop" or device.type == "cpu"
        self.spikes = SpikeDetector(settings.spike) if settings.spike is not None else None
        self.scaler = torch.amp.GradScaler(device.type) if settings.precision == "fp16" else None
        self.emas: list[EMA] = []
        self.updates = 0
        self.micro_batches = 0
        self.elements = 0.0
        self.calls = 0
        """Calls of `minimize` in the step under way."""
        self.calls_per_step: int | None = None
        """Calls in the last step that had any."""
        self.norms: dict[str, Tensor] = {}
        self._one = torch.ones((), device=device)
        self._found = torch.zeros((), device=device)
        self._bad_update = torch.full((), -1.0, device=device)

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters of all groups, as they are now."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def backward(self, loss: Tensor, elements: float, inputs: Sequence[Tensor] | None) -> None:
        """Add the gradient of `loss`, weighted by `elements` where several micro-batches make one update."""
        self.micro_batches += 1
        self.calls += 1
        self.elements += elements
        if self.accumulate > 1:
            loss = loss * elements
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        backpropagate(loss, inputs)

    def update(self, pre_update: Callable[[], None] | None) -> bool:
        """Turn the accumulated gradients into one update; returns whether there was one (fp16 may skip it).

        `pre_update` is called when the gradients are complete, and may change them; None where nobody listens. Raises
        NonFiniteError before any parameter changes.
        """
        parameters = self.parameters
        gradients = [gradient for p in parameters if (gradient := p.grad) is not None]
        if not gradients:
            raise UsageError(
                f"the loss reaches no parameter of {self.name!r}: compute it from the parameters that it updates"
            )
        if self.fuse:
            self._choose_kernels()
        mean = 1.0 / self.elements if self.accumulate > 1 else 1.0
        if self.scaler is not None and self._overflowed(self.scaler):
            self._drop(parameters)
            return False
        # Where nobody looks at the gradients in between, taking their mean and checking them is one pass over memory.
        check_first = self.finite_check and self.scaler is None and pre_update is None
        if check_first:
            self._mean_and_check(gradients, mean)
        elif mean != 1.0:
            torch._foreach_mul_(_entries(gradients), mean)
        if pre_update is not None:
            pre_update()
            self._lay_out_gradients(parameters)
        # Before clipping, so that the right gradient is named: clipping makes NaN of all, or hides an Inf.
        if self.finite_check and pre_update is not None:
            self._mean_and_check([p.grad for p in parameters if p.grad is not None], 1.0)
        if self.clip_norm is not None or self.clip_value is not None:
            self._clip(parameters)
        if self.scaler is not None:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            take_step(self.optimizer)
        # Autocast keeps its casts of weights until the step ends: what comes after must not meet those of before.
        torch.clear_autocast_cache()
        self._drop(parameters)
        self.updates += 1
        for ema in self.emas:
            ema.update()
        return True

    def _overflowed(self, scaler: torch.amp.GradScaler) -> bool:
        """Take the loss scale out of the gradients; returns whether they overflowed, so that the update is skipped.

        Raises NonFiniteError where no smaller scale can help.
        """
        scaler.unscale_(self.optimizer)
        if not sum(found.item() for found in scaler._found_inf_per_device(self.optimizer).values()):
            return False
        scale = scaler.get_scale()
        if self.finite_check and scale < 1.0:
            raise NonFiniteError(
                f"a gradient of {self.name!r} is NaN or Inf in fp16 at every loss scale down to {scale}"
            )
        scaler.update()
        return True

    def _choose_kernels(self) -> None:
        """Before the first update, when it can be seen whether gradients are sparse."""
        self.fuse = False
        prefer_fused(self.optimizer)
        # Only a fused kernel can be told, on the device, to skip its update.
        self.check_at_once |= not all(group.get("fused") for group in self.optimizer.param_groups)

    def _mean_and_check(self, gradients: list[Tensor], mean: float) -> None:
        """Multiply the gradients by `mean` and look for NaN and Inf in the same pass over memory.

        The kernel is the one behind `torch.amp.GradScaler`. On a CPU its verdict is read at once (3 us); elsewhere it
        stays on the device until `check_device`, because reading it would make every step wait for the device.
        """
        if mean != 1.0 and any(g.dtype == torch.float64 for g in gradients):
            torch._foreach_mul_(_entries(gradients), mean)  # the kernel's factor is a float32
            mean = 1.0
        inverse = self._one if mean == 1.0 else torch.full_like(self._one, mean)
        torch._amp_foreach_non_finite_check_and_unscale_(_entries(gradients), self._found, inverse)
        if self.check_at_once or self.scaler is not None:
            if self._found.item():
                self._found.zero_()
                raise NonFiniteError(self._name_gradient())
        else:
            first = (self._found > 0) & (self._bad_update < 0)
            self._bad_update = torch.where(first, float(self.updates), self._bad_update)
            # torch's fused optimizers skip their update, on the device, where this flag is set.
            self.optimizer.found_inf = self._found  # type: ignore[attr-defined]
            self.optimizer.grad_scale = None  # type: ignore[attr-defined]

    def _lay_out_gradients(self, parameters: list[Tensor]) -> None:
        """Give gradients that `pre_update` has made the strides of their parameters, which fused kernels rely on."""
        for p in parameters:
            if p.grad is not None and not p.grad.is_sparse and p.grad.stride() != p.stride():
                p.grad = torch.empty_like(p, dtype=p.grad.dtype).copy_(p.grad)

    def check_device(self) -> None:
        """Read the device's verdict on all gradients so far; raises NonFiniteError naming the first bad update."""
        if not self.check_at_once and self.finite_check and self.scaler is None:
            bad = int(self._bad_update.item())
            if bad >= 0:
                raise NonFiniteError(f"a gradient of {self.name!r} is NaN or Inf at its update {bad}")

    def _name_gradient(self) -> str:
        for group_index, group in enumerate(self.optimizer.param_groups):
            for index, p in enumerate(group["params"]):
                gradient = _entries([p.grad])[0] if p.grad is not None else None
                if gradient is not None and not bool(torch.isfinite(gradient).all()):
                    kind = "NaN" if bool(torch.isnan(gradient).any()) else "Inf"
                    where = f"parameter {index} of group {group.get('name', group_index)!r}, shape {tuple(p.shape)}"
                    return f"the gradient of {where} ({self.name!r}) is {kind}"
        return f"a gradient of {self.name!r} is NaN or Inf"

    def _clip(self, parameters: list[Tensor]) -> None:
        """Clip by value, then by norm; keeps the norm before and after for the log."""
        for p in parameters:
            if p.grad is not None and p.grad.is_sparse:
                p.grad = p.grad.coalesce()  # a row that comes twice counts as the sum of both
        entries = _entries([p.grad for p in parameters if p.grad is not None])
        before = norm = torch.nn.utils.get_total_norm(entries)
        if self.clip_value is not None:
            torch._foreach_clamp_min_(entries, -self.clip_value)
            torch._foreach_clamp_max_(entries, self.clip_value)
            norm = torch.nn.utils.get_total_norm(entries)
        if self.clip_norm is not None:
            factor = torch.clamp(self.clip_norm / (norm + 1e-6), max=1.0)
            torch._foreach_mul_(entries, factor.to(entries[0].device))
            norm = norm * factor
        self.norms = {"grad_norm": before, "grad_norm_clipped": norm}

    def end_step(self, *, last: bool) -> bool:
        """A step is over; returns whether what is left of a window has to be applied now: in the `last` step."""
        if self.calls:
            self.calls_per_step, self.calls = self.calls, 0
        return last and self.micro_batches > 0

    def window_ends(self, *, last: bool) -> bool:
        """Whether the call of `minimize` under way is the last of its window: that is full, or nothing can follow.

        In the last step of an epoch nothing follows the call that was the last one in the step before.
        """
        return self.micro_batches >= self.accumulate or (last and self.calls_per_step == self.calls)

    def state_dict(self) -> dict[str, Any]:
        """Counter, scaler and the accumulation that is under way, gradients included."""
        gradients = [p.grad for p in self.parameters] if self.micro_batches else []
        scaler = self.scaler.state_dict() if self.scaler is not None else None
        # Only where it is not what it would be taken for: states of version 0.1.0 have none.
        irregular = self.accumulate > 1 and self.calls_per_step != self._usual_calls()
        return ({"calls_per_step": self.calls_per_step} if irregular else {}) | {
            "updates": self.updates,
            "micro_batches": self.micro_batches,
            "elements": self.elements,
            "gradients": gradients,
            "scaler": scaler,
            "spikes": self.spikes.state_dict() if self.spikes is not None else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; the parameters have their restored shapes already."""
        self.updates = state["updates"]
        self.micro_batches = state["micro_batches"]
        self.elements = state["elements"]
        self.calls_per_step = state.get("calls_per_step", self._usual_calls())
        self._forget_step()
        for p in self.parameters:
            p.grad = None
        for p, gradient in zip(self.parameters, state["gradients"], strict=False):
            p.grad = None if gradient is None else gradient.to(p.device, copy=True)
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])
        if self.spikes is not None and state["spikes"] is not None:
            self.spikes.load_state_dict(state["spikes"])

    def _usual_calls(self) -> int | None:
        return 1 if self.updates or self.micro_batches else None

    def drop_gradients(self) -> None:
        """Forget the accumulation under way, and the calls of a step that does not count."""
        self._drop(self.parameters)
        self._forget_step()

    def _forget_step(self) -> None:
        """The step under way does not count: neither its calls, nor that its gradients were unscaled."""
        self.calls = 0
        if self.scaler is not None and self.scaler._scale is not None:
            self.scaler.update(self.scaler.get_scale())  # the same one: but now gradients may be unscaled again

    def _drop(self, parameters: list[Tensor]) -> None:
        for p in parameters:
            p.grad = None
        self.micro_batches, self.elements = 0, 0.0


def _entries(gradients: list[Tensor]) -> list[Tensor]:
    """The memory of gradients; of sparse ones, their values."""
    return [g._values() if g.is_sparse else g for g in gradients]
