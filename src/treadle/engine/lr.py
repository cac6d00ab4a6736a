"""Learning-rate schedules: a curve tied to an optimizer, or to one of its groups."""

from __future__ import annotations

from typing import Any

import torch

from treadle.checkpoint.plain import Stateless
from treadle.engine.curves import Curve, parse_curve
from treadle.engine.progress import Progress
from treadle.errors import UsageError, nearest


class LearningRate(Stateless):
    """Sets the learning rate of an optimizer, or of one named group, before each step.

    Make it an attribute of the trainer and it is found there. Values are absolute: whatever `lr` the optimizer was
    built with is replaced. A group's own "lr_scale" (1.0 where it has none) multiplies it. It has no state: the value
    follows from the run's counters alone, so a resumed run goes on with the right one.

    Args:
        optimizer: the optimizer whose groups are set.
        curve: a number, text ("cosine 1e-2 to 1e-4") or any callable of Progress; its values must be finite and >= 0.
        group: the "name" of the one group to set; None sets all.

    Raises:
        UsageError: no group has that name, or the curve is not understood.

    Example:
        self.schedule = LearningRate(self.optimizer, "warm-up 500 steps then cosine 1e-2 to 1e-4")
    """

    def __init__(self, optimizer: torch.optim.Optimizer, curve: float | str | Curve, group: str | None = None) -> None:
        self.optimizer = optimizer
        self.curve = parse_curve(curve)
        self.group = group
        if group is not None:
            self._named(group)

    def apply(self, progress: Progress, multiplier: float = 1.0) -> None:
        """Set the learning rate for the step that follows `progress`.

        Args:
            progress: the run's counters of what is finished.
            multiplier: a factor a person chose in the running program; finite and >= 0.

        Raises:
            UsageError: the curve gives a value that is negative or not finite.
        """
        value = float(self.curve(progress)) * multiplier
        if not 0.0 <= value < float("inf"):
            raise UsageError(f"learning rate {value} at step {progress.step} from {self}: it must be finite and >= 0")
        # The list is asked for anew each time: loading a state puts other groups into the optimizer.
        groups = self.optimizer.param_groups if self.group is None else self._named(self.group)
        for group in groups:
            rate = value * group["lr_scale"] if "lr_scale" in group else value
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)  # a captured or compiled step reads this very tensor
            else:
                group["lr"] = rate

    def __str__(self) -> str:
        return str(self.curve) if self.group is None else f"{self.curve} (group {self.group!r})"

    def _named(self, name: str) -> list[dict[str, Any]]:
        groups = [group for group in self.optimizer.param_groups if group.get("name") == name]
        if not groups:
            known = [str(group["name"]) for group in self.optimizer.param_groups if "name" in group]
            remedy = nearest(name, known) if known else "; its groups have no names (see parameter_groups)"
            raise UsageError(f"the optimizer has no parameter group named {name!r}{remedy}")
        return groups
