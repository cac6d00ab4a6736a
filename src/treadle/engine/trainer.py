"""The trainer: what a person subclasses, and calls in their own step."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar

import torch
from torch import Tensor

from treadle.config.settings import seal
from treadle.data.random import RandomStreams
from treadle.engine.again import is_made_to_look
from treadle.engine.build import (
    check_replacement,
    check_settings,
    feed_for,
    feed_to_evaluate,
    own_batch_size,
    run_setup,
)
from treadle.engine.devices import choose_device, choose_precision
from treadle.engine.driver import Driver
from treadle.engine.events import EVENTS, Hook
from treadle.engine.lifecycle import Stage
from treadle.engine.loop import Loop
from treadle.engine.minimize import Minimizer
from treadle.engine.names import check_assignment, check_class, names_of
from treadle.engine.parts import Parts
from treadle.engine.progress import Progress
from treadle.engine.settings import TrainerConfig, settings_from
from treadle.engine.subject import Subject
from treadle.engine.summary import Overview, Summary
from treadle.errors import UsageError, nearest
from treadle.parallel import this_world

if TYPE_CHECKING:
    from treadle.engine.commands import Commands
    from treadle.engine.rows import RowEdit

T = TypeVar("T")

REPLACEABLE = ("pre_epoch", "step", "post_epoch")

_DULL = frozenset({type(None), bool, int, float, str, Tensor})
"""Types of attributes that a step sets all the time, and that are no part of anything."""


class Trainer(Subject):
    """Owns a training loop. Subclass it: build models and optimizers in `setup`, train on a batch in `step`.

    Modules, parameters, optimizers, schedules, objectives, averages (EMA) and hooks that are attributes belong to the
    run without being registered: they are moved to the device, updated, saved and restored with it. An attribute that
    is only a handle, without state of its own, is named in `transient`.

    Args:
        config: a `TrainerConfig` (or the subclass's own `Config`); None takes the defaults.
        data: what to train on: a tensor, a tuple or dict of tensors, a map-style dataset, an iterable, or a `Feed`.
        validation_data, test_data: the same, never shuffled; or several sets by name ({"easy": (x, y), "hard": ...}),
            whose metrics are then "easy/loss" and "hard/loss".
        hooks: `Hook` objects, called in their declared order.
        run_dir: makes it a run on disk: `runs/line` creates `runs/line/v001`, and so on. None writes nothing.
        resume: go on with the run at `run_dir` from its newest good checkpoint; `runs/line` means the newest of its
            versions. "auto" starts or resumes: the newest version goes on unless it has finished, and where there is
            none to go on with a new one begins. Of a version named (`runs/line/v001`), "auto" resumes that one.
        settings: any field of the config, by name; they win over `config`.

    Raises:
        UsageError: for an unknown or impossible setting, unusable data, or an optimizer that is not tied to a module.

    Example:
        trainer = Line(data=(x, y), batch_size=32, max_epochs=20, seed=0)
        summary = trainer.train()            # or: while trainer.iterate(): ...
    """

    Config: ClassVar[type[TrainerConfig]] = TrainerConfig
    transient: ClassVar[tuple[str, ...]] = ()

    # The engine's own attributes. All others, which `vars` tells, are those of the trainer's author.
    __slots__ = (
        *("config", "device", "driver", "feed", "init_args", "loop", "parts", "random", "run", "test_feed"),
        "validation_feed",
    )
    config: Any
    device: torch.device
    driver: Driver
    init_args: tuple[tuple[Any, ...], dict[str, Any]]
    """What it was constructed from: positional and keyword arguments. A second one of its kind is made of them."""
    loop: Loop
    parts: Parts
    random: RandomStreams
    run: Any

    def __new__(cls, *positional: Any, **keywords: Any) -> Self:
        """Attributes may be set before `__init__` is called."""
        trainer = super().__new__(cls)
        object.__setattr__(trainer, "parts", Parts(vars(trainer), cls.transient))
        object.__setattr__(trainer, "init_args", (positional, keywords))
        return trainer

    def __init__(
        self,
        config: TrainerConfig | None = None,
        *,
        data: Any = None,
        validation_data: Any = None,
        test_data: Any = None,
        hooks: Sequence[Hook] = (),
        run_dir: str | Path | None = None,
        resume: bool | Literal["auto"] = False,
        **settings: Any,
    ) -> None:
        from treadle.runs import attach  # the one door to what stands above the engine

        if is_made_to_look():
            hooks, run_dir, resume = (), None, False
        self.config = settings_from(self.Config, config, settings)
        world = this_world()
        self.device = choose_device(self.config.device, world)
        self.config.precision = choose_precision(self.config.precision, self.device)
        self.random = RandomStreams(self.config.seed, self.device)
        self.feed = feed_for(self.config, data, "data", training=True)
        self.validation_feed = feed_for(self.config, validation_data, "validation_data")
        self.test_feed = feed_for(self.config, test_data, "test_data")
        self.run = None
        self.loop = Loop(self, self.config, self.parts, self.device, self.random, world)
        self.loop.observed &= not is_made_to_look()
        self.driver = Driver(self.loop, self.random)
        for hook in hooks:
            self.add_hook(hook)
        attach.add_default_hooks(self)
        self.loop.count_batches()
        run_setup(self, self.random)
        self.loop.adopt()
        self.loop.minimizer.check_names()
        self.loop.adopt_feeds()
        if resume is not True and not is_made_to_look():
            check_settings(self, self.config, data, settings)
        self.loop.asked_batch_size = self.config.batch_size
        self.config.batch_size = own_batch_size(data) or self.config.batch_size
        self.loop.state.set_up()
        if run_dir is not None:
            attach.begin_run(self, run_dir, resume)
        elif resume:
            raise UsageError("resume needs the run to go on with: give run_dir='runs/line/v001'")
        elif not is_made_to_look():  # which gets the weights of a state
            attach.begin(self)
        seal(self.config)
        self.driver.open()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse what would hide something of the engine's."""
        super().__init_subclass__(**kwargs)
        for former, name in (("write_report", "report"), ("write_test_report", "test_report")):
            if former in vars(cls) and name not in vars(cls):
                warnings.warn(f"{cls.__name__}.{former} is now called {name}", FutureWarning, stacklevel=2)
                setattr(cls, name, vars(cls)[former])
        check_class(cls, Trainer)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _TAKEN:
            check_assignment(self, Trainer, name, value)
            if name.endswith("feed") and hasattr(self, "loop"):
                self.loop.check_feed(name, value)
            object.__setattr__(self, name, value)
            _heed(self, name)
            return
        object.__setattr__(self, name, value)
        if type(value) not in _DULL:
            self.parts.stale = True

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        _heed(self, name)
        self.parts.stale = True

    # Changing it for one run ------------------------------------------------------------------------------------

    def replace(self, name: str, function: Any = None, **kwargs: Any) -> None:
        """Let `function(trainer, ..., **kwargs)` stand for one of the loop's inner calls, in this trainer only.

        `name` is "pre_epoch", "step" (called with the batch too) or "post_epoch"; hooks still run. `function=None`
        goes back to the method. Raises UsageError where the keyword arguments do not fit the function.
        """
        if name not in REPLACEABLE:
            raise UsageError(f"{name!r} cannot be replaced{nearest(name, REPLACEABLE)}")
        if function is not None:
            check_replacement(name, function, kwargs)
            function = partial(function, self, **kwargs)
        if name == "step":
            self.loop.step_replacement = function
        else:
            self.loop.events.replace(name, function)

    def add_hook(self, hook: Hook) -> None:
        """Let `hook` take part from here on. What has fired already is not fired again for it.

        Of several processes only the main one has observers: loggers and viewers.
        """
        if not isinstance(hook, Hook):
            raise UsageError(f"hooks holds a {type(hook).__name__}: expected Hook objects, made with ()")
        if not self.loop.takes(hook):
            return
        self.loop.hooks.append(hook)
        self.loop.listen()
        if not self.loop.lifecycle.in_step:  # whoever drives the run can add it again
            self.loop.state.late.know_hooks(stateless=True)

    def add_hook_of(self, setting: str, make: Callable[[Any], Hook | None]) -> None:
        """Let the hook take part that `make(config)` gives, where it gives one: as long as `setting` asks for it.

        With a setting that is `live="unless null"` a person can switch the hook on and off while the run goes on, and a
        resume has what was there. It then stands where it would have stood from the start; a hook that is switched on
        begins anew, and one that is switched off is not told. `make` only looks at the config: it is also asked what
        would be: `lambda config: Greet(config.greet_every) if config.greet_every else None`. Called in `setup`, since a
        resume has to know. Raises UsageError once the run has been set up.
        """
        if self.loop.state.late.is_set_up:
            raise UsageError(f"add_hook_of({setting!r}) after setup, which a resume would not know: call it in setup")
        self.loop.switches.add(setting, make, self.config)

    # Updating parameters ----------------------------------------------------------------------------------------

    def minimize(
        self,
        loss: Any,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None,
        *,
        elements: float | None = None,
        retain_graph: bool = False,
    ) -> bool:
        """Let `optimizer` (or several, from one backward pass) reduce `loss`; returns whether it updated.

        The one way gradients change parameters: scale, accumulate, backward, `pre_update`, finite check, clip, update,
        EMA, count. Only parameters of the given optimizers receive gradients, so opponents need no freezing.

        Args:
            loss: a scalar tensor, an Objective's `Losses`, or a dict of scalar terms, which are summed. Or a closure: a
                function without arguments that computes one of these, for optimizers that evaluate the loss several
                times an update (LBFGS). It only computes; `pre_update` and clipping follow each evaluation.
            optimizer: may be left out when the trainer has exactly one.
            elements: what the loss is a mean over, its weight under accumulation; by default `self.elements(batch)`.
            retain_graph: keep the graph of the loss, for another `minimize` that goes back through it.

        Raises:
            UsageError: for a loss that is not scalar or has no gradients, or an optimizer that is no attribute.
            NonFiniteError: for a NaN or Inf loss or gradient, before it reaches a parameter.
        """
        return self.loop.minimizer.minimize(loss, optimizer, elements, retain_graph=retain_graph)

    def updates(self, optimizer: torch.optim.Optimizer | None = None) -> int:
        """How many updates `optimizer` (or the only one) has made."""
        return self.minimizer.of(optimizer)[0].updates

    def edit_rows(self, tensors: Mapping[str, Tensor] | Sequence[Tensor]) -> RowEdit:
        """Begin a transaction that adds, removes or replaces rows of `tensors` (all with the same first dimension).

        Every optimizer and average of the trainer that holds one of them follows. Use it as a context manager:
        `with trainer.edit_rows({"xy": self.xy}) as edit: edit.keep(alive)`. See `RowEdit`.
        """
        if self.loop.fixed is not None and self.loop.fixed.current is not None:
            raise UsageError(
                "edit_rows in step, which each of the parts of a batch takes: edit rows in post_step, or in a function "
                "that is given to once"
            )
        from treadle.engine.rows import RowEdit  # 6 ms that a run without row edits need not wait for

        self.parts.find()
        return RowEdit(tensors, list(self.parts.optimizers.values()), list(self.parts.emas.values()))

    def once(self, function: Callable[..., T], *tensors: Tensor) -> T:
        """In `step`: call `function` once for the whole batch, with everybody's `tensors`; returns what it returns.

        Where several processes, or the parts of a batch (`parts`), take a step together, each of them calls `once`, in
        the same order. For each of `tensors` the function gets the list of all, in the order of the batch;
        `batch_part` says which of them is one's own. That of a part which has nothing of its own has no rows. In one
        process without parts these are lists of one. What the function decides and draws is the same everywhere, and
        gradients are off in it: row edits, and all that is to be counted once, belong there, or in `post_step`.

        Example:
            def change(lengths):
                self.pull += torch.stack(lengths).sum(0)
                with self.edit_rows({"xy": self.xy, "pull": self.pull}) as edit:
                    edit.keep(self.pull > 0)

            self.minimize(loss)
            self.once(change, lengths)

        Args:
            function: called with a list for each of `tensors`, in every process.
            tensors: with one dimension at least; they are detached, and their shapes may differ between parts.

        Raises:
            UsageError: with parts, outside of `step`.
        """
        return self.loop.once.call(function, tensors)

    @property
    def batch_part(self) -> int:
        """Which part of the batch the call of `step` under way has, from 0: of `parts`, or else of the processes."""
        return self.loop.once.number

    # Driving it ---------------------------------------------------------------------------------------------------

    def train(self) -> Summary:
        """Run to the end, or until a stop. After a stop it goes on where it was; after the end it does nothing.

        Raises UsageError where an error, an interrupt or `close` has ended the run: a rewind opens it again.
        """
        self.driver.train()
        return self.summary()

    def iterate(self) -> bool:
        """Take exactly one step, with every event that leads to it and follows from it; returns whether it took one.

        False means that the run has ended, is paused, or has just been told to stop; see `ended` and `paused`.
        """
        return self.driver.iterate()

    def stop(self, reason: str = "stopped") -> None:
        """Return from `train` (or `iterate`) before the next step; call either again to go on. Safe in any thread."""
        self.commands.stop(reason)

    def finish(self, reason: str) -> None:
        """End the run, as finished, after the current step: say because nothing improves any more.

        With `min_steps` it goes on until these are finished.
        """
        self.loop.events.refuse_observers("finish")
        self.loop.lifecycle.finish_reason = reason

    def extend(self, *, max_epochs: int | None = None, max_steps: int | None = None) -> None:
        """Raise the run's limits: one that had come to its end is open again, and `train` or `iterate` go on with it.

        It goes on as a resume with these limits does, and as a run planned so from the start, where neither schedules
        nor an unfinished accumulation depended on the former limit (docs/exactness.md). `post_training` and `teardown`
        have fired, and will again. Called from inside a step or a hook, it happens once that step is over, before the
        end if it was the last one. In a run on disk config and journal say so.

        Raises UsageError for a limit that is not higher, or leaves the run at its end; and for a run that has not
        begun, has failed or was closed.
        """
        self.loop.events.refuse_observers("extend")
        self.driver.extend({"max_epochs": max_epochs, "max_steps": max_steps})

    def rewind(self, step: int, *, keep: bool = False) -> Path | None:
        """Go back to the state after `step` steps, and forget what came later; `train` or `iterate` go on from there.

        With `keep` what came later becomes a run of its own beside this one, that can be looked at and resumed, whose
        path is returned; a run in memory can keep nothing. What was logged then stays in `abandoned.jsonl` in any case.

        The newest snapshot in memory or good checkpoint on disk at or before it is restored, and the steps from there
        to `step` are taken again. Called from inside a step or a hook, it happens once that step is over. Raises
        UsageError for a step that has not been taken, RunError without such a state.
        """
        return self.driver.rewind(step, keep)

    def close(self) -> None:
        """Release what the run holds (files, worker processes): fires `teardown`, once. No further step is taken.

        Called from inside a step or a hook, it happens once that step is over.
        """
        self.driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Evaluating -------------------------------------------------------------------------------------------------

    def validate(self) -> dict[str, float]:
        """Evaluate the validation data now: eval mode, no gradients, random streams of its own. Returns the means."""
        self.loop.events.refuse_observers("validate")
        if self.validation_feed is None:
            raise UsageError("nothing to validate on: give the trainer validation_data")
        with self.driver.active:
            return self.loop.validate(self.validation_feed)

    def test(self, data: Any = None) -> dict[str, float]:
        """Evaluate `data` (by default the test data) with `test_step`, as the weights are. Returns the means."""
        feed = self.test_feed if data is None else feed_to_evaluate(self, self.config, data)
        if feed is None:
            raise UsageError("nothing to test on: give the trainer test_data, or call test(data)")
        feed.bind(self.config.seed, self.device)
        with self.driver.active, self.driver.evaluating():
            metrics = self.loop.evaluator.evaluate(feed, self.test_step, self.config.limit_test_batches)
            self.loop.logbook.scalars("test", metrics)
        return metrics

    def predict(self, data: Any) -> list[Any]:
        """What `predict_step` makes of each batch of `data`, in their order and on the CPU: one entry for each batch.

        As in validation: eval mode, averaged weights (EMA), no gradients, random streams of its own. `data` is what
        `validation_data` may be, in batches of `batch_size`. For tensors: `torch.cat(trainer.predict(x))`.
        """
        feed = feed_to_evaluate(self, self.config, data)
        if feed is None:
            raise UsageError("nothing to predict from: call predict(data)")
        feed.bind(self.config.seed, self.device)
        with self.driver.active, self.driver.evaluating():
            return self.loop.evaluator.predict(feed, self.predict_step)

    @property
    def evaluated_set(self) -> str:
        """The name of the set that a validation or test is at ("hard" of {"easy": ..., "hard": ...}), or empty."""
        return self.loop.evaluator.evaluated_set

    def load_best(self, rank: int = 1) -> Mapping[str, Any]:
        """Put the weights that validated best into modules, parameters and averages; returns what was best and when.

        `rank` 2 is the model that comes after the best, where `keep_best` keeps it, and so on. Parameters take the
        saved shapes; optimizers stay as they are, so this is for evaluating, not for training on.

        Raises UsageError where there is no such model, StateError where it does not fit the trainer.
        """
        from treadle.runs import attach

        return attach.load_best(self, rank)

    @property
    def shown_model(self) -> str:
        """What captions and pages call its weights: "model of step 500" in training, "final model, step 800" at the
        end, "best model by l1, step 180" where that has been loaded."""
        loop = self.loop
        if loop.loaded is not None and loop.loaded[0] == loop.taken:
            return loop.loaded[1]
        step = loop.progress.step
        return f"final model, step {step}" if loop.over else f"model of step {step}"

    def evaluating(self) -> AbstractContextManager[None]:
        """Within the block: modules in eval mode, averaged weights (EMA), no gradients, random streams apart."""
        return self.driver.evaluating()

    # Logging ----------------------------------------------------------------------------------------------------

    @property
    def journal(self) -> deque[dict[str, Any]]:
        """What happened to the run and what a person changed in it: the latest entries, oldest first."""
        return self.loop.logbook.journal

    def log(self, name: str, value: Any) -> None:
        """Add a scalar to the training metrics; like what `step` returns, it is averaged over the log interval."""
        self.loop.log(name, value)

    def log_image(self, name: str, image: Any) -> None:
        """Log a picture: array or tensor (H, W), (H, W, C) with C = 1, 3 or 4; uint8, or float in [0, 1]."""
        self.loop.logbook.image(name, image)

    def log_text(self, name: str, text: str) -> None:
        """Log a piece of text."""
        self.loop.logbook.text(name, text)

    def log_scene(self, name: str, scene: Any) -> None:
        """Log things in space: a `treadle.reports.scene.Scene`. Hooks get it that name "scene" in `hears`."""
        self.loop.logbook.scene(name, scene)

    def note(self, event: str, **fields: Any) -> None:
        """Add to the journal, with step, epoch and time."""
        self.loop.note(event, **fields)

    # Where it stands ----------------------------------------------------------------------------------------------

    @property
    def progress(self) -> Progress:
        """Counters of what is finished, and the limits they run towards."""
        return self.loop.progress

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return self.loop.progress.epoch

    @property
    def status(self) -> str:
        """ "new", "running", "stopped" (it can go on, unless it has `ended`), "finished" or "failed"."""
        return self.loop.lifecycle.status

    @property
    def reason(self) -> str:
        """Why it has that status, where there is more to say."""
        return self.loop.lifecycle.reason

    @property
    def paused(self) -> bool:
        """Whether it waits for the command to go on."""
        return self.loop.lifecycle.stage is Stage.PAUSED

    @property
    def ended(self) -> bool:
        """Whether no further step will be taken: the run has finished, failed or been closed."""
        return self.loop.lifecycle.ended

    @property
    def seconds(self) -> float:
        """Seconds spent in the loop so far, over all sessions of a resumed run."""
        return self.loop.lifecycle.seconds

    @property
    def batch(self) -> Any:
        """The batch of the step under way, or of the last one."""
        return self.loop.batch

    @property
    def metrics(self) -> dict[str, float]:
        """The newest training metrics: means over the log interval."""
        return dict(self.loop.logbook.metrics)

    @property
    def validation_metrics(self) -> dict[str, float]:
        """The metrics of the newest validation."""
        return dict(self.loop.validation_metrics)

    @property
    def best(self) -> dict[str, Any] | None:
        """What was best so far and when: monitor, mode, value, step, epoch and metrics; None where nothing was."""
        return deepcopy(self.loop.best)

    @property
    def commands(self) -> Commands:
        """The way for other threads to have something done, between two steps."""
        from treadle.engine.commands import Commands  # 6 ms that a run which is asked for nothing need not wait for

        return Commands(self.driver.queue)

    def editable(self) -> list[dict[str, Any]]:
        """What a person may edit while the run goes on, with value and range: see `treadle.engine.edits.Edits`."""
        return self.loop.edits.editable()

    @property
    def minimizer(self) -> Minimizer:
        """The updaters of the optimizers, by attribute name."""
        return self.loop.minimizer

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """The hooks that were given or that settings ask for; see `add_hook`."""
        return tuple(self.loop.hooks)

    @property
    def hook_seconds(self) -> dict[str, float]:
        """Seconds spent in each hook so far, by class name (those of the same class are added up)."""
        seconds: dict[str, float] = {}
        for handler in self.loop.events.handlers:
            seconds[handler.name] = seconds.get(handler.name, 0.0) + handler.seconds
        return seconds

    def overview(self) -> Overview:
        """How far the run is; may be called from any thread at any time, and never waits."""
        epoch, step, batch = self.loop.counts
        progress = self.progress
        return Overview(
            status=self.status,
            paused=self.paused,
            epoch=epoch,
            step=step,
            batch=batch,
            max_epochs=progress.max_epochs,
            max_steps=progress.max_steps,
            total_steps=progress.total_steps,
            seconds=self.seconds,
            metrics=dict(self.metrics),
            validation_metrics=dict(self.validation_metrics),
            learning_rates=self.minimizer.learning_rates(),
        )

    def summary(self) -> Summary:
        """What the run came to so far."""
        return Summary(
            status=self.status,
            reason=self.reason,
            step=self.progress.step,
            epoch=self.progress.epoch,
            metrics=dict(self.metrics),
            validation_metrics=dict(self.validation_metrics),
            best=self.best,
            seconds=self.seconds,
            digest=self.loop.archive.digest if self.loop.archive is not None else None,
        )

    # Saving -----------------------------------------------------------------------------------------------------

    def request_save(self) -> None:
        """Ask for a checkpoint as soon as the current step is over; it is written beside the training."""
        if self.loop.world.size > 1:  # at one step in all processes, whoever asks
            self.commands.save()
            return
        self.loop.save_requested = True

    def save(self) -> Path:
        """Write a checkpoint now, between steps; returns its directory.

        Raises UsageError without a run on disk, and from inside a step or a hook, where half of a step would be saved:
        `request_save` is for there.
        """
        if self.loop.lifecycle.in_step:
            raise UsageError(
                "save() was called from inside a step or a hook: call request_save(), which waits for its end"
            )
        path: Path = self.driver.save()
        return path

    def digest(self) -> str:
        """SHA-256 over the complete training state, in hex; equal digests mean equal runs."""
        with self.driver.active:
            return self.loop.state.capture().digest

    # Former names, for this release ---------------------------------------------------------------------------------

    def snapshot(self) -> Overview:
        """The former name of `overview`: a snapshot is a state to go back to."""
        warnings.warn("Trainer.snapshot() is now called overview()", FutureWarning, stacklevel=2)
        return self.overview()

    def request_validation(self) -> None:
        """The former way to `commands.validate()`."""
        warnings.warn("Trainer.request_validation() is now commands.validate()", FutureWarning, stacklevel=2)
        self.commands.validate()


def _heed(trainer: Trainer, name: str) -> None:
    """Take note that something of the trainer's own was set or deleted: its feed, or what it does at an event."""
    if hasattr(trainer, "loop"):
        if name == "feed":
            trainer.loop.count_batches()
        elif name in EVENTS:
            trainer.loop.listen()


_TAKEN = frozenset(names_of(Trainer))
"""What the trainer itself has by name: setting one of these is looked at."""
