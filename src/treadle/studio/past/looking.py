"""Looking back without going back: kept states in second trainers beside the run, which does not notice.

A second trainer is made of the arguments of the first, takes the attributes of the state alone, and has no run, no hook
that was given, no optimizer's moments. It is made, asked and let go of between two steps, as validation is.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from treadle.cameras.camera import Camera
from treadle.engine.memory import give_back_freed_memory
from treadle.errors import RunError, UsageError
from treadle.reports.trainer_views import views_of
from treadle.reports.views import LiveView, Option, Sample, Shapes, Window, described
from treadle.studio.past.memory import free_memory, shown_bytes
from treadle.studio.past.shelf import Shelf, Stored

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


class Looking:
    """The kept states that are open beside a run.

    Each is as large as the run's weights, or larger; none is let go but by whoever asks for it.

    Args:
        shelf: where the states are.
        make: makes a trainer that is only looked at; called where a trainer may be asked.
        size: how many bytes such a trainer takes beside the state that it is put into; called there, too.
        call: has functions called there, and never waits.
        read: has a function called in a thread where slow work on files may be done.
        device: where the trainers compute.
        trains, hurries: as of `Looked`.
        foreign: whether they are of another run: then the answer of `open` says what is to be said of its data, and
            describes its views.
    """

    def __init__(
        self,
        shelf: Shelf,
        make: Callable[[], Trainer],
        size: Callable[[], int],
        call: Caller,
        read: Caller,
        device: torch.device,
        trains: Callable[[], bool] = lambda: False,
        hurries: Callable[[], bool] = lambda: False,
        *,
        foreign: bool = False,
    ) -> None:
        self._foreign = foreign
        self._shelf, self._make, self._size, self._call, self._read = shelf, make, size, call, read
        self._device, self._trains, self._hurries = device, trains, hurries
        self._open: dict[int, Looked] = {}
        self._opening: dict[int, Future[dict[str, Any]]] = {}

    @property
    def steps(self) -> list[int]:
        """The steps whose states are open."""
        return sorted(self._open)

    @property
    def in_use(self) -> bool:
        """Whether any is open, or will be."""
        return bool(self._open or self._opening)

    def source(self, step: int) -> Looked:
        """The state of `step`, which is open. Raises UsageError where it is not."""
        if step not in self._open:
            raise UsageError(f"the state of step {step} is not open: look at it first")
        return self._open[step]

    def cost(self, step: int) -> Future[dict[str, Any]]:
        """What it would take to open the state of `step`: bytes of `state`, `trainer` and both (`needed`), and `free`.

        The state's are given back once it is in the trainer. `enough` says whether there is so much, `open` which are
        open already.
        """
        stored = self._shelf.find(step)

        def told() -> dict[str, Any]:
            return self._told(stored, self._size())

        return self._call(told)

    def open(self, step: int) -> Future[dict[str, Any]]:
        """Open the state of `step`; the answer is what `cost` gives. Raises UsageError where there is none."""
        if step in self._opening:
            return self._opening[step]
        answer: Future[dict[str, Any]] = Future()
        if step in self._open:
            looked = self._open[step]
            return self._call(lambda: {"step": step, "open": self.steps} | self._of_another(looked))
        stored = self._shelf.find(step)
        self._opening[step] = answer
        answer.add_done_callback(lambda _: self._opening.pop(step, None))
        told: dict[str, Any] = {}

        def weigh() -> None:
            told.update(self._told(stored, self._size()))
            if not told["enough"]:
                free = shown_bytes(told["free"])
                others = f"let go of the state of step {self.steps[0]}, or " if self._open else ""
                raise RunError(
                    f"to look at step {step} takes {shown_bytes(told['needed'])} of memory, and {free} are free: "
                    f"{others}end something else on this machine"
                )

        def make() -> dict[str, Any]:
            trainer = self._make()
            try:
                stored.put_into(trainer)
                progress = trainer.progress
                trainer.loop.counts = (progress.epoch, progress.step, progress.batch)
                looked = Looked(step, trainer, self._call, self._trains, self._hurries)
                looked.said = stored.other_data(trainer) if self._foreign else []
                of_another = self._of_another(looked)
            except BaseException:
                trainer.close()
                raise
            self._open[step] = looked
            return told | {"open": self.steps} | of_another

        _one_after_the_other([(self._call, weigh), (self._read, stored.read), (self._call, make)], answer)
        return answer

    def _of_another(self, looked: Looked) -> dict[str, Any]:
        """What is told of a state of another run besides."""
        if not self._foreign:
            return {}
        return {"said": looked.said, "views": looked.views_told}

    def let_go(self, steps: Sequence[int]) -> Future[list[int]]:
        """Let go of the states of these steps, and their memory; the answer is which are still open."""
        gone = [looked for step in steps if (looked := self._open.pop(step, None)) is not None]

        def close() -> list[int]:
            for looked in gone:
                looked.close()
            return self.steps

        return self._call(close)

    def _told(self, stored: Stored, size: int) -> dict[str, Any]:
        needed, free = stored.bytes + size, free_memory(self._device)
        return {
            "step": stored.step,
            "kind": stored.kind,
            "state": stored.bytes,
            "trainer": size,
            "needed": needed,
            "free": free,
            "enough": free is None or needed <= free,
            "open": self.steps,
        }


def _one_after_the_other(work: Sequence[tuple[Caller, Callable[[], Any]]], answer: Future[Any]) -> None:
    """Have each function called by its caller once the one before is done; the answer is what the last gives."""
    (call, function), *rest = work

    def done(future: Future[Any]) -> None:
        try:
            error = future.exception()
        except BaseException as cancelled:  # nobody calls any more
            error = cancelled
        if error is not None:
            answer.set_exception(error)
        elif rest:
            _one_after_the_other(rest, answer)
        else:
            answer.set_result(future.result())

    try:
        future = call(function)
    except Exception as error:  # the run takes no calls any more
        answer.set_exception(error)
        return
    future.add_done_callback(done)
