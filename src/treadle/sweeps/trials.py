"""The trials of a sweep, read from their files: what was drawn for each, and what it has come to."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from treadle.config.fields import from_dict
from treadle.errors import TreadleError, UsageError
from treadle.files import number, reason, to_json, write_whole
from treadle.runs.compare import describe
from treadle.runs.lock import is_held
from treadle.runs.run import is_run, read_json
from treadle.sweeps.plan import Planned, read_plan

TRIAL, OUTPUT = "trial.json", "output.txt"

State = Literal["running", "finished", "pruned", "failed", "unfinished"]


@dataclass(frozen=True)
class Trial:
    """One point of a sweep, and the runs that it is made of.

    Attributes:
        number: counted from 1.
        drawn: by setting, the number that was drawn or the words of the choice.
        threads: those that torch computes it with, so that it goes on with as many.
        state: "running" and "unfinished" (killed or stopped, to be resumed) are those of a trial without an end.
        values: the metric of each of its runs, as far as they have ended.
        value: their mean; None where nothing was measured.
        steps, seconds: of all its runs together.
        error: why it failed, in a line.
        path: its directory, with the runs v001, v002 ... in it.
    """

    number: int
    drawn: dict[str, int | float | str]
    threads: int
    state: State = "unfinished"
    values: tuple[float, ...] = ()
    steps: int = 0
    seconds: float = 0.0
    error: str = ""
    path: Path = field(default=Path(), compare=False)

    @property
    def value(self) -> float | None:
        """The mean of `values`; None where there are none."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """The standard deviation of `values`, as of a sample; None for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.state in ("finished", "pruned", "failed")


@dataclass(frozen=True)
class Sweep:
    """A sweep as it stands.

    Attributes:
        path: its directory.
        planned: what it is.
        trials: the best first; then those that were pruned, that have no end yet, and that failed.
        importance: by setting, how much of what tells good trials from others it is (they add up to 1); empty where
            that is not known.
    """

    path: Path
    planned: Planned
    trials: Sequence[Trial]
    importance: Mapping[str, float] = field(default_factory=dict)

    @property
    def best(self) -> Trial | None:
        """The best trial that has finished; None where none has."""
        return self.trials[0] if self.trials and self.trials[0].state == "finished" else None

    @property
    def left(self) -> int:
        """How many trials have no end yet, those that have not begun included."""
        return max(0, self.planned.plan.trials - sum(trial.ended for trial in self.trials))

    def count(self, state: State) -> int:
        """How many trials are in that state."""
        return sum(trial.state == state for trial in self.trials)


def folder_of(sweep: Path, trial: int) -> Path:
    """The directory of a trial, counted from 1."""
    return sweep / f"trial-{trial:03d}"


def write_trial(trial: Trial) -> None:
    """Write what is known of a trial, whole. Raises UsageError where the disk refuses."""
    known = {name: value for name, value in asdict(trial).items() if name != "path"}
    try:
        trial.path.mkdir(exist_ok=True)
        write_whole(trial.path / TRIAL, to_json(known) + "\n", sync=True)
    except OSError as error:
        raise UsageError(f"cannot write {trial.path / TRIAL}: {reason(error)}; make room, then start again") from error


def read_trial(path: Path) -> Trial | None:
    """The trial in a directory; None where nothing (whole) says what it is."""
    try:
        known = read_json(path / TRIAL)
        if not known:
            return None
        known["values"] = [number(value) for value in known.get("values", ())]
        return replace(from_dict(Trial, known | {"path": str(path)}, source=str(path / TRIAL)), path=path)
    except TreadleError:
        return None


def read_sweep(path: Path, others: Sequence[Trial] = ()) -> Sweep:
    """The sweep in a directory, as its files say now, and `others` of its trials. Raises UsageError for none."""
    planned = read_plan(path)
    found = [trial for each in sorted(path.glob("trial-*")) if (trial := read_trial(each)) is not None]
    trials = [*map(_as_it_stands, found), *others]
    return Sweep(path, planned, sorted(trials, key=lambda trial: _rank(trial, planned.plan.direction)))


def runs_of(trial: Trial) -> list[Path]:
    """The runs of a trial, in their order."""
    return sorted(path for path in trial.path.glob("v*") if is_run(path))


def _as_it_stands(trial: Trial) -> Trial:
    """A trial without an end, as its runs say."""
    if trial.ended:
        return trial
    runs = [describe(run) for run in runs_of(trial)]
    return replace(
        trial,
        state="running" if is_held(trial.path) else "unfinished",
        steps=sum(run.step for run in runs),
        seconds=sum(run.seconds or 0.0 for run in runs),
    )


_ORDER: Sequence[State] = ("finished", "pruned", "running", "unfinished", "failed")


def _rank(trial: Trial, direction: str) -> tuple[int, float, int]:
    value = math.inf if trial.value is None or math.isnan(trial.value) else trial.value
    sign = -1.0 if direction == "max" and value != math.inf else 1.0
    return _ORDER.index(trial.state), sign * value, trial.number


def words(value: Any) -> str:
    """A drawn value, or a figure, as people read it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def setting_words(trial: Trial) -> str:
    """What was drawn for a trial, on a line."""
    return "  ".join(f"{name}={words(value)}" for name, value in trial.drawn.items())
