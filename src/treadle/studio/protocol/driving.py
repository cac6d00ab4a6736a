"""What a client asks for that drives the run: transport, control, edits and branches."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from treadle.studio.protocol.base import Command, Id, Name, Request, Step, Text

# Transport: between steps, in the order they come -----------------------------------------------------------------


class Pause(Command, kw_only=True):
    """Take no further step until `Play`."""


class Play(Command, kw_only=True):
    """Go on."""


class Advance(Command, kw_only=True):
    """Take `steps` steps (or go to the end of the epoch), then pause."""

    steps: Annotated[int, Meta(ge=1, le=10**9)] = 1
    unit: Literal["steps", "epochs"] = "steps"


class RunUntil(Command, kw_only=True):
    """Go on until a condition holds, then pause: `treadle.engine.until.Until` has the notation."""

    until: Text


class Save(Command, kw_only=True):
    """Write a checkpoint now."""


class Validate(Command, kw_only=True):
    """Evaluate the validation data now; the answer is the metrics."""


class Stop(Command, kw_only=True):
    """End the training here, resumable, as Ctrl-C does."""


class Rewind(Command, kw_only=True):
    """Continue from `step`: later steps are given up or, with `keep`, kept as a fork of the run."""

    step: Step
    keep: bool = True


class Extend(Command, kw_only=True):
    """Raise the run's limits."""

    max_steps: Step | None = None
    max_epochs: Step | None = None


class Break(Command, kw_only=True):
    """Watch for a condition until it is removed: pause there, or only mark it."""

    until: Text
    act: Literal["pause", "mark"] = "pause"


class Unbreak(Command, kw_only=True):
    """Watch for a breakpoint no longer; `number` is that of `States.breakpoints`."""

    number: Id


class Note(Command, kw_only=True):
    """A bookmark: the state of `step` is kept for good where there is one, and the journal has the text."""

    step: Step
    text: Text


# Control ---------------------------------------------------------------------------------------------------------


class TakeControl(Request, kw_only=True):
    """Hold the run's control from now on; whoever had it sees that. Refused to those who may only view."""


class Release(Request, kw_only=True):
    """Give control back."""


# Edits, first as proposals ---------------------------------------------------------------------------------------


class Change(Struct, forbid_unknown_fields=True):
    """One thing to set: `what` and `target` as `Editable` lists them."""

    what: Literal["lr_multiplier", "loss_weight", "frozen", "setting", "limit"]
    target: Name
    value: float | bool | int | Text | None
    """Text is for settings such as "500 steps"."""


class Propose(Request, kw_only=True):
    """Ask what these changes would do; the answer is a list of before and after, or a refusal that names one."""

    changes: Annotated[list[Change], Meta(min_length=1, max_length=50)]


class Apply(Command, kw_only=True):
    """Make these changes, together, before the next step. The first edit of a run saves a checkpoint before."""

    changes: Annotated[list[Change], Meta(min_length=1, max_length=50)]


class Undo(Command, kw_only=True):
    """Set back what the last edit that is still in force has changed."""


class Branch(Command, kw_only=True):
    """Fork the run at `step` into a child process under other settings; `pause` lets the parent wait."""

    step: Step
    settings: Annotated[dict[Name, Any], Meta(max_length=50)] = {}
    pause: bool = True


class Drive(Command, kw_only=True):
    """Tell a branch to pause or play; to end, resumable; or to go on when this studio is closed."""

    run: Name
    act: Literal["pause", "play", "end", "go on"]
