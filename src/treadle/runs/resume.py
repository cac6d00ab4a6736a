"""Continuing a run on disk: which settings may change, which state it goes on from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.checkpoint.state import State
from treadle.checkpoint.store import VALUES, newest_good, remove_leftovers, step_of
from treadle.config.fields import to_dict
from treadle.config.settings import resumable
from treadle.engine.settings import StartSettings
from treadle.errors import DataChanged, RunError, StateError, TreadleError, UsageError, one_line
from treadle.files import blamed, to_json
from treadle.runs.attach import begin
from treadle.runs.environment import describe_environment, numerics
from treadle.runs.run import (
    CHECKPOINTS,
    CONFIG,
    ENVIRONMENT,
    JOURNAL,
    SUMMARY,
    Run,
    read_config,
    read_environment,
    read_journal,
    recorded_settings,
)
from treadle.runs.shared import ERRORS, described, spread_state
from treadle.terminal import say

if TYPE_CHECKING:
    from treadle.engine.settings import TrainerConfig
    from treadle.engine.trainer import Trainer


def changed_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, as name -> (before, after); a name that one side lacks counts as None."""
    names = sorted(set(before) | set(after))
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def not_yet_there(recorded: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """The settings of `kind` that a record lacks, with their defaults: an older version knew no others."""
    absent = [field for field in fields(kind) if field.name not in recorded]
    defaults = {field.name: field.default for field in absent if field.default is not MISSING}
    made = {field.name: field.default_factory() for field in absent if field.default_factory is not MISSING}
    known: dict[str, Any] = json.loads(to_json(defaults | made))
    return known


def check_changes(changes: Mapping[str, tuple[Any, Any]], kind: type) -> None:
    """Raise UsageError where a change of settings of `kind` would make the past another one, naming the keys."""
    free = resumable(kind)
    fixed = [f"{name} ({old!r} -> {new!r})" for name, (old, new) in changes.items() if name not in free]
    if fixed:
        raise UsageError(
            f"a resume cannot change {', '.join(fixed)}: it determines what the run has already computed; "
            "fork the run instead (treadle fork)"
        )


def changes_since(recorded: dict[str, Any], config: TrainerConfig) -> dict[str, tuple[Any, Any]]:
    """The settings of `config` that are others than was recorded of a run, as name -> (before, after)."""
    if not recorded:
        return {}
    known = not_yet_there(recorded, type(config)) | recorded
    changes = changed_settings(known, json.loads(to_json(to_dict(config))))
    if "monitor_mode" in changes and "monitor" not in changes:
        before, after = (config.mode_of(config.monitor, mode) for mode in changes["monitor_mode"])
        if before == after:  # once it was said, and once left to the metric
            del changes["monitor_mode"]
    return changes


def changes_of_future(run: Path, config: TrainerConfig) -> list[str]:
    """The settings by which a fork of the run at `run` with `config` is another run: those that no resume changes.

    What was best in the run is then not the best of the fork, which is trained, or judged, by something else.
    """
    changes = changes_since(recorded_settings(run, read_journal(run)), config)
    return sorted(changes.keys() - resumable(type(config)))


def go_on_together(trainer: Trainer) -> None:
    """Go on with a run in the main process, and tell the others, which `follow`. Raises what `go_on` does, in all."""
    world, lifecycle = trainer.loop.world, trainer.loop.lifecycle
    if world.size == 1:
        return go_on(trainer)
    try:
        go_on(trainer)
    except BaseException as error:
        world.share(described(error))
        raise
    world.share({"done": lifecycle.finish_reason, "ended": lifecycle.ended})


def follow(trainer: Trainer) -> None:
    """In a process that is not the main one: take the states that it restores, and end up where it does."""
    loop = trainer.loop
    failure: Exception | None = None
    while True:
        told: dict[str, Any] = loop.world.share({})
        if "error" in told:
            raise ERRORS[told["error"]](told["text"])
        if "done" in told:
            break
        if told.get("begin"):
            begin(trainer)
            continue
        state = spread_state(loop.world, None)
        try:
            loop.state.restore(state)
            failure = None
        except Exception as error:  # the main process has it too, and tries the one before
            failure = error
        else:
            loop.edits.give_way({name: (old, new) for name, (old, new) in told["changes"].items()})
    if failure is not None:
        raise failure
    loop.lifecycle.finish_reason = told["done"]
    if told["ended"]:
        trainer.driver.mark_finished(told["done"] or "")


def go_on(trainer: Trainer) -> None:
    """Let `trainer`, which has been attached to a run, go on with it.

    Without any checkpoint the run starts anew in the same directory. A damaged checkpoint is reported, and the newest
    good one before it used. Raises UsageError for changed settings or data.
    """
    run: Run = trainer.run
    lifecycle = trainer.loop.lifecycle
    journal = read_journal(run.path)
    if journal and journal[0]["event"] == "import":
        raise UsageError(
            f"{run.path} was imported: it has weights, and no training that could go on; begin one with them "
            f"(treadle train {run.path / CONFIG} --data FOLDER --init {run.path})"
        )
    recorded = recorded_settings(run.path, journal)
    if recorded.get("batch_size") == trainer.loop.asked_batch_size:
        # Before 0.3, a run beside whose data nobody had said it recorded the default.
        trainer.config.batch_size = trainer.loop.asked_batch_size
    if isinstance(trainer.config, StartSettings) and trainer.config.init is not None:
        from treadle.runs.init import as_recorded

        trainer.config.init = as_recorded(trainer.config.init, recorded.get("init"))
    config = to_dict(trainer.config)
    changes = changes_since(recorded, trainer.config)
    check_changes(changes, type(trainer.config))
    ends = [entry.get("step") for entry in journal if entry.get("event") == "finish"]
    surroundings = _compare_environment(run, refuse=trainer.config.deterministic)
    run.remove_leftovers()
    remove_leftovers(run.path / CHECKPOINTS)
    if _restore_newest(trainer, journal, changes):
        trainer.loop.edits.give_way(changes)
        _notice_other_weights(trainer)
    else:
        run.metrics.rewind(-1)
        _begin_again(trainer, journal)
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
    edits = trainer.loop.edits.in_force()
    if edits:
        text = ", ".join(f"{edit['label']} {to_json(edit['before'])} -> {to_json(edit['after'])}" for edit in edits)
        say(f"treadle: the run goes on with what was edited while it ran: {text}")
    trainer.note(
        "resume",
        changed={name: list(pair) for name, pair in changes.items()},
        **({"edits": edits} if edits else {}),
    )
    if surroundings:
        trainer.note("environment changed", changed={name: list(pair) for name, pair in surroundings.items()})


def _begin_again(trainer: Trainer, journal: Iterable[Mapping[str, Any]]) -> None:
    """Begin with the weights that the settings name, as the run did. Raises DataChanged where they are others now."""
    if trainer.loop.world.size > 1:
        trainer.loop.world.share({"begin": True})
    begin(trainer)
    before = [entry["init"]["sha256"] for entry in journal if entry.get("event") == "start" and "init" in entry]
    if before and before[-1] != trainer.loop.state.begun_with:
        raise DataChanged("the weights that init names are not what they were: restore them, or start a new run")


def _notice_other_weights(trainer: Trainer) -> None:
    """Say where `init` names other weights by now; the run goes on from its checkpoint, which holds them all."""
    before = trainer.loop.state.begun_with
    if before is None or not isinstance(trainer.config, StartSettings) or trainer.config.init is None:
        return
    from treadle.runs.init import initial_weights

    try:
        now = initial_weights(trainer.config, trainer.parts, trainer.preferred_model).fingerprint
    except UsageError:  # they are gone: nothing needs them any more
        return
    if now != before:
        say(
            f"treadle: init ({trainer.config.init}) names other weights than those that the run began with; it goes "
            "on from its checkpoint all the same, but config.yaml alone does not reproduce it any more"
        )
        trainer.note("init changed", before=before, now=now)


def _reopened(journal: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the run was let go on with other settings since it ended, and killed before a checkpoint said so."""
    since = max(index for index, entry in enumerate(journal) if entry.get("event") == "finish")
    return any(entry.get("event") in ("resume", "extend") and entry.get("changed") for entry in journal[since:])


def _compare_environment(run: Run, *, refuse: bool) -> dict[str, tuple[Any, Any]]:
    """What rounds differently here than where the run began, as name -> (there, here); says so on stderr.

    Raises UsageError instead, to `refuse` it.
    """
    try:
        with blamed(run.path / ENVIRONMENT):
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


def _restore_newest(
    trainer: Trainer, journal: Sequence[Mapping[str, Any]], changes: Mapping[str, tuple[Any, Any]]
) -> bool:
    """Restore the newest checkpoint that can be; returns whether there was one.

    Raises StateError where one is whole and cannot be restored all the same, nor any before it; and UsageError for a
    fork that has none: its beginning is another run's.
    """
    run: Run = trainer.run
    sizes = run.log_sizes()
    failure: StateError | None = None
    for checkpoint, state in _newest_first(run.path / CHECKPOINTS):
        if isinstance(state, State):
            if trainer.loop.world.size > 1:
                trainer.loop.world.share({"changes": {name: list(pair) for name, pair in changes.items()}})
                spread_state(trainer.loop.world, state)
            try:
                trainer.loop.state.restore(state)
            except TreadleError:
                raise
            except Exception as error:  # the hashes may be right and the content be anything
                what = f"checkpoint {checkpoint}: {VALUES} cannot be restored ({one_line(error)})"
                state = failure = StateError(what)
                failure.__cause__ = error
            else:
                assert trainer.loop.archive is not None
                trainer.loop.archive.digest = state.digest
                _notice_lost_lines(trainer, state, sizes, journal)
                _notice_other_world(trainer)
                return True
        say(f"treadle: {state}; trying the one before it")
        trainer.note("checkpoint damaged", checkpoint=checkpoint.name, error=str(state))
    if failure is not None:
        raise failure
    if journal and journal[0]["event"] == "fork":
        raise UsageError(
            f"{run.path} has no checkpoint that can be read, and a fork has no other beginning: fork its parent "
            f"({journal[0].get('parent')}) again"
        )
    return False


def _notice_other_world(trainer: Trainer) -> None:
    """Say that the run goes on with another number of processes; raises UsageError where it has to be exact."""
    before, now = trainer.loop.state.other_world, trainer.loop.world.size
    if before is None:
        return
    if trainer.config.deterministic:
        raise UsageError(f"the run was trained by {before} processes, and here are {now}: resume it with {before}")
    say(
        f"treadle: the run was trained by {before} process{'es' if before > 1 else ''} and goes on with {now}: "
        "weights, moments, counters and the order of samples are what they were; noise and the last bits of sums "
        "are not"
    )
    trainer.note("processes changed", before=before, now=now)


def _newest_first(directory: Path) -> Iterator[tuple[Path, State | StateError]]:
    """The checkpoints from the newest backwards, as read or as the StateError that says why not."""
    before: int | None = None
    while before is None or before >= 0:
        found = None
        for found in newest_good(directory, before):
            yield found
        if found is None or isinstance(found[1], StateError):
            return
        before = step_of(found[0]) - 1


def _notice_lost_lines(
    trainer: Trainer, state: State, sizes: Mapping[str, int], journal: Sequence[Mapping[str, Any]]
) -> None:
    """Say which logs are shorter than they were when the checkpoint was written; the training does not need them."""
    recorded = state.clock.get("logs")
    forked_here = bool(journal) and journal[0]["event"] == "fork"
    forked_here = forked_here and (journal[0]["step"] == state.step or "kept" in journal[0])
    for name, size in sizes.items():
        before = recorded.get(name) if isinstance(recorded, dict) else None
        if forked_here and name == JOURNAL:  # it has begun one of its own
            continue
        if isinstance(before, int) and size < before:
            say(
                f"treadle: {trainer.run.path / name} has {size} of the {before} bytes that it had when the checkpoint "
                "was written: lines are lost; what is trained is not changed by that"
            )
            trainer.note("lines lost", log=name, bytes=size, expected=before)
