"""Hooks: objects that react to the events of a run, and the one place where events are dispatched."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar

from treadle.errors import UsageError

if TYPE_CHECKING:
    import torch

    from treadle.engine.trainer import Trainer

EVENTS = (
    "pre_training",
    "pre_epoch",
    "pre_step",
    "pre_update",
    "post_step",
    "post_epoch",
    "pre_validation",
    "post_validation",
    "post_training",
    "teardown",
    "on_exception",
    "on_save",
    "on_load",
    "on_log",
    "on_journal",
)


class Order(IntEnum):
    """Where a hook stands among the others: lower runs first; equal ones keep the order they were given in."""

    FIRST = 0
    EARLY = 25
    NORMAL = 50
    LATE = 75
    LAST = 100


@dataclass(frozen=True)
class Record:
    """Something logged, as sinks receive it.

    `kind` is "scalars" (value: dict of float), "image" (value: array (H, W, C), uint8 or float in [0, 1]) or
    "text" (value: str). `name` is the split for scalars ("train", "validation", "test"), else the thing's own name.
    """

    kind: str
    name: str
    value: Any
    step: int
    epoch: int


class Hook:
    """Reacts to events of a run. Override the methods you need; the others cost nothing.

    A hook that raises fails the run, unless it is an observer (`observer = True`): then it is reported, retried at a
    bounded rate and at last switched off, and the run goes on. `order` says where it stands among the hooks. A hook
    with state gives `state_dict()` and `load_state_dict()`, which are saved and restored with the run.

    Example:
        class Shout(Hook):
            def post_epoch(self, trainer):
                print("epoch", trainer.epoch, trainer.metrics)
    """

    order: ClassVar[int] = Order.NORMAL
    observer: ClassVar[bool] = False

    def pre_training(self, trainer: Trainer) -> None:
        """Before the first step of the run; not again on resume."""

    def pre_epoch(self, trainer: Trainer) -> None:
        """Before the first step of an epoch; not again when resumed inside it."""

    def pre_step(self, trainer: Trainer, batch: Any) -> None:
        """Before each step, with its batch."""

    def pre_update(self, trainer: Trainer, optimizer: torch.optim.Optimizer) -> None:
        """Inside `minimize`, when gradients are complete and unscaled, before clipping and the update."""

    def post_step(self, trainer: Trainer, batch: Any, outputs: Mapping[str, Any]) -> None:
        """After each step (already counted), with what `step` returned."""

    def post_epoch(self, trainer: Trainer) -> None:
        """After the last step of an epoch (already counted)."""

    def pre_validation(self, trainer: Trainer) -> None:
        """Before a pass over the validation data; modules are in eval mode."""

    def post_validation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """After a pass over the validation data, with its element-weighted means."""

    def post_training(self, trainer: Trainer) -> None:
        """After the last step and the validation of the final state."""

    def teardown(self, trainer: Trainer) -> None:
        """When the run is closed, whatever happened; exactly once."""

    def on_exception(self, trainer: Trainer, error: BaseException) -> None:
        """Once, when an error or interrupt ends the run, before `teardown`."""

    def on_save(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Before a checkpoint is written; what is put into `state` (plain data, tensors) is saved with it."""

    def on_load(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """After a checkpoint is restored, with what `on_save` had put into `state`."""

    def on_log(self, trainer: Trainer, record: Record) -> None:
        """For each thing logged: scalars at the log interval and after validation, images, text."""

    def on_journal(self, trainer: Trainer, entry: Mapping[str, Any]) -> None:
        """For each journal entry: what happened to the run, and what a person changed in it."""


class Events:
    """The trainer's own side of the events: methods to override, with `super()`, in a subclass. See `Hook`."""

    def pre_training(self) -> None:
        """Before the first step of the run; not again on resume."""

    def pre_epoch(self) -> None:
        """Before the first step of an epoch; not again when resumed inside it."""

    def pre_step(self, batch: Any) -> None:
        """Before each step, with its batch."""

    def pre_update(self, optimizer: torch.optim.Optimizer) -> None:
        """Inside `minimize`, when gradients are complete and unscaled, before clipping and the update."""

    def post_step(self, batch: Any, outputs: Mapping[str, Any]) -> None:
        """After each step (already counted), with what `step` returned."""

    def post_epoch(self) -> None:
        """After the last step of an epoch (already counted)."""

    def pre_validation(self) -> None:
        """Before a pass over the validation data; modules are in eval mode."""

    def post_validation(self, metrics: dict[str, float]) -> None:
        """After a pass over the validation data; metrics added here can be monitored."""

    def post_training(self) -> None:
        """After the last step and the validation of the final state."""

    def teardown(self) -> None:
        """When the run is closed, whatever happened; exactly once."""

    def on_exception(self, error: BaseException) -> None:
        """Once, when an error or interrupt ends the run, before `teardown`."""

    def on_save(self, state: dict[str, Any]) -> None:
        """Before a checkpoint is written; what is put into `state` (plain data, tensors) is saved with it."""

    def on_load(self, state: dict[str, Any]) -> None:
        """After a checkpoint is restored, with what `on_save` had put into `state`."""

    def on_log(self, record: Record) -> None:
        """For each thing logged."""

    def on_journal(self, entry: Mapping[str, Any]) -> None:
        """For each journal entry."""


FAILURES_ALLOWED = 5
"""Failures after which an observer is switched off; after the n-th, it is left alone for 2**(n-1) seconds."""


class Handler:
    """One hook (or the trainer itself) as the dispatcher sees it: its time, its failures, whether it still listens."""

    def __init__(self, name: str, observer: bool) -> None:
        self.name = name
        self.observer = observer
        self.seconds = 0.0
        self.failures = 0
        self.quiet_until = 0.0
        self.last_error = ""

    @property
    def off(self) -> bool:
        """Whether an observer has failed so often that it is no longer called."""
        return self.failures >= FAILURES_ALLOWED


class Dispatcher:
    """Calls everybody who overrides an event: the trainer's own method first, then the hooks by order.

    Who overrides what is found once, when the dispatcher is made: an event that nobody overrides costs one empty loop.
    """

    def __init__(self, trainer: Trainer, hooks: Sequence[Hook]) -> None:
        self._trainer = trainer
        self._table: dict[str, list[tuple[Handler, Callable[..., None]]]] = {event: [] for event in EVENTS}
        self.handlers: list[Handler] = []
        own = Handler(type(trainer).__name__, observer=False)
        _refuse_near_misses(type(trainer), Events)
        for event in EVENTS:
            if getattr(type(trainer), event) is not getattr(Events, event) or event in vars(trainer):
                self._table[event].append((own, getattr(trainer, event)))
        for hook in hooks:
            _refuse_near_misses(type(hook), Hook)
        for hook in sorted(hooks, key=lambda hook: hook.order):
            handler = Handler(type(hook).__name__, hook.observer)
            self.handlers.append(handler)
            for event in EVENTS:
                if getattr(type(hook), event) is not getattr(Hook, event):
                    self._table[event].append((handler, partial(getattr(hook, event), trainer)))

    def fire(self, event: str, *args: Any) -> None:
        """Call the handlers of `event` in order; a critical one's error passes on, an observer's is contained."""
        for handler, method in self._table[event]:
            start = perf_counter()
            if handler.failures and event != "teardown" and (handler.off or start < handler.quiet_until):
                continue
            try:
                method(*args)
            except Exception as error:
                if not handler.observer:
                    error.add_note(f"in {event} of {handler.name}, after step {self._trainer.progress.step}")
                    raise
                self._contain(handler, event, error)
            handler.seconds += perf_counter() - start

    def _contain(self, handler: Handler, event: str, error: Exception) -> None:
        """Count and report an observer's failure, and keep it quiet for a while, or for good."""
        handler.failures += 1
        handler.quiet_until = perf_counter() + 2.0 ** (handler.failures - 1)
        handler.last_error = f"{type(error).__name__}: {error}"
        fate = "switched off" if handler.off else f"failure {handler.failures} of {FAILURES_ALLOWED}"
        line = f"treadle: {handler.name}.{event} failed ({handler.last_error}); {fate}, the run goes on"
        print(line, file=sys.stderr)
        self._trainer.note("observer failed", observer=handler.name, event_name=event, error=handler.last_error)


def _refuse_near_misses(kind: type, base: type) -> None:
    """Raise UsageError for a method that looks like a misspelt event: it would never be called."""
    for name in {name for cls in kind.__mro__ if cls not in base.__mro__ for name in vars(cls)}:
        if name.startswith(("pre_", "post_", "on_")) and name not in EVENTS:
            near = difflib.get_close_matches(name, EVENTS, n=1, cutoff=0.85)
            if near:
                raise UsageError(f"{kind.__name__}.{name} is no event and is never called: did you mean {near[0]!r}?")
