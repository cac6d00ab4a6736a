"""Continuing a run on disk: which settings may change, which state it goes on from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.checkpoint.state import State
from treadle.checkpoint.store import newest_good
from treadle.config.fields import to_dict
from treadle.config.settings import resumable
from treadle.errors import RunError, UsageError
from treadle.files import to_json
from treadle.runs.environment import describe_environment, numerics
from treadle.runs.fork import apply_hyperparameters
from treadle.runs.run import (
    CHECKPOINTS,
    CONFIG,
    ENVIRONMENT,
    SUMMARY,
    Run,
    read_config,
    read_environment,
    read_journal,
)
from treadle.terminal import say

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer


def changed_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, as name -> (before, after); a name that one side lacks counts as None."""
    names = sorted(set(before) | set(after))
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def not_yet_there(recorded: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """The settings of `kind` that a record lacks, with their defaults: an older version knew no others."""
    return {
        field.name: json.loads(to_json(field.default))
        for field in fields(kind)
        if field.name not in recorded and field.default is not MISSING
    }


def check_changes(changes: Mapping[str, tuple[Any, Any]], kind: type) -> None:
    """Raise UsageError where a change of settings of `kind` would make the past another one, naming the keys."""
    free = resumable(kind)
    fixed = [f"{name} ({old!r} -> {new!r})" for name, (old, new) in changes.items() if name not in free]
    if fixed:
        raise UsageError(
            f"a resume cannot change {', '.join(fixed)}: it determines what the run has already computed; "
            "fork the run instead (treadle fork)"
        )


def recorded_settings(path: Path, journal: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that the run at `path` has been trained with, empty where nothing says.

    They are those of its journal: config.yaml might have been edited since.
    """
    settings: dict[str, Any] = {}
    for entry in journal:
        if isinstance(entry.get("settings"), dict):
            settings = dict(entry["settings"])
        elif entry.get("event") in ("resume", "extend") and settings and isinstance(entry.get("changed"), dict):
            settings |= {name: pair[-1] for name, pair in entry["changed"].items()}
    if not settings:
        settings = read_config(path).get("config", {})
    if not isinstance(settings, dict):
        raise UsageError(f"{path / CONFIG}: config is damaged, it is no mapping: restore the file")
    return settings


def go_on(trainer: Trainer) -> None:
    """Let `trainer`, which has been attached to a run, go on with it.

    Without any checkpoint the run starts anew in the same directory. A damaged checkpoint is reported, and the newest
    good one before it used. Raises UsageError for changed settings or data.
    """
    run: Run = trainer.run
    lifecycle = trainer.loop.lifecycle
    journal = read_journal(run.path)
    recorded, config = recorded_settings(run.path, journal), to_dict(trainer.config)
    known = not_yet_there(recorded, type(trainer.config)) | recorded
    changes = changed_settings(known, json.loads(to_json(config))) if recorded else {}
    check_changes(changes, type(trainer.config))
    ends = [entry.get("step") for entry in journal if entry.get("event") == "finish"]
    surroundings = _compare_environment(run, refuse=trainer.config.deterministic)
    if not _restore_newest(trainer):
        run.metrics.rewind(-1)
    at_its_end = bool(ends) and ends[-1] == trainer.progress.step
    if changes or (at_its_end and _reopened(journal)):
        lifecycle.finish_reason = None
    if trainer.loop.over and at_its_end:
        trainer.driver.mark_finished(lifecycle.finish_reason or "")
        if not run.has(SUMMARY):  # the process was killed at the very end
            run.write_summary(trainer.summary().to_dict())
        return
    if changes:
        run.write_config(read_config(run.path) | {"config": config})
    run.file(SUMMARY).unlink(missing_ok=True)
    trainer.note("resume", changed={name: list(pair) for name, pair in changes.items()})
    if surroundings:
        trainer.note("environment changed", changed={name: list(pair) for name, pair in surroundings.items()})


def _reopened(journal: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the run was let go on with other settings since it ended, and killed before a checkpoint said so."""
    since = max(index for index, entry in enumerate(journal) if entry.get("event") == "finish")
    return any(entry.get("event") in ("resume", "extend") and entry.get("changed") for entry in journal[since:])


def _compare_environment(run: Run, *, refuse: bool) -> dict[str, tuple[Any, Any]]:
    """What rounds differently here than where the run began, as name -> (there, here); says so on stderr.

    Raises UsageError instead, to `refuse` it.
    """
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
        if refuse:
            raise UsageError(f"not the environment of the run ({text}): restore it, or resume with deterministic=false")
        say(f"treadle: not the environment that the run began in: {text}; what follows may differ in the last bits")
    return changes


def _restore_newest(trainer: Trainer) -> bool:
    """Restore the newest good checkpoint; returns whether there was one."""
    for checkpoint, state in newest_good(trainer.run.path / CHECKPOINTS):
        if isinstance(state, State):
            trainer.loop.state.restore(state)
            apply_hyperparameters(trainer.parts.optimizers, trainer.progress.step, trainer.run.path)
            assert trainer.loop.archive is not None
            trainer.loop.archive.digest = state.digest
            return True
        say(f"treadle: {state}; trying the one before it")
        trainer.note("checkpoint damaged", checkpoint=checkpoint.name, error=str(state))
    return False
