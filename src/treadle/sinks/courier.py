"""One thread that hands what runs log to the processes which tell services: see `treadle.sinks.services.carrier`."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from treadle.errors import one_line
from treadle.sinks.outbox import LOOSE, Message, Outbox
from treadle.sinks.services.marks import Mark
from treadle.sinks.services.scrub import scrub
from treadle.sinks.services.wire import LONGEST_REPLY, Garbled, Head, Reader, frame, head_bytes

RESTARTS = 4
"""Times that a process which has died is started again; before the n-th it waits 2**(n-1) seconds."""
RETRY_SECONDS = 30.0
"""A service that cannot be opened is tried again after 1 s, 2 s, 4 s, ..., at last every so many seconds."""
ROUND_SECONDS = 0.1
"""Between two times that the thread looks for what was put in, where nothing else wakes it."""
WINDOW = 64
"""Messages that are on their way to a service and not answered for."""
WINDOW_BYTES = 4 << 20
"""Their bytes, unless it is a single one."""
COUNTED = (*LOOSE, "artifact", "summary")
"""What people hear of where it is lost."""
TROUBLES = 20
"""Lines of trouble that are kept until somebody asks."""
HEALTHY_SECONDS = 600.0
"""A process that has lived for so long may die as often as the first."""
REAP_SECONDS = 1.0
"""A process that has said that it is done, or was killed, is gone within so many."""
SAID_BYTES = 2000
"""What is kept of the end of what a process prints."""
FLOOD_BYTES = 8 << 20
"""One that prints more in a second is not listened to for another: it waits."""

BOOT = (
    "import importlib.util as u, sys; source = sys.argv.pop(1); "
    "s = u.spec_from_file_location('treadle', source + '/__init__.py', submodule_search_locations=[source]); "
    "m = sys.modules['treadle'] = u.module_from_spec(s); s.loader.exec_module(m); "
    "from treadle.sinks.services.carrier import main; main()"
)
"""What another interpreter runs: it finds this package, and nothing else of this environment."""

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
        try:
            return self._troubles.popleft()
        except IndexError:
            return ""

    @property
    def last_trouble(self) -> str:
        """The newest line."""
        return self._last

    @property
    def lost(self) -> Counter[str]:
        """How many of each kind the service has not got: dropped, not taken, or still waiting."""
        found = self.box.dropped + self.refused + self.box.left
        return Counter({kind: count for kind, count in found.items() if kind in COUNTED})


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


NEVER = float("inf")


class Link:
    """One delivery's process, as the courier's thread sees it: what is written to it, what it answers.

    Attributes:
        over: whether it is closed, or given up.
    """

    def __init__(self, delivery: Delivery, selector: selectors.BaseSelector) -> None:
        self.delivery, self._selector = delivery, selector
        self.over = self._last_time = False
        self._ask_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._descriptors: list[int] = []
        self._inbox = self._output = -1
        self._reader = Reader()
        self._pending: deque[bytes | memoryview] = deque()
        self._asked = self._open = self._begun = self._waits_for_room = False
        self._deaths = self._refusals = self._done = 0
        self._culprit: Message | None = None
        self._again: deque[Message] = deque()
        self._history: Iterator[Message] | None = None
        self._latest = NEVER
        self._said = b""
        self._heard = 0.0, 0
        self._deaf_until = 0.0

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
        if self._deaf_until and now >= self._deaf_until:
            self._deaf_until = 0.0
            self._register(self._output, selectors.EVENT_READ, self._overhear)
        if now >= self._ask_at and not self._asked:
            if self._process is None:
                self._start()
            self._ask()
        self._send()

    @property
    def due(self) -> float:
        """When it wants to be attended to, besides when something comes."""
        return min(NEVER if self._asked else self._ask_at, self._deaf_until or NEVER)

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
        if time.monotonic() - self._started > HEALTHY_SECONDS:
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
        process, self._process = self._process, None
        if process is not None:
            if kill:
                _kill(process)
            try:
                process.wait(REAP_SECONDS)
            except subprocess.TimeoutExpired:
                _kill(process)
        for descriptor in self._descriptors:
            with suppress(KeyError):
                self._selector.unregister(descriptor)
        self.let_go()
        self._pending.clear()

    def let_go(self) -> None:
        """Close the descriptors."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
        self._inbox = self._output = -1
        self._waits_for_room, self._deaf_until = False, 0.0

    # The process ----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        inbox, self._inbox = os.pipe2(os.O_CLOEXEC)
        replies, answers = os.pipe2(os.O_CLOEXEC)
        self._output, output = os.pipe2(os.O_CLOEXEC)
        self._descriptors = [self._inbox, replies, self._output]
        for descriptor in self._descriptors:
            os.set_blocking(descriptor, False)
        self._said, self._done, self._reader = b"", 0, Reader(LONGEST_REPLY, 0)
        self._started = time.monotonic()
        environment = dict(os.environ)
        program = ["-m", "treadle.sinks.services.carrier"]
        if self.delivery.python == sys.executable:
            environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
        else:
            program = ["-c", BOOT, str(Path(__file__).parents[1])]
        try:
            self._process = subprocess.Popen(
                [self.delivery.python, "-P", *program, str(inbox), str(answers), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(inbox, answers),
                start_new_session=True,
                env=environment,
            )
        finally:
            for descriptor in (inbox, answers, output):
                os.close(descriptor)
        self._register(replies, selectors.EVENT_READ, lambda: self._hear(replies))
        self._register(self._output, selectors.EVENT_READ, self._overhear)

    def _register(self, descriptor: int, events: int, action: Callable[[], None]) -> None:
        self._selector.register(descriptor, events, lambda: self.guarded(action))

    def _hear(self, replies: int) -> None:
        """Take in what the process answers."""
        data = os.read(replies, 1 << 16)
        if not data:
            return self._died()
        for head, _ in self._reader.feed(data):
            self._obey(head)

    def _died(self) -> None:
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(REAP_SECONDS)
        code = self._process.poll()
        if self.over:
            return
        self._overhear()
        last = self._said.decode(errors="replace").strip().rpartition("\n")[2]
        how = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
        self.fail(scrub(f"its process {how}" + (f": {last}" if last else "")))

    def _overhear(self) -> None:
        """Keep the end of what the process prints; one that never ends is listened to with pauses."""
        try:
            data = os.read(self._output, 1 << 16)
        except BlockingIOError:
            return
        self._said = (self._said + data)[-SAID_BYTES:]
        now = time.monotonic()
        since, heard = self._heard
        self._heard = (since, heard + len(data)) if now < since + 1.0 else (now, len(data))
        if not data or self._heard[1] > FLOOD_BYTES:
            with suppress(KeyError):
                self._selector.unregister(self._output)
            if data:
                self._deaf_until = now + 1.0

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
        self._pending.extend(frame(head_bytes(said)))

    def _send(self) -> None:
        """Write what waits, as far as the pipe takes it and the answers keep up."""
        while self._inbox != -1 and (self._pending or self._load() or self._pending):
            try:
                written = os.write(self._inbox, self._pending[0])
            except BlockingIOError:
                if not self._waits_for_room:
                    self._waits_for_room = True
                    self._register(self._inbox, selectors.EVENT_WRITE, self._send)
                return
            except BrokenPipeError:  # it has died, which is heard elsewhere
                self._pending.clear()
                break
            piece = self._pending.popleft()
            if written < len(piece):
                self._pending.appendleft(memoryview(piece)[written:])
        if self._waits_for_room:
            self._waits_for_room = False
            self._selector.unregister(self._inbox)

    def _load(self) -> bool:
        """Make the next message ready to be written; whether there is one that may be."""
        if not self._open:
            return False
        if self._again:
            message = self._again.popleft()
            self._pending.extend(frame(message.fields[:-1] + b',"from":"again"}', message.body))
            return True
        box = self.delivery.box
        if not box.may_send(WINDOW, WINDOW_BYTES):
            return False
        found = self._next()
        if found is None:
            return False
        try:
            self._pending.extend(frame(found.fields, found.body))
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
            self._pending.extend(frame(lack.fields))
        return box.take()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and whatever it has started in its session."""
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(REAP_SECONDS)


courier = Courier()
"""The courier of this process."""

os.register_at_fork(after_in_child=courier.abandon)
