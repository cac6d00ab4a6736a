"""The volumes that were read last, as many as fit into some megabytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import Tensor


class VolumeCache:
    """Keeps the tensors used last, of so many bytes together; one that is larger than that is not kept.

    Threads may share it: one reads while the others wait. A copy for another process is empty.
    """

    def __init__(self, limit: int) -> None:
        """`limit`: bytes."""
        self.limit, self.held = limit, 0
        self.hits, self.misses = 0, 0
        self._kept: OrderedDict[int, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """The limit alone."""
        return {"limit": self.limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["limit"])  # type: ignore[misc]

    def get(self, key: int, size: int, read: Callable[[], Tensor]) -> Tensor:
        """The tensor of `key`, of `size` bytes, from `read()` where it is not here."""
        with self._lock:
            if key in self._kept:
                self.hits += 1
                self._kept.move_to_end(key)
                return self._kept[key]
            self.misses += 1
            while self._kept and size <= self.limit < self.held + size:  # room first: no moment holds more
                gone = self._kept.popitem(last=False)[1]
                self.held -= gone.numel() * gone.element_size()
                del gone
            value = read()
            if size <= self.limit:
                self._kept[key] = value
                self.held += size
            return value
