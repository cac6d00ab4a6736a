"""The loop: written once, driven to its end by `train()` or one step at a time by `iterate()`."""

from __future__ import annotations

import atexit
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, cast

from treadle.checkpoint.state import capture
from treadle.data.batch import to_device
from treadle.data.feed import Feed
from treadle.data.random import RandomStreams
from treadle.engine.assembly import adopt, check_ready
from treadle.engine.attributes import find
from treadle.engine.bad_steps import BadStep, RollBack
from treadle.engine.commands import CommandQueue, Save
from treadle.engine.devices import autocast, deterministic_kernels
from treadle.engine.evaluation import scalars
from treadle.engine.events import Dispatcher, Events, Hook
from treadle.engine.obey import obey
from treadle.engine.resume import start_settings
from treadle.engine.rewind import go_back_to, roll_back, state_at_or_before
from treadle.engine.schedule import Every
from treadle.errors import RunError, TreadleError, UsageError
from treadle.runs.lock import RunLock

if TYPE_CHECKING:
    import torch

    from treadle.engine.bad_steps import Recovery
    from treadle.engine.logbook import Logbook
    from treadle.engine.minimize import Minimizer
    from treadle.engine.progress import Progress
    from treadle.engine.saving import Saver, Snapshots
    from treadle.engine.summary import Summary
    from treadle.engine.trainer import Trainer

_open: weakref.WeakSet[Loop] = weakref.WeakSet()


@atexit.register
def _close_open_loops() -> None:
    for loop in list(_open):
        loop.close()


