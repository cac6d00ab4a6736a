"""One optimizer's updates: accumulate, `pre_update`, finite check, clip, update, EMA, count."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from treadle.engine.bad_steps import NonFiniteError, SpikeDetector
from treadle.engine.closures import Backup, needs_closure
from treadle.engine.ema import EMA
from treadle.engine.gradients import as_data, clip, entries, from_data, name_bad, resolve
from treadle.engine.optim import backpropagate, follow_groups, prefer_fused, take_step
from treadle.engine.part_sum import PartSum
from treadle.engine.settings import TrainerConfig
from treadle.engine.together import GradientSum
from treadle.errors import UsageError
from treadle.parallel import ALONE, World


class Updater:
    """One optimizer with everything that belongs to its updates: its counter, accumulation, clipping, scaler, EMAs.

    Args:
        name: the optimizer's attribute name on the trainer.
        optimizer: any torch optimizer.
        device: of the parameters.
        settings: accumulation, clipping, precision (fp16 has a `GradScaler`), fused kernels, and what counts as a bad
            step: unless that ends the run, the verdict on gradients is read at every update, wherever it is.
        world: the processes that make its updates together.
        asks: whether a command waits in this one.
        parts: what adds up the gradients of a batch's fixed parts, where it has some: in place of `together`.
    """

    def __init__(
        self,
        name: str,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        settings: TrainerConfig,
        world: World = ALONE,
        asks: Callable[[], bool] = lambda: False,
        parts: PartSum | None = None,
    ) -> None:
        self.name = name
        self.parts = parts
        self.together = GradientSum(world, asks) if world.size > 1 and parts is None else None
        """Where there are other processes: what adds their gradients to this one's."""
        self.weighs = settings.accumulate > 1 or world.size > 1 or parts is not None
        """Whether an update is made of several losses, each of which counts by its elements."""
        self.optimizer = optimizer
        self.needs_closure = needs_closure(optimizer)
        self.may_draw = not type(optimizer).__module__.startswith("torch.optim.")
        """Whether an update may have noise in it: those of torch's own optimizers have none."""
        self.accumulate = settings.accumulate
        self.clip(settings.clip_norm_of(name), settings.clip_value)
        self.finite_check = settings.finite_check
        self._may_fuse = settings.fused and optimizer.defaults.get("fused") is None
        self._skips = settings.on_bad_step == "skip"
        self.check_at_once = settings.on_bad_step != "stop" or device.type == "cpu"
        self.spikes = SpikeDetector(settings.spike) if settings.spike is not None else None
        self.scaler = torch.amp.GradScaler(device.type) if settings.precision == "fp16" else None
        self.emas: list[EMA] = []
        self.frozen: list[Tensor] = []
        """The parameters that get no update, while a person has frozen them."""
        self.updates = 0
        self.micro_batches = 0
        self.elements = 0.0
        self.calls = 0
        """Calls of `minimize` in the step under way."""
        self.calls_per_step: int | None = None
        """Calls in the last step that had any."""
        self._looked_at = -1
        """How many parameters there were when they were last looked at."""
        self._complex = False
        self._one = torch.ones((), device=device)
        self._found = torch.zeros((), device=device)
        self._bad_update = torch.full((), -1.0, device=device)

    def clip(self, norm: float | None, value: float | None) -> None:
        """Clip gradients to a norm, and by value, from now on; None does not."""
        self.clip_norm, self.clip_value = norm, value
        self.norms: dict[str, Tensor] = {}
        """Of the newest update's gradients, where they are clipped."""

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters of all groups, as they are now."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def backward(
        self, loss: Tensor, elements: float, inputs: Sequence[Tensor] | None, *, retain_graph: bool = False
    ) -> None:
        """Add the gradient of `loss`, weighted by `elements` where several losses make one update."""
        self.micro_batches += 1
        self.calls += 1
        self.elements += elements
        if self.scaler is not None and (self.together is not None or self.parts is not None):
            self._weigh_gradient(self.scaler.scale(loss), elements, inputs, retain_graph)
            return
        if self.weighs:
            loss = loss * elements
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        backpropagate(loss, inputs, retain_graph)

    def _weigh_gradient(
        self, loss: Tensor, elements: float, inputs: Sequence[Tensor] | None, retain_graph: bool
    ) -> None:
        """Weigh the gradient, which is a float32, and not the loss: so the fp16 on the way to it does not overflow.

        It is then as large there as in one process, for which the loss scale is the right one. What weighs nothing, the
        borrowed sample of another process, adds nothing, not even its overflow.
        """
        parameters = self.parameters
        before = [p.grad for p in parameters]
        for p in parameters:
            p.grad = None
        backpropagate(loss, inputs, retain_graph)
        for p, held in zip(parameters, before, strict=True):
            if p.grad is None or not elements:
                p.grad = held
                continue
            p.grad.mul_(elements)
            if held is not None:
                p.grad = held + p.grad

    def count(self, elements: float) -> None:
        """A loss over so many elements joins the window, whose gradient is there already."""
        self.micro_batches += 1
        self.calls += 1
        self.elements += elements

    def update(self, pre_update: Callable[[], None] | None) -> bool:
        """Turn the accumulated gradients into one update; returns whether there was one (fp16 may skip it).

        `pre_update` is called when the gradients are complete, and may change them; None where nobody listens. Raises
        NonFiniteError before any parameter changes.
        """
        parameters = self.parameters
        if self.together is not None:
            self._add_up(self.together, parameters)
        if len(parameters) != self._looked_at:  # not before the sums: all processes see the same gradients then
            self._look_at(parameters)
        if self.scaler is not None and self._overflowed(self.scaler):
            self._drop(parameters)
            return False
        mean = 1.0 / self.elements if self.weighs else 1.0
        self._complete(parameters, mean, pre_update, check=self.finite_check)
        try:
            if self.scaler is not None:
                self.scaler.step(self.optimizer)
                self.scaler.update()
            else:
                take_step(self.optimizer)
        except RuntimeError as error:
            self._explain(error)
            raise
        self._count(parameters)
        return True

    def _add_up(self, together: GradientSum, parameters: list[Tensor]) -> None:
        """Take in what the other processes have: their gradients and elements, and what is bad about their losses."""
        window = together.add_up(parameters, self.elements)
        self.elements = window.elements
        if self.spikes is not None:
            self.spikes.check(window.loss)

    def update_by(self, evaluate: Callable[[bool], Tensor], pre_update: Callable[[], None] | None) -> None:
        """One update by an optimizer that evaluates the loss itself, as often as it wants.

        `evaluate` computes the loss and adds its gradient; it is told whether it is the first time, at the parameters
        as they are. That evaluation has to be finite, and so have the parameters that the update ends with; what lies
        between, a line search that goes too far, is the optimizer's business. Raises NonFiniteError with the
        parameters as they were.
        """
        parameters = self.parameters
        self._look_at(parameters, closure=True)
        backup = Backup(self.optimizer, parameters, state=self._skips) if self.finite_check else None
        lazy = any(map(is_lazy, parameters))
        norms: dict[str, Tensor] = {}
        evaluations = 0

        def closure() -> Any:
            nonlocal evaluations, norms, backup
            first = evaluations == 0
            evaluations += 1
            self._drop(parameters)
            torch.clear_autocast_cache()  # it holds casts of the weights as they were at the evaluation before
            loss = evaluate(first)
            if lazy and first and backup is not None:  # now they have a shape, and entries
                backup = Backup(self.optimizer, parameters, state=self._skips)
            self._complete(parameters, 1.0, pre_update, check=self.finite_check and first)
            if first:
                norms = self.norms
            if isinstance(self.optimizer, torch.optim.LBFGS):  # which lays them end to end by views
                for p in parameters:
                    if p.grad is not None and not p.grad.is_sparse:
                        p.grad = p.grad.contiguous()
            return loss

        self.optimizer.step(closure)
        if not evaluations:
            raise UsageError(f"{self.name!r} ({type(self.optimizer).__name__}) never evaluated its closure")
        if backup is not None and not all(bool(torch.isfinite(p).all()) for p in parameters):
            backup.restore()
            raise NonFiniteError(f"{self.name!r} made a parameter NaN or Inf in {evaluations} evaluations of the loss")
        self.norms = norms
        self._count(parameters)

    def _complete(
        self, parameters: list[Tensor], mean: float, pre_update: Callable[[], None] | None, *, check: bool
    ) -> None:
        """From what backward left to what the update takes: mean, `pre_update`, finite check, clipping."""
        if self._complex:
            resolve(parameters)
        gradients = [gradient for p in parameters if (gradient := p.grad) is not None]
        if not gradients:
            raise UsageError(
                f"the loss reaches no parameter of {self.name!r}: compute it from the parameters that it updates"
            )
        # Where nobody looks at the gradients in between, taking their mean and checking them is one pass over memory.
        if check and self.scaler is None and pre_update is None:
            self._mean_and_check(gradients, mean)
        elif mean != 1.0:
            torch._foreach_mul_(entries(gradients, complex_too=self._complex), mean)
        if pre_update is not None:
            pre_update()
            self._lay_out_gradients(parameters)
            # Before clipping, so that the right gradient is named: clipping makes NaN of all, or hides an Inf.
            if check:
                self._mean_and_check([p.grad for p in parameters if p.grad is not None], 1.0)
        if self.frozen:  # optimizers leave alone what has no gradient: the parameter, and its moments
            for p in self.frozen:
                p.grad = None
        if self.clip_norm is not None or self.clip_value is not None:
            self.norms = clip(parameters, self.clip_norm, self.clip_value, complex_too=self._complex)

    def _count(self, parameters: list[Tensor]) -> None:
        """The parameters have been updated: gradients are done with, averages follow."""
        # Autocast keeps its casts of weights until the step ends: what comes after must not meet those of before.
        torch.clear_autocast_cache()
        self._drop(parameters)
        self.updates += 1
        for ema in self.emas:
            ema.update()

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

    def _look_at(self, parameters: list[Tensor], *, closure: bool = False) -> None:
        """Before the first update, when it can be seen whether gradients are sparse; again when parameters join."""
        if self.needs_closure and not closure:
            raise UsageError(
                f"{self.name!r} ({type(self.optimizer).__name__}) evaluates the loss several times an update: give "
                "minimize a function that computes it, e.g. self.minimize(lambda: loss(self.model(x), y))"
            )
        self._complex = any(p.is_complex() for p in parameters)
        if self._complex and self.scaler is not None:
            raise UsageError(f"{self.name!r} has complex parameters, which fp16 cannot scale: set precision='bf16'")
        if closure:
            return
        self._looked_at = len(parameters)
        if self._may_fuse and not prefer_fused(self.optimizer):
            follow_groups(self.optimizer)
        # Only a fused kernel can be told, on the device, to skip its update.
        self.check_at_once |= not all(group.get("fused") for group in self.optimizer.param_groups)

    def _explain(self, error: RuntimeError) -> None:
        """Raise UsageError where the optimizer takes no sparse gradients, or no others."""
        if "support" in str(error) and "gradients" in str(error):
            remedy = "build one optimizer from the sparse parameters (SparseAdam, SGD), another from the dense ones"
            if "fused" in str(error):
                remedy = "build it with fused=False, since the first update could not see that some are sparse"
            kind = type(self.optimizer).__name__
            raise UsageError(f"{self.name!r} ({kind}) cannot take these gradients: {error}; {remedy}") from error

    def _mean_and_check(self, gradients: list[Tensor], mean: float) -> None:
        """Multiply the gradients by `mean` and look for NaN and Inf in the same pass over memory.

        The kernel is the one behind `torch.amp.GradScaler`. On a CPU its verdict is read at once (3 us); elsewhere it
        stays on the device until `check_device`, because reading it would make every step wait for the device.
        """
        flat = entries(gradients, complex_too=self._complex)
        if mean != 1.0 and any(g.dtype == torch.float64 for g in flat):
            torch._foreach_mul_(flat, mean)  # the kernel's factor is a float32
            mean = 1.0
        inverse = self._one if mean == 1.0 else torch.full_like(self._one, mean)
        torch._amp_foreach_non_finite_check_and_unscale_(flat, self._found, inverse)
        if self.check_at_once or self.scaler is not None:
            if self._found.item():
                self._found.zero_()
                raise NonFiniteError(name_bad(self.optimizer, self.name))
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

    def take_running(self) -> dict[str, Any]:
        """What this process has of the accumulation under way, which then is empty but for its count."""
        loss, bad = ("", "") if self.together is None else (self.together.loss, self.together.bad)
        gradients = [as_data(p.grad) for p in self.parameters] if self.micro_batches else []
        taken = {"elements": self.elements, "loss": loss or 0.0, "bad": bad, "gradients": gradients}
        count = self.micro_batches
        self._drop(self.parameters)
        self.micro_batches = count
        return taken

    def add_running(self, taken: Mapping[str, Any]) -> None:
        """Add what `take_running` gave."""
        self.elements += taken["elements"]
        if self.together is not None:
            self.together.loss += taken["loss"]
            self.together.bad = self.together.bad or taken["bad"]
        for p, saved in zip(self.parameters, taken["gradients"], strict=False):
            gradient = from_data(saved, p.device)
            if gradient is not None:
                p.grad = gradient if p.grad is None else p.grad + gradient

    def state_dict(self) -> dict[str, Any]:
        """Counter, scaler and the accumulation that is under way, gradients included."""
        gradients = [as_data(p.grad) for p in self.parameters] if self.micro_batches else []
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
        parameters = self.parameters
        self._drop(parameters)
        self._looked_at = -1  # its groups may be those of before the first update
        self.updates = state["updates"]
        self.micro_batches = state["micro_batches"]
        self.elements = state["elements"]
        self.calls_per_step = state.get("calls_per_step", self._usual_calls())
        self._forget_step()
        for p, gradient in zip(parameters, state["gradients"], strict=False):
            p.grad = from_data(gradient, p.device)
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
        if self.together is not None:
            self.together.forget()
        if self.parts is not None:
            self.parts.drop()
