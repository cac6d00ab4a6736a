"""The trainer: one loop, driven to its end by `train()` or one step at a time by `iterate()`."""

from __future__ import annotations

import atexit
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from treadle.checkpoint.rng import RandomStreams
from treadle.checkpoint.state import capture
from treadle.data.batch import batch_elements, to_device
from treadle.data.feed import Feed
from treadle.engine.assembly import adopt, check_ready, check_replacement, feed_for, hooks_for, open_run, run_setup
from treadle.engine.attributes import find
from treadle.engine.commands import CommandQueue
from treadle.engine.devices import autocast, choose_device, deterministic_kernels
from treadle.engine.ema import EMA
from treadle.engine.evaluation import evaluate, evaluating, scalars
from treadle.engine.events import Dispatcher, Events, Hook
from treadle.engine.logbook import Logbook
from treadle.engine.minimize import Minimizer
from treadle.engine.obey import obey
from treadle.engine.progress import Progress
from treadle.engine.recovery import BadStep, Recovery, RollBack
from treadle.engine.resume import resume_run
from treadle.engine.rewinding import go_back_to, roll_back, state_at_or_before
from treadle.engine.rows import RowEdit
from treadle.engine.saving import Saver, Snapshots
from treadle.engine.schedule import Every
from treadle.engine.settings import TrainerConfig, settings_from
from treadle.engine.summary import Snapshot, Summary
from treadle.errors import RunError, UsageError, nearest
from treadle.runs.lock import RunLock

REPLACEABLE = ("pre_epoch", "step", "post_epoch")

_open: weakref.WeakSet[Trainer] = weakref.WeakSet()


@atexit.register
def _close_open_trainers() -> None:
    for trainer in list(_open):
        trainer.close()


