"""Runs a function in several processes at once that form a world, and gives back what each has returned."""

from __future__ import annotations

import atexit
import multiprocessing as mp
import os
import subprocess
import sys
import traceback
import uuid
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.warm.python import python

SECONDS = 250
"""A test that takes longer hangs, and is ended."""

PROGRAM = "from tests.parallel.together import serve; serve()"

_members: list[tuple[subprocess.Popen[bytes], Connection]] = []
"""Processes that wait for something to do."""


def together(size: int, place: Path, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(*arguments)` returns in each of `size` processes, which meet at a file in `place`.

    An error in one of them is raised here, as its traceback, and ends the others.
    """
    meeting = place / f"meeting-{uuid.uuid4().hex}"  # never one that somebody is still leaving
    while len(_members) < size:
        _members.append(_start())
    try:
        for rank, (_, pipe) in enumerate(_members[:size]):
            pipe.send((rank, size, str(meeting), function, arguments))
        return [_answer(pipe, rank) for rank, (_, pipe) in enumerate(_members[:size])]
    except BaseException:
        end()
        raise


@atexit.register
def end() -> None:
    """End the processes, whatever they are at."""
    while _members:
        process, pipe = _members.pop()
        process.kill()
        process.wait()
        with suppress(EOFError, OSError):
            while pipe.poll(SECONDS):  # its end of the pipe is closed when it is gone
                pipe.recv_bytes()
        pipe.close()


def _start() -> tuple[subprocess.Popen[bytes], Connection]:
    ours, theirs = mp.Pipe()
    paths = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen([python(), "-c", PROGRAM], stdin=theirs.fileno(), env=os.environ | {"PYTHONPATH": paths})
    theirs.close()
    return process, ours


def _answer(pipe: Connection, rank: int) -> Any:
    if not pipe.poll(SECONDS):
        raise TimeoutError(f"process {rank} has not answered in {SECONDS} s")
    try:
        ok, value = pipe.recv()
    except EOFError:
        raise RuntimeError(f"process {rank} has died") from None
    if not ok:
        raise RuntimeError(f"in process {rank}: {value}")
    return value


def serve() -> None:
    """What a process does: all that comes through its standard input, which is a pipe of two directions."""
    import torch
    import torch.distributed as dist

    from treadle.parallel.group import group

    os.environ["TREADLE_TIMEOUT"] = str(SECONDS)
    torch.set_num_threads(1)  # sums depend on it
    pipe = Connection(os.dup(0))
    while True:
        try:
            rank, size, meeting, function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            if size > 1:
                dist.init_process_group("gloo", store=dist.FileStore(meeting, size), rank=rank, world_size=size)
            answer = True, function(*arguments)
            if dist.is_initialized():  # unless it was about leaving the group
                dist.barrier()
                dist.destroy_process_group()
            group.cache_clear()
        except BaseException:
            answer = False, traceback.format_exc()
        pipe.send(answer)
