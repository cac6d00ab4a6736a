"""A run on disk that several processes train: the main one writes and reads it, and all of them have the same of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from treadle.checkpoint.state import State
from treadle.checkpoint.tensorfile import raw_bytes
from treadle.errors import RunError, StateError, TreadleError, UsageError
from treadle.parallel import World
from treadle.runs.saving import Saver

T = TypeVar("T")
ERRORS = {kind.__name__: kind for kind in (RunError, StateError, UsageError)}


def as_one(world: World, function: Callable[[], T]) -> T:
    """What `function` gives in the main process, which alone calls it; plain data. Its error is raised in all."""
    if world.size == 1:
        return function()
    if not world.main:
        told: dict[str, Any] = world.share({})
        if "error" in told:
            raise ERRORS[told["error"]](told["text"])
        return told["value"]  # type: ignore[no-any-return]
    try:
        value = function()
    except BaseException as error:
        world.share(described(error))
        raise
    world.share({"value": value})
    return value


def described(error: BaseException) -> dict[str, Any]:
    """An error as the other processes are told of it."""
    kind = next((name for name, kind in ERRORS.items() if isinstance(error, kind)), "RunError")
    text = str(error) if isinstance(error, TreadleError) else f"{type(error).__name__}: {error}"
    return {"error": kind, "text": text}


def spread_state(world: World, state: State | None) -> State:
    """The state that the main process has, in all of them."""
    if state is not None:
        kinds = {path: (str(tensor.dtype), list(tensor.shape)) for path, tensor in state.tensors.items()}
        world.share([state.values, kinds, state.clock])
        tensors = {path: tensor.contiguous() for path, tensor in state.tensors.items()}
    else:
        told: list[Any] = world.share([])
        tensors = {path: torch.empty(shape, dtype=_dtype(name)) for path, (name, shape) in told[1].items()}
        state = State(told[0], tensors, told[2])
    world.spread(list(tensors.values()))
    return state


class SharedArchive:
    """The run on disk of several processes (an `Archive`). All of them call its methods, and get the same answers,
    but for what observers ask for.

    At each save the digests of the checkpoint before it are compared: processes that have come apart, say by random
    numbers that one drew and the others did not, end the run, and the first entry that differs is named.

    Args:
        world: the processes.
        saver: what writes and reads, in the main process; None in the others.
    """

    def __init__(self, world: World, saver: Saver | None) -> None:
        self._world, self._saver = world, saver
        self._prepared = False
        self._pool: ThreadPoolExecutor | None = None
        self._copy: State | None = None
        self._digest: tuple[int, Future[str]] | None = None
        """Of the newest checkpoint, in a process that does not write it."""
        self._saved_at: int | None = None

    @property
    def digest(self) -> str | None:
        """Digest of the newest checkpoint written, where that is known: in the main process."""
        return None if self._saver is None else self._saver.digest

    @digest.setter
    def digest(self, value: str | None) -> None:
        if self._saver is not None:
            self._saver.digest = value

    def save(self, state: State, *, wait: bool) -> Path:
        """Write a checkpoint; see `Saver.save`. Raises RunError where the processes have come apart."""
        self._compare(state)
        saver = self._saver
        if saver is None:
            self._hash(state)
        self._saved_at = state.step
        path = Path(as_one(self._world, lambda: str(_there(saver).save(state, wait=wait))))
        if wait:
            self._compare(state)
        return path

    def prepare(self, capture: Callable[[], State]) -> None:
        """Find memory for the checkpoints to come; to take a state is collective."""
        if not self._prepared:
            self._prepared = True
            state = capture()
            if self._saver is not None:
                self._saver.prepare(lambda: state)

    def take_reports(self) -> None:
        """Journal what has been written since the last time."""
        if self._saver is not None:
            self._saver.take_reports()

    def finish(self) -> None:
        """Wait for the write under way."""
        as_one(self._world, lambda: _there(self._saver).finish())

    def steps(self) -> list[int]:
        """The steps of the checkpoints there are."""
        return as_one(self._world, lambda: _there(self._saver).steps())

    def states(self, at_or_before: int) -> Iterator[State]:
        """The checkpoints that can be read, the newest first."""
        found = iter(()) if self._saver is None else self._saver.states(at_or_before)
        while True:
            state = next(found, None)
            if not self._world.share(state is not None):
                return
            yield spread_state(self._world, state)

    def keep_future(self, step: int) -> Path | None:
        """Make a run of its own of what came after `step`."""

        def keep() -> str | None:
            path = _there(self._saver).keep_future(step)
            return None if path is None else str(path)

        path = as_one(self._world, keep)
        return None if path is None else Path(path)

    def pin(self, step: int, why: str) -> bool:
        """Keep the checkpoint of `step` for good."""
        return as_one(self._world, lambda: _there(self._saver).pin(step, why))

    def forget_after(self, step: int) -> None:
        """Give up the checkpoints and best models after `step`."""
        self._digest = None
        as_one(self._world, lambda: _there(self._saver).forget_after(step))

    def keep(self, name: str, value: Any) -> str:
        """Write a batch, the main process's part of it; returns where, or why not."""
        return as_one(self._world, lambda: _there(self._saver).keep(name, value))

    def write_best(self, weights: Mapping[str, Tensor], info: Mapping[str, Any], steps: Sequence[int] = ()) -> None:
        """Keep a best model."""
        as_one(self._world, lambda: _there(self._saver).write_best(weights, info, steps))

    def read_best(self, rank: int = 1) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """The run's best model and what it is the best of."""
        weights, info = {}, as_one(self._world, lambda: dict(_there(self._saver).read_best(rank)[1]))
        if self._saver is not None:
            weights = dict(self._saver.read_best(rank)[0])
        state = State({}, weights) if self._saver is not None else None
        return spread_state(self._world, state).tensors, info

    def has_best(self) -> bool:
        """Whether the run has a best model."""
        return as_one(self._world, lambda: _there(self._saver).has_best())

    def keep_model(self, weights: Mapping[str, Tensor], info: Mapping[str, Any]) -> None:
        """Keep the weights of a validation beside the best ones: for an observer, which the main process alone has."""
        if self._saver is not None:
            self._saver.keep_model(weights, info)

    def prune_models(self, steps: Collection[int]) -> None:
        """Give up what `keep_model` kept, but for these steps; for an observer, too."""
        if self._saver is not None:
            self._saver.prune_models(steps)

    def close(self) -> None:
        """Wait for the write under way; nobody is asked, for the others may be gone."""
        if self._saver is not None:
            self._saver.close()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def release(self) -> None:
        """Let other processes have the run."""
        if self._saver is not None:
            self._saver.release()

    def reopen(self) -> None:
        """Have the run again."""
        as_one(self._world, lambda: _there(self._saver).reopen())

    def _hash(self, state: State) -> None:
        """Have a thread find the digest of a copy, as the writer's thread does in the main process."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="treadle-digest")
        self._copy = copy = state.copy(into=self._copy)
        self._digest = state.step, self._pool.submit(lambda: copy.digest)

    def _compare(self, state: State) -> None:
        """See that all processes had the same state when the last checkpoint was written."""
        if self._saver is not None:
            if self._saved_at is not None:
                self.take_last()
            mine = [self._saved_at, self._saver.digest]
        else:
            mine = [None, None] if self._digest is None else [self._digest[0], self._digest[1].result()]
        everybodys = self._world.gather(mine)
        first = everybodys[0]
        for rank, other in enumerate(everybodys):
            if other[0] == first[0] and None not in (first[1], other[1]) and other[1] != first[1]:
                raise RunError(
                    f"process {rank} has come apart from the others by step {first[0]}: {self._first_difference(state)}"
                )

    def take_last(self) -> None:
        """Wait for the digest of the checkpoint under way, in the main process."""
        assert self._saver is not None
        try:
            self._saver.finish()
        except RunError:
            self._saver.digest = None  # it is reported, and tried again with the next

    def _first_difference(self, state: State) -> str:
        hashes = {"values": hashlib.sha256(repr(state.values).encode()).hexdigest()}
        hashes |= {path: hashlib.sha256(raw_bytes(tensor)).hexdigest() for path, tensor in state.tensors.items()}
        everybodys = self._world.gather(hashes)
        for path in sorted({path for one in everybodys for path in one}, key=lambda path: (path == "values", path)):
            odd = [rank for rank, one in enumerate(everybodys) if one.get(path) != everybodys[0].get(path)]
            if odd:
                return f"{path} is another one there; what is drawn outside of step has to be alike in all"
        return "and is the same again"


def _there(saver: Saver | None) -> Saver:
    assert saver is not None, "only the main process is asked"
    return saver


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name.removeprefix("torch."))
    assert isinstance(found, torch.dtype)
    return found
