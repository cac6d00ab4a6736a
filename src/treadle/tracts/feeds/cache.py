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

    def get(self, key: int, read: Callable[[], Tensor]) -> Tensor:
        """The tensor of `key`, from `read()` where it is not here."""
        with self._lock:
            if key in self._kept:
                self.hits += 1
                self._kept.move_to_end(key)
                return self._kept[key]
            self.misses += 1
            value = read()
            size = value.numel() * value.element_size()
            if size <= self.limit:
                while self.held + size > self.limit:
                    gone = self._kept.popitem(last=False)[1]
                    self.held -= gone.numel() * gone.element_size()
                self._kept[key] = value
                self.held += size
            return value
