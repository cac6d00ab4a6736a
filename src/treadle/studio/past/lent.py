"""Kept states that are open, and what is asked of them as long as they are."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from treadle.cameras.camera import Camera
from treadle.engine.memory import give_back_freed_memory
from treadle.errors import UsageError
from treadle.reports.trainer_views import views_of
from treadle.reports.views import LiveView, Option, Sample, Shapes, Window, described

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer

T = TypeVar("T")
Caller = Callable[[Callable[[], Any]], "Future[Any]"]
"""Has a function called where a trainer may be asked: between two steps, in the thread that trains."""


class Looked:
    """A kept state that is open, as a source of views (`treadle.studio.drawing.sources.Source`).

    Args:
        step: of the state.
        trainer: the second one, which is in that state.
        call: has functions called where it may be asked.
        trains, hurries: whether calls take time from a run that trains, and whether something waits for it.
    """

    def __init__(
        self, step: int, trainer: Trainer, call: Caller, trains: Callable[[], bool], hurries: Callable[[], bool]
    ) -> None:
        self.step = step
        self.said: list[str] = []
        """What is to be said of it to whoever looks."""
        self._trainer: Trainer | None = trainer
        self._call, self._trains, self._hurries = call, trains, hurries
        found = views_of(trainer)
        self.views_told = [described(name, view) for name, view in found.items()]
        # Lent, not given: whoever still holds one does not keep the memory of the trainer behind it.
        self._lent = {name: Lent(view, step) for name, view in found.items()}

    @property
    def trains(self) -> bool:
        """Whether calls take time from a run that trains."""
        return self._trains()

    @property
    def hurries(self) -> bool:
        """Whether something waits for that run."""
        return self._hurries()

    @property
    def trainer(self) -> Trainer:
        """The second trainer. Raises UsageError once it was let go."""
        if self._trainer is None:
            raise gone(self.step)
        return self._trainer

    def views(self) -> Mapping[str, LiveView]:
        """The views of the state. Raises UsageError once it was let go."""
        _ = self.trainer
        return self._lent

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Have a function called where the views may be asked."""

        def evaluating() -> T:
            with self.trainer.evaluating():
                return function()

        _ = self.trainer
        return self._call(evaluating)

    def close(self) -> None:
        """Let go of the state and its memory; to be called where the trainer may be asked."""
        trainer, self._trainer = self._trainer, None
        for view in self._lent.values():
            view.take_back()
        if trainer is not None:
            with suppress(Exception):  # a teardown of somebody's own: nothing that it could end is here
                trainer.close()
            del trainer
            gc.collect()
            give_back_freed_memory()


class Lent(LiveView):
    """A view of a second trainer, until that is let go: then it says so, and holds nothing of it."""

    def __init__(self, view: LiveView, step: int) -> None:
        self._view: LiveView | None = view
        self._step = step
        for name in ("title", "kind", "lossless", "whole", "worst"):
            setattr(self, name, getattr(view, name))

    def take_back(self) -> None:
        """Hold the view no longer."""
        self._view = None

    @property
    def _inner(self) -> LiveView:
        if self._view is None:
            raise gone(self._step)
        return self._view

    def options(self) -> Sequence[Option]:
        """Its own."""
        return self._inner.options()

    def cameras(self) -> Sequence[Camera]:
        """Its own."""
        return self._inner.cameras()

    def size(self) -> tuple[int, int] | None:
        """Its own."""
        return self._inner.size()

    def prepare(self, window: Window) -> bool:
        """As it does."""
        return self._inner.prepare(window)

    def draw(self, window: Window) -> Any:
        """As it does."""
        return self._inner.draw(window)

    def inspect(self, window: Window, x: int, y: int) -> Mapping[str, float | str]:
        """As it does."""
        return self._inner.inspect(window, x, y)

    def shapes(self, window: Window) -> Shapes:
        """Its own."""
        return self._inner.shapes(window)

    def figures(self, window: Window) -> Mapping[str, float]:
        """Its own."""
        return self._inner.figures(window)

    def samples(self) -> Iterable[Sample | None]:
        """Its own."""
        return self._inner.samples()


def gone(step: int) -> UsageError:
    """What whoever looks at a state is told that is no longer open."""
    return UsageError(f"the state of step {step} was let go: look at it again")
