"""Several processes that a launcher has started, as a `World`: over torch.distributed, without pickle."""

from __future__ import annotations

import atexit
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache, partial
from types import TracebackType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from treadle.errors import RunError, UsageError, message, one_line
from treadle.parallel import waiting
from treadle.parallel.launcher import LAUNCH, refuse_restarts, restarts, shares_store
from treadle.parallel.leaving import Gone, Leaving
from treadle.parallel.meeting import knock, meeting
from treadle.parallel.waiting import poll
from treadle.parallel.world import ALONE, World

T = TypeVar("T")

PATIENCE = timedelta(minutes=10)
"""A process that is not heard of for so long is lost, and the others end; `TREADLE_TIMEOUT` says other seconds."""
LOOK = timedelta(seconds=waiting.LOOK)
SMALL = 2**18
"""Bytes that come to a process at most where it adds up everybody's tensors itself."""
FIRST = 1024
"""Bytes of plain values that go with their length, in one message; of longer ones the rest follows in another."""


@cache
def group() -> World:
    """The group that this process is in, joined the first time; `ALONE` where it has no other member.

    Raises UsageError where the launcher's variables are incomplete, RunError where the others cannot be met.
    """
    if not dist.is_initialized():
        where, seconds = meeting(), _patience().total_seconds()
        refuse_restarts()
        importlib.import_module("torch._dynamo")  # see `_part`
        backend = "gloo"
        if torch.cuda.is_available():
            backend = "cpu:gloo,cuda:nccl"
            os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")  # its watchdog would kill: see `waiting`
        knock(where, seconds)
        try:
            store, rank, size = next(rendezvous("env://", timeout=_patience()))
            if shares_store():  # those that torchrun has started again would find where those before them listened
                store = PrefixStore(f"treadle/{restarts()}", store)
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_patience())
            atexit.register(_part)
        except (RuntimeError, ValueError) as error:
            raise RunError(
                f"the {where.size} processes of this run cannot meet at {where.at} (process {where.rank} waited for "
                f"up to {seconds:g} s, TREADLE_TIMEOUT): {message(error).splitlines()[0]}"
            ) from error
    if dist.get_world_size() == 1:
        return ALONE
    found = Group()
    if LAUNCH in os.environ:
        _say_uncaught(found)
    return found


def _part() -> None:
    """End the group's threads: one that lets go of a Python object while the interpreter is taken down aborts.

    They end with the last reference to the group, and torch._dynamo keeps one where it is imported (by the first
    optimizer) when there is a group already: so it is imported before.
    """
    with suppress(Exception):
        if dist.is_initialized():
            dist.destroy_process_group()


