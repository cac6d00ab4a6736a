"""Keeps the weights that validated best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from treadle.engine.events import Hook, Order
from treadle.engine.history import Archive
from treadle.engine.trainer import Trainer
from treadle.engine.weights import put_weights, weights_of
from treadle.errors import StateError, UsageError
from treadle.hooks.monitor import Mode, check_mode, is_better, monitored


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

    # After the hooks that add metrics to be monitored.
    order: ClassVar[int] = Order.LATE

    def __init__(self, monitor: str = "loss", mode: Mode = "min") -> None:
        check_mode(mode)
        self.monitor = monitor
        self.mode: Mode = mode
        self.info: dict[str, Any] | None = None
        self.weights: dict[str, Tensor] | None = None

    def post_validation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Keep the weights, where the metric is better than ever."""
        value = monitored(metrics, self.monitor, trainer.occasional_metrics)
        if value is None:
            return
        better = is_better(value, None if self.info is None else self.info["value"], self.mode)
        archive = trainer.loop.archive
        # A fork from before its parent's best begins without any.
        if not better and (archive is None or archive.has_best()):
            return
        info = {
            "monitor": self.monitor,
            "mode": self.mode,
            "value": value,
            "step": trainer.progress.step,
            "epoch": trainer.progress.epoch,
            "metrics": {name: float(metric) for name, metric in metrics.items()},
        }
        weights = weights_of(trainer.parts)
        if archive is not None:
            archive.write_best(weights, info)
        else:
            self.weights = {name: tensor.cpu().clone() for name, tensor in weights.items()}
        if better:
            self.info = trainer.loop.best = info

    def post_training(self, trainer: Trainer) -> None:
        """Keep the final weights, where there was nothing to choose by."""
        archive = trainer.loop.archive
        if archive is None or trainer.validation_feed is not None:
            return
        counts = {"step": trainer.progress.step, "epoch": trainer.progress.epoch}
        info: dict[str, Any] = {"monitor": None, "mode": self.mode, "value": None, **counts, "metrics": {}}
        try:
            with trainer.evaluating():
                archive.write_best(weights_of(trainer.parts), info)
        except StateError as error:  # nobody has asked for it: the run is what it would be without
            trainer.note("no best model", reason=str(error))

    def on_load(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Tell the trainer what was best."""
        trainer.loop.best = self.info

    def state_dict(self) -> dict[str, Any]:
        """What was best and when; for a run that is not on disk, its weights too."""
        return {"info": self.info, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.info = None if state["info"] is None else dict(state["info"])
        self.weights = None if state["weights"] is None else dict(state["weights"])


def load_best(trainer: Trainer) -> Mapping[str, Any]:
    """Put the best weights of its run into the trainer's modules, parameters and averages; returns what was best.

    Parameters take the saved shapes; optimizers are left as they are, so this is for evaluating, not for training on.
    Those of another run: `treadle.runs.best.load_best`.

    Raises UsageError where there is no best model, StateError where it does not fit the trainer.
    """
    archive: Archive | None = trainer.loop.archive
    if archive is not None:
        weights, info = archive.read_best()
        put_weights(trainer.parts, weights)
        return info
    for hook in trainer.hooks:
        if isinstance(hook, BestModel) and hook.weights is not None and hook.info is not None:
            put_weights(trainer.parts, hook.weights)
            return hook.info
    raise UsageError("there is no best model yet: it is kept at the first validation (give validation data)")
