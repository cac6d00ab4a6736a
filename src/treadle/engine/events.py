"""Events: what a trainer's methods and hooks can react to, and what they are told."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar

from treadle.checkpoint.plain import Stateless

if TYPE_CHECKING:
    import torch


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

    `kind` is "scalars" (value: mapping of float), "image" (value: array (H, W, C), uint8 or float in [0, 1]), "text"
    (value: str) or "scene" (value: `treadle.reports.scene.Scene`). `name` is the split for scalars ("train", "epoch",
    "validation", "test"), else the thing's own name.
    """

    kind: str
    name: str
    value: Any
    step: int
    epoch: int


class Events:
    """The trainer's own side of the events: methods to override, with `super()`, in a subclass. See `Hook`."""

    def pre_training(self) -> None:
        """Before the first step of the run; not again on resume."""

    def pre_epoch(self) -> None:
        """Before the first step of an epoch; not again when resumed inside it."""

    def pre_step(self, batch: Any) -> None:
        """Before each step, with its batch."""

    def pre_update(self, optimizer: torch.optim.Optimizer) -> None:
        """Inside `minimize`, when gradients are complete and unscaled, before finite check, clipping and update."""

    def post_step(self, batch: Any, outputs: Mapping[str, Any]) -> None:
        """After each step (already counted), with what `step` returned."""

    def post_epoch(self) -> None:
        """After the last step of an epoch (already counted)."""

    def pre_validation(self) -> None:
        """Before a pass over the validation data; modules are in eval mode."""

    def post_validation(self, metrics: dict[str, float]) -> None:
        """After a pass over the validation data, with its element-weighted means; what is added can be monitored."""

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

    def on_settings(self) -> None:
        """When live settings were changed in the running program, or set back: what was made of them is made anew."""

    def on_log(self, record: Record) -> None:
        """For each thing logged: scalars at the log interval and after validation, images, text, scenes."""

    def on_journal(self, entry: Mapping[str, Any]) -> None:
        """For each journal entry: what happened to the run, and what a person changed in it."""


EVENTS = tuple(name for name in vars(Events) if not name.startswith("_"))


class Hook(Stateless):
    """Reacts to events of a run. Override the methods you need; the others cost nothing.

    A hook that raises fails the run, unless it is an observer (`observer = True`): then it is reported, retried at a
    bounded rate and at last switched off, and the run goes on. An observer is given copies, and what it draws from the
    global random generators or sets in torch is undone, so none of that changes anything in the run; it may not log
    scalars, validate or finish the run. `order` says where it stands among the hooks.

    A hook with state gives `state_dict()` and `load_state_dict()`, which are saved and restored with the run. A run may
    be resumed with the hook new, which is said; with `optional_state` it may also be gone, which else is an error.

    `hears` names the kinds of records that `on_log` is called with ("scalars", "image", "text", "scene"); None means
    all but scenes, which are made only where some hook names them. An observer that has no use for batches and outputs
    says so by `wants_batches = False`: it gets None in their place, and nothing is copied for it.

    An observer whose methods only hand on what they get, and neither draw nor set anything, may say so by `hands_over`:
    observers that are called with it in one event are then not set apart from it, and those that say so too are given
    the same copy. The run is set apart in any case.

    The trainer that methods get is typed `Any`, so that a hook may say which kind of trainer it is for.

    Example:
        class Shout(Hook):
            def post_epoch(self, trainer):
                print("epoch", trainer.epoch, trainer.metrics)
    """

    order: ClassVar[int] = Order.NORMAL
    observer: ClassVar[bool] = False
    optional_state: ClassVar[bool] = False
    hears: ClassVar[Collection[str] | None] = None
    wants_batches: ClassVar[bool] = True
    hands_over: ClassVar[bool] = False

    def pre_training(self, trainer: Any) -> None: ...
    def pre_epoch(self, trainer: Any) -> None: ...
    def pre_step(self, trainer: Any, batch: Any) -> None: ...
    def pre_update(self, trainer: Any, optimizer: torch.optim.Optimizer) -> None: ...
    def post_step(self, trainer: Any, batch: Any, outputs: Mapping[str, Any]) -> None: ...
    def post_epoch(self, trainer: Any) -> None: ...
    def pre_validation(self, trainer: Any) -> None: ...
    def post_validation(self, trainer: Any, metrics: dict[str, float]) -> None: ...
    def post_training(self, trainer: Any) -> None: ...
    def teardown(self, trainer: Any) -> None: ...
    def on_exception(self, trainer: Any, error: BaseException) -> None: ...
    def on_save(self, trainer: Any, state: dict[str, Any]) -> None: ...
    def on_load(self, trainer: Any, state: dict[str, Any]) -> None: ...
    def on_settings(self, trainer: Any) -> None: ...
    def on_log(self, trainer: Any, record: Record) -> None: ...
    def on_journal(self, trainer: Any, entry: Mapping[str, Any]) -> None: ...


for _event in EVENTS:  # said once, read in both places
    getattr(Hook, _event).__doc__ = getattr(Events, _event).__doc__
