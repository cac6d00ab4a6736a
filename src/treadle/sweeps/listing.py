"""Sweeps as lines of tables: their trials, and a sweep among runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from treadle.errors import TreadleError
from treadle.sweeps.plan import is_sweep
from treadle.sweeps.trials import Sweep, read_sweep, setting_words, words


def table(sweep: Sweep) -> tuple[list[str], list[list[str]]]:
    """A header, and a row for each trial, the best first."""
    plan = sweep.planned.plan
    header = ["rank", "trial", plan.metric, *(["+-"] if plan.repeat > 1 else []), *plan.search]
    header += ["state", "steps", "seconds"]
    rows = []
    for rank, trial in enumerate(sweep.trials, 1):
        row = [str(rank) if trial.state == "finished" else "", str(trial.number)]
        row += ["" if trial.value is None else words(trial.value)]
        if plan.repeat > 1:
            row += ["" if trial.spread is None else words(trial.spread)]
        row += [words(trial.drawn.get(name, "")) for name in plan.search]
        rows.append([*row, trial.state, str(trial.steps), f"{trial.seconds:.1f}"])
    return header, rows


def overview(sweeps: Sequence[Sweep]) -> tuple[list[str], list[list[str]]]:
    """A header, and a row for each sweep, with its best trial."""
    rows = []
    for sweep in sweeps:
        plan, best = sweep.planned.plan, sweep.best
        state = "running" if sweep.count("running") else "unfinished" if sweep.left else "finished"
        ended = f"{sum(trial.ended for trial in sweep.trials)} of {plan.trials}"
        value = "" if best is None else f"{plan.metric} {words(best.value)}"
        what = "" if best is None else f"trial {best.number}: {setting_words(best)}"
        trainer = str(sweep.planned.recipe.get("trainer", ""))
        rows.append([sweep.path.name, trainer, state, ended, value, what])
    return ["sweep", "trainer", "state", "trials", "best", "of"], rows


def sweep_of(run: Path) -> Path | None:
    """The directory of the sweep that a run is of; None for any other run."""
    path = run.absolute().parent.parent
    return path if is_sweep(path) else None


def sweeps_in(runs: Sequence[Path], below: Path) -> list[Sweep]:
    """The sweeps below a directory that `runs` are of, each once; those whose files cannot be read are left out."""
    found = []
    for path in dict.fromkeys(sweep for run in runs if (sweep := sweep_of(run)) is not None):
        if not path.is_relative_to(below.absolute()):
            continue
        try:
            found.append(read_sweep(path))
        except TreadleError:
            continue
    return found
