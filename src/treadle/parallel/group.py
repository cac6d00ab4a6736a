"""Several processes that a launcher has started, as a `World`: over torch.distributed, without pickle."""

from __future__ import annotations

import atexit
import importlib
import json
import os
import signal
import sys
import threading
import time
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
from treadle.parallel.leaving import Gone, Leaving
from treadle.parallel.waiting import poll
from treadle.parallel.world import ALONE, LAUNCH, World, local_gpu, restarts

T = TypeVar("T")

PATIENCE = timedelta(minutes=10)
"""A process that is not heard of for so long is lost, and the others end; `TREADLE_TIMEOUT` says other seconds."""
LOOK = timedelta(seconds=waiting.LOOK)
FIRST = 1024
"""Bytes of plain values that go with their length, in one message; of longer ones the rest follows in another."""


@cache
def group() -> World:
    """The group that this process is in, joined the first time; `ALONE` where it has no other member.

    Raises UsageError where the launcher's variables are incomplete, RunError where the others cannot be met.
    """
    if not dist.is_initialized():
        missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
        if missing:
            raise UsageError(
                f"WORLD_SIZE says that {os.environ.get('WORLD_SIZE')} processes train together, but {missing[0]} is "
                "not set: start them with torchrun, or unset WORLD_SIZE where nothing has started several"
            )
        importlib.import_module("torch._dynamo")  # see `_part`
        backend = "gloo"
        if torch.cuda.is_available():
            backend = "cpu:gloo,cuda:nccl"
            os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")  # its watchdog would kill: see `waiting`
            own = local_gpu(torch.cuda.device_count())
            if own is not None:
                torch.cuda.set_device(own)
        try:
            store, rank, size = next(rendezvous("env://", timeout=_patience()))
            # Processes that torchrun has started again would find in its store where those before them listened.
            store = PrefixStore(f"treadle/{restarts()}", store)
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_patience())
            atexit.register(_part)
        except (RuntimeError, ValueError) as error:
            raise RunError(f"the processes of this run cannot meet: {one_line(error)}") from error
    if dist.get_world_size() == 1:
        return ALONE
    found = Group()
    if LAUNCH in os.environ:
        _end_with_the_launcher()
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


def _end_with_the_launcher() -> None:
    """Have a thread stop this process as SIGTERM does where the launcher is killed: it would train on, by itself."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="treadle-launcher", daemon=True).start()


class Group(World):
    """The processes of torch.distributed's default group, which has been initialized.

    Plain values travel as JSON, so that none of the processes can make another run code.
    """

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        store = PrefixStore("left", dist.distributed_c10d._get_default_store())
        self._leaving = Leaving(store, self.rank, self.size)
        self._silent = ""
        self._beside: dist.ProcessGroup | None = None

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Add up each tensor over the processes, in place: in one message for each device and dtype among them."""
        self._in_one(tensors, dist.all_reduce)

    def beside(self) -> Callable[[Tensor], Callable[[], None]]:
        """A way for sums that go on while this process computes, or says other things: they cross no other message."""
        if self._beside is None:
            self._beside = dist.new_group(timeout=_patience())
        return self._begin_sum

    def _begin_sum(self, tensor: Tensor) -> Callable[[], None]:
        with self._named():
            work = dist.all_reduce(tensor, group=self._beside, async_op=True)

        def wait() -> None:
            with self._named():
                self._await(work, tensor)

        return wait

    def spread(self, tensors: Sequence[Tensor], source: int = 0) -> None:
        """Give every process those tensors of process `source`, in place."""
        self._in_one(tensors, partial(dist.broadcast, src=source))

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

    def _in_one(self, tensors: Sequence[Tensor], collective: Callable[..., Any]) -> None:
        """Do something with all tensors in place, laid end to end: one message for each device and dtype among them."""
        alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for tensor in tensors:
            alike.setdefault((tensor.device, tensor.dtype), []).append(tensor)
        for some in alike.values():
            if len(some) == 1 and some[0].is_contiguous():
                self._meet(collective, some[0])
                continue
            flat = torch.cat([tensor.reshape(-1) for tensor in some])
            self._meet(collective, flat)
            for tensor, part in zip(some, torch.split(flat, [tensor.numel() for tensor in some]), strict=True):
                tensor.copy_(part.view(tensor.shape))

    def _meet(self, collective: Callable[..., Any], *tensors: object) -> None:
        """Call one of torch's collectives, and wait for the others."""
        with self._named():
            self._await(collective(*tensors, async_op=True), tensors[-1])

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Within the block this process meets the others; one that has gone ends it in a line that names that one."""
        if self._silent:
            raise UsageError(
                f"{self._silent} is in process {self.rank} alone, of {self.size}: nothing that all have to do together "
                "(a state, a checkpoint, a validation) can be had from there"
            )
        try:
            yield
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
