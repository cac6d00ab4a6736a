"""Sending runs to a service later, from their files: those of machines that were offline, and what did not arrive."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from treadle.errors import RunError, UsageError
from treadle.files import raw_lines, settled
from treadle.runs.lock import is_held
from treadle.runs.metrics import METRICS
from treadle.runs.run import BEST, JOURNAL, read_summary
from treadle.sinks.courier import courier
from treadle.sinks.delivery import Delivery
from treadle.sinks.history import EVERYTHING, Files, id_of, mark_of, opening_of, sent_mark
from treadle.sinks.outbox import Message
from treadle.sinks.remote import RemoteSink, closing_seconds, counted
from treadle.sinks.services.carrier import fingerprint
from treadle.sinks.services.marks import Mark, checksum_of_summary
from treadle.terminal import say

REPORTS = ("report", "test")
"""What a run's end and its test report, in its directory."""
SILENT_SECONDS = 120.0
"""A service that answers nothing for so long is given up."""
ROUND_SECONDS = 0.2
"""Between two times that progress is told."""


@dataclass(frozen=True)
class Sent:
    """What was sent of a run: how many of each kind, and where people find it; nothing where all was there before."""

    counts: Counter[str]
    where: str


def send_run(sink: RemoteSink, run: Path, tell: Callable[[float, int], None] = lambda done, total: None) -> Sent:
    """Send what the sink's service lacks of the run in the directory `run`, which has finished, failed or was killed.

    What has been sent is noted beside the run, so nothing is sent twice. `tell` is called now and then with how many
    things are done, of how many at most. Raises UsageError for a run that is being trained or has not begun, RunError
    where the service does not take it, saying why in one line.
    """
    run = run.absolute()
    if is_held(run):
        raise UsageError(
            f"{run} is being trained: send it when that is over (treadle resume --log {sink.name} goes on)"
        )
    id = id_of(run)
    if id is None:
        raise UsageError(f"{run} has not begun: it has no {JOURNAL}, and nothing to send")
    mark = sent_mark(run, sink.mark) if sink.remembers else None
    mark = mark if mark is not None and mark.id == id else None
    files, summary = Files.now(run, EVERYTHING), read_summary(run)
    artifacts = [(BEST, "model", settled(run / BEST)), *((name, "report", run / name) for name in REPORTS)]
    artifacts = [(name, kind, path) for name, kind, path in artifacts if path.is_dir()]
    if mark is not None and not _lacks(files, mark, summary, artifacts):
        return Sent(Counter(), mark.where)

    delivery = Delivery(sink.name, sink.service, mark=mark_of(run, sink.mark) if sink.remembers else None)
    step = int(summary.get("step", 0))
    delivery.opening = opening_of(run, step, sink.options) | {"id": id}
    delivery.history = files.lacking
    for name, kind, path in artifacts:
        delivery.box.put(Message("artifact", 0, {"name": name, "kind": kind, "path": str(path)}))
    if summary:
        delivery.box.put(Message("summary", 0, {"values": summary}))
    delivery.box.put(Message("close", 0, {"status": str(summary.get("status", "killed"))}))
    total = sum(1 for name in (METRICS, JOURNAL) for _ in raw_lines(run / name)) + len(artifacts) + 2
    courier.open(delivery)
    try:
        _watch(delivery, lambda: tell(delivery.told, max(total, delivery.told)))
    finally:
        if not delivery.ended.is_set():
            courier.kill(delivery)
    lost = delivery.lost + sink.losses(delivery.dropped)
    if delivery.dead or lost:
        why = delivery.dead or delivery.last_trouble
        raise RunError(f"{run}: {counted(lost) or 'it was'} not sent{f' ({why})' if why else ''}")
    return Sent(delivery.sent, delivery.where)


def send_report(sinks: Sequence[RemoteSink], run: Path, report: Path) -> None:
    """Send what a run has reported after its end to the services that it was logged to; for all of them together.

    It waits as the end of a run does. What is not sent in that time is said in a line, and `send_run` sends it.
    """
    seconds = closing_seconds()
    until = time.monotonic() + seconds
    status = str(read_summary(run).get("status", "finished"))
    deliveries = []
    for sink in (sink for sink in sinks if sink.takes_files):
        delivery = Delivery(sink.name, sink.service, mark=mark_of(run, sink.mark) if sink.remembers else None)
        step = int(read_summary(run).get("step", 0))
        delivery.opening = opening_of(run, step, sink.options) | {"id": id_of(run)}
        delivery.box.put(Message("artifact", 0, {"name": report.name, "kind": "report", "path": str(report)}))
        delivery.box.put(Message("close", 0, {"status": status}))
        courier.open(delivery)
        deliveries.append((sink, delivery))
    for sink, delivery in deliveries:
        delivery.ended.wait(max(0.0, until - time.monotonic()))
        done = delivery.ended.is_set() and not delivery.dead
        if not done:
            courier.kill(delivery)
        if not done or delivery.lost or sink.losses(delivery.dropped):
            why = delivery.dead or delivery.last_trouble or f"not done in {seconds:g} s"
            remedy = f"treadle runs --to {quote(sink.asked)} {run} sends it"
            say(f"treadle: {sink.title}: the report was not sent ({why}); {remedy}")


def _watch(delivery: Delivery, tell: Callable[[], None]) -> None:
    """Wait for the end of a delivery; one whose service cannot be opened, or is silent for too long, is given up."""
    while not delivery.ended.wait(ROUND_SECONDS):
        tell()
        if not delivery.opened.is_set() and delivery.last_trouble:
            delivery.dead = delivery.last_trouble
        elif time.monotonic() - delivery.answered > SILENT_SECONDS:
            delivery.dead = f"no answer in {SILENT_SECONDS:g} s"
        if delivery.dead:
            return


def _lacks(files: Files, mark: Mark, summary: Mapping[str, object], artifacts: list[tuple[str, str, Path]]) -> bool:
    """Whether the service that has got what the mark says lacks anything of a run."""
    if summary and mark.summary != checksum_of_summary(summary):
        return True
    if any(mark.artifacts.get(f"{kind}/{name}") != fingerprint(path) for name, kind, path in artifacts):
        return True
    return any(files.unsent(mark))
