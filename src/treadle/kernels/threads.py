"""How the compiled kernels are cut into parts, and the one gate through which their parallel launches go.

Kernels take as many threads as torch is set to (`torch.set_num_threads`). They are written so that the number of parts
never changes a result. Numba's portable layer (workqueue) may not be entered by two threads at once, so launches take
turns. OpenMP ends a child that was forked after its first use: there, kernels are compiled once more and run serially.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch

_gate = threading.Lock()
_launched = False
_lent = 0
_inside = 0
_forked_after_launch = False


def _after_fork() -> None:
    global _gate, _forked_after_launch
    _gate = threading.Lock()
    _forked_after_launch = _launched


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def parts_for(work: int) -> int:
    """How many parts to cut `work` units into: at most torch's thread count and Numba's pool, at least one."""
    import numba

    if _forked_after_launch:
        return 1
    pool: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    return max(1, min(_lent or torch.get_num_threads(), pool, work))


@contextmanager
def left_to_kernels() -> Iterator[None]:
    """Inside, torch's own operators take one thread, and compiled kernels all that torch had.

    Where nearly all of the work is in kernels that are spread (`spread`), torch's threads are in their way: after each
    small operator they spin for a while, waiting for the next, and hold the core that a kernel's thread could have.
    A step of splats takes two thirds of the time so.
    """
    global _lent, _inside
    before = torch.get_num_threads()  # of this thread: others may be inside, too, and wait there for this one
    if before == 1:
        yield
        return
    _lent, _inside = _lent or before, _inside + 1
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _inside -= 1
        if not _inside:
            _lent = 0


def launch(kernel: Callable[..., None], parts: int, *arguments: Any) -> None:
    """Call `kernel(*arguments, parts)` on at most `parts` threads; Numba's and torch's own thread counts stay."""
    import numba

    global _launched
    if _forked_after_launch:
        _serial(kernel)(*arguments, parts)
        return
    with _gate:
        _launched = True
        torch_before, before = torch.get_num_threads(), numba.get_num_threads()
        numba.set_num_threads(min(parts, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
        try:
            kernel(*arguments, parts)
        finally:
            numba.set_num_threads(before)
            # Both may share one OpenMP runtime, whose thread count Numba sets when it is first asked for its own.
            if torch.get_num_threads() != torch_before:
                torch.set_num_threads(torch_before)


def spread(loop: Callable[..., None], parts: int, *arguments: Any) -> None:
    """Call `loop(*arguments, part, parts)` for every part, on threads that are kept: the caller's and `parts - 1` more.

    For loops that are compiled without Numba's own parallelism, and let go of Python's lock. They compile in half the
    time, never wait at the gate, and where others want the cores too nobody spins for a thread that has none. To hand
    a part over takes some 30 us.
    """
    if parts == 1:
        loop(*arguments, 0, 1)
        return
    others = [_crew(os.getpid()).submit(loop, *arguments, part, parts) for part in range(1, parts)]
    try:
        loop(*arguments, 0, parts)
    finally:
        for other in others:
            other.result()


@lru_cache(1)
def _crew(process: int) -> ThreadPoolExecutor:
    """The threads of this process: those of one that was forked are not in its child."""
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="treadle-kernel")


@lru_cache
def _serial(kernel: Any) -> Callable[..., None]:
    import numba

    options = {**kernel.targetoptions, "parallel": False}
    return numba.njit(**options)(kernel.py_func)
