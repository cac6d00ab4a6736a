"""The base of hooks that do something every so often."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from treadle.engine.events import Hook
from treadle.engine.schedule import Every
from treadle.engine.trainer import Trainer


class Periodic(Hook, ABC):
    """Calls `act` every so many steps, epochs, or percent of the run: after the step or epoch that makes it due.

    Args:
        every: "500 steps", "2 epochs" or "10%".
        setting: the live setting of the trainer's config that `every` is of, which is heeded when it is changed.

    Example:
        class Greet(Periodic):
            def act(self, trainer):
                print("still here, at step", trainer.progress.step)

        Trainer(..., hooks=[Greet("100 steps")])
    """

    def __init__(self, every: str | Every, *, setting: str | None = None) -> None:
        self.every = every if isinstance(every, Every) else Every(every)
        self.setting = setting

    @abstractmethod
    def act(self, trainer: Trainer) -> None:
        """Do it."""

    def on_settings(self, trainer: Trainer) -> None:
        """Be due as the setting says by now."""
        if self.setting is not None:
            every = getattr(trainer.config, self.setting)
            self.every = every if isinstance(every, Every) else Every(every)

    def post_step(self, trainer: Trainer, batch: Any, outputs: Mapping[str, Any]) -> None:
        """Act, where a step makes it due."""
        if self.every.due_after_step(trainer.progress):
            self.act(trainer)

    def post_epoch(self, trainer: Trainer) -> None:
        """Act, where an epoch makes it due."""
        if self.every.due_after_epoch(trainer.progress):
            self.act(trainer)
