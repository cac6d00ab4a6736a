"""What views are drawn of: the run that is trained here, and whatever else answers as it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Protocol, TypeVar

from treadle.engine.lifecycle import Stage
from treadle.reports.views import LiveView
from treadle.studio.topics import Live

T = TypeVar("T")


class Source(Protocol):
    """What views are drawn of: the run that is trained, a state of it that is kept, another run."""

    @property
    def step(self) -> int:
        """How many steps are behind what a call would see."""

    @property
    def trains(self) -> bool:
        """Whether calls take time from a run that trains: they are then kept to a share of it."""

    @property
    def hurries(self) -> bool:
        """Whether something else waits for the run while a call is made: to pause it, say."""

    def views(self) -> Mapping[str, LiveView]:
        """The views by name, the same each time."""

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Have a function called where and when views may be asked; it never waits."""


Sources = Callable[[str | None, int | None], Source]
"""Finds what `run` and `state` of a `Watch` mean, one of which is not None. Raises UsageError for what is not open."""


class LiveSource:
    """The run that is trained here.

    Args:
        live: the run.
        views: its views (see `treadle.reports.trainer_views.views_of`).
    """

    def __init__(self, live: Live, views: Mapping[str, LiveView]) -> None:
        self._live, self._views = live, views

    @property
    def step(self) -> int:
        """Steps that are finished."""
        return self._live.loop.counts[1]

    @property
    def trains(self) -> bool:
        """Whether steps are being taken."""
        return self._live.loop.lifecycle.stage is Stage.RUNNING

    @property
    def hurries(self) -> bool:
        """Whether a command waits."""
        return bool(self._live.commands)

    def views(self) -> Mapping[str, LiveView]:
        """The trainer's."""
        return self._views

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Between two steps, as validation is."""
        return self._live.commands.call(function)
