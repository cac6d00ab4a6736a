"""Keeps the weights that validated best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from treadle.engine.events import Hook, Order
from treadle.engine.history import Archive
from treadle.engine.trainer import Trainer
from treadle.engine.weights import put_weights, weights_of
from treadle.errors import StateError, UsageError
from treadle.hooks.monitor import Mode, check_mode, is_better, monitored


@dataclass
class Kept:
    """One of the best models: what it is the best of, and its weights, unless they are on disk."""

    info: dict[str, Any]
    weights: dict[str, Tensor] | None = None


class BestModel(Hook):
    """Keeps the weights of the validations with the best values of a metric, as they were validated.

    The weights are those of all modules and lone parameters that are attributes of the trainer, averaged ones (EMA)
    where validation uses them. A run on disk writes them to its `best_model/`, and those that come after the best one
    to `best_models/`; any other keeps copies in memory, which are part of its state. `trainer.best` says what was best
    and when; `trainer.load_best()` puts the weights back.

    A trainer makes one from its `monitor`, `monitor_mode` and `keep_best`. NaN is never best, and of equal values the
    earlier one is better. Without validation data, or a metric, there is nothing to choose by: a run on disk then keeps
    the weights it ends with, so that it can be tested and exported.

    Args:
        monitor: the validation metric; None chooses nothing.
        mode: "min" or "max".
        keep: how many models are kept.

    Example:
        trainer = Line(data=(x, y), validation_data=held_out, max_epochs=20, monitor="loss")
        trainer.train()
        print(trainer.best["value"], "at step", trainer.best["step"])
        trainer.load_best()
    """

    # After the hooks that add metrics to be monitored.
    order: ClassVar[int] = Order.LATE

    def __init__(self, monitor: str | None = "loss", mode: Mode = "min", keep: int = 1) -> None:
        check_mode(mode)
        self.monitor = monitor
        self.mode: Mode = mode
        self.keep = keep
        self.kept: list[Kept] = []
        """The best models so far, the best first."""

    @property
    def info(self) -> dict[str, Any] | None:
        """What was best and when; None where nothing was."""
        return self.kept[0].info if self.kept else None

    @property
    def ranked(self) -> list[dict[str, Any]]:
        """What was best and when, then what came after it, as far as it is kept."""
        return [each.info for each in self.kept]

    def post_validation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Keep the weights, where the metric is among the best."""
        if self.monitor is None:
            return
        value = monitored(metrics, self.monitor, trainer.occasional_metrics)
        if value is None:
            return
        place = sum(not is_better(value, info["value"], self.mode) for info in self.ranked)
        kept = place < self.keep and not math.isnan(value)
        archive = trainer.loop.archive
        # A fork from before its parent's best begins without any.
        if not kept and (archive is None or archive.has_best()):
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
        new = Kept(info)
        ranked = [*self.kept[:place], new, *self.kept[place:]][: self.keep]
        if archive is None:
            new.weights = {name: tensor.cpu().clone() for name, tensor in weights.items()}
        else:
            archive.write_best(weights, info, [each.info["step"] for each in ranked] if kept else ())
        if kept:
            self.kept = ranked
            trainer.loop.best = self.info

    def post_training(self, trainer: Trainer) -> None:
        """Keep the final weights, where there was nothing to choose by."""
        archive = trainer.loop.archive
        if archive is None or (trainer.validation_feed is not None and self.monitor is not None):
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

    def begin_anew(self) -> None:
        """Forget what was best: it was so for another run."""
        self.kept = []

    def state_dict(self) -> dict[str, Any]:
        """What was best and when; for a run that is not on disk, the weights too."""
        first, *others = [vars(each) for each in self.kept] or [{"info": None, "weights": None}]
        return {**first, "others": others} if self.keep > 1 else dict(first)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        entries = [state, *state.get("others", ())] if state["info"] is not None else []
        self.kept = [
            Kept(dict(entry["info"]), None if entry["weights"] is None else dict(entry["weights"]))
            for entry in entries[: self.keep]
        ]


def load_best(trainer: Trainer, rank: int = 1) -> Mapping[str, Any]:
    """Put the best weights of its run into the trainer's parts; see `Trainer.load_best`, which is this.

    Those of another run: `treadle.runs.best.load_best`.

    Raises UsageError where there is no such model, StateError where it does not fit the trainer.
    """
    archive: Archive | None = trainer.loop.archive
    if archive is not None:
        weights, info = archive.read_best(rank)
        return _put(trainer, weights, info, rank)
    kept = [each for hook in trainer.hooks if isinstance(hook, BestModel) for each in hook.kept]
    if not kept:
        raise UsageError("there is no best model yet: it is kept at the first validation (give validation data)")
    if not 1 <= rank <= len(kept):
        raise UsageError(f"there is no best model of rank {rank}: {len(kept)} is kept (keep_best= keeps more)")
    chosen = kept[rank - 1]
    assert chosen.weights is not None  # the run is not on disk
    return _put(trainer, chosen.weights, chosen.info, rank)


def _put(trainer: Trainer, weights: Mapping[str, Tensor], info: Mapping[str, Any], rank: int) -> Mapping[str, Any]:
    """Put a best model's weights into the trainer, which from then on says that it has them; returns `info`."""
    put_weights(trainer.parts, weights)
    first = rank == 1 and info["monitor"] is not None
    what = f"best model by {info['monitor']}, step {info['step']}" if first else f"model of step {info['step']}"
    trainer.loop.loaded = trainer.loop.taken, what
    return info