class Trainer(Events):
    """Owns a training loop. Subclass it: build models and optimizers in `setup`, train on a batch in `step`.

    Modules, parameters, optimizers, schedules, objectives, averages (EMA) and hooks that are attributes belong to the
    run without being registered: they are moved to the device, updated, saved and restored with it. An attribute that
    is only a handle, without state of its own, is named in `transient`.

    Args:
        config: a `TrainerConfig` (or the subclass's own `Config`); None takes the defaults.
        data: what to train on: a tensor, a tuple or dict of tensors, a map-style dataset, an iterable, or a `Feed`.
        validation_data, test_data: the same, never shuffled.
        hooks: `Hook` objects, called in their declared order.
        run_dir: makes it a run on disk: `runs/line` creates `runs/line/v001`, and so on. None writes nothing.
        resume: go on with the run at `run_dir` (`runs/line/v001`) from its newest good checkpoint.
        settings: any field of the config, by name; they win over `config`.

    Raises:
        UsageError: for an unknown or impossible setting, unusable data, or an optimizer that is not tied to a module.

    Example:
        trainer = Line(data=(x, y), batch_size=32, max_epochs=20, seed=0)
        summary = trainer.train()            # or: while trainer.iterate(): ...
    """

    Config: ClassVar[type[TrainerConfig]] = TrainerConfig
    transient: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        config: TrainerConfig | None = None,
        *,
        data: Any = None,
        validation_data: Any = None,
        test_data: Any = None,
        hooks: Sequence[Hook] = (),
        run_dir: str | Path | None = None,
        resume: bool = False,
        **settings: Any,
    ) -> None:
        own = set(vars(self))
        self._engine_names: frozenset[str] = frozenset()
        self.config: Any = settings_from(self.Config, config, settings)
        self.progress = Progress(max_epochs=self.config.max_epochs, max_steps=self.config.max_steps)
        self.device = choose_device(self.config.device)
        self.random = RandomStreams(self.config.seed, self.device)
        self.feed: Feed | None = feed_for(self, data, "data", training=True)
        self.validation_feed: Feed | None = feed_for(self, validation_data, "validation_data")
        self.test_feed: Feed | None = feed_for(self, test_data, "test_data")
        self.metrics: dict[str, float] = {}
        self.validation_metrics: dict[str, float] = {}
        self.best: dict[str, Any] | None = None
        self.commands = CommandQueue()
        self.minimizer = Minimizer(self)
        self.logbook = Logbook(self, self.config.log_every)
        self.saver = Saver(self)
        self.snapshots = Snapshots(self.config.keep_snapshots)
        self.recovery = Recovery(self)
        self.hooks: list[Hook] = hooks_for(self, hooks, on_disk=run_dir is not None)
        self.run: Any = None
        self.lock: Any = None
        self.batch: Any = None
        self.status, self.reason = "new", ""
        self.seconds = 0.0
        self.paused = False
        self._validate_every = Every(self.config.validate_every) if self.config.validate_every else None
        self._snapshot_every = Every(self.config.snapshot_every) if self.config.snapshot_every else None
        self._batches: Any = None
        self._counts = (0, 0, 0)
        self._validated_step = -1
        self._began = self._torn_down = self._halting = self._rewinding = self._validation_requested = False
        self._finish_reason: str | None = None
        self._depth = 0
        self._dispatcher: Dispatcher | None = None
        self._steps: Iterator[None] = self._lifecycle()
        self._engine_names = frozenset(set(vars(self)) - own)
        run_setup(self)
        adopt(self)
        if resume:
            if run_dir is None:
                raise UsageError("resume needs the run to go on with: give run_dir='runs/line/v001'")
            resume_run(self, run_dir)
        elif run_dir is not None:
            open_run(self, run_dir)
        self._dispatcher = None
        if not self._torn_down:
            _open.add(self)

    # What a subclass writes -------------------------------------------------------------------------------------

    def setup(self) -> None:
        """Build modules, optimizers and whatever else the run needs, as attributes. Random draws follow the seed."""

    def step(self, batch: Any) -> Mapping[str, Any] | Tensor:
        """Train on one batch: compute a loss, call `minimize`, return the scalars to log (or the loss itself)."""
        raise UsageError(f"{type(self).__name__} has no step(self, batch): write one that calls self.minimize(loss)")

    def validation_step(self, batch: Any) -> Mapping[str, Any] | Tensor:
        """Return the scalars of one validation batch; they are averaged over the whole set, weighted by elements."""
        raise UsageError(f"{type(self).__name__} has data to evaluate but no validation_step(self, batch): write one")

    def test_step(self, batch: Any) -> Mapping[str, Any] | Tensor:
        """Return the scalars of one test batch; by default what `validation_step` returns."""
        return self.validation_step(batch)

    @classmethod
    def load_data(cls, config: Any, path: Path | None) -> dict[str, Any]:
        """Load what a recipe trains on: `data`, and where there are some `validation_data` and `test_data`.

        `path` is what the recipe or `--data` names; None asks for the trainer's own choice. Raises UsageError for
        data that cannot be used.
        """
        if path is not None:
            raise UsageError(
                f"{cls.__name__} takes no data path (given: {path}): leave data out, or override load_data"
            )
        return {}

    def elements(self, batch: Any) -> int:
        """How many elements a batch counts for in means and accumulation; by default its first dimension."""
        return batch_elements(batch)

    # The loop ---------------------------------------------------------------------------------------------------

    def _loop(self) -> Iterator[None]:
        """The training loop; it yields between steps. Read it aloud."""
        progress, fire, every = self.progress, self.fire, self._validate_every
        if not self._began:
            self._began = True
            self.note("start")
            fire("pre_training")
        while not self._ended:
            if progress.batch == 0:
                fire("pre_epoch")
            for batch in self._rest_of_epoch():
                fire("pre_step", batch)
                outputs = self._run_step(batch)
                progress.count_step()
                self.logbook.step(outputs, self.elements(batch))
                fire("post_step", batch, outputs)
                self._validate_if(every is not None and every.due_after_step(progress))
                if self._batches.exhausted or self._ended:
                    break
                self._settle()
                yield
            if self._batches.exhausted:
                progress.count_epoch()
                self.logbook.epoch()
                fire("post_epoch")
                self._validate_if(every is not None and every.due_after_epoch(progress))
            if not self._ended:
                self._settle()
                yield
        self._validate_if(self._validated_step != progress.step)
        self._settle(final=True)
        fire("post_training")
        self.note("finish", reason=self._finish_reason or "")

    def _lifecycle(self) -> Iterator[None]:
        """The loop with its two guarantees: `on_exception` on an error or interrupt, `teardown` always, once each."""
        try:
            check_ready(self)
            adopt(self)
            self._dispatcher = None
            self.status = "running"
            while True:
                try:
                    yield from self._loop()
                    break
                except RollBack:
                    roll_back(self)
            self.status, self.reason = "finished", self._finish_reason or ""
        except (Exception, KeyboardInterrupt) as error:
            self.status, self.reason = "failed", f"{type(error).__name__}: {error}"
            self.fire("on_exception", error)
            raise
        finally:
            if not self._rewinding:
                self._tear_down()

    @property
    def _ended(self) -> bool:
        return self.progress.at_limit or self._finish_reason is not None

    def _rest_of_epoch(self) -> Iterator[Any]:
        """The batches of the current epoch that are not finished yet, on the device."""
        assert self.feed is not None
        self._batches = batches = self.feed.iterate(self.progress.epoch, self.progress.batch)
        on_cpu = self.device.type == "cpu"
        batch = None
        for batch in batches:
            if self.recovery.passes_over():
                self.progress.count_step()
                if self._ended:
                    return
                continue
            self.batch = batch if on_cpu else to_device(batch, self.device)
            yield self.batch
        if batch is None:
            raise RunError(f"the data gave no batch in epoch {self.progress.epoch + 1}: an iterable must start anew")

    def _run_step(self, batch: Any) -> Mapping[str, Any]:
        """The user's step, at the scheduled learning rates; its errors say where they happened."""
        self.minimizer.apply_learning_rates()
        try:
            if self.config.precision == "fp32":
                return scalars(self.step(batch), "step")
            with autocast(self.device, self.config.precision):
                return scalars(self.step(batch), "step")
        except BadStep as error:
            self.recovery.handle(error)
            return {}
        except Exception as error:
            error.add_note(f"in step, at {self.where()}")
            raise

    def _settle(self, final: bool = False) -> None:
        """What follows from a step once its events have fired: a requested validation, then the checkpoint."""
        progress = self.progress
        self._counts = (progress.epoch, progress.step, progress.batch)
        if final:
            self.logbook.publish()
        if self._validation_requested:
            self.validate()
        if self._snapshot_every is not None and self._snapshot_every.due_after_step(progress):
            self.snapshots.take(capture(self))
        if self.saver.requested or (final and self.run is not None):
            self.saver.save(wait=final)
        self.saver.take_reports()

    def _validate_if(self, due: bool) -> None:
        if due and self.validation_feed is not None:
            self.validate()

    # Driving it -------------------------------------------------------------------------------------------------

    def train(self) -> Summary:
        """Run to the end, or until a stop. After a stop it goes on where it was; after the end it does nothing."""
        with self._active():
            while self._may_step(wait=True) and self._take_step():
                pass
        return self.summary()

    def iterate(self) -> bool:
        """Take exactly one step, with every event that leads to it and follows from it; returns whether it took one.

        False means that the run has ended, is paused, or has just been told to stop; see `ended` and `paused`.
        """
        with self._active():
            return self._may_step(wait=False) and self._take_step()

    def stop(self, reason: str = "stopped") -> None:
        """Return from `train` (or `iterate`) before the next step; call either again to go on. Safe in any thread."""
        self.commands.stop(reason)

    def finish(self, reason: str) -> None:
        """End the run, as finished, after the current step: say because nothing improves any more."""
        self._finish_reason = reason

    def close(self) -> None:
        """Release what the run holds (files, worker processes): fires `teardown`, once. No further step is taken."""
        with self._active():
            if self._steps is not None and hasattr(self._steps, "close"):
                self._steps.close()
            self._steps = iter(())
            self._tear_down()

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def ended(self) -> bool:
        """Whether no further step will be taken: the run has finished, failed or been closed."""
        return self._torn_down

    def mark_finished(self, reason: str) -> None:
        """Take note that the run had finished before: nothing fires, no step is taken."""
        self._steps = iter(())
        self._torn_down = True
        self.status, self.reason = "finished", reason
        _open.discard(self)
        if self.lock is not None:
            self.lock.release()

    @contextmanager
    def _active(self) -> Iterator[None]:
        """The trainer's random streams are the global ones, and its clock runs; may be nested."""
        self._depth += 1
        start = time.perf_counter()
        try:
            with self.random:
                if self.config.deterministic and self.device.type != "cpu":
                    with deterministic_kernels():
                        yield
                else:
                    yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self.seconds += time.perf_counter() - start

    def _take_step(self) -> bool:
        before = self.progress.step
        next(self._steps, None)
        return self.progress.step > before

    def _may_step(self, *, wait: bool) -> bool:
        """Obey the commands that have arrived; returns whether a step may follow. With `wait`, sits out a pause."""
        while self.commands or self.paused:
            if not self.commands and not wait:
                return False
            command, done = self.commands.next()
            try:
                done.set_result(obey(self, command))
            except UsageError as error:
                done.set_exception(error)
                self.note("refused", command=type(command).__name__, error=str(error))
            if self._halting:
                self._halting = False
                return False
        if self.status == "stopped" and not self._torn_down:
            self.status, self.reason = "running", ""
        return not self._torn_down

    def halt(self, reason: str) -> None:
        """Suspend the run here, between steps, as `Stop` does; other threads use `stop`."""
        self._halting = True
        if not self._torn_down:
            self.status, self.reason = "stopped", reason
            self.note("stop", reason=reason)

    def replace(self, name: str, function: Any = None, **kwargs: Any) -> None:
        """Let `function(trainer, ..., **kwargs)` stand for one of the loop's inner calls, in this trainer only.

        `name` is "pre_epoch", "step" (called with the batch too) or "post_epoch"; hooks still run. `function=None`
        goes back to the method. Raises UsageError where the keyword arguments do not fit the function.
        """
        if name not in REPLACEABLE:
            raise UsageError(f"{name!r} cannot be replaced{nearest(name, REPLACEABLE)}")
        self.__dict__.pop(name, None)
        if function is not None:
            check_replacement(name, function, kwargs)
            self.__dict__[name] = partial(function, self, **kwargs)
        self._engine_names |= {name}
        self._dispatcher = None

    # Updating parameters ----------------------------------------------------------------------------------------

    def minimize(
        self,
        loss: Any,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None,
        *,
        elements: float | None = None,
    ) -> bool:
        """Let `optimizer` (or several, from one backward pass) reduce `loss`; returns whether it updated.

        The one way gradients change parameters: scale, accumulate, backward, `pre_update`, clip, finite check, update,
        EMA, count. Only parameters of the given optimizers receive gradients, so opponents need no freezing.

        Args:
            loss: a scalar tensor, an Objective's `Losses`, or a dict of scalar terms, which are summed.
            optimizer: may be left out when the trainer has exactly one.
            elements: what the loss is a mean over, its weight under accumulation; by default `self.elements(batch)`.

        Raises:
            UsageError: for a loss that is not scalar or has no gradients, or an optimizer that is no attribute.
            NonFiniteError: for a NaN or Inf loss or gradient, before it reaches a parameter.
        """
        return self.minimizer.minimize(loss, optimizer, elements)

    def updates(self, optimizer: torch.optim.Optimizer | None = None) -> int:
        """How many updates `optimizer` (or the only one) has made."""
        return self.minimizer.of(optimizer)[0].updates

    @property
    def last_of_window(self) -> bool:
        """Whether no further micro-batch can join the update under way: the epoch or the run ends with this step."""
        limit = self.progress.max_steps
        if self._batches is None or self._batches.exhausted:
            return True
        return limit is not None and self.progress.step + 1 >= limit

    def edit_rows(self, tensors: Mapping[str, Tensor] | Sequence[Tensor]) -> RowEdit:
        """Begin a transaction that adds, removes or replaces rows of `tensors` (all with the same first dimension).

        Every optimizer and average of the trainer that holds one of them follows. Use it as a context manager:
        `with trainer.edit_rows({"xy": self.xy}) as edit: edit.keep(alive)`. See `RowEdit`.
        """
        return RowEdit(tensors, list(find(self, torch.optim.Optimizer).values()), list(find(self, EMA).values()))

    # Evaluating -------------------------------------------------------------------------------------------------

    def validate(self) -> dict[str, float]:
        """Evaluate the validation data now: eval mode, no gradients, random streams of its own. Returns the means."""
        if self.validation_feed is None:
            raise UsageError("nothing to validate on: give the trainer validation_data")
        self._validation_requested = False
        self._validated_step = self.progress.step
        with self._active(), evaluating(self):
            self.fire("pre_validation")
            self.validation_metrics = metrics = evaluate(self, self.validation_feed, self.validation_step)
            self.fire("post_validation", metrics)
            self.logbook.scalars("validation", metrics)
        return metrics

    def test(self, data: Any = None) -> dict[str, float]:
        """Evaluate `data` (by default the test data) with `test_step`, as the weights are. Returns the means."""
        feed = self.test_feed if data is None else feed_for(self, data, "data")
        if feed is None:
            raise UsageError("nothing to test on: give the trainer test_data, or call test(data)")
        feed.bind(self.config.seed, self.device)
        with self._active(), evaluating(self):
            metrics = evaluate(self, feed, self.test_step)
            self.logbook.scalars("test", metrics)
        return metrics

    def request_validation(self) -> None:
        """Ask for a validation as soon as the current step has settled."""
        self._validation_requested = True

    # Logging ----------------------------------------------------------------------------------------------------

    @property
    def journal(self) -> deque[dict[str, Any]]:
        """What happened to the run and what a person changed in it: the latest entries, oldest first."""
        return self.logbook.journal

    def log(self, name: str, value: Any) -> None:
        """Add a scalar to the training metrics; like what `step` returns, it is averaged over the log interval."""
        self.logbook.meter.add({name: value}, 1.0)

    def log_image(self, name: str, image: Any) -> None:
        """Log a picture: array or tensor (H, W), (H, W, C) with C = 1, 3 or 4; uint8, or float in [0, 1]."""
        self.logbook.image(name, image)

    def log_text(self, name: str, text: str) -> None:
        """Log a piece of text."""
        self.logbook.text(name, text)

    def note(self, event: str, **fields: Any) -> None:
        """Add to the journal, with step, epoch and time."""
        self.logbook.note(event, fields)

    def where(self) -> str:
        """The step being taken, for messages: "step 12 (epoch 1, batch 4)", all counted from 1."""
        progress = self.progress
        return f"step {progress.step + 1} (epoch {progress.epoch + 1}, batch {progress.batch + 1})"

    # What others may look at ------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return self.progress.epoch

    @property
    def feeds(self) -> dict[str, Feed]:
        """The feeds there are, by attribute name."""
        feeds = {"feed": self.feed, "validation_feed": self.validation_feed, "test_feed": self.test_feed}
        return {name: feed for name, feed in feeds.items() if feed is not None}

    def snapshot(self) -> Snapshot:
        """How far the run is; may be called from any thread at any time, and never waits."""
        epoch, step, batch = self._counts
        progress = self.progress
        return Snapshot(
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
            digest=self.saver.digest,
        )

    @property
    def hook_seconds(self) -> dict[str, float]:
        """Seconds spent in each hook so far, by class name (those of the same class are added up)."""
        seconds: dict[str, float] = {}
        for handler in self._dispatcher.handlers if self._dispatcher is not None else []:
            seconds[handler.name] = seconds.get(handler.name, 0.0) + handler.seconds
        return seconds

    # Saving -----------------------------------------------------------------------------------------------------

    def request_save(self) -> None:
        """Ask for a checkpoint as soon as the current step has settled; it is written beside the training."""
        self.saver.requested = True

    def save(self) -> Path:
        """Write a checkpoint now, between steps; returns its directory. Raises UsageError without a run on disk."""
        with self._active():
            return self.saver.save(wait=True)

    def rewind(self, step: int) -> None:
        """Go back to the state after `step` steps, and forget what came later; `train` or `iterate` go on from there.

        The newest snapshot in memory or good checkpoint on disk at or before it is restored, and the steps from there
        to `step` are taken again. Raises UsageError for a step that has not been taken, RunError without such a state.
        """
        if not 0 <= step <= self.progress.step:
            raise UsageError(f"cannot rewind to step {step}: the run is at step {self.progress.step}")
        with self._active():
            state = state_at_or_before(self, step)
            self._end_loop_quietly()
            go_back_to(self, state)
            self._reopen()
            self.note("rewind", to=step, restored=state.step)
            while self.progress.step < step and self._take_step():
                pass

    def _end_loop_quietly(self) -> None:
        """Leave the loop where it is suspended, without closing the run."""
        self._rewinding = True
        try:
            getattr(self._steps, "close", lambda: None)()
        finally:
            self._rewinding = False

    def _reopen(self) -> None:
        """Begin the loop anew from the state at hand; a run that had ended is open again."""
        if self._torn_down and self.run is not None:
            self.lock = RunLock(self.run.path)
        self._torn_down = False
        _open.add(self)
        self._finish_reason = None
        self._counts = (self.progress.epoch, self.progress.step, self.progress.batch)
        self.status, self.reason = "running", ""
        self._steps = self._lifecycle()

    def digest(self) -> str:
        """SHA-256 over the complete training state, in hex; equal digests mean equal runs."""
        with self._active():
            return capture(self).digest

    # Events -----------------------------------------------------------------------------------------------------

    def fire(self, event: str, *args: Any) -> None:
        """Call everybody who overrides `event`: the trainer's own method, then the hooks in their order."""
        if self._dispatcher is None:
            given = {id(hook) for hook in self.hooks}
            attributes = [hook for hook in find(self, Hook).values() if id(hook) not in given]
            self._dispatcher = Dispatcher(self, self.hooks + attributes)
        self._dispatcher.fire(event, *args)

    def forget_handlers(self) -> None:
        """Find anew who overrides what, at the next event: hooks or replacements have changed."""
        self._dispatcher = None

    def _tear_down(self) -> None:
        if self._torn_down:
            return
        self._torn_down = True
        if self.status in ("new", "running"):
            self.status, self.reason = "stopped", "closed"
        _open.discard(self)
        try:
            self.saver.close()
            self.fire("teardown")
        finally:
            for feed in self.feeds.values():
                feed.close()
            if self.lock is not None:
                self.lock.release()
