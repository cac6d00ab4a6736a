"""The process that stands between a run and a logging service: `python -P -m treadle.sinks.services.carrier`.

A courier (`treadle.sinks.courier`) starts one for each service. It reads frames (`wire`) from one pipe, calls the
methods of a `Service`, and answers on another pipe what was done. It knows no torch.

What the service has taken is in the run's mark (`marks`), which is written within `WRITE_SECONDS` and on the disk
within `SYNC_SECONDS`: where run and process are killed together, or the process hangs and is ended, what was sent in
the last fifth of a second may be sent again by the next resume, and after a crash of the machine that of the last
second. Where only one of them is killed the other knows, and nothing is sent twice. The process ends after its run:
also where that is killed, once what is on its way has been told, within `KILLED_SECONDS`.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import select
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from treadle.files import make_directory, number, read_regular, write_whole
from treadle.sinks.services.marks import Mark, checksum, checksum_of_summary, identity, read_mark
from treadle.sinks.services.scrub import scrub
from treadle.sinks.services.service import Opening, Service
from treadle.sinks.services.wire import Garbled, Head, Reader, frame, head_bytes, unpack_picture, unpack_scene

KILLED_SECONDS = 10
"""What is on its way is told for so long after the run was killed."""
SYNC_SECONDS = 1.0
"""The mark is on the disk so long after what it says; before that it is in the system's memory."""
WRITE_SECONDS = 0.2
"""The mark is not written more often."""
CHUNK = 1 << 20


