"""Continuing a run on disk: which settings may change, which state it goes on from."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.checkpoint.state import restore
from treadle.checkpoint.store import newest_good
from treadle.config.settings import resumable
from treadle.engine.saving import CHECKPOINTS
from treadle.errors import RunError, StateError, UsageError

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer


def changed_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, as name -> (before, after); a name that one side lacks counts as None."""
    names = sorted(set(before) | set(after))
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def check_changes(changes: Mapping[str, tuple[Any, Any]], kind: type) -> None:
    """Raise UsageError where a change of settings of `kind` would make the past another one, naming the keys."""
    free = resumable(kind)
    fixed = [f"{name} ({old!r} -> {new!r})" for name, (old, new) in changes.items() if name not in free]
    if fixed:
        raise UsageError(
            f"a resume cannot change {', '.join(fixed)}: it determines what the run has already computed; "
            "fork the run instead (treadle fork)"
        )


def start_settings(trainer: Trainer) -> dict[str, Any]:
    """What the journal of a run on disk notes at its start: all settings, as they were then."""
    from treadle.config.fields import to_dict

    return {} if trainer.run is None else {"settings": to_dict(trainer.config)}


def recorded_settings(path: Path, journal: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that the run at `path` has been trained with, empty where nothing says.

    They are those of its journal: config.yaml might have been edited since.
    """
    from treadle.runs.run import CONFIG, read_config

    settings: dict[str, Any] = {}
    for entry in journal:
        if isinstance(entry.get("settings"), dict):
            settings = dict(entry["settings"])
        elif entry.get("event") == "resume" and settings and isinstance(entry.get("changed"), dict):
            settings |= {name: pair[-1] for name, pair in entry["changed"].items()}
    if not settings:
        settings = read_config(path).get("config", {})
    if not isinstance(settings, dict):
        raise UsageError(f"{path / CONFIG}: config is damaged, it is no mapping: restore the file")
    return settings


def resume_run(trainer: Trainer, path: str | Path) -> None:
    """Let `trainer`, constructed as the run's was, go on where the run at `path` was when its last checkpoint was made.

    Without any checkpoint the run starts anew in the same directory. A damaged checkpoint is reported, and the newest
    good one before it used. Raises UsageError for changed settings or data, or a run that another process is training.
    """
    from treadle.config.fields import to_dict
    from treadle.files import to_json
    from treadle.runs.lock import RunLock
    from treadle.runs.recorder import recorders
    from treadle.runs.run import SUMMARY, Run, read_config, read_journal

    run = Run.open(path)
    trainer.lock = RunLock(run.path)
    try:
        journal = read_journal(run.path)
        recorded, config = recorded_settings(run.path, journal), to_dict(trainer.config)
        changes = changed_settings(recorded, json.loads(to_json(config))) if recorded else {}
        check_changes(changes, type(trainer.config))
        ends = [entry.get("step") for entry in journal if entry.get("event") == "finish"]
        trainer.run = run
        surroundings = _compare_environment(trainer)
        trainer.hooks += recorders(run)
        trainer._forget_handlers()
        if not _restore_newest(trainer):
            run.metrics.rewind(-1)
    except BaseException:
        trainer.lock.release()
        raise
    if changes:
        trainer._finish_reason = None
    if trainer._ended and ends and ends[-1] == trainer.progress.step:
        trainer._mark_finished(trainer._finish_reason or "")
        if not run.has(SUMMARY):  # the process was killed at the very end
            run.write_summary(trainer.summary().to_dict())
        return
    if changes:
        run.write_config(read_config(run.path) | {"config": config})
    run.file(SUMMARY).unlink(missing_ok=True)
    trainer.note("resume", changed={name: list(pair) for name, pair in changes.items()})
    if surroundings:
        trainer.note("environment changed", changed={name: list(pair) for name, pair in surroundings.items()})


def _compare_environment(trainer: Trainer) -> dict[str, tuple[Any, Any]]:
    """What rounds differently here than where the run began, as name -> (there, here); says so on stderr.

    Raises UsageError instead where the config asks for `deterministic`.
    """
    from treadle.runs.environment import describe_environment, numerics
    from treadle.runs.run import ENVIRONMENT, read_environment

    run = trainer.run
    try:
        recorded = numerics(read_environment(run.path))
    except RunError:  # killed while it was being written, at the run's very beginning
        recorded = {}
    if not recorded:
        run.write(ENVIRONMENT, json.dumps(describe_environment(), indent=2))
        return {}
    here = numerics()
    changes = {name: (recorded.get(name), here[name]) for name in here if recorded.get(name) != here[name]}
    if changes:
        text = ", ".join(f"{name} {old} -> {new}" for name, (old, new) in changes.items())
        if trainer.config.deterministic:
            raise UsageError(f"not the environment of the run ({text}): restore it, or resume with deterministic=false")
        print(
            f"treadle: not the environment that the run began in: {text}; what follows may differ in the last bits",
            file=sys.stderr,
        )
    return changes


def _restore_newest(trainer: Trainer) -> bool:
    """Restore the newest good checkpoint; returns whether there was one."""
    from treadle.runs.fork import apply_hyperparameters

    for checkpoint, state in newest_good(trainer.run.path / CHECKPOINTS):
        if isinstance(state, StateError):
            print(f"treadle: {state}; trying the one before it", file=sys.stderr)
            trainer.note("checkpoint damaged", checkpoint=checkpoint.name, error=str(state))
        else:
            restore(trainer, state)
            apply_hyperparameters(trainer, trainer.run.path)
            trainer.saver.digest = state.digest
            return True
    return False
