"""Putting a trainer together: its feeds, its hooks, its attributes, its run directory, and the checks on them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.data.convert import as_feed
from treadle.data.feed import Feed
from treadle.engine.attributes import find, move_to
from treadle.engine.events import Hook
from treadle.engine.objective import Objective
from treadle.errors import UsageError

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer


def feed_for(trainer: Trainer, data: Any, name: str, *, training: bool = False) -> Feed | None:
    """A feed of `data` as the trainer's config asks for it; evaluation data is neither shuffled nor cut."""
    if data is None:
        return None
    config = trainer.config
    return as_feed(
        data,
        batch_size=config.batch_size,
        shuffle=config.shuffle and training,
        drop_last=config.drop_last and training,
        workers=config.workers,
        seed=config.seed,
        name=name,
    )


def hooks_for(trainer: Trainer, hooks: Sequence[Hook], *, on_disk: bool) -> list[Hook]:
    """The given hooks, and those that the config asks for: best model, early stopping, time limit, checkpoints."""
    from treadle.hooks.defaults import default_hooks

    for hook in hooks:
        if not isinstance(hook, Hook):
            raise UsageError(f"hooks holds a {type(hook).__name__}: expected Hook objects, made with ()")
    return [*hooks, *default_hooks(trainer.config, on_disk)]


def run_setup(trainer: Trainer) -> None:
    """Call the trainer's `setup` in its own random streams. Raises UsageError where it takes a name of the engine."""
    engine = {name: value for name, value in vars(trainer).items() if name in trainer._engine_names}
    with trainer.random:
        try:
            trainer.setup()
        except ValueError as error:
            if "empty parameter list" in str(error):
                raise UsageError("setup builds an optimizer without parameters: has the model any to train?") from error
            raise
    for name, value in engine.items():
        # Such an attribute would be no part of the run: neither moved to the device, nor saved.
        if vars(trainer)[name] is not value and not name.startswith("_") and name not in trainer.feeds:
            raise UsageError(f"setup sets self.{name}, which the trainer itself needs: choose another name")


def adopt(trainer: Trainer) -> None:
    """Take in what the attributes are by now; repeated when the run begins, for those that came after construction."""
    move_to(trainer, trainer.device)
    trainer.minimizer.adopt()
    for objective in find(trainer, Objective).values():
        objective.bind(trainer.progress)
    for feed in trainer.feeds.values():
        feed.bind(trainer.config.seed, trainer.device)
    trainer.progress.batches_per_epoch = trainer.feed.batches if trainer.feed is not None else None


def check_ready(trainer: Trainer) -> None:
    """Raise UsageError where training cannot begin."""
    from treadle.engine.trainer import Trainer as Base

    kind, config = type(trainer), trainer.config
    if trainer.feed is None:
        raise UsageError("nothing to train on: give the trainer data=, or set self.feed in setup")
    if config.max_epochs is None and config.max_steps is None and config.max_time is None:
        raise UsageError("nothing says when to end: give max_epochs, max_steps or max_time")
    if kind.step is Base.step and "step" not in vars(trainer):
        raise UsageError(f"{kind.__name__} has no step(self, batch): write one that calls self.minimize(loss)")
    if trainer.validation_feed is not None and kind.validation_step is Base.validation_step:
        raise UsageError(f"{kind.__name__} has validation data but no validation_step(self, batch): write one")


def open_run(trainer: Trainer, run_dir: str | Path) -> None:
    """Make the trainer a run on disk, once all that can be checked has been."""
    from treadle.runs.lock import RunLock
    from treadle.runs.recorder import recorders
    from treadle.runs.run import Run

    check_ready(trainer)
    trainer.run = Run.create(run_dir)
    trainer.lock = RunLock(trainer.run.path)
    trainer.hooks += recorders(trainer.run)


def check_replacement(name: str, function: Any, kwargs: Mapping[str, Any]) -> None:
    """Raise UsageError where `function(trainer, [batch], **kwargs)` could not be called."""
    if not callable(function):
        raise UsageError(f"the replacement for {name!r} is a {type(function).__name__}: expected a function")
    positional = (None, None) if name == "step" else (None,)
    try:
        inspect.signature(function).bind(*positional, **kwargs)
    except TypeError as error:
        called = "function(trainer, batch, ...)" if name == "step" else "function(trainer, ...)"
        raise UsageError(f"the replacement for {name!r} cannot be called as {called}: {error}") from None
