"""Commands as plain data: each of them comes back as it was, and nothing else comes in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from treadle import RunError, UsageError
from treadle.engine import commands, edit_commands
from treadle.engine.command import Command
from treadle.engine.edits import Change
from treadle.engine.until import Until
from treadle.engine.wire import KINDS, from_wire, to_wire

ALL: list[Command] = [
    commands.Pause(),
    commands.Continue(),
    commands.Stop("enough"),
    commands.Save(),
    commands.Validate(),
    commands.Rewind(3, True),
    commands.Note(2, "here"),
    commands.Extend(max_steps=9),
    commands.Close(),
    commands.RunUntil(Until.parse("validation/psnr > 30.5 for 3")),
    commands.Advance(2, "epochs"),
    commands.Break(Until.parse("event checkpoint"), "mark"),
    commands.Unbreak(4),
    edit_commands.LearningRateMultiplier(0.25, "optimizer"),
    edit_commands.LossWeight("l1", None),
    edit_commands.Freeze("model", False),
    edit_commands.ChangeSetting("clip_norm", 1.5),
    edit_commands.SetLimit("max_steps", None),
    edit_commands.Edit([Change("limit", "max_steps", 7), Change("frozen", "model", True)]),
    edit_commands.Undo(),
]


@pytest.mark.parametrize("command", ALL, ids=lambda command: type(command).__name__)
def test_a_command_comes_back_from_json_as_it_was(command: Command) -> None:
    back = from_wire(json.loads(json.dumps(to_wire(command))))
    assert type(back) is type(command) and vars(back) == vars(command)


def test_all_that_are_data_are_tried_here() -> None:
    assert {type(command).__name__ for command in ALL} == set(KINDS)


@pytest.mark.parametrize(
    "told",
    [{}, {"command": "Call"}, {"command": "Rewind"}, {"command": "Rewind", "step": -1}, {"command": "Save", "x": 1},
     {"command": ["Save"]}, {"command": "RunUntil", "until": {"what": 1}}, {"command": "Edit", "changes": [3]}],
)  # fmt: skip
def test_anything_else_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(RunError, match="which is no command here"):
        from_wire(told)


def test_what_is_no_data_stays_where_it_is() -> None:
    with pytest.raises(UsageError, match="Call is obeyed by a run of one process: several obey Pause, Continue"):
        to_wire(commands.Call(print, edits="all"))
    with pytest.raises(UsageError, match="ChangeSetting is a object"):
        to_wire(edit_commands.ChangeSetting("clip_norm", object()))
