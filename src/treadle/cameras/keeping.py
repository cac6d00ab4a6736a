"""What was made with some effort, kept while memory allows, and made ahead in other threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from treadle.errors import UsageError

T = TypeVar("T")

_THREADS = 2
"""Threads that make things ahead: as many as decoding pictures can use beside a training process on a laptop."""


class Keeper(Generic[T]):
    """Keeps what was last used, up to `memory` bytes; nothing is made twice at the same time.

    Args:
        memory: the bound. What alone is larger than it is handed out and not kept.
        size: how many bytes a thing takes.

    Raises:
        UsageError: for a negative bound.
    """

    def __init__(self, memory: int, size: Callable[[T], int]) -> None:
        if memory < 0:
            raise UsageError(f"memory is {memory}: expected a number of bytes, 0 or more")
        self.memory, self._size = memory, size
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._under_way: dict[Hashable, Future[T]] = {}
        self._threads: ThreadPoolExecutor | None = None
        self.used = 0

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is kept under `key`, or what `make` gives; where another thread is making it, what that gets."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            others = self._under_way.get(key)
            if others is None:
                ours = self._under_way[key] = Future()
        if others is not None:
            return others.result()
        try:
            made = make()
        except BaseException as error:
            with self._lock:
                del self._under_way[key]
            ours.set_exception(error)
            raise
        with self._lock:
            self._keep(key, made)
            del self._under_way[key]
        ours.set_result(made)
        return made

    def ahead(self, key: Hashable, make: Callable[[], T]) -> None:
        """Have another thread make it. Where that fails nothing is said: whoever then asks for it fails likewise."""
        with self._lock:
            if key in self._kept or key in self._under_way:
                return
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="treadle-reading")
            threads = self._threads
        threads.submit(self.get, key, make)

    def _keep(self, key: Hashable, made: T) -> None:
        size = self._size(made)
        if size > self.memory:
            return
        self._kept[key] = made
        self.used += size
        while self.used > self.memory:
            self.used -= self._size(self._kept.popitem(last=False)[1])

    def __getstate__(self) -> dict[str, Any]:
        """For another process: the bound, not what is kept."""
        return {"memory": self.memory, "_size": self._size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()
