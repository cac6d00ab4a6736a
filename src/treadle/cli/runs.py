"""`treadle runs`: a table of runs; of some runs, only what differs, and their curves in one picture."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.cli.common import Parser, show, terminal_width
from treadle.errors import UsageError
from treadle.runs.run import CONFIG, OTHERS, find_run, is_run

if TYPE_CHECKING:
    from treadle.sweeps.trials import Sweep

EXAMPLES = """  treadle runs                                  all runs below ./runs
  treadle runs runs/image                       those of one name
  treadle runs runs/sweep-image                 the trials of a sweep
  treadle runs runs/image/v001                  one, and the curve of each loss
  treadle runs runs/image/v001 runs/image/v002  what differs, and their curves
  treadle runs runs/image runs/other            the newest of each
  treadle runs runs/a/v001 runs/a/v002 --metric train/loss
  treadle runs runs/a --metric loss --expr 'diff(validation, epoch)'
  treadle runs runs/a --metric loss --csv loss.csv --png loss.png
  treadle runs runs/a runs/b --expr 'diff(a/v001:train/loss, b/v001:train/loss)'
  treadle runs --to wandb runs/image/v001       what a service was not told yet
  treadle runs --to mlflow=http://box:5000 runs"""

HOME = "runs"
SMALL = 10
"""Lines of each curve of a single run."""
DROPPED = ("trainer", "epoch", "started", "at step")
"""Columns that a narrow terminal does without, in this order."""


def run(arguments: list[str]) -> int:
    """List or compare; returns the exit code."""
    parser = Parser(
        "runs",
        "List runs; of one, draw its curves; of two or more, show only what differs, and overlay their curves.",
        EXAMPLES,
    )
    parser.add_argument(
        "paths", metavar="DIR", nargs="*", help="one: where to look (default: runs); more: compare these"
    )
    parser.add_argument(
        "--metric", metavar="NAME", help="the curve to draw (default: of one run each, of more what they monitor)"
    )
    parser.add_argument(
        "--expr", metavar="TEXT", help="in place of a metric, what is reckoned from some: sum, diff, ratio, mean or "
        "correlation of train, epoch, validation, validation/psnr or v001:validation"
    )  # fmt: skip
    parser.add_argument("--csv", metavar="FILE", help="write the curves as a table")
    parser.add_argument("--png", metavar="FILE", help="write the curves as a picture (.png, .svg or .pdf)")
    parser.add_argument(
        "--to", metavar="NAME[=WHERE]", help="send finished, killed or failed runs to a service of --log, from their "
        "files; what is there is not sent again"
    )  # fmt: skip
    options = parser.parse_args(arguments)
    if options.to is not None:
        from treadle.cli.runs_to import send

        return send(options)
    if options.expr or options.csv or options.png:
        if not options.paths:
            raise UsageError("treadle runs: --expr, --csv and --png are about curves of runs: name one or more")
        return _reckon([find_run(path) for path in options.paths], options)
    if len(options.paths) > 1:
        _compare([find_run(path) for path in options.paths], options.metric)
        return 0
    alone = bool(options.paths) and is_run(Path(options.paths[0])) and (Path(options.paths[0]) / CONFIG).is_file()
    if options.metric is not None and not alone:
        raise UsageError("treadle runs: --metric draws curves of runs: name one or more, such as runs/image/v001")
    _list(options.paths[0] if options.paths else HOME, given=bool(options.paths))
    if alone:
        _rank(Path(options.paths[0]))
        _draw(Path(options.paths[0]), options.metric)
    return 0


def _list(directory: str, *, given: bool) -> None:
    from treadle.runs.compare import describe, find_runs, table
    from treadle.sweeps import listing
    from treadle.sweeps.plan import is_sweep

    if given and is_sweep(Path(directory)):
        _list_trials(Path(directory))
        return
    found = find_runs(directory) if given or Path(directory).is_dir() else []
    if not found:
        print(f"no runs in {directory}: treadle train RECIPE makes one (treadle recipes lists what can be trained)")
        return
    sweeps = listing.sweeps_in(found, Path(directory))
    alone = [path for path in found if listing.sweep_of(path) not in [sweep.path for sweep in sweeps]]
    if not alone:
        _list_sweeps(sweeps)
        return
    header, rows = table([describe(path) for path in alone])
    for name in DROPPED:
        if name in header and _width(header, rows) > terminal_width():
            place = header.index(name)
            for row in (header, *rows):
                del row[place]
    show(header, rows, right=("step", "epoch", "at step", "time"))
    if sweeps:
        print()
        _list_sweeps(sweeps)


