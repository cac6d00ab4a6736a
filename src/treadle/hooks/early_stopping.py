"""Ends a run when validation has not improved for long enough."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from treadle.engine.events import Hook, Order
from treadle.engine.schedule import Span
from treadle.engine.trainer import Trainer
from treadle.errors import UsageError
from treadle.hooks.monitor import Mode, check_mode, is_better, monitored


class Patience:
    """Watches a sequence of values and says when to give up. It knows no trainer.

    Args:
        patience: how many values in a row may bring no improvement; at least 1.
        mode: "min" where smaller is better, "max" where larger is.
        min_improvement: a value has to be better than the best by more than this, absolute, to count; 0 or more.

    NaN is no improvement, and anything else improves on it, also when it came first.

    Example:
        >>> patience = Patience(2)
        >>> [patience.give_up(loss) for loss in (3.0, 2.0, 2.0, float("nan"))]
        [False, False, False, True]
    """

    def __init__(self, patience: int, *, mode: Mode = "min", min_improvement: float = 0.0) -> None:
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise UsageError(f"patience is {patience!r}: expected a whole number, at least 1")
        if not 0 <= min_improvement < math.inf:
            raise UsageError(f"min_improvement is {min_improvement!r}: expected a finite number, 0 or more")
        check_mode(mode)
        self.patience = patience
        self.mode: Mode = mode
        self.min_improvement = min_improvement
        self.best: float | None = None
        self.waited = 0

    def give_up(self, value: float, *, counts: bool = True) -> bool:
        """Take in the next value; returns whether patience is at an end. With `counts=False` waiting costs nothing."""
        if is_better(value, self.best, self.mode, self.min_improvement):
            self.best = value
            self.waited = 0
        elif counts:
            self.waited += 1
        return self.waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """The best value and how long nothing has improved on it."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.best = None if state["best"] is None else float(state["best"])
        self.waited = int(state["waited"])


class EarlyStopping(Hook):
    """Ends the run, as finished, when a validation metric has not improved for `patience` validations.

    A step that is validated twice counts once, and a validation without the metric (see
    `Trainer.occasional_metrics`) does not count. Before `min_steps` nothing ends the run: the first validation after
    them at which patience is at an end does. A trainer with `patience=` makes one from its settings.

    Args:
        patience: validations without improvement after which the run ends.
        monitor: the metric, as `validation_step` names it.
        mode, min_improvement: see `Patience`.
        warm_up: the part of the run, such as "5 epochs" or "10%", in which validations without improvement are not
            counted; the best value is kept from the start.
        of_settings: patience, improvement and warm-up are those of the trainer's config, also when these are changed.

    Example:
        Trainer(..., validation_data=held_out, hooks=[EarlyStopping(5, monitor="accuracy", mode="max")])
    """

    # After the hooks that add metrics to be monitored; and a setting that a resume may change switches it on and off.
    order: ClassVar[int] = Order.LATE
    optional_state: ClassVar[bool] = True

    def __init__(
        self,
        patience: int,
        *,
        monitor: str = "loss",
        mode: Mode = "min",
        min_improvement: float = 0.0,
        warm_up: str | Span | None = None,
        of_settings: bool = False,
    ) -> None:
        self.monitor = monitor
        self.policy = Patience(patience, mode=mode, min_improvement=min_improvement)
        self.warm_up = None if warm_up is None else Span.parse(warm_up)
        self.of_settings = of_settings
        self._last_step = -1

    def on_settings(self, trainer: Trainer) -> None:
        """Have the patience that the settings have by now."""
        config = trainer.config
        if self.of_settings and config.patience is not None:
            self.policy.patience, self.policy.min_improvement = config.patience, config.min_improvement
            self.warm_up = None if config.patience_warm_up is None else Span.parse(config.patience_warm_up)

    def post_validation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Take in the metric; end the run where patience is at an end."""
        value = monitored(metrics, self.monitor, trainer.occasional_metrics)
        if value is None:
            return
        warm = self.warm_up is None or self.warm_up.reached(trainer.progress)
        counts = warm and trainer.progress.step != self._last_step
        self._last_step = trainer.progress.step
        if self.policy.give_up(value, counts=counts) and trainer.progress.may_end:
            trainer.finish(f"early stopping: {self.monitor} has not improved in {self.policy.waited} validations")

    def begin_anew(self) -> None:
        """Forget what was best, and how long nothing has improved on it: it was so for another run."""
        self.policy.load_state_dict({"best": None, "waited": 0})
        self._last_step = -1

    def state_dict(self) -> dict[str, Any]:
        """The policy's state and the last validated step."""
        return {"policy": self.policy.state_dict(), "last_step": self._last_step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.policy.load_state_dict(state["policy"])
        self._last_step = int(state["last_step"])
