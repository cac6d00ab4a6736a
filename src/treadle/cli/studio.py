"""`treadle studio`: runs that nobody trains here, looked at in a browser, and gone on with from there."""

from __future__ import annotations

import signal
import threading
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from treadle.cli.common import Parser, shown
from treadle.cli.script import add_trainer, recipe_at
from treadle.errors import TreadleError, UsageError, one_line
from treadle.terminal import say

if TYPE_CHECKING:
    from treadle.recipes.registry import Recipe
    from treadle.studio.opening import Visitor
    from treadle.studio.past.visit import Wanted

EXAMPLES = """  treadle studio                          the table of all runs below ./runs
  treadle studio runs/image/v001          one run: its views, curves and journal
  treadle studio runs/image               its newest version
  treadle studio runs/mine --trainer prog.py:Mine
  treadle studio runs --port 8800 --no-browser     then, on your own machine,
                                          the ssh -L line that it prints

A run that has ended, or was stopped, is only looked at until the page lets it
go on: "continue from here", more steps, play. Then this process trains it.
One that another process trains is followed by its files. Ctrl-C leaves."""

HOME = "runs"


def run(arguments: list[str]) -> int:
    """Show, and train on where the page asks for it, until it is left; returns the exit code."""
    from treadle.cli.studio_flags import LOOPBACK, add_place, place
    from treadle.studio.extra import need_extra

    parser = Parser(
        "studio",
        "Look at runs in a browser: a run's live views at any kept state, its curves, journal and report; or the table "
        "of the runs in a directory. Nothing in a run is changed unless it is let go on.",
        EXAMPLES,
    )
    parser.add_argument("path", metavar="RUN|DIR", nargs="?", default=HOME, help="a run, the directory that holds its "
                        "versions, or one that holds runs (default: runs)")  # fmt: skip
    add_place(parser)
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    add_trainer(parser)
    options = parser.parse_args(arguments)
    need_extra()
    first, root = _found(options.path)
    if first is None and options.trainer is not None:
        raise UsageError(f"--trainer says whose {options.path} is, which holds several runs: name one of them")
    where = place(options)
    if where["host"] not in LOOPBACK:
        say(f"studio: it listens at {where['host']}, where the token and all that is shown travel unencrypted")
    from treadle.studio.opening import Visitor

    with Visitor(**where, open_browser=False if options.no_browser else None) as visitor:
        ours = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGTERM, signal.default_int_handler) if ours else None
        try:
            _visit(visitor, first, root, options)
        except KeyboardInterrupt:
            pass
        finally:
            if ours:
                signal.signal(signal.SIGTERM, before)
    return 0


def _found(text: str) -> tuple[Path | None, Path]:
    """The run that is meant, None for the table of all; and the directory below which there are runs."""
    from treadle.runs.compare import find_runs
    from treadle.runs.run import find_run
    from treadle.studio.assembly import root_of

    path = Path(text).expanduser()
    try:
        found = find_run(path).absolute()
    except UsageError:
        if not path.is_dir():
            raise
        if not find_runs(path):
            raise UsageError(
                f"no runs in {text}: treadle train RECIPE makes one (treadle recipes lists what can be trained)"
            ) from None
        return None, path.absolute()
    return found, root_of(found)


def _visit(visitor: Visitor, run: Path | None, root: Path, options: Namespace) -> None:
    """Show one run after the other, until the studio is left."""
    while True:
        recipe = None if run is None else _recipe(run, options)
        wanted = _look(visitor, run, recipe, root)
        if wanted.command is not None:
            assert run is not None and recipe is not None
            _train(visitor, run, recipe, wanted)
        elif wanted.run is not None or wanted.table:
            run = wanted.run
        else:
            return


def _recipe(run: Path, options: Namespace) -> Recipe | None:
    """How the run is made again; None, with a line that says why, where that cannot be."""
    try:
        return recipe_at(run, options)
    except TreadleError as error:
        say(f"treadle: {shown(run)}: only its files are shown, for {one_line(error)}")
        return None


def _look(visitor: Visitor, run: Path | None, recipe: Recipe | None, root: Path) -> Wanted:
    """Show a run as its files have it, or the table of all; returns what is wanted then."""
    from treadle.studio.opening import looked_at

    with looked_at(visitor, run, recipe, root) as visit:
        print("the studio is open: Ctrl-C leaves it" if run is None else f"looking at {shown(run)}", flush=True)
        return visit.attend()


def _train(visitor: Visitor, run: Path, recipe: Recipe, wanted: Wanted) -> None:
    """Let the run go on in this process, until the page's stop."""
    from treadle.sinks.table import make

    assert wanted.command is not None
    try:
        trainer = recipe.build(run_dir=run, hooks=[make("console", None)], resume=True)
    except TreadleError as error:
        visitor.tell(f"{shown(run)} cannot go on: {one_line(error)}")
        return
    with trainer:
        visitor.show(trainer)
        print(f"training {shown(run)} from step {trainer.progress.step}", flush=True)
        visitor.carry_out(wanted)
        try:
            visitor.wait()
        finally:
            if not trainer.ended:
                trainer.save()
