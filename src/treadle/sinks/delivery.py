"""What goes to one service, as the run sees it: its outbox, and how it is doing."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from treadle.sinks.outbox import LOOSE, Message, Outbox
from treadle.sinks.services.marks import Mark

COUNTED = (*LOOSE, "artifact", "summary")
"""What people hear of where it is lost."""
TROUBLES = 20
"""Lines of trouble that are kept until somebody asks."""

History = Callable[[Mark | None], Iterator[Message]]
"""Reads from a run's files what a service lacks that has got what the mark says."""


class Delivery:
    """What goes to one service: its outbox, and how it is doing.

    Attributes:
        name: of the service, for people and variables: "wandb".
        service: "module:Class".
        mark: the file that says what was sent; None for a run that is not on disk.
        python: the interpreter of the process.
        goes_on: whether a run that no mark is kept of has been told before.
        where: where people find the run; empty until the service says.
        opened: set once it has been opened.
        ended: set once it is closed, or given up.
        dead: why it was given up; empty where it was not.
        refused: how many of each kind the service has not taken.
        dropped: how many of each kind the service's SDK says that it has dropped itself.
        sent: how many of each kind the service has taken, once it is closed.
        answered: when the process answered last, by `time.monotonic`.
        told: how many messages were carried out.
    """

    def __init__(self, name: str, service: str, *, mark: Path | None = None, most: int | None = None) -> None:
        self.name, self.service, self.mark = name, service, mark
        self.python = os.environ.get(f"TREADLE_{name.upper()}_PYTHON") or sys.executable
        self.box = Outbox() if most is None else Outbox(most)
        self.goes_on = False
        self.opening: Mapping[str, Any] | None = None
        self.history: History | None = None
        self.where = self.dead = ""
        self.opened, self.ended = threading.Event(), threading.Event()
        self.refused: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.answered = time.monotonic()
        self.told = 0
        self._troubles: deque[str] = deque(maxlen=TROUBLES)
        self._last = ""

    def trouble(self, text: str) -> None:
        """Keep a line for whoever asks; the same one is not kept twice in a row."""
        if text and text != self._last:
            self._last = text
            self._troubles.append(text)

    def take_trouble(self) -> str:
        """The oldest line that nobody has asked for; empty where there is none."""
        return self._troubles.popleft() if self._troubles else ""

    @property
    def last_trouble(self) -> str:
        """The newest line."""
        return self._last

    @property
    def lost(self) -> Counter[str]:
        """How many of each kind the service has not got: dropped, not taken, or still waiting."""
        found = self.box.dropped + self.refused + self.box.left
        return Counter({kind: count for kind, count in found.items() if kind in COUNTED})
