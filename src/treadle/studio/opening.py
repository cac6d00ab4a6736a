"""Runs that nobody trains here: looked at, read only, until somebody asks that one goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, cast

from treadle.engine.events import Record
from treadle.engine.lifecycle import Stage
from treadle.engine.trainer import Trainer
from treadle.errors import TreadleError, one_line
from treadle.files import number
from treadle.recipes.registry import Recipe
from treadle.runs.glance import last_line
from treadle.runs.lock import is_held
from treadle.runs.metrics import METRICS
from treadle.runs.run import JOURNAL, SUMMARY, read_journal, read_summary
from treadle.studio import protocol
from treadle.studio.assembly import topics_of
from treadle.studio.curves.topic import Curves
from treadle.studio.hook import Studio
from treadle.studio.past.seen import ELSEWHERE, bare, last_records, newest_step, put_newest, refusal_of, seen, stage_of
from treadle.studio.past.shelf import Shelf
from treadle.studio.past.visit import Visit, Wanted
from treadle.studio.runs.catalogue import Catalogue
from treadle.studio.serving.standing import Standing
from treadle.studio.topics import Client, Handler, Live, Topic
from treadle.terminal import say

if TYPE_CHECKING:
    from treadle.studio.serving.hub import Hub

FOLLOW_SECONDS = 1.0
"""Between two looks at the files of a run that another process trains."""


class Visitor(Studio):
    """A studio of runs that nobody trains here, one after the other, at one address.

    Args:
        as for `Studio`.
    """

    def __init__(self, **place: Any) -> None:
        super().__init__(None, **place)
        self._served = False

    def look(self, live: Live, topics: Sequence[Topic]) -> None:
        """Show this from now on."""
        self.live = live
        self.end_branches()
        if self._served:
            self._hub.begin_anew(live.name, topics)
            return
        for topic in topics:
            self._hub.add(topic)
        self._hub.name = live.name
        self._served = True
        self._open()

    @property
    def hub(self) -> Hub:
        """What clients are told by."""
        return self._hub

    def tell(self, text: str) -> None:
        """Tell people, on the page and on the terminal."""
        say(f"treadle: {text}")
        self._hub.publish(protocol.Notice(text=text, level="warning"))

    def carry_out(self, wanted: Wanted) -> None:
        """Have what was wanted of a run done by the one that is shown now, which is trained here."""
        assert wanted.command is not None

        def refused(done: Future[Any]) -> None:
            if not done.cancelled() and (error := done.exception()) is not None:
                self.tell(one_line(error))

        self._trainer.commands.put(wanted.command, wanted.client or None).add_done_callback(refused)


class Openings(Topic):
    """Answers `Open`: another run is shown, or the table of all.

    Args:
        find: gives a run's directory by its name; raises UsageError for none.
        visit: what is left for it.
        alone: whether no run is shown, so that nothing else answers `Stop`.
    """

    features: ClassVar[Sequence[str]] = ("open",)

    def __init__(self, find: Callable[[str], Path], visit: Visit, *, alone: bool = False) -> None:
        self._find, self._visit, self._alone = find, visit, alone

    def handlers(self) -> Mapping[type[protocol.Request], Handler]:
        """Opening, and leaving."""
        answered: dict[type[protocol.Request], Handler] = {protocol.Open: self._open}
        if self._alone:
            answered[protocol.Stop] = lambda request, client: self._visit.leave_for(Wanted())
        return answered

    def _open(self, request: protocol.Open, client: Client) -> dict[str, Any]:
        path = None if request.run is None else self._find(request.run)
        self._visit.leave_for(Wanted(run=path, table=path is None))
        return {"opens": True}


class Following(Topic):
    """Follows the files of a run that another process trains: its journal, its metrics, and its newest state.

    Args:
        live: the run; its counters are set here.
        hub: told what is new, as a run that is trained here tells it.
    """

    def __init__(self, live: Live, hub: Hub) -> None:
        assert live.path is not None
        self._live, self._hub, self._path = live, hub, live.path
        self._entries = len(live.loop.logbook.journal)
        self._shown = live.loop.progress.step
        self._sizes: tuple[int, ...] = ()
        self._looked = monotonic()
        self._showing = False

    def poll(self) -> None:
        """Look at the files, once a second."""
        if monotonic() - self._looked < FOLLOW_SECONDS:
            return
        self._looked = monotonic()
        sizes = tuple(_size(self._path / name) for name in (JOURNAL, METRICS, SUMMARY))
        if sizes != self._sizes:
            self._sizes = sizes
            with suppress(TreadleError):  # a line that is being written; the next look has it
                self._read()
        newest = newest_step(self._path)
        if newest is not None and newest != self._shown and not self._showing:
            self._showing = True
            self._live.commands.call(lambda: self._show_newest(newest))

    def _read(self) -> None:
        loop = self._live.loop
        for entry in read_journal(self._path)[self._entries :]:
            self._entries += 1
            loop.logbook.journal.append(entry)
            self._hub.journal(entry)
        line = last_line(self._path)
        if line:
            values = {name: number(value) for name, value in line["values"].items()}
            self._hub.log(Record("scalars", line["split"], values, line["step"], line["epoch"]))
            loop.counts = (line["epoch"], line["step"], 0)
        stage, reason = stage_of(read_summary(self._path), running=is_held(self._path))
        if stage is not loop.lifecycle.stage and not loop.lifecycle.ended:
            loop.lifecycle.to(stage, reason)

    def _show_newest(self, step: int) -> None:
        try:
            put_newest(self._path, cast(Trainer, self._live.subject))
            self._shown = step
        finally:
            self._showing = False


@contextmanager
def looked_at(visitor: Visitor, run: Path | None, recipe: Recipe | None, root: Path) -> Iterator[Visit]:
    """Within the block a studio shows a run as its files have it; without one the table of the runs below `root`."""
    trainer, problems = (bare(), []) if run is None else seen(run, recipe)
    refusal = "" if run is None else refusal_of(run)
    if recipe is None:
        refusal = refusal or "it cannot be made again here: " + "; ".join(problems or ["see the terminal"])
    finished = trainer.loop.lifecycle.stage is Stage.FINISHED
    last = None if run is None else max(Shelf(run).steps(), default=None)
    visit = Visit(refusal, last, trainer.driver.desk.call, finished=finished)
    name = "" if run is None else f"{run.parent.name}/{run.name}"
    live = Live(name, run, trainer, trainer.loop, visit, visitor.hub)
    catalogue = Catalogue(root, live)
    if run is None:
        topics: list[Topic] = [catalogue, Curves(live, catalogue.path)]
    else:
        topics = topics_of(live, trainer, catalogue, visit.refuses)
    topics = [Standing(live, visitor.hub.control), *topics, Openings(catalogue.path, visit, alone=run is None)]
    if run is not None and refusal == ELSEWHERE:
        topics.append(Following(live, visitor.hub))
    visitor.look(live, topics)
    for record in [] if run is None else last_records(run):
        visitor.hub.log(record)
    for problem in problems:
        visitor.tell(problem)
    try:
        yield visit
    finally:
        with suppress(Exception):
            trainer.close()


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return -1