class Loop(Events, ABC):
    """The half of a `Trainer` that drives it: order of events, stepping, stopping, rewinding, closing.

    `Trainer` adds what a subclass writes and calls, and makes the parts that are declared here.
    """

    config: Any
    progress: Progress
    device: torch.device
    random: RandomStreams
    feed: Feed | None
    validation_feed: Feed | None
    commands: CommandQueue
    minimizer: Minimizer
    logbook: Logbook
    saver: Saver
    snapshots: Snapshots
    recovery: Recovery
    hooks: list[Hook]
    batch: Any
    run: Any
    lock: RunLock | None
    status: str
    reason: str
    paused: bool

    def __init__(self) -> None:
        """Ready for the first step; `Trainer` calls it once it has its config."""
        config = self.config
        self._validate_every = Every(config.validate_every) if config.validate_every else None
        self._snapshot_every = Every(config.snapshot_every) if config.snapshot_every else None
        self._batches: Any = None
        self._counts = (0, 0, 0)
        self._validated_step = -1
        self._taken = 0
        self._began = self._torn_down = self._halting = self._rewinding = self._validation_requested = False
        self._finish_reason: str | None = None
        self._depth = 0
        self._entered = self._seconds = 0.0
        self._dispatcher: Dispatcher | None = None
        self._steps: Iterator[None] = self._lifecycle()

    @property
    @abstractmethod
    def feeds(self) -> dict[str, Feed]:
        """See `Trainer`, as for the five below."""

    @abstractmethod
    def step(self, batch: Any) -> Mapping[str, Any] | torch.Tensor: ...

    @abstractmethod
    def elements(self, batch: Any) -> int: ...

    @abstractmethod
    def validate(self) -> dict[str, float]: ...

    @abstractmethod
    def note(self, event: str, **fields: Any) -> None: ...

    @abstractmethod
    def summary(self) -> Summary: ...

    # The loop ---------------------------------------------------------------------------------------------------

    def _loop(self) -> Iterator[None]:
        """The training loop; it yields between steps. Read it aloud."""
        progress, fire, every = self.progress, self.fire, self._validate_every
        if not self._began:
            self._began = True
            self.note("start", **start_settings(self._trainer))
            fire("pre_training")
        self._ready_to_roll_back()
        while not self._ended:
            if progress.batch == 0:
                fire("pre_epoch")
            for batch in self._rest_of_epoch():
                fire("pre_step", batch)
                outputs = self._run_step(batch)
                progress.count_step()
                self._taken += 1
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
            check_ready(self._trainer)
            adopt(self._trainer)
            self._dispatcher = None
            self.status = "running"
            while True:
                try:
                    yield from self._loop()
                    break
                except RollBack:
                    roll_back(self._trainer)
            self.status, self.reason = "finished", self._finish_reason or ""
        except (Exception, KeyboardInterrupt) as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            self.status = "stopped" if interrupted else "failed"
            self.reason = "interrupted" if interrupted else f"{type(error).__name__}: {error}"
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
        if not self.saver.prepared:
            self.saver.prepare()
        if self._snapshot_every is not None and self._snapshot_every.due_between_steps(progress):
            self.snapshots.take(capture(self._trainer))
        if self.saver.requested or (final and self.run is not None):
            self.saver.save(wait=final)
        self.saver.take_reports()

    def _ready_to_roll_back(self) -> None:
        """Have a state to go back to from the first step on, where bad steps roll back."""
        if self.config.on_bad_step == "rollback" and not self.snapshots.steps:
            self.snapshots.take(capture(self._trainer))

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def ended(self) -> bool:
        """Whether no further step will be taken: the run has finished, failed or been closed."""
        return self._torn_down

    def _mark_finished(self, reason: str) -> None:
        """Take note that the run had finished before: nothing fires, no step is taken."""
        self._steps = iter(())
        self._torn_down = True
        self.status, self.reason = "finished", reason
        _open.discard(self)
        if self.lock is not None:
            self.lock.release()

    @property
    def seconds(self) -> float:
        """Seconds spent in the loop so far, over all sittings of a resumed run."""
        return self._seconds + (time.perf_counter() - self._entered if self._depth else 0.0)

    @contextmanager
    def _active(self) -> Iterator[None]:
        """The trainer's random streams are the global ones, and its clock runs; may be nested."""
        self._depth += 1
        if self._depth == 1:
            self._entered = time.perf_counter()
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
                self._seconds += time.perf_counter() - self._entered

    def _take_step(self) -> bool:
        before = self._taken  # not the step: a rollback takes that back
        next(self._steps, None)
        return self._taken > before

    def _may_step(self, *, wait: bool) -> bool:
        """Obey the commands that have arrived; returns whether a step may follow. With `wait`, sits out a pause."""
        while self.commands or self.paused:
            if not self.commands and not wait:
                return False
            command, done = self.commands.next()
            try:
                done.set_result(obey(self._trainer, command))
            except TreadleError as error:
                # A disk that refuses a checkpoint somebody asked for is no reason to stop.
                if not isinstance(error, UsageError) and not isinstance(command, Save):
                    raise
                done.set_exception(error)
                self.note("refused", command=type(command).__name__, error=str(error))
            if self._halting:
                self._halting = False
                return False
        if self.status == "stopped" and not self._torn_down:
            self.status, self.reason = "running", ""
        return not self._torn_down

    def _halt(self, reason: str) -> None:
        """Suspend the run here, between steps, as `Stop` does; other threads use `stop`."""
        self._halting = True
        if not self._torn_down:
            self.status, self.reason = "stopped", reason
            self.note("stop", reason=reason)

    def rewind(self, step: int) -> None:
        """Go back to the state after `step` steps, and forget what came later; `train` or `iterate` go on from there.

        The newest snapshot in memory or good checkpoint on disk at or before it is restored, and the steps from there
        to `step` are taken again. Raises UsageError for a step that has not been taken, RunError without such a state.
        """
        if not 0 <= step <= self.progress.step:
            raise UsageError(f"cannot rewind to step {step}: the run is at step {self.progress.step}")
        with self._active():
            state = state_at_or_before(self._trainer, step)
            self._end_loop_quietly()
            go_back_to(self._trainer, state)
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

    @property
    def _trainer(self) -> Trainer:
        """This object as what it is."""
        return cast("Trainer", self)

    def _open(self) -> None:
        """The trainer is complete: its hooks are found, and it is closed with the program at the latest."""
        self._dispatcher = None
        if not self._torn_down:
            _open.add(self)

    # Events -----------------------------------------------------------------------------------------------------

    def fire(self, event: str, *args: Any) -> None:
        """Call everybody who overrides `event`: the trainer's own method, then the hooks in their order."""
        if self._dispatcher is None:
            given = {id(hook) for hook in self.hooks}
            attributes = [hook for hook in find(self._trainer, Hook).values() if id(hook) not in given]
            self._dispatcher = Dispatcher(self._trainer, self.hooks + attributes)
        self._dispatcher.fire(event, *args)

    def _forget_handlers(self) -> None:
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

    def where(self) -> str:
        """The step being taken, for messages: "step 12 (epoch 1, batch 4)", all counted from 1."""
        progress = self.progress
        return f"step {progress.step + 1} (epoch {progress.epoch + 1}, batch {progress.batch + 1})"
