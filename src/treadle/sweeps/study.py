"""The trials of a sweep as all its workers share them: Optuna's study, in a journal file or a database.

A trial is claimed under the lock of the sweep's directory, and for as long as its worker lives the trial's own
directory is locked. A trial that Optuna calls running and whose lock is free has lost its worker: whoever looks for
work next goes on with it.
"""

from __future__ import annotations

import random
import socket
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from treadle.config.files import differences
from treadle.data.random import derive_seed
from treadle.errors import UsageError
from treadle.runs.lock import RunLock, is_held
from treadle.sweeps.database import explained
from treadle.sweeps.hosts import check_one_machine
from treadle.sweeps.locking import locked
from treadle.sweeps.plan import JOURNAL, LOCK, Planned
from treadle.sweeps.search import Choices, Dimension, Drawn, grid
from treadle.sweeps.trials import Trial, folder_of, read_trial, runs_of, write_trial

STARTUP = 4
"""Finished trials before which none is pruned."""
UNCLAIMED_SECONDS = 60.0
"""Age from which a trial in a database that no directory has claimed belongs to nobody: who began it was killed."""


def need_optuna() -> Any:
    """Optuna, told to be quiet. Raises UsageError, saying what to install, where it is not there."""
    try:
        import optuna
    except ImportError:
        raise UsageError("a sweep needs optuna: pip install 'treadle[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def check_database(planned: Planned, url: str) -> None:
    """Raise UsageError where the database at `url` cannot be opened, or its study of that name is another sweep's."""
    with quietly(), explained(f"the {_place(planned)}"):
        _opened(planned, url)


def _place(planned: Planned) -> str:
    """Where the trials of a sweep are kept, as people are told."""
    storage = planned.plan.storage
    return f"journal {planned.path / JOURNAL}" if storage is None else f"database {storage}"


@contextmanager
def quietly() -> Iterator[None]:
    """Within, Optuna does not warn of what is experimental in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _opened(planned: Planned, url: str | None) -> Any:
    """Optuna's study of a sweep, made where there is none. Raises UsageError where that name is another sweep's."""
    optuna, plan = need_optuna(), planned.plan
    if url is None:
        from treadle.sweeps.journal import JournalFile

        storage: Any = optuna.storages.JournalStorage(JournalFile(planned.path / JOURNAL))
    else:
        # Hours may lie between two uses of a connection: one that was dropped meanwhile is made anew.
        storage = optuna.storages.RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    median = optuna.pruners.MedianPruner(n_startup_trials=STARTUP)
    study = optuna.create_study(
        storage=storage,
        study_name=plan.study,
        direction="maximize" if plan.direction == "max" else "minimize",
        pruner=median if plan.prune == "median" else optuna.pruners.NopPruner(),
        load_if_exists=True,
    )
    ours = plan.fixed({name: value for name, value in planned.recipe.items() if name != "data"})
    del ours["storage"]  # each user and machine may have another way to it
    theirs = study.user_attrs.get("treadle")
    if theirs is None and not study.get_trials(deepcopy=False):
        study.set_user_attr("treadle", ours)
    elif url is not None and (theirs is None or differences(theirs, ours)):
        raise UsageError(f"the study {plan.study!r} in {plan.storage} is another sweep's: give another name (--study)")
    return study


class Claim:
    """A trial that is this process's until it is released, or the process ends."""

    def __init__(self, trial: Trial, lock: RunLock, *, resumed: bool) -> None:
        self.trial, self.resumed = trial, resumed
        self._lock = lock

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let others have it."""
        self._lock.release()


class Study:
    """The trials of a sweep, as Optuna keeps them.

    Args:
        planned: the sweep.
        dims: what it searches.
        url: of the database where its plan names one, with the password; None for the journal file.
        threads: those that a new trial is computed with.

    Raises UsageError where the database or the journal cannot be opened, or is another sweep's.
    """

    def __init__(self, planned: Planned, dims: Sequence[Dimension], url: str | None, threads: int) -> None:
        self._optuna = need_optuna()
        self._planned, self._dims, self._threads = planned, dims, threads
        self._path, plan = planned.path, planned.plan
        self._grid = grid(dims) if plan.sampler == "grid" else None
        check_one_machine(self._path)
        with locked(self._path / LOCK), self._explained():
            self._study = _opened(planned, url)
            self._study.sampler = self._drawing()
            self._check_complete()

    def _check_complete(self) -> None:
        there = [trial for path in self._path.glob("trial-*") if (trial := read_trial(path)) is not None]
        known = len(self._trials())
        if there and max(trial.number for trial in there) > known:
            raise UsageError(
                f"the {_place(self._planned)} knows {known} of the trials that are here: restore it from a copy, or "
                "begin another sweep (--run)"
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        with quietly(), explained(f"the {_place(self._planned)}"):
            yield

    # Trials ---------------------------------------------------------------------------------------------------------

    def claim(self) -> Claim | None:
        """A trial to train: one that has lost its worker, else a new one; None where there is nothing left to begin.

        Nobody else gets it as long as the claim is kept.
        """
        with locked(self._path / LOCK), self._explained():
            running = [each for each in self._trials() if each.state == self._optuna.trial.TrialState.RUNNING]
            for each in running:
                claim = self._again(each)
                if claim is not None:
                    return claim
            if len(self._trials()) >= self._planned.plan.trials:
                return None
            number = len(self._trials())
            self._study.sampler = self._sampler(number)
            asked = self._study.ask({dim.name: self._distribution(dim) for dim in self._dims})
            self._study.sampler = self._drawing()
            asked.set_user_attr("place", self._planned.plan.place)
            return self._taken(asked.number, asked.params, resumed=False)

    def _again(self, frozen: Any) -> Claim | None:
        """The claim of a trial that has lost its worker; None where it has one, or is of another place."""
        place = frozen.user_attrs.get("place")
        if place != self._planned.plan.place and self._planned.plan.storage is not None:
            age = time.time() - frozen.datetime_start.timestamp()
            if place is not None or age < UNCLAIMED_SECONDS:
                return None
            self._trial(frozen).set_user_attr("place", self._planned.plan.place)
        folder = folder_of(self._path, frozen.number + 1)
        there = read_trial(folder)
        if is_held(folder) or (there is not None and any(map(is_held, runs_of(there)))):
            return None
        claim = self._taken(frozen.number, frozen.params, resumed=True)
        if self._trials()[frozen.number].state.is_finished():  # it was told, and its lock given up, since we looked
            claim.release()
            return None
        return claim

    def _taken(self, number: int, params: Mapping[str, Any], *, resumed: bool) -> Claim:
        folder = folder_of(self._path, number + 1)
        folder.mkdir(exist_ok=True)
        lock = RunLock(folder)
        trial = read_trial(folder)
        if trial is None:
            drawn = {dim.name: params[dim.name] for dim in self._dims}
            trial = Trial(number + 1, drawn, self._threads, path=folder)
            write_trial(trial)
        return Claim(trial, lock, resumed=resumed)

    def report(self, trial: Trial, count: int, value: float) -> bool:
        """Tell the value of a trial's validation, the `count`-th; returns whether the trial is to be pruned."""
        with self._explained():
            frozen = self._trials()[trial.number - 1]
            handle = self._trial(frozen)
            if count not in frozen.intermediate_values:  # else a resumed run comes by once more
                handle.report(value, count)
            return bool(handle.should_prune())

    def conclude(self, trial: Trial) -> None:
        """Tell what a trial has come to; telling it twice is telling it once."""
        states = self._optuna.trial.TrialState
        state = {"finished": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[trial.state]
        with self._explained():
            frozen = self._trials()[trial.number - 1]
            if frozen.state.is_finished():
                return
            known = {"values": list(trial.values), "steps": trial.steps, "seconds": trial.seconds, "error": trial.error}
            at = f"{socket.gethostname()}:{trial.path}"
            self._trial(frozen).set_user_attr("treadle", known | {"at": at})
            value = trial.value if trial.state == "finished" else None
            self._study.tell(trial.number - 1, value, state=state)

    def elsewhere(self) -> list[Trial]:
        """The trials that other directories have begun in the same database."""
        words = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
        found = []
        with self._explained():
            for frozen in self._trials():
                if frozen.user_attrs.get("place") == self._planned.plan.place:
                    continue
                known = dict(frozen.user_attrs.get("treadle", {}))
                at = Path(known.pop("at", ""))
                state: Any = words.get(frozen.state.name, "running")
                drawn = {dim.name: frozen.params[dim.name] for dim in self._dims if dim.name in frozen.params}
                trial = Trial(frozen.number + 1, drawn, 0, state, path=at)
                found.append(replace(trial, **known | {"values": tuple(known.get("values", ()))}))
        return found

    def _trials(self) -> list[Any]:
        trials: list[Any] = self._study.get_trials(deepcopy=False)
        return trials

    def _trial(self, frozen: Any) -> Any:
        """What one can say something about a trial to; Optuna makes it of the number in its storage."""
        return self._optuna.trial.Trial(self._study, frozen._trial_id)

    # What is drawn --------------------------------------------------------------------------------------------------

    def _distribution(self, dim: Dimension) -> Any:
        kinds, domain = self._optuna.distributions, dim.domain
        if isinstance(domain, Choices):
            return kinds.CategoricalDistribution(list(domain.values))
        low, high = domain.ends
        if domain.whole:
            return kinds.IntDistribution(low, high, log=domain.log, step=int(domain.step or 1))
        return kinds.FloatDistribution(low, high, log=domain.log, step=domain.step)

    def _sampler(self, number: int) -> Any:
        """What draws the trial of that number: seeded by it, so that a sweep that was stopped draws the same."""
        if self._planned.plan.sampler != "tpe":
            return self._drawing()
        seed = derive_seed(self._planned.plan.seed, "sweep", number) % 2**32
        return self._optuna.samplers.TPESampler(seed=seed)

    def _drawing(self) -> Any:
        """A sampler whose draws depend on the seed and the trial's number alone."""
        seed, points, dims = self._planned.plan.seed, self._grid, {dim.name: dim for dim in self._dims}

        class Drawing(self._optuna.samplers.BaseSampler):  # type: ignore[misc, name-defined]
            def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
                return {}

            def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
                return {}

            def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Drawn:
                return drawn(dims[name], seed, trial.number, points)

        return Drawing()


def drawn(dim: Dimension, seed: int, number: int, points: Sequence[Mapping[str, Drawn]] | None = None) -> Drawn:
    """What a trial of that number, counted from 0, has for a setting: from the grid's `points`, or at random."""
    if points is not None:
        return points[number % len(points)][dim.name]
    return dim.domain.draw(random.Random(derive_seed(seed, "sweep", number, dim.name)))
