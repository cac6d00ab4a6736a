"""Runs a function in several processes at once that form a world, and gives back what each has returned."""

from __future__ import annotations

import atexit
import multiprocessing as mp
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SECONDS = 600
"""A test that takes longer hangs, and is ended."""

_members: list[tuple[Any, Connection]] = []
"""Processes that wait for something to do: to start one takes seconds, most of them for torch."""


def together(size: int, place: Path, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(*arguments)` returns in each of `size` processes, which meet at a file in `place`.

    An error in one of them is raised here, as its traceback, and ends the others.
    """
    meeting = place / f"meeting-{len(list(place.iterdir()))}"
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
        process.join()
        pipe.close()


def _start() -> tuple[Any, Connection]:
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
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


def _serve(pipe: Connection) -> None:
    import torch
    import torch.distributed as dist

    from treadle.parallel.group import group

    os.environ["TREADLE_TIMEOUT"] = str(SECONDS)
    torch.set_num_threads(1)  # sums depend on it
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
