"""How a sweep begins, or goes on: everything is checked before there is a directory, and no trial begins in vain."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treadle.errors import UsageError
from treadle.files import reason, remove_leftovers
from treadle.recipes.registry import Recipe, load_recipe
from treadle.sweeps.database import url_given, url_known, without_password
from treadle.sweeps.locking import locked
from treadle.sweeps.plan import (
    LOCK,
    PLAN,
    PRUNERS,
    RECIPE,
    SAMPLERS,
    Plan,
    Planned,
    check_free,
    check_same,
    is_sweep,
    read_plan,
    save_trials,
    write_plan,
)
from treadle.sweeps.search import dimensions, grid, one_of, parse_search
from treadle.sweeps.study import check_database, need_optuna

TRIALS = 20
"""How many points are tried where nobody says so."""

Search = Mapping[str, str | Sequence[Any]] | Sequence[str]


@dataclass(frozen=True, kw_only=True)
class How:
    """What is asked of a sweep beside its search; each as `sweep` explains it."""

    trials: int | None = None
    sampler: str = "tpe"
    prune: str | None = None
    repeat: int = 1
    metric: str | None = None
    direction: str | None = None
    storage: str | None = None
    study: str | None = None

    def check(self) -> None:
        """Raise UsageError for what there is not."""
        one_of("sampler", self.sampler, SAMPLERS)
        if self.prune is not None:
            one_of("prune", self.prune, PRUNERS)
        if self.direction is not None:
            one_of("direction", self.direction, ("min", "max"))
        check_count("repeat", self.repeat)
        if self.trials is not None:
            check_count("trials", self.trials)


def begin(recipe: Recipe, search: Search, path: Path, how: How) -> tuple[Planned, Recipe, str | None]:
    """Check everything, and make the sweep's directory or find the same sweep in it.

    Returns the sweep, the recipe of its trials, and the URL of its database with the password (None: it has none).
    """
    path = path.expanduser().absolute()
    need_optuna()
    texts = search if isinstance(search, Mapping) else parse_search(search)
    how.check()
    recipe = _measured(recipe, how.metric, how.direction)
    _check_names(texts, how.repeat)
    dims = dimensions(texts, recipe)
    points = len(grid(dims)) if how.sampler == "grid" else None
    url = url_given(how.storage)
    plan = Plan(
        study=how.study or path.name,
        search={name: values if isinstance(values, str) else list(values) for name, values in texts.items()},
        trials=min(how.trials or points or TRIALS, points or 10**9),
        sampler=how.sampler,
        prune=how.prune,
        metric=recipe.config.monitor,
        direction=recipe.config.mode_of(recipe.config.monitor, recipe.config.monitor_mode),
        repeat=how.repeat,
        seed=recipe.config.seed,
        storage=None if url is None else without_password(url),
        place=secrets.token_hex(8),
    )
    return _made(Planned(path, plan, recipe.document()), how.trials, url), recipe, url


def go_on(path: Path, trials: int | None, kind: type[Any] | None) -> tuple[Planned, Recipe, str | None]:
    """The sweep in a directory, to be carried out further; `trials` is how far, `kind` the trainer that has no name.

    Returns what `begin` does.
    """
    planned = read_plan(path.expanduser().absolute())
    recipe = load_recipe(planned.path / RECIPE, kind)
    need_optuna()
    if trials is not None:
        check_count("trials", trials)
        if planned.plan.sampler == "grid":
            trials = min(trials, len(grid(dimensions(planned.plan.search, recipe))))
        planned = save_trials(planned, trials)
    return planned, recipe, url_known(planned.plan.storage)


def check_count(name: str, value: int) -> None:
    """Raise UsageError unless `value`, named so, is a whole number above 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name} is {value!r}: expected a whole number, at least 1")


def _made(wanted: Planned, trials: int | None, url: str | None) -> Planned:
    """The sweep in its directory, made where there is none; several processes may try at once."""
    path = wanted.path
    if not is_sweep(path):
        check_free(path)
        if url is not None:
            check_database(wanted, url)  # before there is a directory that is bound to it
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"no sweep can be made at {path}: {reason(error)}; give another (--run)") from None
    with locked(path / LOCK):
        if not is_sweep(path):
            remove_leftovers(path, (RECIPE, PLAN))
            write_plan(wanted)
        there = read_plan(path)
        check_same(there, wanted)
        if trials is not None and there.plan.trials != wanted.plan.trials:
            there = save_trials(there, wanted.plan.trials)
    return there


def _check_names(names: Iterable[str], repeat: int) -> None:
    for name in names:
        if name in ("monitor", "monitor_mode") or (name == "seed" and repeat > 1):
            why = "it is what repeat= changes" if name == "seed" else "it says what trials are compared by (metric=)"
            raise UsageError(f"search: {name} cannot be searched, {why}")


def _measured(recipe: Recipe, metric: str | None, direction: str | None) -> Recipe:
    """The recipe with what its trials are compared by as what they monitor."""
    config = recipe.config
    metric = metric or config.monitor
    if metric is None:
        raise UsageError("the recipe monitors nothing: name what trials are compared by (--metric)")
    changes: dict[str, Any] = {} if metric == config.monitor else {"monitor": metric}
    if direction is not None and config.mode_of(metric, config.monitor_mode) != direction:
        changes["monitor_mode"] = direction
    return recipe.with_settings(changes)
