"""What drives a loop: to its end, one step at a time, by commands, back in time; and what ends it."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from treadle.checkpoint.state import State
from treadle.data.random import RandomStreams
from treadle.engine.bad_steps import RollBack
from treadle.engine.build import check_ready
from treadle.engine.command_queue import CommandQueue
from treadle.engine.desk import RunDesk
from treadle.engine.devices import deterministic_kernels
from treadle.engine.hearing import Hearing
from treadle.engine.history import newest_state
from treadle.engine.lifecycle import Stage
from treadle.engine.limits import raise_limits, raised
from treadle.engine.loop import Loop
from treadle.engine.memory import keep_freed_memory
from treadle.errors import RunError, UsageError, message

SAVING_AT_LEAST = 1.0
"""Seconds that checkpoints which are asked for by command may take in any case, before they wait for steps."""

_open: weakref.WeakSet[Driver] = weakref.WeakSet()


@atexit.register
def _close_what_is_open() -> None:
    for driver in list(_open):
        driver.close()


class Driver:
    """Takes a loop's steps, and between two of them has the commands carried out that have come.

    Args:
        loop: what is driven.
        random: the run's random streams, which are the global ones while it is active.
    """

    def __init__(self, loop: Loop, random: RandomStreams) -> None:
        self._loop, self._random = loop, random
        self._lifecycle = loop.lifecycle
        self.desk = RunDesk(self, loop)
        self.queue = CommandQueue(self.desk, loop.world)
        self._hearing = Hearing(loop, self.queue)
        if loop.world.size > 1:
            loop.world.where = loop.where
        self._steps: Iterator[None] | None = None
        self._halted = self._begun = False
        self._opened, self._saving = perf_counter(), 0.0
        self.active = Active(loop, random)

    def open(self) -> None:
        """Everything is in place: from now on the run is closed with the program at the latest."""
        if not self._lifecycle.ended:
            _open.add(self)

    # Steps --------------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Run to the end, or until a stop. Raises UsageError where it was ended before that by anything else."""
        self._refuse_inside("train")
        lifecycle = self._lifecycle
        if lifecycle.stage in (Stage.FAILED, Stage.CLOSED):
            how = "failed" if lifecycle.stage is Stage.FAILED else "was ended"
            raise UsageError(
                f"the run {how} after step {self._loop.progress.step} ({lifecycle.reason}) and takes no further step: "
                "rewind() it to a step before, or resume it in a new trainer"
            )
        with self.active:
            while self._may_step(wait=True) and self._take_step():
                self._random.give_way()

    def iterate(self) -> bool:
        """Take one step; returns whether it took one."""
        self._refuse_inside("iterate")
        with self.active:
            return self._may_step(wait=False) and self._take_step()

    def attend(self) -> bool:
        """Carry out the commands that have come and sit out a pause, as `train` does; whether a step may follow."""
        self._refuse_inside("attend")
        with self.active:
            return self._may_step(wait=True)

    def _take_step(self) -> bool:
        """One step with all that leads to it and follows from it; False where the run came to its end instead."""
        loop, lifecycle = self._loop, self._lifecycle
        before = loop.taken
        while not lifecycle.ended:
            lifecycle.in_step = True
            try:
                if self._steps is None:
                    self._steps = self._begin()
                try:
                    next(self._steps)
                    if loop.taken > before:  # else the rest of the epoch was passed over
                        break
                except StopIteration:
                    lifecycle.to(Stage.FINISHED, lifecycle.finish_reason or "")
                    self._tear_down()
                except RollBack:
                    self._roll_back()
            except BaseException as error:
                self._fail(error)
                raise
            finally:
                lifecycle.in_step = False
        return loop.taken > before

    def _begin(self) -> Iterator[None]:
        check_ready(self._loop)
        if self._loop.config.keep_memory and self._loop.device.type == "cpu":
            keep_freed_memory()  # of the whole process: for training, and not because a trainer was made
        self._loop.parts.find()
        self._loop.adopt()
        self._loop.adopt_feeds()
        if not self._begun:  # also where it was paused, stopped or rewound before its first step here
            self._begun = True
            self._loop.state.settle_hooks()
            self._loop.state.late.know_hooks()
        self._lifecycle.to(Stage.RUNNING)
        return self._loop.steps()

    def _may_step(self, *, wait: bool) -> bool:
        """Carry out the commands that have come; returns whether a step may follow. With `wait`, sits out a pause."""
        commands, lifecycle, several = self.queue, self._lifecycle, self._loop.world.size > 1
        if several:
            self._hearing.between_steps()
        if lifecycle.stage is Stage.RUNNING and not commands.ready:
            return True
        # As many as there are now: somebody who never stops sending does not keep the run from its steps.
        for _ in range(commands.ready):
            if not commands.ready or self._puts_off_saving():  # some were answered together
                break
            if self._carry_out_next():
                return False
        while lifecycle.stage is Stage.PAUSED:
            if commands.ready:
                if self._carry_out_next():
                    return False
            elif wait:
                with self._random.outside():
                    if several:
                        self._hearing.in_pause()
                    else:
                        commands.wait()  # until one has come, or somebody has closed the run
            else:
                return False
        if lifecycle.stage is Stage.STOPPED:
            lifecycle.to(Stage.RUNNING)
        return not lifecycle.ended

    def _puts_off_saving(self) -> bool:
        """Whether nothing but checkpoints is asked for, and these have had their half of the time: steps come first."""
        if not self.queue.only_saves() or self._loop.over:
            return False
        share = (perf_counter() - self._opened) / 2
        return self._loop.world.share(self._saving > SAVING_AT_LEAST and self._saving > share)  # clocks differ

    def _carry_out_next(self) -> bool:
        """Carry out the oldest command; returns whether it halted the run."""
        asked = self.queue.take()
        began = perf_counter()
        try:
            self.queue.carry_out(asked)
        except BaseException as error:
            self._fail(error)
            raise
        if asked.command.saves:
            self._saving += perf_counter() - began
        halted, self._halted = self._halted, False
        return halted

    def _refuse_inside(self, what: str) -> None:
        if self._lifecycle.in_step:
            raise UsageError(f"{what}() was called from inside a step or a hook, where the run is training already")
        if self._loop.events.observing is not None:
            self._loop.events.refuse_observers(what)

    # Ends ---------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the run here, once; from inside a step, after it."""
        if self._lifecycle.in_step:
            if not self._lifecycle.ended:
                from treadle.engine.commands import Close

                self.queue.put(Close())
            return
        with self.active:
            self._forget_steps()
            self._lifecycle.close()
            self._tear_down()

    def halt(self, reason: str) -> None:
        """Suspend the run here: `train` or `iterate` return."""
        self._halted = True
        if not self._lifecycle.ended:
            self._lifecycle.to(Stage.STOPPED, reason)
            self._loop.note("stop", reason=reason)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within the block models are as validation has them, and nothing can change the run."""
        with self._lifecycle.occupied("call"), self._loop.evaluator.evaluating():
            yield

    def abandon(self) -> None:
        """Let go of the run as a killed process does: nothing fires, nothing is written but what is being written."""
        if self._loop.archive is not None:
            self._loop.archive.close()
        self._forget_steps()
        self._lifecycle.close()
        self._release()

    def mark_finished(self, reason: str) -> None:
        """Take note that the run had finished before: nothing fires, no step is taken."""
        self._lifecycle.to(Stage.FINISHED, reason)
        self._release()

    def _fail(self, error: BaseException) -> None:
        """An error or interrupt ends the run: `on_exception`, then `teardown`."""
        if self._lifecycle.ended:
            return
        if isinstance(error, KeyboardInterrupt):
            self._lifecycle.to(Stage.CLOSED, "interrupted")
        elif isinstance(error, Exception):
            self._lifecycle.to(Stage.FAILED, f"{type(error).__name__}: {message(error)}")
        else:
            self._lifecycle.close()
        try:
            if isinstance(error, Exception | KeyboardInterrupt):
                self._loop.events.fire("on_exception", error)
        finally:
            self._tear_down()

    def _tear_down(self) -> None:
        """Fire `teardown`, once for each time that the run was open, and release what it holds."""
        if self not in _open:
            return
        _open.discard(self)
        archive = self._loop.archive
        try:
            if archive is not None:
                archive.close()
            self._loop.events.fire("teardown")
        finally:
            self._forget_steps()
            self._release()

    def _release(self) -> None:
        _open.discard(self)
        for feed in self._loop.subject.feeds.values():
            feed.close()
        if self._loop.archive is not None:
            self._loop.archive.release()
        self._loop.watches.forget()
        self._lifecycle.in_step = False  # what still waits is carried out now, and may be a rewind
        finished = self._lifecycle.stage is Stage.FINISHED
        self.queue.close(f"the run has ended ({self._lifecycle.status})", for_good=not finished)

    def _forget_steps(self) -> None:
        steps, self._steps = self._steps, None
        if steps is not None and not self._lifecycle.in_step and hasattr(steps, "close"):
            steps.close()

    # Further than planned -----------------------------------------------------------------------------------------

    def extend(self, limits: Mapping[str, int | None]) -> None:
        """Raise the limits of the run, and open it again where it had come to its end; from inside a step, after it."""
        loop, lifecycle = self._loop, self._lifecycle
        changes = raised(loop.progress, limits)
        if not lifecycle.began:
            raise UsageError("extend: the run has not begun: give its limits when the trainer is made")
        if lifecycle.ended and lifecycle.stage is not Stage.FINISHED:
            raise UsageError(f"extend: the run has not come to its end, it is {lifecycle.status}: rewind or resume it")
        if lifecycle.in_step:
            if self.queue.closed:
                raise UsageError(
                    "extend() was called from inside a hook or a call, and the run has ended: call it later"
                )
            from treadle.engine.commands import Extend

            self.queue.put(Extend(**limits), loop.logbook.client)
            return
        with self.active:
            if lifecycle.ended:
                self.reopen()
            lifecycle.finish_reason = None
            raise_limits(loop.progress, loop.config, changes)
            loop.edits.forget(changes)
            loop.note("extend", changed={name: list(pair) for name, pair in changes.items()})

    # Back in time -------------------------------------------------------------------------------------------------

    def rewind(self, step: int, keep: bool = False) -> Path | None:
        """Go back to the state after `step` steps; asked from inside a step, once that is over.

        With `keep` what came later becomes a run of its own, whose path is returned, where there is any.
        """
        loop = self._loop
        if not 0 <= step <= loop.progress.step + self._lifecycle.in_step:
            raise UsageError(f"cannot rewind to step {step}: the run is at step {loop.progress.step}")
        if self._lifecycle.in_step:
            if self.queue.closed:
                raise UsageError(
                    "rewind() was called from inside a hook or a call, and the run has ended: call it later"
                )
            from treadle.engine.commands import Rewind

            self.queue.put(Rewind(step, keep), loop.logbook.client)
            return None
        loop.events.refuse_observers("rewind")
        if keep and loop.archive is None:
            raise UsageError(
                "the future cannot be kept, the run is only in memory: rewind without keep, or give a trainer run_dir="
            )
        paused = self._lifecycle.stage is Stage.PAUSED
        with self.active:
            state = newest_state(loop.snapshots, loop.archive, step)
            given_up, kept = loop.progress.step, self._keep_future(step) if keep else None
            self._forget_steps()
            self._go_back_to(state)
            self.reopen()
            said = {} if kept is None else {"kept": str(kept)}
            loop.note("rewind", to=step, restored=state.step, from_step=given_up, **said)
            with loop.logbook.asked_by(None):
                while loop.progress.step < step and self._take_step():
                    pass
            if paused and not self._lifecycle.ended:
                self._lifecycle.to(Stage.PAUSED)
        return kept

    def _keep_future(self, step: int) -> Path | None:
        """Make a run of what came after `step`, up to the present state or, after the end, its last checkpoint."""
        archive = self._loop.archive
        assert archive is not None
        if not self._lifecycle.ended and self._loop.progress.step > step:
            self.settle()
            if self._loop.progress.step not in archive.steps():
                self.save_before("nothing was changed, since what came later could not be kept")
        return archive.keep_future(step)

    def _roll_back(self) -> None:
        """After a bad step: go back to the last good state, but keep count of recoveries and batches left out."""
        loop = self._loop
        bad, step = loop.recovery.state_dict(), loop.progress.step
        state = newest_state(loop.snapshots, loop.archive, step, good=self._is_finite)
        self._go_back_to(state)
        loop.recovery.load_state_dict(bad)
        loop.note("rollback", from_step=step, restored=state.step)
        self._steps = loop.steps()

    def _is_finite(self, state: State) -> bool:
        """Whether a state's trained parameters are: one that has NaN in them is none to go on from."""
        parts = self._loop.parts
        names = [name for name, p in parts.parameters.items() if p.requires_grad]
        for module, value in parts.modules.items():
            names += [f"{module}/state/{name}" for name, p in value.named_parameters() if p.requires_grad]
        return all(bool(torch.isfinite(state.tensors[name]).all()) for name in names if name in state.tensors)

    def _go_back_to(self, state: State) -> None:
        """Restore `state` and give up the future that came after it, in memory and on disk."""
        if self._loop.archive is not None:
            # Before the metrics are cut: a kill in between resumes from where the lines end, or earlier.
            self._loop.archive.forget_after(state.step)
        with self._lifecycle.occupied("rewind"):
            self._loop.state.restore(state)
        self._loop.snapshots.forget_after(state.step)

    def reopen(self) -> None:
        """Begin the loop anew from the state at hand; a run that had ended is open again."""
        loop, lifecycle = self._loop, self._lifecycle
        if lifecycle.ended and loop.archive is not None:
            loop.archive.reopen()
        _open.add(self)
        self.queue.open()
        lifecycle.finish_reason = None
        loop.counts = (loop.progress.epoch, loop.progress.step, loop.progress.batch)
        lifecycle.to(Stage.RUNNING)

    # Saving -------------------------------------------------------------------------------------------------------

    def save(self) -> Any:
        """Write a checkpoint, and wait for it."""
        with self.active, self._lifecycle.occupied("checkpoint"):
            return self._loop.save(wait=True)

    def save_before(self, otherwise: str) -> None:
        """Write a checkpoint that what follows needs. Raises UsageError where it cannot, saying what is `otherwise`."""
        try:
            self.save()
        except RunError as error:
            raise UsageError(f"{error}: {otherwise}") from error

    def settle(self) -> None:
        """Have the journal say what is saved already, so that it is plain what a checkpoint of this step has seen."""
        if self._loop.archive is not None:
            with suppress(RunError):  # it will be tried again, and fail the run where that goes on for too long
                self._loop.archive.finish()


class Active:
    """While entered: the run's random streams are the global ones, its clock runs; may be nested."""

    def __init__(self, loop: Loop, random: RandomStreams) -> None:
        self._lifecycle, self._random = loop.lifecycle, random
        self._deterministic = loop.config.deterministic and loop.device.type != "cpu"
        self._stacks: list[ExitStack] = []

    def __enter__(self) -> None:
        self._random.__enter__()
        self._lifecycle.__enter__()
        if self._deterministic:
            stack = ExitStack()
            stack.enter_context(deterministic_kernels())
            self._stacks.append(stack)

    def __exit__(self, *_: object) -> None:
        if self._deterministic:
            self._stacks.pop().close()
        self._lifecycle.__exit__()
        self._random.__exit__()
