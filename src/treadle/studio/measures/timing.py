"""Where the time of a run goes, measured while somebody looks and at no other time."""

from __future__ import annotations

from time import perf_counter
from typing import Any, ClassVar

from treadle.engine.events import Hook
from treadle.engine.loop import Loop

LOOKED_AT = 10.0
"""Seconds after the last question, from which on nothing is measured."""

PHASES = {
    "step": "the trainer's step, with what listens inside it",
    "hooks": "hooks before and after the step",
    "data": "waiting for the next batch, and logging",
    "validation": "validation, with its hooks",
    "checkpoint": "taking checkpoints: the training waits only for the copy",
    "call": "drawing for this page, and whatever else is called between steps",
    "rewind": "going back",
    "pause": "pauses, with what is drawn in them",
}
"""What a run's time is divided into, and what that is."""


class Clock:
    """Measures what a run's time is spent on, from `attach` until nobody has asked for `LOOKED_AT` seconds.

    Meanwhile two hooks take the time four times in a step (some 4 us), and the lifecycle notes what else was under way.
    On a GPU a step ends when its work is queued.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._hooks = (_First(self), _Last(self))
        self._asked = 0.0
        self._begin()

    def _begin(self) -> None:
        self._phases = dict.fromkeys(PHASES, 0.0)
        self._steps = 0
        self._began = self._last = perf_counter()
        self._occupied = 0.0
        self._before = {id(handler): handler.seconds for handler in self._loop.events.handlers}

    @property
    def attached(self) -> bool:
        """Whether it measures."""
        return all(any(hook is there for there in self._loop.hooks) for hook in self._hooks)

    def ask(self) -> None:
        """Somebody looks."""
        self._asked = perf_counter()

    def attach(self) -> None:
        """Begin to measure, unless that has begun; to be called between two steps."""
        if self.attached:
            return
        self._take_away()
        self._loop.hooks += self._hooks
        self._loop.listen()
        self._loop.lifecycle.measure({})
        self._begin()

    def detach(self) -> None:
        """Measure no more; to be called on the run's thread."""
        self._take_away()
        self._loop.listen()
        self._loop.lifecycle.measure(None)

    def _take_away(self) -> None:
        ours = {id(hook) for hook in self._hooks}
        self._loop.hooks[:] = [hook for hook in self._loop.hooks if id(hook) not in ours]

    def report(self) -> dict[str, Any]:
        """Seconds since it was attached, in each phase and in each hook; may be asked for by any thread.

        The phases add up to all the time up to the last step; the hooks' seconds are within them.
        """
        spent = dict(self._loop.lifecycle.measured() or {})
        phases = self._phases | {name: spent.get(name, 0.0) for name in PHASES if name in spent}
        ours = {type(hook).__name__ for hook in self._hooks}
        handlers = [handler for handler in list(self._loop.events.handlers) if handler.name not in ours]
        hooks = [{"name": h.name, "seconds": h.seconds - self._before.get(id(h), 0.0)} for h in handlers]
        return {
            "measured": perf_counter() - self._began,
            "steps": self._steps,
            "phases": [{"name": name, "what": PHASES[name], "seconds": value} for name, value in phases.items()],
            "hooks": sorted(hooks, key=lambda hook: -hook["seconds"]),
        }

    def between(self) -> None:
        """A step begins. What went on since the last was waiting, but for what the lifecycle has taken note of."""
        occupied = sum((self._loop.lifecycle.measured() or {}).values())
        self._phases["data"] -= occupied - self._occupied
        self._occupied = occupied
        self.mark("data")

    def mark(self, phase: str) -> None:
        """What went on since the last mark was `phase`."""
        now = perf_counter()
        self._phases[phase] += now - self._last
        self._last = now

    def step(self) -> None:
        """A step is over."""
        self.mark("hooks")
        self._steps += 1
        if self._last - self._asked > LOOKED_AT:
            self.detach()


class _Measuring(Hook):
    """Critical, so that nothing is set apart for it, which would take more time than it measures; it cannot fail."""

    optional_state: ClassVar[bool] = True

    def __init__(self, clock: Clock) -> None:
        self.clock = clock


class _First(_Measuring):
    """Before all other hooks."""

    order: ClassVar[int] = -(10**6)

    def pre_step(self, trainer: Any, batch: Any) -> None:
        self.clock.between()

    def post_step(self, trainer: Any, batch: Any, outputs: Any) -> None:
        self.clock.mark("step")


class _Last(_Measuring):
    """After all other hooks."""

    order: ClassVar[int] = 10**6

    def pre_step(self, trainer: Any, batch: Any) -> None:
        self.clock.mark("hooks")

    def post_step(self, trainer: Any, batch: Any, outputs: Any) -> None:
        self.clock.step()
