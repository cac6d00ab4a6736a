"""How a loss changes parameters: scale, accumulate, backward, clip, finite check, update, EMA, count."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from treadle.engine.attributes import check_optimizers, find
from treadle.engine.bad_steps import NonFiniteError, SpikeDetector
from treadle.engine.ema import EMA
from treadle.engine.lr import LearningRate
from treadle.engine.objective import Losses
from treadle.engine.optim import prefer_fused, take_step
from treadle.errors import UsageError

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer


class Updater:
    """One optimizer with everything that belongs to its updates: its counter, accumulation, clipping, scaler, EMAs.

    Args:
        name: the optimizer's attribute name on the trainer.
        optimizer: any torch optimizer.
        accumulate: calls of `minimize` per update.
        clip_norm, clip_value: see TrainerConfig; None does not clip.
        scale: use a `GradScaler` (fp16).
        finite_check: refuse non-finite losses and gradients.
        fuse: let the optimizer use torch's fused kernels where its author has not chosen otherwise.
        check_at_once: read the verdict on gradients at every update, also where that waits for the device.
        spike: standard deviations above the mean of recent losses that make a loss a spike; None does not look.
    """

    def __init__(
        self,
        name: str,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        *,
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        scale: bool = False,
        finite_check: bool = True,
        fuse: bool = False,
        check_at_once: bool = False,
        spike: float | None = None,
    ) -> None:
        self.name = name
        self.optimizer = optimizer
        self.device = device
        self.accumulate = accumulate
        self.clip_norm = clip_norm
        self.clip_value = clip_value
        self.finite_check = finite_check
        self.fuse = fuse
        self.check_at_once = check_at_once or device.type == "cpu"
        self.spikes = SpikeDetector(spike) if spike is not None else None
        self.scaler = torch.amp.GradScaler(device.type) if scale else None
        self.emas: list[EMA] = []
        self.updates = 0
        self.micro_batches = 0
        self.elements = 0.0
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
        self.elements += elements
        if self.accumulate > 1:
            loss = loss * elements
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        torch.autograd.backward(loss, inputs=inputs)

    def update(self, pre_update: Callable[[], None]) -> None:
        """Turn the accumulated gradients into one update. Raises NonFiniteError before any parameter changes."""
        parameters = self.parameters
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            raise UsageError(
                f"the loss reaches no parameter of {self.name!r}: compute it from the parameters that it updates"
            )
        if self.fuse:
            self._choose_kernels()
        mean = 1.0 / self.elements if self.accumulate > 1 else 1.0
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
            if mean != 1.0:
                torch._foreach_mul_(gradients, mean)
        elif self.finite_check:
            self._mean_and_check(gradients, mean)
        elif mean != 1.0:
            torch._foreach_mul_(gradients, mean)
        pre_update()
        if self.clip_norm is not None or self.clip_value is not None:
            self._clip(parameters)
        if self.scaler is not None:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            take_step(self.optimizer)
        # Autocast keeps its casts of weights until the step ends: what comes after must not meet those of before.
        torch.clear_autocast_cache()
        self.drop_gradients()
        self.updates += 1
        for ema in self.emas:
            ema.update()

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
        inverse = self._one if mean == 1.0 else torch.full_like(self._one, mean)
        dense = [g for g in gradients if not g.is_sparse]
        torch._amp_foreach_non_finite_check_and_unscale_(dense, self._found, inverse)
        if self.check_at_once:
            if self._found.item():
                self._found.zero_()
                raise NonFiniteError(self._name_gradient())
        else:
            first = (self._found > 0) & (self._bad_update < 0)
            self._bad_update = torch.where(first, float(self.updates), self._bad_update)
            # torch's fused optimizers skip their update, on the device, where this flag is set.
            self.optimizer.found_inf = self._found  # type: ignore[attr-defined]
            self.optimizer.grad_scale = None  # type: ignore[attr-defined]

    def check_device(self) -> None:
        """Read the device's verdict on all gradients so far; raises NonFiniteError naming the first bad update."""
        if not self.check_at_once and self.finite_check and self.scaler is None:
            bad = int(self._bad_update.item())
            if bad >= 0:
                raise NonFiniteError(f"a gradient of {self.name!r} is NaN or Inf at its update {bad}")

    def _name_gradient(self) -> str:
        for group_index, group in enumerate(self.optimizer.param_groups):
            for index, p in enumerate(group["params"]):
                if p.grad is not None and not bool(torch.isfinite(p.grad).all()):
                    kind = "NaN" if bool(torch.isnan(p.grad).any()) else "Inf"
                    where = f"parameter {index} of group {group.get('name', group_index)!r}, shape {tuple(p.shape)}"
                    return f"the gradient of {where} ({self.name!r}) is {kind}"
        return f"a gradient of {self.name!r} is NaN or Inf"

    def _clip(self, parameters: list[Tensor]) -> None:
        """Clip by value, then by norm; keeps the norm before and after for the log."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        before = norm = torch.nn.utils.get_total_norm(gradients)
        if self.clip_value is not None:
            torch.nn.utils.clip_grad_value_(parameters, self.clip_value)
            norm = torch.nn.utils.get_total_norm(gradients)
        if self.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
            norm = norm * torch.clamp(self.clip_norm / (norm + 1e-6), max=1.0)
        self.norms = {"grad_norm": before, "grad_norm_clipped": norm}

    def state_dict(self) -> dict[str, Any]:
        """Counter, scaler and the accumulation that is under way, gradients included."""
        gradients = [p.grad for p in self.parameters] if self.micro_batches else []
        scaler = self.scaler.state_dict() if self.scaler is not None else None
        return {
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
        for p in self.parameters:
            p.grad = None
        for p, gradient in zip(self.parameters, state["gradients"], strict=False):
            p.grad = None if gradient is None else gradient.to(p.device, copy=True)
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])
        if self.spikes is not None and state["spikes"] is not None:
            self.spikes.load_state_dict(state["spikes"])

    def drop_gradients(self) -> None:
        """Forget the accumulation under way."""
        for p in self.parameters:
            p.grad = None
        self.micro_batches, self.elements = 0, 0.0


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
    if math.isfinite(total.item()):
        return
    for name, value in terms.items():
        number = value.item()
        if not math.isfinite(number):
            raise NonFiniteError(f"loss term {name!r} is {number}")
    raise NonFiniteError(f"the loss is {total.item()}")


class Minimizer:
    """All updaters of a trainer, and what `Trainer.minimize` does with them."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self.updaters: dict[str, Updater] = {}
        self._by_id: dict[int, Updater] = {}
        self._rates: list[tuple[LearningRate, str]] = []
        self._multipliers: dict[str, float] = {}

    def adopt(self) -> None:
        """Find the trainer's optimizers, learning rates and averages; those already known keep their counters."""
        trainer, config = self._trainer, self._trainer.config
        optimizers = find(trainer, torch.optim.Optimizer)
        check_optimizers(trainer, optimizers)
        for name, optimizer in optimizers.items():
            if id(optimizer) in self._by_id:
                continue
            self.updaters[name] = self._by_id[id(optimizer)] = Updater(
                name,
                optimizer,
                trainer.device,
                accumulate=config.accumulate,
                clip_norm=config.clip_norm,
                clip_value=config.clip_value,
                scale=config.precision == "fp16",
                finite_check=config.finite_check,
                fuse=config.fused,
                check_at_once=config.on_bad_step != "stop",
                spike=config.spike,
            )
        self._rates = []
        for rate in find(trainer, LearningRate).values():
            owner = self._by_id.get(id(rate.optimizer))
            if owner is None:
                raise UsageError("a LearningRate's optimizer is no attribute of the trainer: make it one")
            self._rates.append((rate, owner.name))
        for ema in find(trainer, EMA).values():
            averaged = {id(p) for p in ema.parameters()}
            for updater in self.updaters.values():
                if ema not in updater.emas and any(id(p) in averaged for p in updater.parameters):
                    updater.emas.append(ema)

    def of(self, optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None) -> list[Updater]:
        """The updaters of one or several optimizers; None means the only one. Raises UsageError otherwise."""
        if optimizer is None:
            if len(self.updaters) == 1:
                return list(self.updaters.values())
            if not self.updaters:
                raise UsageError("the trainer has no optimizer: make one in setup, e.g. self.optimizer = ...")
            names = ", ".join(f"self.{name}" for name in self.updaters)
            count = len(self.updaters)
            raise UsageError(f"the trainer has {count} optimizers ({names}): say minimize(loss, optimizer)")
        chosen = optimizer if isinstance(optimizer, Sequence) else (optimizer,)
        if any(id(item) not in self._by_id for item in chosen):
            self.adopt()
        try:
            return [self._by_id[id(item)] for item in chosen]
        except KeyError:
            raise UsageError("minimize got an optimizer that is no attribute of the trainer: make it one") from None

    def minimize(self, loss: Any, optimizer: Any, elements: float | None) -> bool:
        """See `Trainer.minimize`."""
        trainer, config = self._trainer, self._trainer.config
        total, terms = as_loss(loss)
        updaters = self.of(optimizer)
        if config.finite_check and updaters[0].check_at_once:
            check_finite(total, terms)
        if updaters[0].spikes is not None:
            updaters[0].spikes.check(total.item())
        if elements is None:
            elements = trainer.elements(trainer.batch) if config.accumulate > 1 and trainer.batch is not None else 1
        # With opponents about, only the parameters of the optimizers at hand may receive gradients.
        several = len(self.updaters) > 1
        inputs = [p for u in updaters for p in u.parameters if p.requires_grad] if several else None
        if torch.is_autocast_enabled(trainer.device.type):
            with torch.autocast(trainer.device.type, enabled=False):
                self._backward(updaters, total, elements, inputs)
        else:
            self._backward(updaters, total, elements, inputs)
        if updaters[0].micro_batches < config.accumulate and not trainer._last_of_window:
            return False
        for updater in updaters:
            updater.update(partial(trainer.fire, "pre_update", updater.optimizer))
            for name, norm in updater.norms.items():
                trainer.log(self._prefix(updater.name) + name, norm)
        return True

    def _backward(
        self, updaters: list[Updater], loss: Tensor, elements: float, inputs: Sequence[Tensor] | None
    ) -> None:
        first, *others = updaters
        if others and first.scaler is not None:
            raise UsageError("fp16 scales each optimizer's loss by itself: call minimize once per optimizer")
        first.backward(loss, elements, inputs)
        for other in others:
            other.micro_batches, other.elements = first.micro_batches, first.elements

    def apply_learning_rates(self) -> None:
        """Set the groups' learning rates for the coming step."""
        for rate, name in self._rates:
            rate.apply(self._trainer.progress, self._multipliers.get(name, 1.0))

    def set_multiplier(self, name: str, value: float) -> float:
        """Multiply the learning rates of optimizer `name` by `value` from now on; returns the multiplier before."""
        before = self._multipliers.get(name, 1.0)
        optimizer = self.updaters[name].optimizer
        scheduled = {rate.group for rate, owner in self._rates if owner == name}
        for group in optimizer.param_groups:
            if None not in scheduled and group.get("name") not in (scheduled - {None}):
                # Nobody sets this rate anew each step, and others (torch's schedulers) may change it meanwhile.
                unmultiplied = group["lr"] / before if before else group.pop("lr_before_zero")
                group["lr"] = unmultiplied * value
                if value == 0:
                    group["lr_before_zero"] = unmultiplied
        self._multipliers[name] = value
        return before

    def learning_rates(self) -> dict[str, float]:
        """Current learning rates, named "lr", "lr.<group>", with several optimizers "<optimizer>.lr" and so on."""
        rates: dict[str, float] = {}
        for name, updater in self.updaters.items():
            groups = updater.optimizer.param_groups
            for index, group in enumerate(groups):
                tail = f".{group.get('name', index)}" if len(groups) > 1 else ""
                rates[f"{self._prefix(name)}lr{tail}"] = float(group["lr"])
        return rates

    def _prefix(self, name: str) -> str:
        return f"{name}." if len(self.updaters) > 1 else ""

    def drop_gradients(self) -> None:
        """Forget all accumulations under way."""
        for updater in self.updaters.values():
            updater.drop_gradients()

    def check_device(self) -> None:
        """Read the verdict on gradients that waits on the device; see `Updater.check_device`."""
        for updater in self.updaters.values():
            updater.check_device()

    def state_dict(self) -> dict[str, Any]:
        """Per optimizer: its counters, scaler, pending accumulation and multiplier."""
        return {
            "updaters": {name: updater.state_dict() for name, updater in self.updaters.items()},
            "multipliers": dict(self._multipliers),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._multipliers = dict(state["multipliers"])
        for name, updater in self.updaters.items():
            updater.load_state_dict(state["updaters"][name])