class Carrier:
    """Carries out what comes on the descriptor `inbox`, and answers on `outbox`, until the process `parent` has ended.

    Each thing is answered for when the service has taken it.
    """

    def __init__(self, inbox: int, outbox: int, parent: int) -> None:
        self._inbox, self._outbox = inbox, outbox
        self._process = os.getpid()
        self._parent = _watch(parent)
        self._service: Service = Service()
        self._told: Callable[[], Service] | None = None
        self._mark: Mark | None = None
        self._path: Path | None = None
        self._lock: int | None = None
        self._written = self._synced = 0.0
        self._dirty = self._unsynced = False
        self._done = 0
        self._sent: Counter[str] = Counter()
        self._closed = False

    def serve(self) -> None:
        """Read and carry out until the run closes, or is gone."""
        try:
            for head, body in self._frames():
                self._carry_out(head, body)
                if self._closed:
                    return
        except Garbled as error:
            self._answer({"trouble": f"what came from the run is garbled: {error}"})
        self._close("killed")

    def _frames(self) -> Iterator[tuple[Head, bytes]]:
        reader = Reader()
        os.set_blocking(self._inbox, False)
        watched = [self._inbox, *([self._parent] if self._parent is not None else [])]
        while True:
            try:
                data = os.read(self._inbox, CHUNK)
            except BlockingIOError:
                self._ask_for_trouble()
                ready = select.select(watched, [], [], self._keep())[0]
                if ready and self._inbox not in ready:
                    return  # the run's process is gone, though somebody it has forked holds the pipe
                continue
            if not data:
                return
            for found in reader.feed(data):
                yield found
                self._keep()

    # One after the other ------------------------------------------------------------------------------------------

    def _carry_out(self, head: Head, body: bytes) -> None:
        what = head["do"]
        if what == "open":
            self._open(head)
        elif what == "close":
            self._close(head["status"])
        elif what in ("scalars", "picture", "text", "scene", "event"):
            self._tell(what, head, body)
        elif what == "cut":
            self._attempt("cut", lambda: self._service.cut(head["step"]))
            if self._mark is not None:
                self._mark.cut(head["step"])
                self._write_mark()
        elif what == "artifact":
            self._artifact(head)
        elif what == "summary":
            self._summary(head["values"])
        elif what == "lack" and self._mark is not None:
            self._mark.lack(head["of"], head["first"], head["last"])
            self._dirty = True
        elif what == "filled" and self._mark is not None:
            self._mark.filled()
            self._dirty = True
        if what not in ("open", "close"):
            self._done += 1
            self._answer({"done": self._done})

    def _open(self, head: Head) -> None:
        said = dict(head["opening"])
        try:
            if head["mark"] is not None and self._lock is None:
                self._path = Path(head["mark"])
                self._lock = _take(self._path)
                self._mark = _read(self._path, said["id"])
            goes_on = head["goes_on"] or self._mark is not None
            directory = said.pop("directory")
            opening = Opening(**said, goes_on=goes_on, directory=None if directory is None else Path(directory))
            if self._told is None:
                module, _, name = head["service"].partition(":")
                self._told = getattr(importlib.import_module(module), name)
            self._service = self._told()
            where = self._service.open(opening)
            self._stay_one()
        except BaseException as error:
            self._stay_one()
            self._answer({"refused": _text(error)})
            return
        where = scrub(where, ids=True) if isinstance(where, str) else ""
        if self._mark is None:
            self._mark = Mark(said["id"])
        if not head["goes_on"]:
            self._mark.begin()
        self._mark.where = where
        self._write_mark()
        self._answer({"opened": where, "mark": self._mark.to_dict()})

    def _tell(self, what: str, head: Head, body: bytes) -> None:
        assert self._mark is not None
        name, at, content = identity(what, head, body)
        verdict = self._mark.judge(what, name, at, content, head.get("from", ""))
        if verdict == "same":
            return
        if verdict == "other":  # the run was continued, and what it does now is not what it did then
            step = head["step"] - 1
            self._attempt("cut", lambda: self._service.cut(step))
            self._mark.cut(step)
        calls: Mapping[str, Callable[[], object]] = {
            "scalars": lambda: self._service.scalars(
                head["step"],
                head["epoch"],
                head["split"],
                {key: number(value) for key, value in head["values"].items()},
                head["time"],
            ),
            "picture": lambda: self._service.picture(head["step"], head["name"], unpack_picture(head, body)),
            "text": lambda: self._service.text(head["step"], head["name"], head["text"]),
            "scene": lambda: self._service.scene(head["step"], head["name"], unpack_scene(head, body)),
            "event": lambda: self._service.event(head["entry"]),
        }
        if self._attempt(what, calls[what]):
            self._mark.add(what, name, at, content)
        else:
            self._mark.lack(what, at, at)
        self._dirty = True

    def _artifact(self, head: Head) -> None:
        path = Path(head["path"])
        key, content = f"{head['kind']}/{head['name']}", fingerprint(path)
        if self._mark is not None and self._mark.artifacts.get(key) == content:
            return
        if self._attempt("artifact", lambda: self._service.artifact(head["name"], head["kind"], path)) and self._mark:
            self._mark.artifacts[key] = content
            self._write_mark()

    def _summary(self, values: Mapping[str, Any]) -> None:
        content = checksum_of_summary(values)
        if self._mark is not None and self._mark.summary == content:
            return
        if self._attempt("summary", lambda: self._service.summary(values)) and self._mark is not None:
            self._mark.summary = content
            self._write_mark()

    def _close(self, status: str) -> None:
        self._closed = True
        if self._mark is None:  # it was never opened
            self._answer({"closed": True})
            return
        self._attempt("close", lambda: self._service.close(status))
        dropped: dict[str, int] = {}

        def ask() -> None:
            for name, count in self._service.lost().items():
                if int(count) > 0:
                    dropped[str(name)[:40]] = int(count)

        self._attempt("lost", ask)
        self._write_mark(sync=True)
        self._answer({"done": self._done + 1, "closed": True, "dropped": dropped, "sent": self._sent})

    # The service ----------------------------------------------------------------------------------------------------

    def _attempt(self, what: str, call: Callable[[], object]) -> bool:
        """Call the service; what it raises is told to the run. Returns whether it took what it was given."""
        try:
            call()
            self._stay_one()
            self._sent[what] += 1
        except BaseException as error:  # sys.exit() too
            self._stay_one()
            self._answer({"trouble": _text(error), "lost": what})
            return False
        return True

    def _stay_one(self) -> None:
        """End a copy that the service has made of this process: there is one that reads and answers."""
        if os.getpid() != self._process:
            os._exit(0)

    # What is kept, and said -----------------------------------------------------------------------------------------

    def _ask_for_trouble(self) -> None:
        """Say what goes wrong at the service without a loss."""
        with suppress(Exception):
            trouble = self._service.trouble()
            if trouble:
                self._answer({"trouble": scrub(str(trouble))})

    def _keep(self) -> float | None:
        """Write the mark where it is time to; returns in how many seconds it may be, None for never."""
        if not (self._dirty or self._unsynced):
            return None
        now = time.monotonic()
        if self._synced + SYNC_SECONDS <= now:
            self._write_mark(sync=True)
            return SYNC_SECONDS if self._dirty else None
        if self._dirty and self._written + WRITE_SECONDS <= now:
            self._write_mark()
        return max(0.001, (self._written + WRITE_SECONDS if self._dirty else self._synced + SYNC_SECONDS) - now)

    def _write_mark(self, *, sync: bool = False) -> None:
        flushed = self._flush()
        self._written, self._dirty, self._unsynced = time.monotonic(), not flushed, not (sync and flushed)
        if sync:
            self._synced = self._written
        if not flushed:
            return
        if self._path is None or self._mark is None:
            self._unsynced = False
            return
        try:
            write_whole(self._path, head_bytes(self._mark.to_dict()), sync=sync)
        except OSError as error:
            self._answer({"trouble": f"{self._path.name} cannot be written ({error.strerror})"})

    def _flush(self) -> bool:
        """Have the service send what it has gathered; what it does not get rid of is not done, and not in the mark."""
        try:
            self._service.flush()
            self._stay_one()
        except BaseException as error:
            self._stay_one()
            self._answer({"trouble": _text(error)})
            return False
        return True

    def _answer(self, head: Head) -> None:
        data = b"".join(frame(head_bytes(head)))
        with suppress(OSError):  # the run is gone
            while data:
                data = data[os.write(self._outbox, data) :]


