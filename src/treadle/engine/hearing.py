"""When the processes of a run tell one another what each of them was asked, so that all obey after the same step."""

from __future__ import annotations

from treadle.engine.command_queue import BEAT, CommandQueue
from treadle.engine.lifecycle import Stage
from treadle.engine.loop import Loop


class Hearing:
    """Says between two steps whether all are to be asked now: that costs a message, which most steps do without.

    A process that is asked something says so with its next gradients. At first, and where a window of steps had no
    gradients to say it with, as of a trainer that never calls `minimize`, all are asked by a message of its own.

    Args:
        loop: the run's; its minimizer is told what to send along.
        queue: what this process is asked.
    """

    def __init__(self, loop: Loop, queue: CommandQueue) -> None:
        self._loop, self._queue, self._world = loop, queue, loop.world
        self._due = self._world.size > 1
        """Whether all processes are to tell one another now what they were asked: at first, before any gradients."""
        self._unmet = 0
        """Steps since the processes have said anything to one another with gradients, or otherwise."""
        self._compared = False
        loop.minimizer.asks = lambda: queue.asks
        loop.is_asked = self._holds_the_end

    def between_steps(self) -> None:
        """Let all know what any was asked, where one of them said that it was."""
        met, asked = self._loop.minimizer.take_asked()
        if self._due and not self._compared:
            self._compared = True
            self._loop.check_alike()
        self._unmet = 0 if met else self._unmet + 1
        agrees = asked or self._due or self._loop.lifecycle.stage is Stage.PAUSED
        if not agrees and self._unmet >= self._loop.config.accumulate:
            self._unmet = 0
            agrees = any(self._world.gather(self._queue.asks))
        if agrees:
            self._due, self._unmet = False, 0
            self._queue.agree()

    def in_pause(self) -> None:
        """The main process waits for a command, the others for the main one; and now and then all tell all."""
        if self._world.main:
            self._queue.wait(BEAT)
            if self._queue.ready:  # its own, which no other needs to know
                return
        self._queue.agree()

    def _holds_the_end(self) -> bool:
        """Whether a command is to be carried out before the run ends; several processes tell one another, once."""
        holds = self._queue.hold_the_end()
        if self._world.size > 1:
            self._due = holds = any(self._world.gather(holds))
        return holds
