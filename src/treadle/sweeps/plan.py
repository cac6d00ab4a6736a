"""What a sweep is, in the files that say so: `recipe.yaml`, what its trials are made from, and `sweep.yaml`, how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from treadle.config.fields import from_dict
from treadle.config.files import differences, dumps, load
from treadle.errors import UsageError
from treadle.files import near_sibling, reason, write_whole
from treadle.runs.run import CONFIG, SWEEP, is_run

PLAN, RECIPE, BEST, LOCK = SWEEP, "recipe.yaml", CONFIG, ".lock"
JOURNAL = "optuna.journal"
SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("median",)

_MAY_CHANGE = ("trials", "place")
"""What is not the same in all that start a sweep: how far it goes, and where it is."""


@dataclass(frozen=True)
class Plan:
    """How a sweep searches.

    Attributes:
        study: its name in the storage.
        search: what is searched, as `dimensions` reads it.
        trials: how many points are tried.
        sampler, prune, metric, direction, repeat, seed: as `sweep` explains them.
        storage: a database's URL without its password; None for the journal file beside this.
        place: tells this directory from others that share a database.
    """

    study: str
    search: dict[str, Any]
    trials: int
    sampler: str
    prune: str | None
    metric: str
    direction: str
    repeat: int
    seed: int
    storage: str | None
    place: str

    def fixed(self, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """All that may not change while the sweep goes on, with the `recipe` as plain data."""
        return {name: value for name, value in asdict(self).items() if name not in _MAY_CHANGE} | {"recipe": recipe}


@dataclass(frozen=True)
class Planned:
    """A sweep's directory, as its files describe it."""

    path: Path
    plan: Plan
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """In the shape of a recipe file."""


def is_sweep(path: Path) -> bool:
    """Whether `path` is a sweep's directory."""
    return (path / PLAN).is_file()


def read_plan(path: Path) -> Planned:
    """The sweep in a directory. Raises UsageError, naming the file, where there is none or it is damaged."""
    if not is_sweep(path):
        if is_run(path):
            raise UsageError(f"{path} is a run, and no sweep: treadle runs {path} shows it")
        tail = "" if path.exists() else near_sibling(path)
        raise UsageError(f"{path} is no sweep: it has no {PLAN}{tail}")
    return Planned(path, from_dict(Plan, load(path / PLAN), source=str(path / PLAN)), load(path / RECIPE))


def check_free(path: Path) -> None:
    """Raise UsageError, saying what to do, where no sweep can be begun in a directory because of what is there."""
    why = f"no sweep can be made at {path}:"
    if path.exists() and not path.is_dir():
        raise UsageError(f"{why} it is a file; give another directory (--run)")
    if is_run(path):
        raise UsageError(f"{why} it is a run; give another directory (--run), whose trials will be runs")
    names = sorted(each.name for each in path.iterdir()) if path.is_dir() else []
    # What somebody has written who begins the same sweep now, or was killed at that.
    inside = [name for name in names if not name.startswith((LOCK, RECIPE, PLAN, f".{RECIPE}.", f".{PLAN}."))]
    if inside and not is_sweep(path):
        raise UsageError(f"{why} {inside[0]} is there already; give a new directory (--run)")


def write_plan(planned: Planned) -> None:
    """Write what the sweep is; the plan comes last, and with it the sweep is there. Raises UsageError."""
    try:
        write_whole(planned.path / RECIPE, dumps(planned.recipe), sync=True)
        write_whole(planned.path / PLAN, dumps(asdict(planned.plan)), sync=True)
    except OSError as error:
        raise UsageError(f"no sweep can be made at {planned.path}: {reason(error)}") from None


def check_same(there: Planned, wanted: Planned) -> None:
    """Raise UsageError, naming the first difference, unless `wanted` is the sweep that is there."""
    if there.recipe.get("trainer") != wanted.recipe.get("trainer"):
        names = [each.recipe.get("trainer") for each in (there, wanted)]
        raise UsageError(f"{there.path} is a sweep of the trainer {names[0]!r}, not of {names[1]!r}: {_OTHER}")
    before, now = (each.plan.fixed(each.recipe) for each in (there, wanted))
    if list(before["search"]) != list(now["search"]):
        names = [", ".join(each["search"]) for each in (before, now)]
        raise UsageError(f"{there.path} is another sweep: it searches {names[0]}, and not {names[1]}; {_OTHER}")
    for key, old, new in differences(before, now):
        if key != "study":
            what = key.removeprefix("recipe.config.").removeprefix("recipe.").replace("search.", "search ")
            raise UsageError(f"{there.path} is another sweep: {what} is {old!r} there, and {new!r} here; {_OTHER}")
    if there.plan.study != wanted.plan.study:
        raise UsageError(f"{there.path} is the study {there.plan.study!r}, not {wanted.plan.study!r}; {_OTHER}")


_OTHER = "give another directory (--run), or go on with what is there (treadle sweep DIR --resume)"


def save_trials(planned: Planned, trials: int) -> Planned:
    """The sweep with another number of trials, as its file says from then on. Raises UsageError."""
    plan = Plan(**{**asdict(planned.plan), "trials": trials})
    try:
        write_whole(planned.path / PLAN, dumps(asdict(plan)), sync=True)
    except OSError as error:
        raise UsageError(f"cannot write {planned.path / PLAN}: {reason(error)}; make room, then start again") from None
    return Planned(planned.path, plan, planned.recipe)
