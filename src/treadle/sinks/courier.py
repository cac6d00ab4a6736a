"""One thread that hands what runs log to the processes which tell services: see `treadle.sinks.services.carrier`."""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from treadle.sinks.delivery import Delivery
from treadle.sinks.link import Link
from treadle.sinks.outbox import Message

ROUND_SECONDS = 0.1
"""Between two times that the thread looks for what was put in, where nothing else wakes it."""


class Courier:
    """Hands on what is put into deliveries, with one thread for all of them; it waits for nobody.

    The thread begins with the first delivery that is opened and ends with the last. A process that dies is started
    again a few times, and sent anew what it had not answered for; one message at which two have died is lost.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._new: deque[Callable[[], None]] = deque()
        self._links: dict[Delivery, Link] = {}
        self._thread: threading.Thread | None = None
        self._selector: selectors.BaseSelector | None = None
        self._wake: tuple[int, int] | None = None

    def open(self, delivery: Delivery) -> None:
        """Start its process; `opening` and, where it is needed, `history` have been set.

        Another delivery with the same mark is ended first: its trainer was dropped without being closed.
        """

        def begin() -> None:
            assert self._selector is not None
            for other in self._links:
                if other.mark is not None and other.mark == delivery.mark:
                    other.box.put(Message("close", 0, {"status": "stopped"}))
            self._links[delivery] = Link(delivery, self._selector)

        self._do(begin)

    def put(self, delivery: Delivery, message: Message) -> None:
        """Send a message, after those before it, within `ROUND_SECONDS`; returns at once.

        Nobody is woken for it: to change threads would cost the training thread ten times as much.
        """
        if delivery.dead:
            delivery.box.dropped[message.kind] += 1
            return
        delivery.box.put(message)
        if message.kind == "close" and delivery.opening is not None:

            def hurry() -> None:
                if delivery in self._links:
                    self._links[delivery].hurry()

            self._do(hurry)

    def cut(self, delivery: Delivery, step: int) -> None:
        """The run went back to `step`."""
        delivery.box.cut(step)
        self.put(delivery, Message("cut", step, {"step": step}))

        def restart_history() -> None:
            if delivery in self._links:
                self._links[delivery].cut(step)

        self._do(restart_history)

    def kill(self, delivery: Delivery) -> None:
        """Give a delivery up, and end its process and those that it has started; returns once that is so."""

        def end() -> None:
            link = self._links.pop(delivery, None)
            if link is not None:
                link.end(kill=True)
            delivery.ended.set()

        self._do(end)
        delivery.ended.wait(2.0)

    def abandon(self) -> None:
        """Close what a forked process has got of it: it would keep services waiting for a run that has ended."""
        for link in self._links.values():
            link.let_go()
        if self._selector is not None:
            self._selector.close()
        for descriptor in self._wake or ():
            os.close(descriptor)
        self.__init__()  # type: ignore[misc]

    def _do(self, action: Callable[[], None]) -> None:
        with self._lock:
            self._new.append(action)
            if self._thread is None:
                self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
                self._selector = selectors.DefaultSelector()
                self._selector.register(self._wake[0], selectors.EVENT_READ, self._drain)
                self._thread = threading.Thread(target=self._run, name="treadle courier", daemon=True)
                self._thread.start()
        self._rouse()

    def _rouse(self) -> None:
        wake = self._wake
        if wake is not None:
            with suppress(OSError):
                os.write(wake[1], b"\0")

    def _drain(self) -> None:
        assert self._wake is not None
        with suppress(BlockingIOError):
            os.read(self._wake[0], 4096)

    # The thread -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        selector = self._selector
        assert selector is not None
        while True:
            while self._new:
                self._new.popleft()()
            for delivery, link in list(self._links.items()):
                link.guarded(link.attend)
                if link.over:
                    link.end(kill=bool(delivery.dead))
                    del self._links[delivery]
                    delivery.ended.set()
            with self._lock:
                if not self._links and not self._new:
                    selector.close()
                    assert self._wake is not None
                    for descriptor in self._wake:
                        os.close(descriptor)
                    self._selector = self._wake = self._thread = None
                    return
            due = min((link.due for link in self._links.values()), default=0.0)
            for key, _ in selector.select(min(ROUND_SECONDS, max(0.0, due - time.monotonic()))):
                if selector.get_map().get(key.fd) is key:  # else what came before it has ended its process
                    key.data()


courier = Courier()
"""The courier of this process."""

os.register_at_fork(after_in_child=courier.abandon)