def fingerprint(path: Path) -> int:
    """What tells a file or directory from what was in its place: names, sizes, and the ends of files."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    found: list[Any] = []
    for file in files:
        with suppress(OSError):
            if file.is_file():
                with file.open("rb") as opened:
                    size = opened.seek(0, os.SEEK_END)
                    opened.seek(max(0, size - 65536))
                    end = opened.read()
                found += [str(file.relative_to(path)), size, end]
    return checksum(*found)


def _read(path: Path, id: str) -> Mark | None:
    try:
        mark = read_mark(read_regular(path))
    except OSError:
        return None
    return mark if mark is not None and mark.id == id else None


def _take(path: Path) -> int:
    """Hold the mark for this process; one that its run has left behind is waited for. Raises OSError in words."""
    make_directory(path.parent)
    descriptor = os.open(
        path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666
    )
    until = time.monotonic() + KILLED_SECONDS + 1
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(descriptor)
                raise OSError("another process is sending this run") from None
            time.sleep(0.05)


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException:
        text = ""
    if text and type(error) is OSError:  # "Connection refused" says it
        return scrub(text)
    return scrub(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _watch(parent: int) -> int | None:
    """A descriptor that can be read once the process `parent` has ended; then this one has its last seconds."""
    try:
        descriptor = os.pidfd_open(parent)
    except (AttributeError, OSError):
        return None

    def end() -> None:
        select.select([descriptor], [], [])
        signal.setitimer(signal.ITIMER_REAL, KILLED_SECONDS)  # SIGALRM ends the process, whatever it hangs in

    threading.Thread(target=end, name="parent", daemon=True).start()
    return descriptor


def main() -> None:
    """Serve on the descriptors that the command line names: inbox, outbox, and the parent's process."""
    inbox, outbox, parent = map(int, sys.argv[1:4])
    for descriptor in (inbox, outbox):
        os.set_inheritable(descriptor, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with suppress(OSError):  # where memory ends, it is not the run that has to go
        Path("/proc/self/oom_score_adj").write_text("1000")
    Carrier(inbox, outbox, parent).serve()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads that an SDK has left behind keep nobody


if __name__ == "__main__":
    main()
