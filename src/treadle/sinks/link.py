"""A delivery's process as the courier's thread sees it: what it is sent, and what it answers."""

from __future__ import annotations

import selectors
import time
from collections import deque
from collections.abc import Callable, Iterator

from treadle.errors import one_line
from treadle.sinks.delivery import COUNTED, Delivery
from treadle.sinks.outbox import Message
from treadle.sinks.process import Process
from treadle.sinks.services.marks import Mark
from treadle.sinks.services.wire import Garbled, Head, frame, head_bytes

RESTARTS = 4
"""Times that a process which has died is started again; before the n-th it waits 2**(n-1) seconds."""
RETRY_SECONDS = 30.0
"""A service that cannot be opened is tried again after 1 s, 2 s, 4 s, ..., at last every so many seconds."""
WINDOW = 64
"""Messages that are on their way to a service and not answered for."""
WINDOW_BYTES = 4 << 20
"""Their bytes, unless it is a single one."""
HEALTHY_SECONDS = 600.0
"""A process that has lived for so long may die as often as the first."""
NEVER = float("inf")


class Link:
    """One delivery's process, as the courier's thread sees it: what is written to it, what it answers.

    Attributes:
        over: whether it is closed, or given up.
    """

    def __init__(self, delivery: Delivery, selector: selectors.BaseSelector) -> None:
        self.delivery = delivery
        self.over = self._last_time = False
        self._process = Process(selector, self.guarded, load=self._load, obey=self._obey, died=self._died)
        self._ask_at = 0.0
        self._asked = self._open = self._begun = False
        self._deaths = self._refusals = self._done = 0
        self._culprit: Message | None = None
        self._again: deque[Message] = deque()
        self._history: Iterator[Message] | None = None
        self._latest = NEVER

    def guarded(self, action: Callable[[], None]) -> None:
        """Do something; an error is this service's, and no business of the others."""
        try:
            action()
        except Garbled as error:
            self.fail(f"it answers nonsense: {error}")
        except Exception as error:
            self.fail(one_line(error))

    def attend(self) -> None:
        """Do what is due: start the process, open the service, send what waits."""
        now = time.monotonic()
        self._process.listen(now)
        if now >= self._ask_at and not self._asked:
            if not self._process.running:
                self._done = 0
                self._process.start(self.delivery.python)
            self._ask()
        self._process.send()

    @property
    def due(self) -> float:
        """When it wants to be attended to, besides when something comes."""
        return min(NEVER if self._asked else self._ask_at, self._process.deaf_until or NEVER)

    def hurry(self) -> None:
        """The run is over: a service that refuses to be opened is asked once more, at once."""
        self._last_time = True
        self._ask_at = 0.0

    def cut(self, step: int) -> None:
        """Nothing of later steps is read from the files any more."""
        self._latest = min(self._latest, step)

    def fail(self, why: str) -> None:
        """The process has failed: start another after a while, unless that was often enough."""
        self.end(kill=True)
        delivery = self.delivery
        delivery.trouble(why)
        if time.monotonic() - self._process.started > HEALTHY_SECONDS:
            self._deaths = 0
        self._deaths += 1
        if self._deaths > RESTARTS:
            delivery.dead = why
            delivery.box.drop_all()
            self.over = True
            return
        self._asked = self._open = False
        self._ask_at = time.monotonic() + 2.0 ** (self._deaths - 1)
        unanswered = delivery.box.unanswered
        if unanswered and unanswered[0] is self._culprit:
            delivery.box.forget(unanswered.pop(0))
        self._culprit = unanswered[0] if unanswered else None
        self._again = deque(unanswered)

    def end(self, *, kill: bool) -> None:
        """Let go of the process; with `kill` end it, and whatever it has started."""
        self._process.end(kill=kill)

    def let_go(self) -> None:
        """Close the descriptors."""
        self._process.let_go()

    # What it answers ------------------------------------------------------------------------------------------------

    def _died(self, how: str) -> None:
        """Take note of its end, where that was not to be."""
        if not self.over:
            self.fail(how)

    def _obey(self, head: Head) -> None:
        """Take note of an answer."""
        delivery = self.delivery
        delivery.answered = time.monotonic()
        if "opened" in head:
            delivery.where = str(head["opened"])
            self._open = True
            if delivery.history is not None and not self._begun:
                mark = None if head["mark"] is None else Mark.from_dict(head["mark"])
                self._history = delivery.history(mark)
            self._begun = True
            delivery.opened.set()
        if "refused" in head:
            delivery.trouble(str(head["refused"]))
            self._asked = False
            self._ask_at = time.monotonic() + min(RETRY_SECONDS, 2.0**self._refusals)
            self._refusals += 1
            if self._last_time:
                delivery.dead, self.over = str(head["refused"]), True
        if "done" in head:
            count, self._done = int(head["done"]) - self._done, int(head["done"])
            delivery.box.done(count)
            delivery.told += count
        if "trouble" in head:
            delivery.trouble(str(head["trouble"]))
        if "lost" in head:
            delivery.refused[str(head["lost"])] += 1
        if "closed" in head:
            delivery.dropped.update({str(kind): int(count) for kind, count in head.get("dropped", {}).items()})
            sent = head.get("sent", {})
            delivery.sent.update({kind: int(sent[kind]) for kind in COUNTED if kind in sent})
            self.over = True

    # What is sent ---------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Have the process open the service."""
        delivery = self.delivery
        said = {
            "do": "open",
            "opening": delivery.opening,
            "service": delivery.service,
            "mark": None if delivery.mark is None else str(delivery.mark),
            "goes_on": self._begun or delivery.goes_on,
        }
        self._asked = True
        self._process.pending.extend(frame(head_bytes(said)))

    def _load(self) -> bool:
        """Make the next message ready to be written; whether there is one that may be."""
        if not self._open:
            return False
        if self._again:
            message = self._again.popleft()
            self._process.pending.extend(frame(message.fields[:-1] + b',"from":"again"}', message.body))
            return True
        box = self.delivery.box
        if not box.may_send(WINDOW, WINDOW_BYTES):
            return False
        found = self._next()
        if found is None:
            return False
        try:
            self._process.pending.extend(frame(found.fields, found.body))
        except Garbled as error:
            self.delivery.trouble(f"{found.kind} {found.name}: {error}")
            box.forget(found)
            return self._load()
        return True

    def _next(self) -> Message | None:
        """What is to be sent now: what the files have that the service lacks, then news."""
        box = self.delivery.box
        while self._history is not None:
            message = next(self._history, None)
            if message is None:
                self._history = None
                return box.on_its_way(Message("filled", 0, {}))
            if message.step <= self._latest or message.kind == "event":
                return box.on_its_way(message)
        for kind, gap in box.take_gaps().items():
            box.on_its_way(lack := Message("lack", 0, {"of": kind, "first": gap.first, "last": gap.last}))
            self._process.pending.extend(frame(lack.fields))
        return box.take()