def _list_sweeps(sweeps: Sequence[Sweep]) -> None:
    """A line for each sweep, with its best trial."""
    from treadle.sweeps.listing import overview

    show(*overview(sweeps), right=("trials", "seconds"))
    print("\ntreadle runs SWEEP lists its trials, treadle sweep SWEEP draws them")


def _list_trials(directory: Path) -> None:
    """The trials of a sweep, the best first, and how to go on from there."""
    from treadle.sweeps.listing import table
    from treadle.sweeps.trials import read_sweep

    found = read_sweep(directory)
    header, rows = table(found)
    show(header, rows, right=[name for name in header if name != "state"])
    names = [str(directory / trial.path.name) for trial in found.trials if trial.state == "finished"]
    if len(names) > 1:
        print(f"\ntreadle runs {names[0]} {names[1]} compares the two best")


def _rank(run: Path) -> None:
    """The best models of one run, where it keeps several."""
    if not (run / OTHERS).is_dir():
        return  # without torch, which takes longer to import than all the rest
    from treadle.checkpoint.store import checkpoint_name
    from treadle.files import number
    from treadle.runs.best import ranks

    found = ranks(run)
    if len(found) < 2:
        return
    print()
    rows = []
    for rank, entry in enumerate(found, 1):
        value, step = entry.info["value"], entry.info["step"]
        state = (run / "checkpoints" / checkpoint_name(step)).is_dir()
        numbers = [rank, number(value), step, entry.info["epoch"]]
        rows.append([*map(_cell, numbers), str(entry.directory.relative_to(run)), "kept" if state else ""])
    header = ["best", str(found[0].info["monitor"]), "step", "epoch", "weights", "checkpoint"]
    show(header, rows, right=header[:4])


def _reckon(runs: Sequence[Path], options: Namespace) -> int:
    """Curves of what is asked for: on the terminal, and in files."""
    from treadle.runs.plot import combined, curves, draw, write_plot, write_table

    found = curves(runs, options.metric) if options.expr is None else combined(runs, options.expr, options.metric)
    if isinstance(found, dict):
        if options.csv or options.png:
            raise UsageError(f"{options.expr} is a number: it makes no table of steps, and no picture")
        show(["", options.expr], [(name, _cell(value)) for name, value in found.items() if name != options.expr]
             or [("", _cell(found[options.expr]))])  # fmt: skip
        return 0
    print(draw(found, min(terminal_width(), 120), color=sys.stdout.isatty()))
    for file, write in ((options.csv, write_table), (options.png, write_plot)):
        if file is not None:
            write(Path(file), found)
            print(f"wrote {file}")
    return 0


def _draw(run: Path, metric: str | None) -> None:
    """The curves of one run: of one metric, or of each."""
    from treadle.runs.glance import glance_series
    from treadle.runs.plot import curves, draw, losses

    for curve in losses(run) if metric is None else [curves([run], metric, glance_series)]:
        picture = draw(curve, min(terminal_width(), 120), SMALL, color=sys.stdout.isatty())
        print("\n" + picture.rpartition("\n")[0])  # without the legend: there is one curve


def _compare(runs: Sequence[Path], metric: str | None) -> None:
    from treadle.runs.compare import compare
    from treadle.runs.plot import curves, draw

    comparison = compare(runs)
    read = {info.path: info.series for info in comparison.runs}
    drawn = curves(runs, metric, read.__getitem__)
    for title, rows in (
        ("config", comparison.config),
        ("environment", comparison.environment),
        ("results", comparison.results),
    ):
        if rows:
            show(
                [title, *comparison.names], [(key.removeprefix("config."), *map(_cell, values)) for key, values in rows]
            )
        else:
            print(f"{title}: the same")
        print()
    print(draw(drawn, min(terminal_width(), 120), color=sys.stdout.isatty()))


def _width(header: list[str], rows: list[list[str]]) -> int:
    columns = zip(header, *rows, strict=True)
    return sum(max(map(len, column)) + 3 for column in columns)


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else "null" if value is None else str(value)
