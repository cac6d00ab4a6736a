"""What a run can be let run to: a step, an epoch's end, a metric's rule, a NaN, an event of the journal."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from treadle.engine.progress import Progress
from treadle.errors import UsageError, nearest

_RULES: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_RULE = re.compile(r"([^\s<>=]+)\s*(<=|>=|<|>)\s*(\S+)")


@dataclass(frozen=True)
class Until:
    """A condition that is looked at after each step.

        step 500            500 steps are finished
        epoch               the epoch under way is finished
        epoch 3             3 epochs are finished
        nan                 a scalar of the step, or a newest metric, is NaN or infinite, or a step was bad
        loss < 0.1          a scalar of the step or, where it gave none of that name, a newest metric; also > <= >=
        validation/psnr > 30        one of the newest validation
        event checkpoint    the journal has a new entry of that event

    Reading a scalar of the step waits for the device; so it is done only while a rule or "nan" is waited for.
    """

    kind: str
    """"step", "epoch", "nan", "rule" or "event"."""
    name: str = ""
    """The metric of a rule, or the event."""
    sign: str = ""
    value: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Until:
        """Read the notation above. Raises UsageError for anything else."""
        words = text.split() if isinstance(text, str) else []
        rule = _RULE.fullmatch(" ".join(words))
        try:
            if rule is not None and math.isfinite(float(rule[3])):
                return cls("rule", rule[1], rule[2], float(rule[3]))
            match words:
                case ["step", number] if int(number) >= 0:
                    return cls("step", value=int(number))
                case ["epoch"]:
                    return cls("epoch")
                case ["epoch", number] if int(number) >= 1:
                    return cls("epoch", value=int(number))
                case ["nan"]:
                    return cls("nan")
                case ["event", *event] if event:
                    return cls("event", " ".join(event))
        except ValueError:
            pass
        near = nearest(words[0], ["step", "epoch", "nan", "event"]) if words else ""
        raise UsageError(
            f"run until {text!r} is not understood{near if 'did you mean' in near else ''}: write for example "
            "'step 500', 'epoch', 'nan', 'loss < 0.1' or 'event checkpoint'"
        )

    def __str__(self) -> str:
        number = str(int(self.value) if self.value == int(self.value) else self.value)
        if self.kind not in ("rule", "step") and not self.value:
            number = ""
        return " ".join(filter(None, [self.kind if self.kind != "rule" else "", self.name, self.sign, number]))


class Watch:
    """Waits for an `Until` from the moment it is made: a past event or epoch does not count."""

    def __init__(self, until: Until, progress: Progress) -> None:
        self.until = until
        self.future: Future[Any] = Future()
        """Answered when it is reached, or can no longer be."""
        self._epoch = int(until.value) or progress.epoch + 1
        self._happened = False

    def journal(self, event: str) -> None:
        """An entry was added to the journal."""
        wanted = self.until.name if self.until.kind == "event" else "bad step"
        self._happened |= self.until.kind in ("event", "nan") and event == wanted

    def reached(
        self,
        progress: Progress,
        outputs: Mapping[str, Any],
        metrics: Mapping[str, float],
        validation_metrics: Mapping[str, float],
    ) -> bool:
        """Whether it is so now that a step is finished, with its outputs and the newest metrics."""
        match self.until.kind:
            case "step":
                return progress.step >= self.until.value
            case "epoch":
                return progress.epoch >= self._epoch
            case "event":
                return self._happened
            case "nan":
                scalars = [*outputs.values(), *metrics.values(), *validation_metrics.values()]
                return self._happened or not all(math.isfinite(_number(value)) for value in scalars)
        split, _, name = self.until.name.partition("/")
        known = validation_metrics if split == "validation" else {**metrics, **outputs}
        value = known.get(name if split in ("validation", "train") else self.until.name)
        return value is not None and _RULES[self.until.sign](_number(value), self.until.value)


def _number(value: Any) -> float:
    """A scalar that a step returned, which may be a tensor with a graph."""
    return float(value.detach() if isinstance(value, Tensor) else value)
