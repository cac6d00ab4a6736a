"""Verifying a run: take its steps again from a checkpoint, and compare the states."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.checkpoint.compare import differences
from treadle.checkpoint.state import State
from treadle.checkpoint.store import checkpoint_name, list_checkpoints, read_checkpoint, step_of
from treadle.config.settings import resumable_with_effect
from treadle.engine.command import Command
from treadle.engine.commands import from_journal
from treadle.engine.edit_commands import Edit
from treadle.engine.edits import Change
from treadle.errors import DataChanged, UsageError
from treadle.files import blamed
from treadle.runs.fork import as_forked
from treadle.runs.run import JOURNAL, read_journal

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer


@dataclass
class Verdict:
    """What a replay showed: from `start` (a step), which later checkpoints were `compared`, and where it differed."""

    start: int
    compared: list[int] = field(default_factory=list)
    differs_at: int | None = None
    differences: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether every compared digest was equal."""
        return self.differs_at is None


def verify_run(run: Path, build: Callable[[Path], Trainer], start: int | None = None) -> Verdict:
    """Replay the run at `run` and compare the digest at each of its later checkpoints; stops at the first difference.

    Args:
        run: a run's directory; nothing in it is changed.
        build: makes the run's trainer anew, as a run in the (temporary) directory it is given.
        start: the step of the checkpoint to start from, or 0 for the beginning; by default the last but one, which
            verifies the newest. What a person changed in the run (learning rates, loss weights) is changed again.

    Raises:
        UsageError: no checkpoint there, nothing after it to compare with, or one of several processes.
        StateError: a checkpoint is damaged.
    """
    checkpoints = {step_of(path): path for path in list_checkpoints(run / "checkpoints")}
    journal = read_journal(run)
    with tempfile.TemporaryDirectory(prefix="treadle-verify-") as directory, build(Path(directory) / "v001") as trainer:
        start = start_of(run, type(trainer.config), start)
        targets = [step for step in sorted(checkpoints) if step > start]
        if not targets:
            raise UsageError(f"{run} has no checkpoint after step {start} to compare with")
        with blamed(run / JOURNAL):
            edits = _commands([entry for entry in edits_in_force(journal) if entry["step"] >= start], start)
        verdict = Verdict(start)
        if start:
            try:
                trainer.loop.state.restore(read_checkpoint(checkpoints[start]))
            except DataChanged as error:  # a difference like any other, found before the first step
                return Verdict(start, differs_at=start, differences=[str(error)])
            as_forked(trainer, run)
            if trainer.loop.over:  # where it had ended, a limit was raised: there are later checkpoints
                trainer.loop.lifecycle.finish_reason = None
        for target in targets:
            saved = read_checkpoint(checkpoints[target])
            _refuse_other_worlds(run, saved)
            replayed = _advance(trainer, target, edits)
            found = ["the run ended before this step"] if replayed is None else list(differences(saved, replayed))
            while found and not trainer.ended and edits and edits[0][0] == target:  # it may have been saved after one
                trainer.commands.put(edits.pop(0)[1])
                trainer.stop()
                trainer.iterate()
                found = list(differences(saved, trainer.loop.state.capture()))
            verdict.compared.append(target)
            if found:
                verdict.differs_at, verdict.differences = target, found
                break
    return verdict


def _refuse_other_worlds(run: Path, saved: State) -> None:
    """Raise UsageError for a state of several processes: one has other noise, and rounds their sums otherwise."""
    size = len(saved.values.get("ranks", {})) or 1
    if size > 1:
        raise UsageError(
            f"{run} was trained by {size} processes at step {saved.step}, which one cannot take again to the last bit: "
            "there is nothing that it could verify"
        )


def start_of(run: Path, kind: type[Any], start: int | None = None) -> int:
    """The step that the run at `run`, whose settings are a `kind`, is verified from; see `verify_run`."""
    steps = [step_of(path) for path in list_checkpoints(run / "checkpoints")]
    if not steps:
        raise UsageError(f"{run} has no checkpoint to compare with: nothing can be verified")
    with blamed(run / JOURNAL):
        changed = _last_change(read_journal(run), kind)
    return _start(run, steps, changed, start)


def _start(run: Path, steps: Sequence[int], raised: int, start: int | None) -> int:
    """The step to start from: `start` if it can be, else the last but one, after the last change of settings."""
    if start is None:
        start = max([0, *steps][-2], raised)
    if start != 0 and start not in steps:
        there = ", ".join(map(str, steps))
        raise UsageError(f"{run} has no checkpoint at step {start}: there are {there}, and 0 for the beginning")
    if start < raised:
        raise UsageError(
            f"{run} was resumed (or forked) at step {raised} with settings that the steps before it did not have: "
            f"verify it from a checkpoint at {raised} or later"
        )
    return start


def _last_change(journal: Sequence[Mapping[str, Any]], kind: type) -> int:
    """The last step at which the run was forked, or got settings that its state depends on; 0 for neither.

    `kind` is the class of its settings.
    """
    decisive = resumable_with_effect(kind)
    changes = [
        entry["step"]
        for entry in journal
        if entry.get("event") == "fork"
        or (entry.get("event") in ("resume", "extend") and decisive & set(entry["changed"]))
    ]
    return int(changes[-1]) if changes else 0


def edits_in_force(journal: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The edits that the run's present state has seen: not those of a future that a kill or a rewind gave up.

    An edit at the very step that a run went back to counts where a checkpoint of that step was written after it.
    """
    edits: list[Mapping[str, Any]] = []
    saved: list[Mapping[str, Any]] = []
    for entry in journal:
        match entry.get("event"):
            case "edit" | "validate":
                edits.append(entry)
            case "checkpoint":
                saved += [edit for edit in edits if entry["checkpoint"] == checkpoint_name(edit["step"])]
            case "resume" | "rewind" | "rollback":
                step = entry.get("restored", entry["step"])
                edits = [edit for edit in edits if edit["step"] < step or (edit["step"] == step and edit in saved)]
    return edits


def _commands(edits: Sequence[Mapping[str, Any]], start: int) -> list[tuple[int, Command]]:
    """What makes the edits again, with the step that each is made at.

    The state at `start` may have seen some of those that were made there, so only what they came to is made again.
    """
    commands: list[tuple[int, Command]] = []
    last: dict[tuple[str, str], Change] = {}
    off: dict[str, Change] = {}
    for entry in edits:
        command = from_journal(entry)
        if entry["step"] == start and isinstance(command, Edit):
            last |= {(change.what, change.target): change for change in command.changes}
            off |= {each.target: each for each in command.changes if each.what == "setting" and each.value is None}
        elif command is not None:
            commands.append((entry["step"], command))
    if not last:
        return commands
    # What was switched off and on again has begun anew.
    anew = [each for name, each in off.items() if last["setting", name].value is not None]
    first = [(start, Edit(anew))] if anew else []
    return [*first, (start, Edit(list(last.values()))), *commands]


def _advance(trainer: Trainer, target: int, edits: list[tuple[int, Command]]) -> State | None:
    """The replayed state after `target` steps; None where the replay ended earlier. It takes out the edits it makes."""
    while trainer.progress.step < target:
        while edits and edits[0][0] <= trainer.progress.step:
            trainer.commands.put(edits.pop(0)[1])
        if not trainer.iterate():
            return None
    if trainer.ended:  # the last state was captured before post_training, and that is what the run saved, too
        return read_checkpoint(trainer.run.path / "checkpoints" / checkpoint_name(target))
    return trainer.loop.state.capture()
