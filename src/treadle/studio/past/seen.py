"""A run as its files have it: the trainer that shows it, what it has logged last, and where it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from treadle.checkpoint.state import State
from treadle.checkpoint.store import list_checkpoints, newest_good, step_of
from treadle.engine.again import made_to_look
from treadle.engine.events import Record
from treadle.engine.lifecycle import Stage
from treadle.engine.trainer import Trainer
from treadle.errors import TreadleError, one_line
from treadle.recipes.registry import Recipe
from treadle.runs.glance import glance_series, last_line
from treadle.runs.lock import is_held
from treadle.runs.run import CHECKPOINTS, read_journal, read_summary
from treadle.studio.past.shelf import Shelf, other_data

ELSEWHERE = "another process trains this run: here it is only looked at"
"""Why nothing is obeyed."""


def seen(run: Path, recipe: Recipe | None) -> tuple[Trainer, list[str]]:
    """A trainer that shows a run as its files have it, to be looked at; and what of it cannot be shown, line by line.

    Where its data or its class are not there, it is one without views. Where its newest state is damaged, an earlier
    one is shown.
    """
    problems: list[str] = []
    trainer: Trainer | None = None
    if recipe is not None:
        try:
            with made_to_look():
                trainer = recipe.build()
            problems += put_newest(run, trainer)
        except Exception as error:  # somebody's own code, and data that may be anywhere
            problems.append(f"its views are not shown: {one_line(error)}")
            trainer = None
    if trainer is None:
        trainer = bare()
    loop = trainer.loop
    with _told(problems):
        loop.logbook.journal.extend(read_journal(run))
    with _told(problems):
        line = last_line(run)
        summary = read_summary(run)
        stage, reason = stage_of(summary, running=is_held(run))
        loop.lifecycle.to(stage, reason)
        loop.lifecycle.seconds = float(summary.get("seconds") or 0.0)
        epoch, step = (int(summary.get(name, line.get(name, 0))) for name in ("epoch", "step"))
        loop.counts = (epoch, step, loop.progress.batch if step == loop.progress.step else 0)
    return trainer, problems


def put_newest(run: Path, trainer: Trainer) -> list[str]:
    """Let a trainer that was made to look show the newest state of a run that can be read; returns what is to be said.

    Raises StateError where a state does not fit it.
    """
    said: list[str] = []
    with trainer.driver.active:
        for path, state in newest_good(run / CHECKPOINTS):
            if isinstance(state, State):
                trainer.loop.state.show(state)
                return [*said, *other_data(state.values["data"], trainer)]
            said.append(f"{path.name} cannot be shown: {one_line(state)}")
        shelf = Shelf(run)
        steps = shelf.steps()
        if steps:
            stored = shelf.find(steps[-1])
            stored.read()
            stored.put_into(trainer)
    return said


def last_records(run: Path) -> Iterator[Record]:
    """The newest value of each series that a run has logged."""
    for name, (steps, values) in glance_series(run).items():
        split, _, metric = name.partition("/")
        yield Record("scalars", split, {metric: float(values[-1])}, int(steps[-1]), 0)


def refusal_of(run: Path) -> str:
    """Why nobody may train a run from here; empty where somebody may."""
    if is_held(run):
        return ELSEWHERE
    journal = read_journal(run)
    if journal and journal[0]["event"] == "import":
        return "this run was imported: it has weights, and no training that could go on"
    return ""


def newest_step(run: Path) -> int | None:
    """After which step the newest checkpoint of a run was made; None where it has none."""
    found = list_checkpoints(run / CHECKPOINTS)
    return step_of(found[-1]) if found else None


def stage_of(summary: Mapping[str, Any], *, running: bool) -> tuple[Stage, str]:
    """Where a run stands, by its summary, which there is none of while it goes on, and where it was killed."""
    reason = str(summary.get("reason") or "")
    match summary.get("status"):
        case "finished":
            return Stage.FINISHED, reason
        case "failed":
            return Stage.FAILED, reason
        case "stopped":
            return Stage.STOPPED, reason
    if running:
        return Stage.RUNNING, ELSEWHERE
    return Stage.STOPPED, "it was killed, or is trained on another machine"


@contextmanager
def _told(problems: list[str]) -> Iterator[None]:
    """Within the block, what cannot be read is one of the `problems`."""
    try:
        yield
    except TreadleError as error:
        problems.append(one_line(error))


def bare() -> Trainer:
    """A trainer of nothing, for the table of runs."""
    with made_to_look():
        return Trainer()
