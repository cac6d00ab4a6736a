"""States to go back to, in memory and on disk: for a rewind, and after a step that went wrong."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from heapq import merge
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from treadle.checkpoint.state import State
from treadle.errors import RunError, UsageError


class Archive(Protocol):
    """What the engine asks of a run on disk; `treadle.runs.saving.Saver` is one."""

    digest: str | None
    """Digest of the newest checkpoint written."""

    def save(self, state: State, *, wait: bool) -> Path:
        """Write a checkpoint beside the training; with `wait`, return only when it is on the disk."""

    def prepare(self, capture: Callable[[], State]) -> None:
        """Make ready for checkpoints like what `capture` gives, without waiting."""

    def take_reports(self) -> None:
        """Journal what has been written since the last time; free when there is nothing."""

    def finish(self) -> None:
        """Wait for the write under way, and journal it. Raises RunError if the newest checkpoint was not written."""

    def steps(self) -> list[int]:
        """The steps of the checkpoints there are."""

    def states(self, at_or_before: int) -> Iterator[State]:
        """The checkpoints that can be read, the newest first."""

    def keep_future(self, step: int) -> Path | None:
        """Make a run of its own of what came after `step`; None where there is no checkpoint. Raises UsageError."""

    def pin(self, step: int, why: str) -> bool:
        """Keep the checkpoint of `step` for good; returns whether there is one."""

    def forget_after(self, step: int) -> None:
        """Give up the checkpoints and best models after `step`."""

    def keep(self, name: str, value: Any) -> str:
        """Write a batch, to be looked at; returns where, or why not."""

    def write_best(self, weights: Mapping[str, Tensor], info: Mapping[str, Any], steps: Sequence[int] = ()) -> None:
        """Keep a best model's weights, and what was best and when, and of the others those of these `steps`.

        The steps are in the order of the ranks; by default this model is the only one.
        """

    def read_best(self, rank: int = 1) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """What `write_best` kept. Raises UsageError where there is none of that rank."""

    def has_best(self) -> bool:
        """Whether there is a best model."""

    def keep_model(self, weights: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
        """Keep the weights of a validation beside the best ones, and what was validated when."""

    def prune_models(self, steps: Collection[int]) -> None:
        """Give up what `keep_model` kept, but for these steps."""

    def close(self) -> None:
        """Wait for what is being written."""

    def release(self) -> None:
        """Let other processes have the run."""

    def reopen(self) -> None:
        """Have it again."""


class NothingToGoBackTo(RunError, UsageError):
    """No state at or before the step that is asked for. Nothing has changed: to ask was the mistake."""

    exit_code = 1


class Snapshots:
    """A ring of recent states in memory, to go back to without the disk.

    Args:
        keep: how many; the oldest is dropped for a new one, and its memory reused where shapes allow.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._states: list[State] = []

    def take(self, state: State) -> None:
        """Keep a copy of `state`, in place of one of the same step or of the oldest."""
        self._states = [kept for kept in self._states if kept.step < state.step]
        spare = self._states.pop(0) if len(self._states) >= self._keep else None
        self._states.append(state.copy(into=spare))

    def states(self, at_or_before: int) -> Iterator[State]:
        """Those that are not after a step, the newest first."""
        return (state for state in reversed(self._states) if state.step <= at_or_before)

    def forget_after(self, step: int) -> None:
        """Drop the states after `step`: that future has been given up."""
        self._states = [state for state in self._states if state.step <= step]

    @property
    def steps(self) -> list[int]:
        """The steps at which there is a state, oldest first."""
        return [state.step for state in self._states]


def newest_state(
    snapshots: Snapshots,
    archive: Archive | None,
    at_or_before: int,
    good: Callable[[State], bool] = lambda state: True,
) -> State:
    """The newest state that is not after a step and is `good`, in memory or on disk.

    Raises RunError, saying what there is, where none is.
    """
    memory = snapshots.states(at_or_before)
    disk = iter(()) if archive is None else archive.states(at_or_before)
    for state in merge(memory, disk, key=lambda state: -state.step):  # of one step, that in memory first
        if good(state):
            return state
    known = sorted({*snapshots.steps, *(archive.steps() if archive is not None else ())})
    there = f"there are states at steps {', '.join(map(str, known))}" if known else "there is none"
    raise NothingToGoBackTo(
        f"no snapshot or checkpoint at or before step {at_or_before}, {there}: set snapshot_every, or save_every"
    )
