"""What is made with some effort: made once, in threads of its own, and kept while memory allows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from treadle.errors import UsageError

T = TypeVar("T")

_THREADS = 2
"""Threads that make things: as many as decoding pictures can use beside a training process on a laptop."""


class Keeper(Generic[T]):
    """Keeps what was last used, up to `memory` bytes; nothing is made twice at the same time.

    Everything is made in threads, although whoever asks waits for it: glibc gives them a heap apart, so that what is
    kept does not lie between the tensors of training steps, which would leave gaps of several times its size.

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
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._used = 0
        self._under_way: dict[Hashable, Future[T]] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="treadle-keeper")

    @property
    def used(self) -> int:
        """The bytes of what is kept."""
        return self._used

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is kept under `key`, or is being made, or else what `make` gives; raises what `make` raises."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            future = self._under_way.get(key)
            if future is None:  # begun with the lock held, so that it is not done before it is said to be under way
                future = self._under_way[key] = self._threads.submit(self._make, key, make)
        return future.result()

    def _make(self, key: Hashable, make: Callable[[], T]) -> T:
        try:
            made = make()
            with self._lock:
                self._keep(key, made)
            return made
        finally:
            with self._lock:
                del self._under_way[key]

    def _keep(self, key: Hashable, made: T) -> None:
        size = self._size(made)
        if size > self.memory:
            return
        self._kept[key] = made
        self._used += size
        while self._used > self.memory:
            self._used -= self._size(self._kept.popitem(last=False)[1])

    def __getstate__(self) -> dict[str, Any]:
        """For another process: the bound, not what is kept."""
        return {"memory": self.memory, "_size": self._size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()
