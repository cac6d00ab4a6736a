"""The base of sinks that speak with a service, such as W&B: they hand on what is logged, and never wait."""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, ClassVar

from treadle.errors import UsageError
from treadle.files import settled
from treadle.images.display import to_uint8
from treadle.runs.names import label
from treadle.runs.run import BEST, JOURNAL, run_id
from treadle.sinks.base import Sink, config_of, environment_of
from treadle.sinks.courier import courier
from treadle.sinks.delivery import Delivery
from treadle.sinks.history import OWN, Files, event_message, id_of, mark_of, opening_of
from treadle.sinks.outbox import Message
from treadle.sinks.services.marks import checksum
from treadle.sinks.services.wire import pack_picture, pack_scene
from treadle.terminal import say

if TYPE_CHECKING:
    from treadle.engine.events import Record
    from treadle.engine.trainer import Trainer

CLOSING_SECONDS = 5.0
"""The end of a run waits for all its services together no longer; TREADLE_CLOSING_SECONDS says otherwise."""

_SECRET = re.compile(r"://[^/\s]*:[^/\s]*@")


class RemoteSink(Sink):
    """Hands what a trainer logs to a service, through a process of its own that has the service's SDK.

    Training only puts messages into a bounded outbox (32 MB for each service). One thread for all services hands them
    on to their processes, so no service can delay a step or end the run: one that is away, mute or killed is tried
    again, and what there is no more room for is counted. The end of the run waits for 5 seconds at most, for all of
    them together, and says in one line what was not sent; `treadle runs --to NAME RUN` sends that later.

    The run keeps its id at the service for as long as its directory lives. What has been sent is noted beside it, in
    `logs/sent.NAME.json`, so a run that is resumed after a kill sends what its service lacks, from its files, and
    nothing twice; a rewind is told as such. That mark is on the disk at most a second after what it says: after a crash
    of the machine the things of the last second may be sent again.

    Subclasses say what the class attributes mean, and give what a person may choose to `__init__` of this class, by
    name, as plain data: the service finds it in `Opening.options`. Keys and tokens are no options: an SDK has variables
    and files of its own for them, which its process sees.

    Attributes:
        name: in the table of sinks, and of its mark: "wandb".
        title: as people know the service: "W&B".
        service: its `Service`, as "module:Class".
        remembers: whether the service keeps what it is sent. One that does not has no mark: each session sends all that
            the run's files have.
        takes_files: whether it has a place for files: the best model, reports.
        drops: what is said of what the service lost itself.
        package: what has to be importable for it, unless TREADLE_<NAME>_PYTHON names another Python; None: nothing.

    Raises:
        UsageError: the package is not installed, the other Python is no program, or an option holds a password.

    Example:
        class Wandb(RemoteSink):
            name, title, package = "wandb", "W&B", "wandb"
            service = "treadle.sinks.services.wandb:WandbService"

            def __init__(self, project: str | None = None) -> None:
                super().__init__(project=project)
    """

    name: ClassVar[str]
    title: ClassVar[str]
    service: ClassVar[str]
    package: ClassVar[str | None] = None
    hands_over: ClassVar[bool] = True
    remembers: ClassVar[bool] = True
    takes_files: ClassVar[bool] = True
    drops: ClassVar[str] = "its SDK dropped"

    def __init__(self, **options: Any) -> None:
        self.asked = self.name
        """How `--log` and `--to` ask for it: "wandb=PROJECT"."""
        self.options = {name: value for name, value in options.items() if value is not None}
        variable = f"TREADLE_{self.name.upper()}_PYTHON"
        other = os.environ.get(variable)
        if other and shutil.which(other) is None:
            raise UsageError(f"{variable} is {other!r}: expected the path of a Python that has {self.title}'s SDK")
        if not other and self.package is not None and importlib.util.find_spec(self.package) is None:
            raise UsageError(f"{self.title} is not installed: pip install 'treadle[{self.name}]'")
        for option, value in self.options.items():
            if isinstance(value, str) and _SECRET.search(value):
                raise UsageError(f"{option} holds a password: leave it to {self.title}'s own variables and files")
        self._id: str | None = None
        self._delivery: Delivery | None = None
        self._trainer: Trainer | None = None
        self._saved = self._delivered = False

    @property
    def mark(self) -> str:
        """The name of what says how much of a run was sent there; each place has one: "wandb", "wandb-1a2b3c4d"."""
        return f"{self.name}-{checksum(self.options):08x}" if self.options else self.name

    @property
    def held(self) -> int:
        """Bytes that wait for the service, or are on their way to it."""
        return 0 if self._delivery is None else self._delivery.box.held

    @property
    def called(self) -> str:
        """What people read in front of what it has to say: its title, unless there is more to know."""
        return self.title

    def losses(self, dropped: Counter[str]) -> Counter[str]:
        """What of that which the service dropped itself is a loss to be told of; the rest is only noted."""
        return dropped

    # What a trainer tells -------------------------------------------------------------------------------------------

    def open(self, trainer: Trainer) -> None:
        """Make an outbox; the service is opened once the run has begun, which gives it its id."""
        self._trainer = trainer
        run = None if trainer.run is None else trainer.run.path
        mark = mark_of(run, self.mark) if run is not None and self.remembers else None
        again, self._delivered = self._delivered, True
        self._delivery = Delivery(self.name, self.service, mark=mark)
        self._delivery.goes_on = again and mark is None
        if run is None or (run / JOURNAL).is_file():
            self._begin(trainer)

    def on_log(self, trainer: Trainer, record: Record) -> None:
        """Put the record into the outbox."""
        if not self._opened:
            self._ensure_open(trainer)
        message = _message(record)
        if message is not None:
            self._put(message)
        if self._ended:
            self._ensure_closed()

    def on_journal(self, trainer: Trainer, entry: Mapping[str, Any]) -> None:
        """Put the entry into the outbox."""
        if not trainer.ended:
            self._ended = False
        if self._ended:
            return
        self._ensure_open(trainer)
        if self._delivery is not None and self._delivery.opening is None:
            self._id = self._id or run_id(entry)
            self._begin(trainer)
        if entry["event"] not in OWN:
            self._put(event_message(entry))

    def on_load(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Have the service give up what came after the state that was restored.

        A run that is continued repeats what it logged then, so nothing is given up until something differs.
        """
        self._saved = True
        if self._opened and self._delivery is not None:
            courier.cut(self._delivery, trainer.progress.step)
        elif self._trainer is not None:  # a rewind after the run's end
            self._went_to = trainer.progress.step

    def teardown(self, trainer: Trainer) -> None:
        """Tell all the services of the run what it came to, and wait for all of them together."""
        found = [hook for hook in [self, *trainer.hooks] if isinstance(hook, RemoteSink) and hook._opened]
        sinks = list(dict.fromkeys(found))
        try:
            for sink in sinks:
                sink._ended = True
                sink._conclude(trainer)
        finally:
            _wait_for(sinks)

    def close(self) -> None:
        """End the delivery of something that was logged after the run's end, and wait for that."""
        self._put_close()
        self._opened = True
        _wait_for([self])

    def state_dict(self) -> dict[str, Any]:
        """The run's id."""
        return {"id": self._id}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave; a run on disk has its id from its directory."""
        self._id = state["id"]

    def _conclude(self, trainer: Trainer) -> None:
        run = None if trainer.run is None else trainer.run.path
        if run is not None and (best := settled(run / BEST)).is_dir():
            self.artifact(BEST, "model", best)
        self.summary(trainer.summary().to_dict())
        self._put_close()

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """Put a file or directory into the outbox; the process reads it."""
        self._put(Message("artifact", 0, {"name": name, "kind": kind, "path": str(path)}))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Put the summary into the outbox."""
        self._put(Message("summary", 0, {"values": values}))

    def _ensure_open(self, trainer: Trainer) -> None:
        if not self._opened:
            self.open(trainer)
            self._opened = True

    def _put(self, message: Message) -> None:
        assert self._delivery is not None
        courier.put(self._delivery, message)
        self._tell_trouble()

    def _put_close(self) -> None:
        assert self._delivery is not None and self._trainer is not None
        if self._delivery.opening is None:
            self._begin(self._trainer)
        status = self._trainer.status
        self._put(Message("close", 0, {"status": status if status in ("finished", "failed") else "stopped"}))

    def _begin(self, trainer: Trainer) -> None:
        """Have the service opened."""
        delivery = self._delivery
        assert delivery is not None
        step = trainer.progress.step
        if trainer.run is not None:
            run = trainer.run.path
            self._id = id_of(run) or self._id or secrets.token_hex(8)
            opening = opening_of(run, step, self.options)
            delivery.history = Files.now(run, step, examples=self._saved).lacking
        else:
            self._id = self._id or secrets.token_hex(8)
            name = type(trainer).__name__
            opening = {"run": name, "project": name, "directory": None, "step": step, "parent": None}
            opening |= {"environment": environment_of(trainer), "options": self.options}
        opening |= {"id": self._id, "trainer": label(type(trainer)), "config": config_of(trainer)["config"]}
        delivery.opening = opening
        courier.open(delivery)
        if self._went_to is not None:
            step, self._went_to = self._went_to, None
            courier.cut(delivery, step)

    # What the service tells -----------------------------------------------------------------------------------------

    def _tell_trouble(self) -> None:
        """Say what has gone wrong since; the courier leaves that to the trainer's own thread."""
        delivery, trainer = self._delivery, self._trainer
        if delivery is None or trainer is None or not (text := delivery.take_trouble()):
            return
        say(f"treadle: {self.called}: {text}; the run goes on" + (", without it" if delivery.dead else ""))
        if not self._ended:
            trainer.note("log failed", service=self.name, error=text)

    def _finish(self, seconds: float) -> None:
        """Say what was not sent, and let go of the delivery."""
        delivery, trainer = self._delivery, self._trainer
        assert delivery is not None and trainer is not None
        self._opened, self._delivery = False, None
        lost = delivery.lost
        closed = delivery.ended.is_set() and not delivery.dead
        if not closed:
            courier.kill(delivery)
        dropped = self.losses(delivery.dropped)
        if closed and not lost and not dropped:
            if delivery.dropped:
                trainer.note("not sent", service=self.name, counts=dict(delivery.dropped), reason="")
            return
        parts = [f"{counted(lost)} not sent"] if lost else []
        parts += [f"{self.drops} {counted(dropped)}"] if dropped else []
        why = delivery.dead or ("" if closed else f"not done in {seconds:g} s") or delivery.last_trouble
        run = trainer.run
        remedy = f"; treadle runs --to {quote(self.asked)} {run.path} sends it" if run is not None else ""
        say(f"treadle: {self.called}: {', '.join(parts) or 'not closed'}{f' ({why})' if why else ''}{remedy}")
        trainer.note("not sent", service=self.name, counts=dict(lost + delivery.dropped), reason=why)


def closing_seconds() -> float:
    """For how many seconds the end of a run waits for all services together."""
    return float(os.environ.get("TREADLE_CLOSING_SECONDS") or CLOSING_SECONDS)


def _wait_for(sinks: Sequence[RemoteSink]) -> None:
    """Wait until the services of these sinks are closed, or the time for all of them is over."""
    seconds = closing_seconds()
    until = time.monotonic() + seconds
    for sink in sinks:
        assert sink._delivery is not None
        sink._delivery.ended.wait(max(0.0, until - time.monotonic()))
    for sink in sinks:
        sink._tell_trouble()
        sink._finish(seconds)


SAME_SECONDS = 1.0
_last: tuple[Record, bytes, float] | None = None
"""The scalars that were put into an outbox last, and when: the next sink is told the same."""


def _scalars(record: Record) -> Message:
    global _last
    now = time.time()
    if _last is not None and (_last[0] is record or _last[0] == record) and abs(now - _last[2]) < SAME_SECONDS:
        return Message("scalars", record.step, _last[1])
    fields = {"step": record.step, "epoch": record.epoch, "split": record.name, "values": record.value, "time": now}
    message = Message("scalars", record.step, fields)
    _last = record, message.fields, now
    return message


def _message(record: Record) -> Message | None:
    step = record.step
    if record.kind == "scalars":
        return _scalars(record)
    fields = {"step": step, "name": record.name}
    if record.kind == "text":
        return Message("text", step, fields | {"text": str(record.value)}, name=record.name)
    if record.kind == "image":
        said, body = pack_picture(to_uint8(record.value, record.name))
        return Message("picture", step, fields | said, body, name=record.name)
    if record.kind == "scene":
        said, body = pack_scene(record.value)
        return Message("scene", step, fields | said, body, name=record.name)
    return None


_NOUNS = {
    "scalars": ("record of scalars", "records of scalars"),
    "event": ("event", "events"),
    "picture": ("picture", "pictures"),
    "text": ("text", "texts"),
    "scene": ("scene", "scenes"),
    "artifact": ("artifact", "artifacts"),
    "summary": ("summary", "summaries"),
    "values": ("value", "values"),
    "files": ("file", "files"),
}


def counted(counts: Mapping[str, int]) -> str:
    """Counts of what is sent, in words: "3 records of scalars, 1 picture"; "" where there is none."""
    found = [(counts[kind], *_NOUNS.get(kind, (kind, kind))) for kind in (*_NOUNS, *counts) if kind in counts]
    return ", ".join(dict.fromkeys(f"{count:,} {one if count == 1 else more}" for count, one, more in found if count))
