"""A sweep from its beginning to its end: who trains, what is said meanwhile, and what is left when it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from treadle.config.files import dumps, load
from treadle.errors import TreadleError, UsageError
from treadle.files import reason, write_whole
from treadle.recipes.actions import given_data
from treadle.recipes.registry import Recipe, load_recipe, recipe_of
from treadle.recipes.scripts import script_of
from treadle.runs.run import CONFIG
from treadle.sweeps.beginning import How, Search, begin, check_count
from treadle.sweeps.importance import importance_of
from treadle.sweeps.page import write_page
from treadle.sweeps.plan import BEST, Planned
from treadle.sweeps.search import dimensions, parse_dimension
from treadle.sweeps.study import Study
from treadle.sweeps.trials import Sweep, Trial, read_sweep, runs_of, setting_words, words
from treadle.terminal import say

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer


def sweep(
    trainer: type[Trainer] | str | Path,
    search: Search,
    *,
    run_dir: str | Path,
    trials: int | None = None,
    sampler: Literal["tpe", "random", "grid"] = "tpe",
    prune: Literal["median"] | None = None,
    repeat: int = 1,
    metric: str | None = None,
    direction: Literal["min", "max"] | None = None,
    workers: int = 1,
    data: Any = None,
    validation_data: Any = None,
    test_data: Any = None,
    settings: Mapping[str, Any] | None = None,
    storage: str | None = None,
    study: str | None = None,
    log: Sequence[str] = (),
    told: Callable[[str], None] = print,
) -> Sweep:
    """Train a recipe with many settings, each time as a run of its own, and rank what comes of it.

    Called again with the same arguments it goes on: with the trials that were stopped or killed, each from its newest
    checkpoint, and then with new ones. Other processes, on other machines too, may call it at the same time.

    What "random" and "grid" try depends on the seed and the trial's number alone. What "tpe" tries and what is pruned
    depend on which trials have ended by then, and with several workers on their speed.

    Args:
        trainer: its class, a recipe's name, or a recipe's file.
        search: by setting, a range or choices: {"learning_rate": "log:1e-4..1e-1", "levels": [8, 12, 16]}.
        run_dir: the sweep's directory: trial-001/v001 and so on are runs in it.
        trials: points to try, 20 by default, of a grid all; more of them than before lets a sweep go on that was done.
        sampler: "tpe" (Optuna's, which learns from the trials that have ended), "random" or "grid".
        prune: "median" ends a trial whose validations so far are worse than the median of the others at that point.
        repeat: runs of each point, with the seeds seed, seed + 1 ...; it is ranked by their mean.
        metric: what is compared, by default what the recipe monitors: a run's best validation of it, or without
            validation its last value in training.
        direction: "min" or "max"; by default what the recipe says of the metric.
        workers: processes on this machine; 1 trains in this one. Each gets its share of the processors.
        data, validation_data, test_data: what to train on: a path for the trainer's `load_data`, or, with one worker,
            what its constructor takes under these names.
        settings: others of the recipe's, by (dotted) name, that all trials have.
        storage: a database's URL (sqlite:///trials.db, postgresql://host/name) in place of a file in `run_dir`. One
            with a password belongs into the environment, as TREADLE_SWEEP_STORAGE.
        study: its name in the database, by default that of `run_dir`.
        log: where else each run is shown or kept, as `--log` has it: ["wandb=PROJECT", "csv"].
        told: is given a line for each trial that has ended.

    Returns the trials, the best first, and how important each setting was. `run_dir` has a page of it (index.html), and
    config.yaml, a recipe with the best settings.

    Raises:
        UsageError: a search, settings or sinks that there are not, or a directory of another sweep.
        RunError: five trials failed one after the other.
        KeyboardInterrupt: it was interrupted; what was trained can be resumed.

    Example:
        found = treadle.sweep(Line, {"lr": "log:1e-3..1"}, run_dir="sweeps/line", trials=8, data=data)
        print(found.best.drawn, found.best.value)
    """
    how = How(
        trials=trials, sampler=sampler, prune=prune, repeat=repeat, metric=metric, direction=direction, storage=storage,
        study=study,
    )  # fmt: skip
    recipe = recipe_of(trainer) if isinstance(trainer, type) else load_recipe(trainer)
    recipe = given_data(recipe, data, validation_data, test_data).with_settings(settings or {})
    check_workers(workers, log, recipe)
    planned, recipe, url = begin(recipe, search, Path(run_dir), how)
    if carry_out(planned, recipe, workers, url, told, log):
        raise KeyboardInterrupt
    return conclude(planned, url)


def check_workers(workers: int, log: Sequence[str], recipe: Recipe | None = None) -> None:
    """Raise UsageError, before there is any trial, for no workers, sinks that there are not or that cannot be made, and
    a `recipe` that several workers cannot have."""
    from treadle.sweeps.training import sinks_of

    check_count("workers", workers)
    sinks_of(log, Path("trial-001/v001"))
    if workers > 1 and recipe is not None and recipe.feeds:
        raise UsageError(
            "workers: data given as objects cannot be had in other processes: give workers=1, or let the "
            "trainer's load_data make them of a path"
        )


def carry_out(
    planned: Planned,
    recipe: Recipe,
    workers: int,
    url: str | None,
    told: Callable[[str], None],
    log: Sequence[str] = (),
) -> int:
    """Train what is left of a sweep; returns 0, or 130 or 143 where a signal came. Raises what ended it otherwise."""
    dims = dimensions(planned.plan.search, recipe)
    line = Lines(planned, told)
    if workers > 1:
        from treadle.sweeps.crew import Crew

        automatic = recipe.config.device == "auto"
        script = script_of(recipe.trainer_class)
        return Crew(planned.path, workers, script, url, line.tell, log=log, share_devices=automatic).work()
    import torch

    from treadle.sweeps.training import Stop
    from treadle.sweeps.work import Failures, work

    stop, failures = Stop(), Failures()
    study = Study(planned, dims, url, torch.get_num_threads())

    def tell(trial: Trial) -> None:
        line.tell(trial)
        failures.take(trial)

    try:
        work(study, planned.plan, recipe, dims, stop, tell, log=log)
    except KeyboardInterrupt:  # between two trials
        return 130
    return stop.exit_code or (130 if stop.reason else 0)


def conclude(planned: Planned, url: str | None = None) -> Sweep:
    """What a sweep has come to so far; writes its page, and the recipe with the best settings."""
    found = look(planned, url)
    try:
        if found.best is not None and (runs := runs_of(found.best)):
            best = f"trial {found.best.number} of {found.path.name}: {planned.plan.metric} {words(found.best.value)}"
            config = {"description": best} | load(runs[0] / CONFIG)
            write_whole(planned.path / BEST, dumps(config))
        write_page(found)
    except OSError as error:
        raise UsageError(f"cannot write into {planned.path}: {reason(error)}; make room, then start again") from error
    return found


def look(planned: Planned, url: str | None = None) -> Sweep:
    """How a sweep stands; nothing is written."""
    found = read_sweep(planned.path, _others(planned, url))
    return replace(found, importance=importance_of(found))


class Lines:
    """A line about each trial that has ended."""

    def __init__(self, planned: Planned, told: Callable[[str], None]) -> None:
        self._planned, self._told = planned, told

    def tell(self, trial: Trial) -> None:
        """Say how it ended."""
        plan = self._planned.plan
        value = trial.value
        what = "" if value is None else f"{plan.metric} {words(value)}"
        if trial.spread is not None:
            what += f" +- {words(trial.spread)}"
        best = read_sweep(self._planned.path).best  # of all workers, wherever they are started
        if best is not None and best.number == trial.number:
            what += " (the best so far)"
        if trial.state != "finished":
            what = f"{trial.state}{': ' + trial.error if trial.error else ''}"
        took = f"{trial.steps} steps, {trial.seconds:.1f} s"
        self._told(f"trial {trial.number}: {what}; {setting_words(trial)}; {took}")


def _others(planned: Planned, url: str | None) -> list[Trial]:
    """The trials that other directories have in the same database; none where it cannot be asked."""
    if url is None:
        return []
    dims = [parse_dimension(name, values) for name, values in planned.plan.search.items()]
    try:
        return Study(planned, dims, url, threads=1).elsewhere()
    except TreadleError as error:
        say(f"treadle: only the trials of this directory are shown: {error}")
        return []
