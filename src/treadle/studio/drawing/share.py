"""How much of a run's time goes into drawing: kept to a share while it trains, and measured."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from time import perf_counter

SHARE = 0.2
"""The share of time that drawing takes where nobody chose another."""
WINDOW = 10.0
"""Seconds over which it is measured."""
MOST_SAVED = 30.0
"""Seconds of waiting that may be drawn for at once: with longer steps than this the share is not reached."""


class Budget:
    """An account of seconds: drawing is paid from it, and while somebody wants to see something, time flows into it.

    It may be overdrawn by what cannot be cut shorter, and is then paid back before anything else is drawn. So over some
    seconds drawing has its share, neither more nor, where so much is wanted, less: with short steps and long ones. Any
    thread may use it.

    Args:
        share: of the time, from 0 to less than 1.
        clock: gives seconds.
    """

    def __init__(self, share: float = SHARE, clock: Callable[[], float] = perf_counter) -> None:
        self.share = share
        self._clock = clock
        self._balance = 0.0
        self._opened = self._settled = clock()
        self._wanted = False
        self._lock = threading.Lock()
        self._spent: deque[tuple[float, float]] = deque()

    def wanted(self, wanted: bool) -> None:
        """Say whether somebody wants to see something: nothing is saved up while nobody does."""
        with self._lock:
            self._settle()
            self._wanted = wanted
            if not wanted:
                self._balance = min(self._balance, 0.0)

    def wait(self) -> float:
        """Seconds until something may be drawn; infinite where the share is 0."""
        with self._lock:
            self._settle()
            return math.inf if self.share == 0 else max(0.0, -self._balance / self.share)

    def allowed(self) -> float:
        """Seconds that may be drawn without a stop from now on."""
        with self._lock:
            self._settle()
            return max(0.0, self._balance / (1 - self.share))

    def spend(self, seconds: float, *, charge: bool = True) -> None:
        """Take note of drawing that has just ended; without `charge` it cost the run nothing, as in a pause."""
        with self._lock:
            self._settle()
            if charge:
                self._balance -= seconds
                self._spent.append((self._settled, seconds))
            else:
                self._balance = max(self._balance, 0.0)

    def measured(self) -> float:
        """The share of the last `WINDOW` seconds that drawing took from a run that trains."""
        with self._lock:
            now = self._clock()
            while self._spent and self._spent[0][0] <= now - WINDOW:
                self._spent.popleft()
            while_open = min(WINDOW, max(1.0, now - self._opened))
            return min(1.0, sum(seconds for _, seconds in self._spent) / while_open)

    def _settle(self) -> None:
        now = self._clock()
        earned, self._settled = self.share * (now - self._settled), now
        most = self.share * MOST_SAVED if self._wanted else max(self._balance, 0.0)
        self._balance = min(self._balance + earned, most)
