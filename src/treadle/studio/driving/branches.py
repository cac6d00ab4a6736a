"""Branches: forks of the run that are trained in processes of their own, seen beside it."""

from __future__ import annotations

import json
import secrets
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar, get_args

from treadle.config.fields import dotted_names, from_dict, to_dict
from treadle.config.files import changed
from treadle.engine import commands
from treadle.engine.command import Command
from treadle.engine.lifecycle import Stage
from treadle.errors import RunError, UsageError, nearest
from treadle.recipes.scripts import script_of
from treadle.runs.fork import checkpoint_at
from treadle.studio import protocol
from treadle.studio.client import StudioClient
from treadle.studio.driving.children import (
    CHILD,
    ENDING_SECONDS,
    LAST_WORDS,
    TELLING_SECONDS,
    Child,
    await_end,
    ended,
    environment,
    hear,
    let_go,
)
from treadle.studio.driving.remote import RemoteRun
from treadle.studio.driving.words import FORKED, READY
from treadle.studio.past.memory import free_memory, resident_memory, shown_bytes
from treadle.studio.topics import Client, Handler, Live, Topic, later

MOST = 8
"""Branches of a run that may be trained at once."""
NOT_BY_NAME = frozenset({"init", "init_mapping", "init_partial", "device"})
"""Settings that no branch changes."""


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
            let_go(child)
        until = monotonic() + ENDING_SECONDS
        for child in self.children:
            if not child.goes_on:
                await_end(child, until)

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
            env=environment(),
            start_new_session=True,  # Ctrl-C at the terminal is for the parent, which ends it in its own way
        )
        child = Child(process, folder, token, orders["at"], orders["settings"])
        if self._closed:
            process.kill()
        self.children.append(child)
        hearing = threading.Thread(target=hear, args=(child,), name="treadle-branch-errors", daemon=True)
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
        ended(child, code)
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
            return later(lambda: await_end(child, monotonic() + ENDING_SECONDS))
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


def _hand_on(done: Future[Any], answer: Future[Any]) -> bool:
    """Let what went wrong in `done` be the answer; returns whether nothing did."""
    error = None if done.cancelled() else done.exception()
    if done.cancelled() or error is not None:
        with suppress(Exception):
            answer.set_exception(error or RunError("given up: the run has ended"))
        return False
    return True
