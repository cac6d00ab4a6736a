"""Keeping the future that a rewind gives up, as a run of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from treadle.checkpoint.store import LATEST, latest_step, list_checkpoints, read_checkpoint, step_of
from treadle.files import copy_regular, write_json
from treadle.runs.aside import create_run
from treadle.runs.best import ranks
from treadle.runs.lock import LOCK
from treadle.runs.metrics import ABANDONED, METRICS
from treadle.runs.run import CHECKPOINTS, JOURNAL, SUMMARY, Run, read_journal, recorded_settings

APART = frozenset({LOCK, JOURNAL, METRICS, ABANDONED, CHECKPOINTS})
"""What of a run is not taken along as it is."""


def keep_future(parent: Path, step: int) -> Path | None:
    """Make a run of what the run `parent` came to after `step`, beside it; None where no checkpoint is after that.

    It is a fork that has gone on: with the parent's checkpoints from `step` on, its metrics, pictures and best models,
    and the part of its journal that is about them. Files that are never written again are shared, not copied. It is
    made aside and appears complete: whatever kills this leaves no run, or all of it, and the parent as it is.

    Raises OSError, RunError or UsageError where it cannot be made, StateError where its newest checkpoint is damaged.
    """
    latest = latest_step(parent / CHECKPOINTS)
    there = [path for path in list_checkpoints(parent / CHECKPOINTS) if latest is None or step_of(path) <= latest]
    future = [path for path in there if step_of(path) >= step]
    if not future or step_of(future[-1]) == step:
        return None
    newest = read_checkpoint(future[-1])
    journal = read_journal(parent)

    def fill(run: Run) -> None:
        _share(parent, run.path, leave=APART)
        for path in future:
            _share(path, run.path / CHECKPOINTS / path.name)
        latest = {"checkpoint": future[-1].name, "step": newest.step, "digest": newest.digest}
        write_json(run.path / CHECKPOINTS / LATEST, latest)
        if (parent / METRICS).exists():
            copy_regular(parent / METRICS, run.path / METRICS)
            run.metrics.rewind(newest.step)
        settings = recorded_settings(parent, journal)
        entry = {"event": "fork", "step": step, "time": time.time(), "parent": str(parent), "hyperparameters": []}
        run.journal.append(entry | {"settings": settings, "kept": True})
        for said in _of_future(journal, step):
            run.journal.append(said)
        if not run.has(SUMMARY):
            best = [rank.info for rank in ranks(run.path)]
            values = newest.values
            run.write_summary(
                {
                    "status": "stopped",
                    "reason": f"kept when {parent} went back to step {step}",
                    "step": newest.step,
                    "epoch": newest.epoch,
                    "metrics": values["metrics"],
                    "validation_metrics": values["validation_metrics"],
                    "best": best[0] if best else None,
                    "seconds": newest.clock["seconds"],
                    "digest": newest.digest,
                }
            )

    return create_run(parent.parent, fill).path


def _of_future(journal: Sequence[Mapping[str, Any]], step: int) -> Sequence[Mapping[str, Any]]:
    """What the journal says from when the run last came to `step`."""
    begin = 0
    for index, entry in enumerate(journal):
        back = entry["event"] in ("resume", "rewind", "rollback") and entry.get("restored", entry["step"]) <= step
        if entry["step"] < step or back:
            begin = index + 1
    return journal[begin:]


def _share(source: Path, target: Path, leave: frozenset[str] = frozenset()) -> None:
    """Have the files of the directory `source` in `target`, too: linked, where the disk can. Links are not followed."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
        if entry.name in leave or entry.name.startswith(".") or entry.is_symlink():
            continue
        path = target / entry.name
        if entry.is_dir():
            _share(Path(entry.path), path)
        elif entry.is_file():
            path.unlink(missing_ok=True)  # the environment, of which a new run has its own
            try:
                os.link(entry.path, path, follow_symlinks=False)
            except OSError:  # no links on this disk
                copy_regular(Path(entry.path), path)
