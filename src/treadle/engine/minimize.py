"""How a loss changes parameters: scale, accumulate, backward, then the update of each optimizer (see `Updater`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from treadle.data.random import RandomStreams
from treadle.engine.bad_steps import NonFiniteError
from treadle.engine.dispatch import Dispatcher
from treadle.engine.fixed_parts import FixedParts
from treadle.engine.frozen import Frozen
from treadle.engine.loss import as_loss, check_finite
from treadle.engine.lr import LearningRate
from treadle.engine.part_sum import PartSum
from treadle.engine.parts import Parts
from treadle.engine.progress import Progress
from treadle.engine.settings import TrainerConfig
from treadle.engine.together import GradientSum
from treadle.engine.updater import Updater
from treadle.errors import UsageError, nearest
from treadle.parallel import ALONE, World


def _what_is_bad(first: Updater, total: Tensor, terms: Mapping[str, Tensor], elements: float) -> str:
    """What a loss that others wait for has that is NaN or Inf; empty where nothing, or where that is not asked."""
    if elements and first.finite_check and first.check_at_once:
        try:
            check_finite(total, terms)
        except NonFiniteError as error:
            return str(error)
    return ""


def check_closures(settings: TrainerConfig, world: World) -> None:
    """Raise UsageError where the settings ask for what an optimizer that evaluates the loss itself cannot do."""
    if world.size > 1 or settings.parts is not None:
        raise UsageError(
            "an optimizer that evaluates the loss itself (a closure, LBFGS) does so on whole batches: train it in one "
            "process and without parts"
        )
    if settings.accumulate > 1:
        raise UsageError(
            f"accumulate is {settings.accumulate}, but a closure evaluates the loss of one batch, anew at every call: "
            "set accumulate=1, and take larger batches"
        )
    if settings.precision == "fp16":
        raise UsageError("precision is fp16, whose loss scale may not change within a closure: set precision='bf16'")


class Minimizer:
    """All updaters of a run, and what `Trainer.minimize` does with them.

    Args:
        settings: accumulation, clipping, precision, and what counts as a bad step.
        parts: where optimizers, learning rates and averages are found.
        device: of the parameters.
        events: told of `pre_update`.
        log: takes a scalar for the training metrics.
        elements: how many elements the batch under way has.
        last_step: whether the epoch or the run ends with the step under way: no micro-batch can follow.
        world: the processes that make the updates together.
        borrowed: whether the batch under way holds nothing of this process's own.

    Attributes:
        fixed: what takes steps part by part, where the settings say `parts`.
    """

    def __init__(
        self,
        settings: TrainerConfig,
        parts: Parts,
        device: torch.device,
        events: Dispatcher,
        log: Callable[[str, Any], None],
        elements: Callable[[], float],
        last_step: Callable[[], bool],
        world: World = ALONE,
        borrowed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings, self._parts, self._device, self._events = settings, parts, device, events
        self._log, self._elements, self._last_step = log, elements, last_step
        self._world, self._borrowed = world, borrowed
        self.asks: Callable[[], bool] = lambda: False
        """Whether a command waits in this process: the others hear of it with the next gradients."""
        self.fixed: FixedParts | None = None
        self.own_streams: RandomStreams | None = None
        """What `step` draws from, where there are several processes, each of which has streams of its own there."""
        self.updaters: dict[str, Updater] = {}
        self._by_id: dict[int, Updater] = {}
        self._rates: list[tuple[LearningRate, str]] = []
        self._strays: list[Tensor] = []
        """Parameters that no optimizer has, and that get gradients all the same."""
        self._multipliers: dict[str, float] = {}
        self.frozen = Frozen(parts)

    def adopt(self) -> None:
        """Take the optimizers, learning rates and averages that there are; those known before keep their counters."""
        self._parts.check_optimizers()
        self.updaters = {}
        for name, optimizer in self._parts.optimizers.items():
            known = self._by_id.get(id(optimizer))
            if known is not None:
                known.name = name
                known.clip(self._settings.clip_norm_of(name), self._settings.clip_value)
            self.updaters[name] = known or Updater(
                name, optimizer, self._device, self._settings, self._world, lambda: self.asks(), self._part_sum()
            )
            if self.updaters[name].needs_closure:
                check_closures(self._settings, self._world)
        self._by_id = {id(updater.optimizer): updater for updater in self.updaters.values()}
        self._rates = []
        for rate in self._parts.rates.values():
            owner = self._by_id.get(id(rate.optimizer))
            if owner is None:
                raise UsageError("a LearningRate's optimizer is no attribute of the trainer: make it one")
            self._rates.append((rate, owner.name))
        if self._rates:
            self._refuse_other_schedules()
        held = {id(p) for updater in self.updaters.values() for p in updater.parameters}
        parameters = self._parts.all_parameters().values()
        self._strays = [p for p in parameters if p.requires_grad and id(p) not in held]
        for updater in self.updaters.values():
            held = {id(p) for p in updater.parameters}
            averages = self._parts.emas.values()
            updater.emas = [ema for ema in averages if any(id(p) in held for p in ema.parameters())]
        self.frozen.adopt(self.updaters)

    def _part_sum(self) -> PartSum | None:
        count = self._settings.parts
        return None if count is None else PartSum(self._world, lambda: self.asks(), count)

    def _refuse_other_schedules(self) -> None:
        """Raise UsageError where one of torch's schedulers sets the rates that a `LearningRate` sets, too."""
        scheduled = {id(rate.optimizer): owner for rate, owner in self._rates}
        for name, item in self._parts.walk():
            if isinstance(item, torch.optim.lr_scheduler.LRScheduler):
                owner = scheduled.get(id(getattr(item, "optimizer", None)))
                if owner is not None:
                    raise UsageError(
                        f"self.{name} ({type(item).__name__}) and a LearningRate both set the rates of "
                        f"self.{owner}: keep one of them"
                    )

    def check_names(self, settings: TrainerConfig | None = None) -> None:
        """Raise UsageError where `clip_norm`, of these `settings` or its own, names an optimizer that there is not."""
        named = (settings or self._settings).clip_norm
        for name in named if isinstance(named, dict) else ():
            if name not in self.updaters:
                raise UsageError(
                    f"clip_norm.{name}: the trainer has no optimizer {name!r}{nearest(name, self.updaters)}"
                )

    def of(self, optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None) -> list[Updater]:
        """The updaters of one or several optimizers; None means the only one. Raises UsageError otherwise."""
        parts = self._parts
        if parts.stale or (parts.watched and parts.changed()):
            parts.find()
            self.adopt()
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
            self._parts.find()  # it may have come inside a list or a dict
            self.adopt()
        try:
            return [self._by_id[id(item)] for item in chosen]
        except KeyError:
            raise UsageError("minimize got an optimizer that is no attribute of the trainer: make it one") from None

    def minimize(self, loss: Any, optimizer: Any, elements: float | None, *, retain_graph: bool = False) -> bool:
        """See `Trainer.minimize`."""
        if type(loss) is not Tensor and callable(loss):
            return self._minimize_by(loss, self.of(optimizer), retain_graph)
        total, terms = as_loss(loss)
        updaters = self.of(optimizer)
        first = updaters[0]
        if elements is None:
            elements = self._elements() if first.weighs else 1
        if self._settings.parts is not None:
            return self._take_part(updaters, total, terms, elements, retain_graph)
        if first.together is not None:
            elements = self._note_loss(first.together, first, total, terms, elements)
        else:
            if first.finite_check and first.check_at_once:
                check_finite(total, terms)
            if first.spikes is not None:
                first.spikes.check(total.item())
        inputs = self._inputs(updaters) if len(self.updaters) > 1 else None
        if self._strays:
            self._clear_strays(first)
        if torch.is_autocast_enabled(self._device.type):
            # What `step` computes is cast; its gradients, `pre_update` and the optimizer's own arithmetic are not.
            with torch.autocast(self._device.type, enabled=False):
                return self._take(updaters, total, elements, inputs, retain_graph)
        return self._take(updaters, total, elements, inputs, retain_graph)

    def _note_loss(
        self, together: GradientSum, first: Updater, total: Tensor, terms: Mapping[str, Tensor], elements: float
    ) -> float:
        """Have a loss judged with those of the other processes, when their gradients meet; returns what it weighs.

        Raised here, an error would leave the others waiting. A batch of another process's sample weighs nothing.
        """
        elements = 0.0 if self._borrowed() else elements
        bad = _what_is_bad(first, total, terms, elements)
        if first.spikes is not None or bad:
            together.note(total.item(), elements, bad)
        return elements

    def _take_part(
        self, updaters: list[Updater], total: Tensor, terms: Mapping[str, Tensor], elements: float, retain_graph: bool
    ) -> bool:
        """Put the gradients of a part's loss to those of the others; returns whether all of them made an update."""
        fixed, first = self.fixed, updaters[0]
        if fixed is None or fixed.current is None:
            raise UsageError("with parts, minimize is called in step: nobody else has the batch part by part")
        if len(updaters) > 1 and first.scaler is not None:
            raise UsageError("fp16 scales each optimizer's loss by itself: call minimize once per optimizer")
        elements = 0.0 if fixed.borrowed else elements
        bad = _what_is_bad(first, total, terms, elements)
        loss = total.item() if first.spikes is not None or bad else 0.0
        held = [p for updater in updaters for p in updater.parameters] + self._strays
        before = [p.grad for p in held]
        for p in held:
            p.grad = None
        window = first.micro_batches, first.calls, first.elements
        with torch.autocast(self._device.type, enabled=False):
            first.backward(
                total, elements, self._inputs(updaters) if len(self.updaters) > 1 else None, retain_graph=retain_graph
            )
        # All parts of a batch are one loss, which joins the window when they are complete.
        first.micro_batches, first.calls, first.elements = window
        for updater in updaters:
            assert updater.parts is not None
            updater.parts.put(fixed.current, updater.parameters, elements, loss, bad if updater is first else "")
        for p, gradient in zip(held, before, strict=True):
            p.grad = gradient
        del total, terms  # they would hold the part's graph until all others are through
        return fixed.wait(tuple(updater.name for updater in updaters))

    def complete(self, names: Sequence[str]) -> bool:
        """All parts of a batch have put in gradients for these optimizers; returns whether that made an update."""
        updaters = [self.updaters[name] for name in names]
        first = updaters[0]
        windows = []
        for updater in updaters:
            assert updater.parts is not None
            windows.append(updater.parts.take())
        if first.spikes is not None:
            first.spikes.check(windows[0].loss)
        for updater in updaters:
            assert updater.parts is not None
            updater.parts.give(updater.parameters)
            updater.count(windows[0].elements)
        if first.micro_batches < first.accumulate and not first.window_ends(last=self._last_step()):
            return False
        with torch.autocast(self._device.type, enabled=False):
            return self._update(updaters)

    def _take(
        self,
        updaters: list[Updater],
        total: Tensor,
        elements: float,
        inputs: Sequence[Tensor] | None,
        retain_graph: bool,
    ) -> bool:
        """Take in the gradients of a loss; returns whether they completed a window, and made an update."""
        self._backward(updaters, total, elements, inputs, retain_graph)
        first = updaters[0]
        if first.micro_batches < first.accumulate and not first.window_ends(last=self._last_step()):
            return False
        return self._update(updaters) if self.own_streams is None else self._update_alike(self.own_streams, updaters)

    def _update_alike(self, own: RandomStreams, updaters: list[Updater]) -> bool:
        """Update within a step that draws what no other process does: `pre_update`, and the optimizer, draw alike."""
        if self._events.listens("pre_update") or any(updater.may_draw for updater in updaters):
            with own.outside():
                return self._update(updaters)
        return self._update(updaters)

    def _minimize_by(self, closure: Callable[[], Any], updaters: list[Updater], retain_graph: bool) -> bool:
        """One update by an optimizer that evaluates the loss itself; `closure` computes it."""
        check_closures(self._settings, self._world)
        if len(updaters) > 1:
            raise UsageError("a closure is evaluated by one optimizer: call minimize once for each")
        (updater,) = updaters
        inputs = self._inputs(updaters) if len(self.updaters) > 1 else None
        kind = self._device.type
        dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)

        def evaluate(first: bool) -> Tensor:
            with torch.enable_grad(), torch.autocast(kind, dtype=dtype, enabled=enabled):
                total, terms = as_loss(closure())
            if first and updater.finite_check:
                check_finite(total, terms)
            if first and updater.spikes is not None:
                updater.spikes.check(total.item())
            self._clear_strays(updater)
            updater.backward(total, 1, inputs, retain_graph=retain_graph)
            return total.detach()

        listened = self._events.listens("pre_update")
        before = partial(self._events.fire, "pre_update", updater.optimizer) if listened else None
        with torch.autocast(kind, enabled=False):
            updater.update_by(evaluate, before)
        self._log_norms(updater)
        return True

    def _clear_strays(self, updater: Updater) -> None:
        """Before a window's first backward pass: a parameter that joins an optimizer must not bring the sum of all."""
        if updater.micro_batches == 0:
            for p in self._strays:
                p.grad = None

    def _inputs(self, updaters: Sequence[Updater]) -> list[Tensor]:
        """With opponents about, only the parameters of the optimizers at hand may receive gradients."""
        return [p for u in updaters for p in u.parameters if p.requires_grad]

    def take_asked(self) -> tuple[bool, bool]:
        """Since this was asked last: whether gradients were added up, and whether a command waited in any process."""
        both = [each for updater in self.updaters.values() for each in (updater.together, updater.parts)]
        sums = [each for each in both if each is not None]
        met, asked = any(each.met for each in sums), any(each.asked for each in sums)
        for each in sums:
            each.met = each.asked = False
        return met, asked

    def end_step(self) -> None:
        """`step` has returned: close the windows that the last step of an epoch, or of the run, leaves open."""
        last = self._last_step()
        self._update([updater for updater in self.updaters.values() if updater.end_step(last=last)])

    def _update(self, updaters: Sequence[Updater]) -> bool:
        listened = self._events.listens("pre_update")
        updated = False
        for updater in updaters:
            before = partial(self._events.fire, "pre_update", updater.optimizer) if listened else None
            updated |= updater.update(before)
            if updater.norms:
                self._log_norms(updater)
        return updated

    def _log_norms(self, updater: Updater) -> None:
        for name, norm in updater.norms.items():
            self._log(self._prefix(updater.name) + name, norm)

    def _backward(
        self,
        updaters: list[Updater],
        loss: Tensor,
        elements: float,
        inputs: Sequence[Tensor] | None,
        retain_graph: bool,
    ) -> None:
        first, *others = updaters
        if others and first.scaler is not None:
            raise UsageError("fp16 scales each optimizer's loss by itself: call minimize once per optimizer")
        first.backward(loss, elements, inputs, retain_graph=retain_graph)
        for other in others:
            other.micro_batches, other.elements, other.calls = first.micro_batches, first.elements, first.calls

    def apply_learning_rates(self, progress: Progress) -> None:
        """Set the groups' learning rates for the coming step."""
        for rate, name in self._rates:
            rate.apply(progress, self._multipliers.get(name, 1.0))

    def multiplier(self, name: str) -> float:
        """By what the learning rates of optimizer `name` are multiplied. Raises UsageError for an unknown name."""
        if name not in self.updaters:
            raise UsageError(f"no optimizer {name!r}{nearest(name, self.updaters)}")
        return self._multipliers.get(name, 1.0)

    def set_multiplier(self, name: str, value: float) -> float:
        """Multiply the learning rates of optimizer `name` by `value` from now on; returns the multiplier before.

        Raises UsageError for a name that no optimizer has.
        """
        before = self.multiplier(name)
        if value == before:
            return before
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
