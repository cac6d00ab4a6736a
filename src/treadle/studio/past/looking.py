"""Looking back without going back: kept states in second trainers beside the run, which does not notice.

A second trainer is made of the arguments of the first, takes the attributes of the state alone, and has no run, no hook
that was given, no optimizer's moments. It is made, asked and let go of between two steps, as validation is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import torch

from treadle.errors import RunError, UsageError
from treadle.studio.past.lent import Caller, Looked
from treadle.studio.past.memory import free_memory, shown_bytes
from treadle.studio.past.shelf import Shelf, Stored

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer


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
