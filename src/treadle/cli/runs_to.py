"""`treadle runs --to`: tell a service of runs that are over, from their files."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from treadle.cli.common import progress_bar, shown
from treadle.errors import RunError, UsageError
from treadle.runs.run import find_run
from treadle.terminal import say


def send(options: Namespace) -> int:
    """Send each run, say what was sent; returns the exit code: 1 where one could not be."""
    from treadle.sinks.remote import RemoteSink, counted
    from treadle.sinks.sending import send_run
    from treadle.sinks.table import make

    others = [name for name in ("metric", "expr", "csv", "png") if getattr(options, name)]
    if others:
        raise UsageError(f"treadle runs: --to sends runs, --{others[0]} draws curves: give one of them")
    if not options.paths:
        raise UsageError("treadle runs: --to sends runs: name one or more, such as runs/image/v001")
    name, equals, where = options.to.partition("=")
    sink = make(name, where if equals else None)
    if not isinstance(sink, RemoteSink):
        raise UsageError(f"treadle runs: --to {name}: that is no service: train with --log {name} instead")
    runs = list(dict.fromkeys(_runs(options.paths)))
    failed = 0
    for number, run in enumerate(runs, 1):
        place = f"({number} of {len(runs)}) " if len(runs) > 1 else ""
        try:
            with progress_bar(f"{place}{shown(run)} to {sink.title}") as tell:
                sent = send_run(sink, run, tell)
        except (RunError, UsageError) as error:
            failed += 1
            say(f"treadle: {place}{error}")
            continue
        at = f" at {sent.where}" if sent.where else ""
        what = f"{counted(sent.counts)} sent to {sink.title}{at}" if sent.counts else f"{sink.title} has all of it{at}"
        print(f"{place}{shown(run)}: {what}", flush=True)
    return 1 if failed else 0


def _runs(paths: Iterable[str]) -> Iterable[Path]:
    """The runs that paths name: a run, the newest version in a directory, or else all runs below it."""
    from treadle.runs.compare import find_runs

    for path in paths:
        try:
            yield find_run(path)
        except UsageError:
            below = find_runs(path) if Path(path).is_dir() else []
            if not below:
                raise
            yield from below
