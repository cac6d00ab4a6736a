"""Hooks that settings switch on and off, also while a run goes on: which there can be, and which there are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from treadle.engine.events import Hook
from treadle.errors import UsageError

Make = Callable[[Any], Hook | None]
"""What makes a hook of a config; None where that asks for none. It only looks: it is also asked what would be."""


class Switch:
    """One hook that a setting switches: what makes it, what stands before it, and itself while it is on."""

    __slots__ = ("before", "hook", "make", "setting")

    def __init__(self, setting: str, make: Make, before: list[Hook]) -> None:
        self.setting, self.make, self.before = setting, make, before
        self.hook: Hook | None = None


class Switches:
    """The hooks of a run that settings switch. They stand where they would if they had been on from the start.

    Args:
        hooks: all hooks of the run, in their order; those that are switched on are put among them.
        takes: whether a hook takes part in this process: of several only the main one has observers.
        listen: called when there are others than before.
    """

    def __init__(self, hooks: list[Hook], takes: Callable[[Hook], bool], listen: Callable[[], None]) -> None:
        self._hooks, self._takes, self._listen = hooks, takes, listen
        self._switches: list[Switch] = []

    def add(self, setting: str, make: Make, config: Any) -> None:
        """Let `setting` switch what `make` gives, which is on from here where `config` asks for it."""
        self._switches.append(Switch(setting, make, list(self._hooks)))
        self.follow(config)

    @property
    def settings(self) -> Collection[str]:
        """The settings that can go from null to a value, and back, while the run goes on."""
        return {switch.setting for switch in self._switches}

    def owns(self, hook: Hook) -> bool:
        """Whether it is here because a setting says so, and goes with that."""
        return any(hook is switch.hook for switch in self._switches)

    def check(self, now: Any, then: Any) -> None:
        """Raise UsageError where settings, that are to be `then` what they are not `now`, cannot make their hook."""
        for switch in self._switches:
            value = getattr(then, switch.setting)
            if value is not None and value != getattr(now, switch.setting) and switch.make(then) is None:
                raise UsageError(f"{switch.setting} is {value!r}, and nothing here could heed it: leave it null")

    def follow(self, config: Any) -> None:
        """Let those be on that `config` asks for. One that stays on is the same one as before, another begins anew."""
        changed = False
        for index, switch in enumerate(self._switches):
            hook = switch.make(config)
            if hook is not None and not self._takes(hook):
                hook = None
            if (hook is None) == (switch.hook is None):
                continue
            changed = True
            if hook is None:
                self._hooks[:] = [each for each in self._hooks if each is not switch.hook]
            else:
                self._hooks.insert(self._place(index), hook)
            switch.hook = hook
        if changed:
            self._listen()

    @contextmanager
    def followed(self, config: Any) -> Iterator[None]:
        """As `follow`; where the block fails, what was there before is there again, with what it had seen."""
        hooks, switched = list(self._hooks), [switch.hook for switch in self._switches]
        self.follow(config)
        try:
            yield
        except BaseException:
            for switch, hook in zip(self._switches, switched, strict=True):
                switch.hook = hook
            self._hooks[:] = hooks
            self._listen()
            raise

    def _place(self, index: int) -> int:
        """Where among the hooks that of a switch stands: after all that stood before it when it was declared."""
        before = [*self._switches[index].before, *(each.hook for each in self._switches[:index])]
        places = [place for place, hook in enumerate(self._hooks) if any(hook is each for each in before)]
        return 1 + max(places, default=-1)
