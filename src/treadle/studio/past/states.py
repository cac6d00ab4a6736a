"""The run's past: the timeline that every client sees, and kept states that are looked at without going back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, cast

from treadle.engine.again import made_again
from treadle.engine.lifecycle import Stage
from treadle.engine.parts import Parts
from treadle.errors import TreadleError, UsageError
from treadle.runs.run import read_journal
from treadle.studio.past.lent import Looked
from treadle.studio.past.looking import Looking
from treadle.studio.past.memory import bytes_of
from treadle.studio.past.others import Others
from treadle.studio.past.shelf import Shelf, StoredSnapshot
from treadle.studio.past.timeline import History, KeptOnDisk
from treadle.studio.protocol import Look, Request, States
from treadle.studio.topics import Client, Handler, Live, Topic, later

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer

LEAST_PAUSE = 0.5
"""Seconds between two tellings of the timeline, at least."""


class Timeline(Topic):
    """Tells `States`: what is kept, what happened when, what was forked and what was given up.

    It follows the journal as it grows, and looks at the directory's times of change twice a second while somebody
    watches; the run does nothing for it.

    Args:
        live: the run.
    """

    features: ClassVar[Sequence[str]] = ("timeline",)

    def __init__(self, live: Live) -> None:
        self._live = live
        before = self._journal_so_far()
        self._history = History(before)
        self._newest = before[-1] if before else None
        self._disk = None if live.path is None else KeptOnDisk(live.path)
        self._grown = True
        self._told: tuple[Any, ...] = ()
        self._told_at = -LEAST_PAUSE

    def on_journal(self, entry: Mapping[str, Any]) -> None:
        """Take in the entry, unless it is the one that was there when this began."""
        newest, self._newest = self._newest, None
        if newest is None or dict(entry) != newest:
            self._history.add(entry)
            self._grown = True

    def poll(self) -> None:
        """Tell how the timeline is, where it has changed."""
        now = monotonic()
        if now - self._told_at < LEAST_PAUSE:
            return
        loop = self._live.loop
        self._history.reached = max(self._history.reached, loop.counts[1])
        snapshots = tuple(loop.snapshots.steps)
        breakpoints = loop.watches.breakpoints
        told = (snapshots, breakpoints)
        changed = self._disk is not None and self._disk.changed()
        if changed or self._grown or told != self._told:
            self._grown, self._told, self._told_at = False, told, now
            self._live.publisher.publish_latest(self.states())

    def states(self) -> States:
        """The timeline as it is."""
        loop, history = self._live.loop, self._history
        kept: list[dict[str, Any]] = [] if self._disk is None else [dict(state) for state in self._disk.states]
        for step in loop.snapshots.steps:
            kept.append({"step": step, "kind": "snapshot", "bytes": StoredSnapshot(loop.snapshots, step).bytes})
        for state in kept:
            state["note"] = history.notes.get(state["step"], "")
        return States(
            kept=sorted(kept, key=lambda state: int(state["step"])),
            marks=history.marks(),
            forks=[*([] if self._disk is None else self._disk.forks), *history.kept_futures()],
            lost=history.lost(),
            breakpoints=loop.watches.breakpoints,
        )

    def _journal_so_far(self) -> list[dict[str, Any]]:
        if self._live.path is not None:
            with suppress(TreadleError):  # a damaged line is told by whoever needs the journal
                return read_journal(self._live.path)
        return [dict(entry) for entry in self._live.loop.logbook.journal]


class LookingBack(Topic):
    """Answers `Look`: opens kept states beside the run, and lets go of those that nobody looks at any more.

    Args:
        live: the run.
        others: those of other runs; None where there are no runs beside this one.
    """

    features: ClassVar[Sequence[str]] = ("look",)

    def __init__(self, live: Live, others: Others | None = None) -> None:
        self._live, self._others = live, others
        self.looking = beside(live)
        self._wanted: dict[str, tuple[Client, set[tuple[str | None, int]]]] = {}

    def handlers(self) -> Mapping[type[Request], Handler]:
        """Looking, and looking away."""
        return {Look: self._look}

    def welcome(self) -> Mapping[str, list[Any]]:
        """Whether other runs can be looked at, too."""
        return {} if self._others is None else {"features": ["beside"]}

    def source(self, step: int | None, run: str | None = None) -> Looked:
        """The state of `step` as a source of views, of another `run` by default its newest that is open.

        Raises UsageError where it is not open.
        """
        if run is None:
            assert step is not None
            return self.looking.source(step)
        if self._others is None:
            raise alone(run)
        return self._others.source(run, step)

    def close(self) -> None:
        """Let go of all."""
        with suppress(Exception):  # nothing is called any more: the process ends
            self.looking.let_go(self.looking.steps)
            if self._others is not None:
                self._others.close()

    def _of(self, run: str | None) -> Looking:
        if run is None:
            return self.looking
        if self._others is None:
            raise alone(run)
        return self._others.looking(run)

    def _look(self, request: Look, client: Client) -> Future[Any]:
        looking = self._of(request.run)
        if request.step is None:
            return self._look_away(client, request.run, looking)
        if not request.sure:
            return looking.cost(request.step)
        answer = looking.open(request.step)
        self._wanted.setdefault(client.id, (client, set()))[1].add((request.run, request.step))
        return answer

    def _look_away(self, client: Client, run: str | None, looking: Looking) -> Future[dict[str, Any]]:
        """Let go of what this client has opened of a run and no other that is there."""
        self._wanted = {key: pair for key, pair in self._wanted.items() if pair[0].connected}
        if client.id in self._wanted:
            own = self._wanted[client.id][1]
            own -= {wanted for wanted in own if wanted[0] == run}
        still = {step for _, states in self._wanted.values() for other, step in states if other == run}
        answer: Future[dict[str, Any]] = Future()

        def done(closed: Future[list[int]]) -> None:
            try:
                answer.set_result({"open": closed.result()})
            except BaseException as error:
                answer.set_exception(error)

        looking.let_go([step for step in looking.steps if step not in still]).add_done_callback(done)
        return answer


def alone(run: str) -> UsageError:
    """What is said of another run where there can be none."""
    return UsageError(f"there is no run {run!r} beside this one, which is not on disk: give it run_dir=")


def beside(live: Live) -> Looking:
    """The kept states of the run that is trained here, in second trainers that are made of what the first was."""
    trainer = cast("Trainer", live.subject)
    loop = live.loop
    return Looking(
        Shelf(live.path, loop.snapshots),
        lambda: made_again(trainer),
        lambda: size_of(trainer),
        live.commands.call,
        later,
        loop.device,
        trains=lambda: loop.lifecycle.stage is Stage.RUNNING,
        hurries=lambda: bool(live.commands),
    )


def size_of(trainer: Trainer) -> int:
    """Bytes that a second trainer like this one takes: all that it holds but moments, and the data that both share."""
    parts: Parts = trainer.parts
    optimizers = {id(optimizer) for optimizer in parts.optimizers.values()}
    held = [value for _, value in parts.walk() if id(value) not in optimizers]
    return bytes_of([*held, *trainer.feeds.values()], besides=trainer.init_args)
