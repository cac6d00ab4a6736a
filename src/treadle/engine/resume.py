"""Continuing a run on disk: which settings may change, which state it goes on from."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.checkpoint.state import restore
from treadle.checkpoint.store import newest_good
from treadle.engine.saving import CHECKPOINTS
from treadle.errors import StateError, UsageError

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer

FREE = frozenset(
    {
        *("max_epochs", "max_steps", "max_time", "patience", "min_improvement", "patience_warm_up"),
        *("save_every", "keep_checkpoints", "keep_every", "save_patience", "snapshot_every", "keep_snapshots"),
        *("workers", "log_every", "max_recoveries"),
    }
)
"""Settings that do not determine what the run has computed so far; a resume may change them."""


def changed_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, as name -> (before, after); a name that one side lacks counts as None."""
    names = sorted(set(before) | set(after))
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def check_changes(changes: Mapping[str, tuple[Any, Any]]) -> None:
    """Raise UsageError where a change would make the past another one, naming the keys."""
    fixed = [f"{name} ({old!r} -> {new!r})" for name, (old, new) in changes.items() if name not in FREE]
    if fixed:
        raise UsageError(
            f"a resume cannot change {', '.join(fixed)}: it determines what the run has already computed; "
            "fork the run instead (treadle fork)"
        )


def resume_run(trainer: Trainer, path: str | Path) -> None:
    """Let `trainer`, constructed as the run's was, go on where the run at `path` was when its last checkpoint was made.

    Without any checkpoint the run starts anew in the same directory. A damaged checkpoint is reported, and the newest
    good one before it used. Raises UsageError for changed settings or data, or a run that another process is training.
    """
    from treadle.config.fields import to_dict
    from treadle.runs.lock import RunLock
    from treadle.runs.recorder import recorders
    from treadle.runs.run import SUMMARY, Run, read_config, read_journal

    run = Run.open(path)
    trainer.lock = RunLock(run.path)
    try:
        recorded = read_config(run.path)
        changes = changed_settings(recorded.get("config", {}), to_dict(trainer.config)) if recorded else {}
        check_changes(changes)
        trainer.run = run
        trainer.hooks += recorders(run)
        trainer._forget_handlers()
        if not _restore_newest(trainer):
            run.metrics.rewind(-1)
    except BaseException:
        trainer.lock.release()
        raise
    ends = [entry for entry in read_journal(run.path) if entry.get("event") == "finish"]
    if ends and ends[-1]["step"] == trainer.progress.step and trainer.progress.at_limit:
        trainer._mark_finished(str(ends[-1].get("reason", "")))
        return
    if changes:
        run.write_config(recorded | {"config": to_dict(trainer.config)})
    run.file(SUMMARY).unlink(missing_ok=True)
    trainer.note("resume", changed={name: list(pair) for name, pair in changes.items()})


def _restore_newest(trainer: Trainer) -> bool:
    """Restore the newest good checkpoint; returns whether there was one."""
    for checkpoint, state in newest_good(trainer.run.path / CHECKPOINTS):
        if isinstance(state, StateError):
            print(f"treadle: {state}; trying the one before it", file=sys.stderr)
            trainer.note("checkpoint damaged", checkpoint=checkpoint.name, error=str(state))
        else:
            restore(trainer, state)
            trainer.saver.digest = state.digest
            return True
    return False
