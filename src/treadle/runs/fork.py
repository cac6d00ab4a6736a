"""Forking: a new run that branches from a checkpoint of another."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.checkpoint.state import State
from treadle.checkpoint.store import (
    VALUES,
    checkpoint_name,
    list_checkpoints,
    pin,
    read_checkpoint,
    step_of,
    write_checkpoint,
)
from treadle.errors import RunError, UsageError
from treadle.files import blamed, copy_regular, number, raw_lines, reason, to_json
from treadle.hooks.best_model import BestModel
from treadle.hooks.early_stopping import EarlyStopping
from treadle.runs.aside import create_run
from treadle.runs.best import copy_best
from treadle.runs.metrics import METRICS
from treadle.runs.other_data import Redirected
from treadle.runs.run import JOURNAL, Run, read_journal, recorded_settings, run_id
from treadle.terminal import say

if TYPE_CHECKING:
    import torch

    from treadle.engine.trainer import Trainer

    Optimizers = Mapping[str, torch.optim.Optimizer]


def fork_run(
    parent: Path,
    step: int,
    config: Mapping[str, Any],
    run_dir: Path | None = None,
    hyperparameters: Sequence[Mapping[str, Any]] = (),
    redirected: Redirected | None = None,
    others: Sequence[str] = (),
) -> Path:
    """Make a run that goes on from the checkpoint of `parent` at `step`, with `config` as its config.yaml.

    It is made aside and appears complete: whatever kills this leaves no run, or all of it.

    The checkpoint, checked, and the metrics up to it are copied, so the fork stands alone; in the parent it is pinned.
    Of the parent's best models those are copied that it had at `step` already; where there is none, the fork's next
    validation writes one.
    The fork is then resumed like any run. `hyperparameters` are what `changed_hyperparameters` gave: an optimizer's own
    are part of its state, so a fork that sets others has to say so.

    With other data the checkpoint is what `redirect` made of it. Then, and where `others` names settings that make the
    fork another run (`changes_of_future`), no best model comes along, and what is best begins anew.

    Returns its directory: the next version beside the parent, or in `run_dir`.
    Raises UsageError where there is no such checkpoint, StateError where it is damaged.
    """
    source = checkpoint_at(parent, step)
    state = read_checkpoint(source)
    with blamed(source / VALUES):
        best = _best_of(state)
    changes = [dict(change) for change in hyperparameters]

    def fill(run: Run) -> None:
        run.write_config(config)
        if (parent / METRICS).exists():
            copy_regular(parent / METRICS, run.path / METRICS)
            try:
                run.metrics.rewind(step)
            except RunError as error:  # in the copy, which is about to go
                raise RunError(str(error).replace(str(run.path), str(parent))) from None
        if redirected is None:
            _copy_files(source, run.path / "checkpoints" / source.name)
            if not others:
                copy_best(parent, run.path, best)
        else:
            write_checkpoint(run.path / "checkpoints", redirected.state)
        entry = {"event": "fork", "step": step, "time": time.time(), "parent": str(parent), "hyperparameters": changes}
        first = next(raw_lines(parent / JOURNAL), None)
        if first is not None:
            entry["parent_id"] = run_id(first)
        given = _given(parent, config)
        if given:
            entry["given"] = given
        if others:
            entry["others"] = list(others)
        if redirected is not None:
            entry["data"] = redirected.entry()
        run.journal.append(entry | {"settings": config.get("config")})

    try:
        fork = create_run(run_dir if run_dir is not None else parent.parent, fill).path
    except OSError as error:
        raise RunError(f"{parent} cannot be forked: {error.filename or source}: {reason(error)}") from error
    try:
        pin(source, str(fork))
    except OSError as error:
        say(f"treadle: {source} is not kept for good, its run cannot be written ({reason(error)}); {fork} has a copy")
    return fork


def _given(parent: Path, config: Mapping[str, Any]) -> list[str]:
    """The settings that a fork of `parent` with this config.yaml has otherwise: they win over the parent's edits."""
    before = recorded_settings(parent, read_journal(parent))
    after = json.loads(to_json(config.get("config") or {}))
    return sorted(name for name in before.keys() & after.keys() if before[name] != after[name])


def checkpoint_at(parent: Path, step: int) -> Path:
    """The checkpoint of the run `parent` at `step`. Raises UsageError where there is none, naming those there are."""
    if type(step) is not int:
        raise UsageError(f"cannot fork {parent} at {step!r}: expected the step of a checkpoint, a whole number")
    directory = parent / "checkpoints"
    source = directory / checkpoint_name(step)
    if not source.is_dir():
        there = ", ".join(str(step_of(path)) for path in list_checkpoints(directory)) or "none"
        raise UsageError(f"{parent} has no checkpoint at step {step}; there are: {there}")
    return source


def _copy_files(source: Path, target: Path) -> None:
    """Copy the files of a directory that has no others in it."""
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        copy_regular(path, target / path.name)


def _best_of(state: State) -> list[Mapping[str, Any]]:
    """What the best models are the best of that `state` knows, the best first."""
    hooks: Any = state.values["hooks"]
    known = hooks.get("BestModel.1", {})
    infos = [known.get("info"), *(other["info"] for other in known.get("others", ()))]
    return [{"step": int(info["step"]), "value": number(info["value"])} for info in infos if info]


def changed_hyperparameters(before: Optimizers, after: Optimizers) -> list[dict[str, Any]]:
    """Where two fresh trainers' optimizers are built with other hyperparameters: optimizer, group, key and value."""
    changes: list[dict[str, Any]] = []
    for name, optimizer in after.items():
        groups = before[name].param_groups if name in before else []
        for index, (old, new) in enumerate(zip(groups, optimizer.param_groups, strict=False)):
            changes += [
                {"optimizer": name, "group": index, "key": key, "value": value}
                for key, value in new.items()
                if key != "params" and key in old and old[key] != value
            ]
    return changes


def as_forked(trainer: Trainer, run: Path) -> None:
    """Let a trainer, whose state was restored, be what the fork at `run` was forked to, where it is at its beginning.

    It gets the hyperparameters that it was given, and where it is another run than its parent nothing is best yet.
    """
    if run.joinpath(JOURNAL).exists():
        first = next(iter(read_journal(run)), {})
        if first.get("event") != "fork" or first.get("step") != trainer.progress.step:
            return
        with blamed(run / JOURNAL):
            for change in first.get("hyperparameters", []):
                value = change["value"]
                group = trainer.parts.optimizers[change["optimizer"]].param_groups[change["group"]]
                group[change["key"]] = tuple(value) if isinstance(value, list) else value
            others = first.get("others", [])
            trainer.loop.edits.give_way(first.get("given", []))
        if others:
            for hook in trainer.hooks:
                if isinstance(hook, BestModel | EarlyStopping):
                    hook.begin_anew()
            trainer.loop.best = None
