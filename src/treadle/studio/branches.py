"""Branches: forks of the run that are trained in processes of their own, seen beside it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar, get_args

from treadle.config.fields import dotted_names, from_dict, to_dict
from treadle.config.files import changed
from treadle.engine import commands
from treadle.engine.command import Command
from treadle.engine.lifecycle import Stage
from treadle.errors import RunError, UsageError, nearest
from treadle.parallel.world import without_launcher
from treadle.recipes.scripts import script_of
from treadle.runs.fork import checkpoint_at
from treadle.studio import protocol
from treadle.studio.child import FORKED, GO_ON, READY
from treadle.studio.client import StudioClient
from treadle.studio.memory import free_memory, resident_memory, shown_bytes
from treadle.studio.remote import RemoteRun
from treadle.studio.topics import Client, Handler, Live, Topic, later

CHILD = (sys.executable, "-m", "treadle.studio.child")
"""The command that a branch is started by: the same for all, for what it is to do comes on its standard input."""
MOST = 8
"""Branches of a run that may be trained at once."""
LAST_LINES = 12
"""Of what a child has said on standard error, that are told when it fails."""
ENDING_SECONDS = 20.0
"""That a child has to finish its step and save, before it is killed."""
LAST_WORDS = 5.0
"""Seconds to wait for what a process has said that has ended: one of its own children may hold the other end."""
TELLING_SECONDS = 0.5
NOT_BY_NAME = frozenset({"init", "init_mapping", "init_partial", "device"})
"""Settings that no branch changes."""


@dataclass(eq=False)
class Child:
    """A process that trains a branch.

    Attributes:
        step: after which it left its parent; settings: those that are others.
        run: its directory, once it is there.
        stage: "starting", then that of its run; "gone" when the process has ended.
        error: why it failed, in a line; lines: the last of what it said.
    """

    process: subprocess.Popen[str]
    folder: Path
    token: str
    step: int
    settings: Mapping[str, Any]
    run: Path | None = None
    stage: str = "starting"
    error: str = ""
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    client: StudioClient | None = None
    seen: RemoteRun = field(default_factory=RemoteRun)
    """Its views."""
    goes_on: bool = False

    @property
    def name(self) -> str:
        """By which pages know it."""
        return "" if self.run is None else f"{self.run.parent.name}/{self.run.name}"

    @property
    def alive(self) -> bool:
        """Whether its process is there."""
        return self.process.poll() is None

    def told(self) -> dict[str, Any]:
        """How it stands, as plain data."""
        state = self.client.state if self.client is not None else None
        told = {"run": self.name, "step": self.step, "settings": dict(self.settings), "alive": self.alive}
        told |= {"stage": self.stage, "error": self.error, "lines": list(self.lines) if self.error else []}
        if state is not None:
            told |= {"at": state.step, "max_steps": state.max_steps, "rate": state.rate, "metrics": state.metrics}
            told["stage"] = state.stage if self.alive else self.stage
        return told


class Branches(Topic):
    """Answers `Branch` and `Drive`, and tells `Branches`.

    A child is ended with the studio, resumable, unless it was told to go on.

    Args:
        live: the run.
    """

    features: ClassVar[Sequence[str]] = ("branch",)

    def __init__(self, live: Live) -> None:
        self._live = live
        self.children: list[Child] = []
        self._told: list[dict[str, Any]] = []
        self._told_at = -TELLING_SECONDS
        self._closed = False

    def handlers(self) -> Mapping[type[protocol.Request], Handler]:
        """Branching, and what branches are told."""
        return {protocol.Branch: self._branch, protocol.Drive: self._drive}

    def poll(self) -> None:
        """Tell how the branches stand, where that has changed."""
        if not self.children or monotonic() - self._told_at < TELLING_SECONDS:
            return
        told = [child.told() for child in self.children]
        if told != self._told:
            self._told, self._told_at = told, monotonic()
            self._live.publisher.publish_latest(protocol.Branches(runs=told))

    def find(self, name: str) -> Child:
        """The branch of that name, whose process is there. Raises UsageError where there is none."""
        for child in self.children:
            if child.name == name and child.client is not None and child.alive:
                return child
        known = [child.name for child in self.children if child.alive and child.name]
        raise UsageError(f"{name!r} is no branch that is trained beside this run{nearest(name, known)}")

    def has(self, name: str) -> bool:
        """Whether the run of that name is a branch whose process is there."""
        return any(child.name == name and child.client is not None and child.alive for child in self.children)

    def source(self, name: str) -> RemoteRun:
        """The views of the branch of that name. Raises UsageError where there is none that lives."""
        return self.find(name).seen

    def close(self) -> None:
        """End the children, or let them go on that were told to; returns when they have ended or been killed."""
        self._closed = True
        for child in self.children:
            _let_go(child)
        until = monotonic() + ENDING_SECONDS
        for child in self.children:
            if not child.goes_on:
                _await_end(child, until)

    # Beginning one --------------------------------------------------------------------------------------------------

    def _branch(self, request: protocol.Branch, client: Client) -> Future[Any]:
        live, path = self._live, self._live.path
        if path is None:
            raise UsageError("a branch is a run on disk, and this run is not: give it run_dir=")
        if len([child for child in self.children if child.alive]) >= MOST:
            raise UsageError(f"{MOST} branches are trained already: end one of them first")
        kind = type(live.subject)
        script = script_of(kind)
        check_settings(live.loop.config, request.settings)
        check_memory()
        answer: Future[Any] = Future()
        orders = {"run": str(path), "trainer": script, "settings": dict(request.settings), "at": request.step}
        first: list[Command] = []
        try:
            checkpoint_at(path, request.step)
        except UsageError:
            if request.step != live.loop.counts[1]:
                raise
            first.append(commands.Save())  # from where it is: a state is made of that
        if request.pause and live.loop.lifecycle.stage is Stage.RUNNING:
            # Before all else: what is forked is not given up meanwhile, and the child's beginning has the machine.
            first.append(commands.Pause())
            answer.add_done_callback(self._go_on_if_in_vain)
        waiting = [live.commands.put(command, client.label) for command in first]

        def begin(done: Future[Any] | None = None) -> None:
            if done is None or _hand_on(done, answer):
                later(lambda: self._start(orders, answer)).add_done_callback(lambda done: _hand_on(done, answer))

        if waiting:
            waiting[-1].add_done_callback(begin)
        else:
            begin()
        return answer

    def _go_on_if_in_vain(self, answer: Future[Any]) -> None:
        """The run was paused for a branch that did not come to be."""
        if answer.cancelled() or answer.exception() is not None:
            self._live.commands.put(commands.Continue())

    def _start(self, orders: Mapping[str, Any], answer: Future[Any]) -> None:
        folder = Path(tempfile.mkdtemp(prefix="treadle-branch-"))  # 0700: nobody else comes to the socket in it
        token = secrets.token_urlsafe(32)
        process = subprocess.Popen(
            CHILD,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(),
            start_new_session=True,  # Ctrl-C at the terminal is for the parent, which ends it in its own way
        )
        child = Child(process, folder, token, orders["at"], orders["settings"])
        if self._closed:
            process.kill()
        self.children.append(child)
        hearing = threading.Thread(target=_hear, args=(child,), name="treadle-branch-errors", daemon=True)
        hearing.start()
        assert process.stdin is not None
        with suppress(OSError):  # it has ended already: what it said is told
            process.stdin.write(json.dumps({**orders, "socket": str(folder / "studio"), "token": token}) + "\n")
            process.stdin.flush()
        threading.Thread(target=self._follow, args=(child, answer, hearing), name="treadle-branch", daemon=True).start()

    def _follow(self, child: Child, answer: Future[Any], hearing: threading.Thread) -> None:
        """What a child says, to its end; in a thread of its own."""
        assert child.process.stdout is not None
        for line in child.process.stdout:
            said = json.loads(line)
            child.run = Path(said["run"])
            if said["said"] == READY:
                place, label = child.folder / "studio", "the parent's studio"
                with suppress(UsageError):
                    child.client = StudioClient(place, child.token, label=label, on_frame=child.seen.on_frame)
                    child.seen.connect(child.client)
                    child.stage = "new"
                answer.set_result({"run": child.name, "step": child.step})
            elif said["said"] == FORKED:
                self._tell(f"branch {child.name} from step {child.step}")
        code = child.process.wait()
        hearing.join(LAST_WORDS)
        _ended(child, code)
        if not answer.done():
            with suppress(Exception):
                answer.set_exception(RunError(f"the branch could not begin: {child.error or 'it has ended'}"))
        elif not self._closed:
            self._tell(f"branch {child.name} has ended{': ' + child.error if child.error else ''}", child.error)

    def _tell(self, text: str, error: str = "") -> None:
        self._live.publisher.publish(protocol.Notice(text=text, level="warning" if error else "info"))

    # Driving one ----------------------------------------------------------------------------------------------------

    def _drive(self, request: protocol.Drive, client: Client) -> Future[Any] | dict[str, Any]:
        child = self.find(request.run)
        assert child.client is not None
        if request.act == "go on":
            child.goes_on = True
            return {"run": child.name, "goes_on": True}
        if request.act == "end":
            child.client.send(protocol.Stop(id=0))
            return later(lambda: _await_end(child, monotonic() + ENDING_SECONDS))
        what: dict[str, Callable[..., protocol.Request]] = {"pause": protocol.Pause, "play": protocol.Play}
        return child.client.send(what[request.act](id=0))


def check_settings(config: Any, settings: Mapping[str, Any]) -> None:
    """Raise UsageError for settings that a branch of a run with `config` cannot have, and those that name files.

    Whether they fit the state is seen by the child, as `treadle fork` sees it.
    """
    kind = type(config)
    known = dict(dotted_names(kind))
    for name, value in settings.items():
        if name not in known:
            raise UsageError(f"{kind.__name__} has no setting {name!r}{nearest(name, known)}")
        hints = [known[name], *get_args(known[name])]
        texts = [value] if isinstance(value, str) else []
        names_file = any(hint is Path for hint in hints) or any("/" in text or "\\" in text for text in texts)
        if name.partition(".")[0] in NOT_BY_NAME or names_file:
            raise UsageError(f"{name} is not set from a browser: no file or device is named there (treadle fork can)")
    from_dict(kind, changed(to_dict(config), settings), source="")


def check_memory() -> None:
    """Raise RunError where another process as large as this one has no room."""
    needed, free = resident_memory(), free_memory()
    if needed is not None and free is not None and needed > free:
        raise RunError(
            f"a branch takes about as much memory as this process, {shown_bytes(needed)}, and {shown_bytes(free)} are "
            "free: let go of states that are looked at, or fork the run when this one has ended (treadle fork)"
        )


def _environment() -> dict[str, str]:
    """That of this process; what can be imported here can be there. It is alone, whoever trains with this one."""
    paths = [path for path in sys.path if path]
    return {**without_launcher(os.environ), "PYTHONPATH": os.pathsep.join(paths)}


def _hear(child: Child) -> None:
    assert child.process.stderr is not None
    for line in child.process.stderr:
        child.lines.append(line.rstrip())


def _ended(child: Child, code: int) -> None:
    """Take note of how a child's process has ended, and remove what it leaves."""
    if code < 0:
        child.error = f"it was killed (signal {-code})"
    elif code:
        own = [line for line in child.lines if line.startswith("treadle: ")]
        child.error = (own or [*child.lines, f"exit code {code}"])[-1].removeprefix("treadle: ")
    child.stage = "gone"
    child.seen.close()
    if child.client is not None:
        child.client.close()
    shutil.rmtree(child.folder, ignore_errors=True)


def _let_go(child: Child) -> None:
    """Tell a child that its parent ends, and whether it is to go on."""
    stdin = child.process.stdin
    if stdin is not None and not stdin.closed:
        with suppress(OSError, ValueError):
            if child.goes_on:
                stdin.write(GO_ON + "\n")
            stdin.close()


def _await_end(child: Child, until: float) -> dict[str, Any]:
    """Wait for a child's end, and kill it where that does not come."""
    try:
        child.process.wait(max(0.1, until - monotonic()))
    except subprocess.TimeoutExpired:
        child.process.kill()
        child.process.wait()
    return {"run": child.name, "code": child.process.returncode}


def _hand_on(done: Future[Any], answer: Future[Any]) -> bool:
    """Let what went wrong in `done` be the answer; returns whether nothing did."""
    error = None if done.cancelled() else done.exception()
    if done.cancelled() or error is not None:
        with suppress(Exception):
            answer.set_exception(error or RunError("given up: the run has ended"))
        return False
    return True
