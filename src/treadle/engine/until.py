"""What a run can be let run to: a step, an epoch's end, a metric's rule, a NaN, an event of the journal."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from treadle.errors import UsageError, nearest

_RULE = re.compile(r"([^\s<>=]+)\s*(<=|>=|<|>)\s*(\S+?)(?: for (\d+))?")
_STALL = re.compile(r"([^\s<>=]+) no better for (\d+)")
_WORDS = ("step", "epoch", "nan", "best", "event")
MOST_TIMES = 1_000_000


@dataclass(frozen=True)
class Until:
    """A condition that is looked at after each step.

        step 500            500 steps are finished
        epoch               the epoch under way is finished
        epoch 3             3 epochs are finished
        nan                 a scalar of the step, or a newest metric, is NaN or infinite, or a step was bad
        loss < 0.1          a scalar of the step or, where it gave none of that name, a newest metric; also > <= >=
        validation/psnr > 30        one of the newest validation
        loss < 0.1 for 3    that is so three times in a row: at three steps, or where it is logged or validated less
                            often, at three of these
        validation/loss no better for 5     five validations in a row have not improved on what was best before; a
                            larger psnr, ssim, iou or accuracy is better, a smaller value of everything else (and what
                            the trainer's Config names in `higher_is_better`)
        best                a validation has found a new best model
        event checkpoint    the journal has a new entry of that event, such as densify, prune, rollback or edit

    Reading a scalar of the step waits for the device; so it is done only while a rule or "nan" is waited for.
    """

    kind: str
    """"step", "epoch", "nan", "best", "rule", "stall" (no better) or "event"."""
    name: str = ""
    """The metric of a rule, or the event."""
    sign: str = ""
    value: float = 0.0
    times: int = 1
    """How often in a row a rule has to hold, or a value to be no better."""

    @classmethod
    def parse(cls, text: str) -> Until:
        """Read the notation above. Raises UsageError for anything else."""
        words = text.split() if isinstance(text, str) else []
        rule, stall = (pattern.fullmatch(" ".join(words)) for pattern in (_RULE, _STALL))
        try:
            if rule is not None and math.isfinite(float(rule[3])) and 1 <= int(rule[4] or 1) <= MOST_TIMES:
                return cls("rule", rule[1], rule[2], float(rule[3]), int(rule[4] or 1))
            if stall is not None and 1 <= int(stall[2]) <= MOST_TIMES:
                return cls("stall", stall[1], times=int(stall[2]))
            match words:
                case ["step", number] if int(number) >= 0:
                    return cls("step", value=int(number))
                case ["epoch"]:
                    return cls("epoch")
                case ["epoch", number] if int(number) >= 1:
                    return cls("epoch", value=int(number))
                case ["nan" | "best" as kind]:
                    return cls(kind)
                case ["event", *event] if event:
                    return cls("event", " ".join(event))
        except ValueError:
            pass
        near = nearest(words[0], _WORDS) if words else ""
        raise UsageError(
            f"run until {text!r} is not understood{near if 'did you mean' in near else ''}: write for example "
            "'step 500', 'epoch', 'nan', 'best', 'loss < 0.1', 'validation/loss no better for 5' or 'event checkpoint'"
        )

    def __str__(self) -> str:
        number = str(int(self.value) if self.value == int(self.value) else self.value)
        match self.kind:
            case "rule":
                return f"{self.name} {self.sign} {number}" + (f" for {self.times}" if self.times > 1 else "")
            case "stall":
                return f"{self.name} no better for {self.times}"
            case "event":
                return f"event {self.name}"
            case "step":
                return f"step {number}"
        return f"{self.kind} {number}" if self.value else self.kind