def _say_uncaught(group: Group) -> None:
    """Let the others know of the error that ends this program."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        before(kind, error, trace)
        group.leave(error)

    sys.excepthook = hook


class Group(World):
    """The processes of torch.distributed's default group, which has been initialized.

    Plain values travel as JSON, so that none of the processes can make another run code.
    """

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.local_rank = int(os.environ.get("LOCAL_RANK", self.rank))
        self.local_size = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        # Over a connection of its own: one on which an answer is late is of no use any more.
        store = PrefixStore("left", dist.distributed_c10d._get_default_store()).clone()  # type: ignore[attr-defined]
        self._leaving = Leaving(store, self.rank, self.size)
        self._silent = ""

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Add up each tensor over the processes, in place: in one message for each device and dtype among them."""
        self._in_one(tensors, self._add_up)

    def spread(self, tensors: Sequence[Tensor], source: int = 0) -> None:
        """Give every process those tensors of process `source`, in place."""
        self._in_one(tensors, partial(self._meet, partial(dist.broadcast, src=source)))

    def deal(self, tensor: Tensor) -> Tensor:
        """Row i of `tensor` (size, ...) goes to process i; gives the rows that came, by who has sent them."""
        came = torch.empty_like(tensor)
        self._meet(dist.all_to_all_single, came, tensor)
        return came

    def collect(self, tensor: Tensor) -> Tensor:
        """Every process's tensor, (size, ...), in the order of ranks; shapes and dtypes are the same everywhere."""
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        self._meet(dist.all_gather, found, tensor)
        return torch.stack(found)

    def gather(self, value: T) -> list[T]:
        """Every process's plain value, in the order of ranks."""
        return [json.loads(text) for text in self._gather(json.dumps(value).encode())]

    def share(self, value: T) -> T:
        """The plain value of the main process."""
        return json.loads(self._gather(json.dumps(value).encode() if self.main else b"")[0])  # type: ignore[no-any-return]

    def agree(self, value: T, what: str) -> T:
        """`value`, which has to be the same in every process; raises RunError naming `what` where it is not."""
        for rank, other in enumerate(self.gather(value)):
            if other != json.loads(json.dumps(value)):
                raise RunError(f"{what} is {other!r} in process {rank} and {value!r} in process {self.rank}")
        return value

    def wait(self) -> None:
        """Go on when every process is here."""
        self._gather(b"")

    def _gather(self, content: bytes) -> list[bytes]:
        """Every process's bytes: those of all in one message while they are few, else in two."""
        first = torch.zeros(8 + FIRST, dtype=torch.uint8)
        first[:8] = torch.frombuffer(bytearray(len(content).to_bytes(8, "little")), dtype=torch.uint8)
        _put(first, 8, content[:FIRST])
        heads = [torch.empty_like(first) for _ in range(self.size)]
        self._meet(dist.all_gather, heads, first)
        sizes = [int.from_bytes(bytes(head[:8].tolist()), "little") for head in heads]
        found = [bytes(head[8 : 8 + size].tolist()) for head, size in zip(heads, sizes, strict=True)]
        longest = max(sizes) - FIRST
        if longest <= 0:
            return found
        rest = torch.zeros(longest, dtype=torch.uint8)
        _put(rest, 0, content[FIRST:])
        rests = [torch.empty_like(rest) for _ in range(self.size)]
        self._meet(dist.all_gather, rests, rest)
        return [
            start + rest[: max(size - FIRST, 0)].numpy().tobytes()
            for start, rest, size in zip(found, rests, sizes, strict=True)
        ]

    def _add_up(self, tensor: Tensor) -> None:
        """Add up a tensor (contiguous) over the processes, in place.

        A ring goes round twice, which is what a small message takes its time for; each sending all that it has goes
        round once. Both give everybody the same bits: those of one process's sums, or the same sums in each.
        """
        if tensor.device.type != "cpu" or tensor.nbytes * (self.size - 1) > SMALL:
            self._meet(dist.all_reduce, tensor)
            return
        came = torch.empty(self.size, *tensor.shape, dtype=tensor.dtype)
        self._meet(dist.all_gather, list(came), tensor)
        torch.add(came[0], came[1], out=tensor)
        for other in came[2:]:
            tensor += other

    def _in_one(self, tensors: Sequence[Tensor], collective: Callable[[Tensor], None]) -> None:
        """Do something with all tensors in place, laid end to end: one message for each device and dtype among them."""
        alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for tensor in tensors:
            alike.setdefault((tensor.device, tensor.dtype), []).append(tensor)
        for some in alike.values():
            if len(some) == 1 and some[0].is_contiguous():
                collective(some[0])
                continue
            flat = torch.cat([tensor.reshape(-1) for tensor in some])
            collective(flat)
            for tensor, part in zip(some, torch.split(flat, [tensor.numel() for tensor in some]), strict=True):
                tensor.copy_(part.view(tensor.shape))

    def _meet(self, collective: Callable[..., Any], *tensors: object) -> None:
        """Call one of torch's collectives; a process that has gone ends this one in a line that names it."""
        if self._silent:
            raise UsageError(
                f"{self._silent} is in process {self.rank} alone, of {self.size}: nothing that all have to do together "
                "(a state, a checkpoint, a validation) can be had from there"
            )
        try:
            self._await(collective(*tensors, async_op=True), tensors[-1])
        except RuntimeError as error:
            raise self._leaving.explain(one_line(error), self.where(), _patience().total_seconds()) from error

    def _await(self, work: Any, tensor: object) -> None:
        """Wait for the others; look now and then whether one has said that it leaves, for its connection may stay."""
        if isinstance(tensor, Tensor) and tensor.is_cuda:
            poll(work, self._leaving.others, _patience().total_seconds(), dist.distributed_c10d._abort_process_group)
            return
        while True:
            try:
                work.wait(LOOK)
                return
            except RuntimeError:
                if work.is_completed():
                    work.wait()  # it was just then, or it has failed
                    return
                if self._leaving.others():
                    raise

    @contextmanager
    def silent(self, during: str) -> Iterator[None]:
        """Within the block nothing can be said to the others, who are at something else: UsageError names `during`."""
        before, self._silent = self._silent, during
        try:
            yield
        finally:
            self._silent = before

    def tells(self, error: BaseException) -> bool:
        """The main process does; where that is missing, the first that knows of it."""
        if isinstance(error, Gone) and not error.said and 0 not in error.heard:
            return self.rank == min(error.heard)
        return self.main

    def leave(self, error: BaseException) -> None:
        """This process ends for that error: the others find it named, where they wait for this one."""
        if not isinstance(error, Gone):
            notes = " ".join(getattr(error, "__notes__", ()))
            self._leaving.say("failed", f"{type(error).__name__}: {message(error)} {notes}".rstrip())
        with suppress(RuntimeError, ValueError, AssertionError):  # whoever waits for this process notices it has gone
            dist.destroy_process_group()
        self._leaving.part(tells=self.tells(error))


def _put(target: Tensor, start: int, content: bytes) -> None:
    if content:
        target[start : start + len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _patience() -> timedelta:
    text = os.environ.get("TREADLE_TIMEOUT")
    if text is None:
        return PATIENCE
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"TREADLE_TIMEOUT is {text!r}: expected seconds, such as 600")
    return timedelta(seconds=seconds)
