"""Keeps the weights that validated best."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from treadle.engine.attributes import find
from treadle.engine.ema import EMA
from treadle.engine.evaluation import evaluating
from treadle.engine.events import Hook, Order
from treadle.errors import StateError, UsageError, nearest
from treadle.hooks.monitor import Mode, check_mode, is_better, monitored
from treadle.runs.best import Best, has_best, read_best, write_best

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer


class BestModel(Hook):
    """Keeps the weights of the validation with the best value of a metric, as they were validated.

    The weights are those of all modules and lone parameters that are attributes of the trainer, averaged ones (EMA)
    where validation uses them. A run on disk writes them to its `best_model/`; any other keeps a copy in memory, which
    is part of its state. `trainer.best` says what was best and when. `load_best(trainer)` puts the weights back.

    A trainer makes one from its `monitor` and `monitor_mode`. NaN is never best. Without validation data there is
    nothing to choose by: a run on disk then keeps the weights it ends with, so that it can be tested and exported.

    Example:
        trainer = Line(data=(x, y), validation_data=held_out, max_epochs=20, monitor="loss")
        trainer.train()
        print(trainer.best["value"], "at step", trainer.best["step"])
        load_best(trainer)
    """

    order: ClassVar[int] = Order.EARLY

    def __init__(self, monitor: str = "loss", mode: Mode = "min") -> None:
        check_mode(mode)
        self.monitor = monitor
        self.mode: Mode = mode
        self.info: dict[str, Any] | None = None
        self.weights: dict[str, Tensor] | None = None

    def post_validation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Keep the weights, where the metric is better than ever."""
        value = monitored(metrics, self.monitor)
        better = is_better(value, None if self.info is None else self.info["value"], self.mode)
        if not better and not _lacks_best(trainer):
            return
        info = {
            "monitor": self.monitor,
            "mode": self.mode,
            "value": value,
            "step": trainer.progress.step,
            "epoch": trainer.progress.epoch,
            "metrics": {name: float(metric) for name, metric in metrics.items()},
        }
        weights = weights_of(trainer)
        if trainer.run is not None:
            write_best(trainer.run, Best(weights, info))
        else:
            self.weights = {name: tensor.cpu().clone() for name, tensor in weights.items()}
        if better:
            self.info = trainer.best = info

    def post_training(self, trainer: Trainer) -> None:
        """Keep the final weights, where there was nothing to choose by."""
        if trainer.run is None or trainer.validation_feed is not None:
            return
        counts = {"step": trainer.progress.step, "epoch": trainer.progress.epoch}
        info: dict[str, Any] = {"monitor": None, "mode": self.mode, "value": None, **counts, "metrics": {}}
        try:
            with evaluating(trainer):
                write_best(trainer.run, Best(weights_of(trainer), info))
        except StateError as error:  # nobody has asked for it: the run is what it would be without
            trainer.note("no best model", reason=str(error))

    def on_load(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Tell the trainer what was best."""
        trainer.best = self.info

    def state_dict(self) -> dict[str, Any]:
        """What was best and when; for a run that is not on disk, its weights too."""
        return {"info": self.info, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.info = None if state["info"] is None else dict(state["info"])
        self.weights = None if state["weights"] is None else dict(state["weights"])


def _lacks_best(trainer: Trainer) -> bool:
    """Whether the run on disk has no best model at all: a fork from before its parent's best begins without."""
    return trainer.run is not None and not has_best(trainer.run.path)


def load_best(trainer: Trainer, run: str | Path | None = None) -> Mapping[str, Any]:
    """Put the best weights into the trainer's modules, parameters and averages; returns what was best and when.

    They are those of the run in the directory `run`, or else of the trainer's own. Parameters take the saved shapes;
    optimizers are left as they are, so this is for evaluating, not for training on.

    Raises UsageError where there is no best model, StateError where it does not fit the trainer.
    """
    if run is None and trainer.run is not None:
        run = trainer.run.path
    if run is not None:
        best = read_best(run)
        put_weights(trainer, best.weights)
        return best.info
    for hook in trainer.hooks:
        if isinstance(hook, BestModel) and hook.weights is not None and hook.info is not None:
            put_weights(trainer, hook.weights)
            return hook.info
    raise UsageError("there is no best model yet: it is kept at the first validation (give validation data)")


def weights_of(trainer: Trainer) -> dict[str, Tensor]:
    """The weights and buffers of a trainer's modules by "attribute.name", and its lone parameters by attribute.

    They are the tensors themselves, detached, as they are now. Attributes named in `transient` are left out. Raises
    StateError for a module whose state holds something else than tensors.
    """
    weights: dict[str, Tensor] = {}
    for name, value in _slots(trainer).items():
        if not isinstance(value, Tensor):
            raise StateError(
                f"{name} is a {type(value).__name__} in the state of a module, which the best model cannot hold: make "
                "it a buffer, or name its attribute in the trainer's `transient`"
            )
        weights[name] = value.detach()
    return weights


@torch.no_grad()
def put_weights(trainer: Trainer, weights: Mapping[str, Tensor]) -> None:
    """Put what `weights_of` gave into a trainer; raises StateError, changing nothing, where the names differ."""
    slots = _slots(trainer)
    for name in weights:
        if name not in slots:
            raise StateError(f"the best model has {name!r}, the trainer has not{nearest(name, slots)}")
    for name in slots:
        if name not in weights:
            raise StateError(f"the trainer has {name!r}, the best model has not{nearest(name, weights)}")
    averages = [ema for ema in find(trainer, EMA).values() if ema.evaluate]
    for name, slot in slots.items():
        _assign(slot, weights[name])
        for ema in averages:
            shadow = ema.shadow_of(slot)
            if shadow is not None:
                _assign(shadow, weights[name])


def _slots(trainer: Trainer) -> dict[str, Any]:
    """The tensors themselves, by the names they are saved under."""
    slots: dict[str, Any] = {}
    for name, module in find(trainer, nn.Module).items():
        if name.partition(".")[0] not in trainer.transient:
            slots |= {f"{name}.{key}": value for key, value in module.state_dict(keep_vars=True).items()}
    for name, parameter in find(trainer, nn.Parameter).items():
        if name.partition(".")[0] not in trainer.transient:
            slots.setdefault(name, parameter)
    return slots


def _assign(slot: Tensor, value: Tensor) -> None:
    if slot.shape == value.shape:
        slot.copy_(value)
    else:  # rows were added or removed since the trainer's modules were built
        slot.data = value.to(device=slot.device, dtype=slot.dtype, copy=True)
