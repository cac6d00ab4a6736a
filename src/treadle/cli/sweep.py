"""`treadle sweep`: a recipe with many settings, ranked."""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import fields
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from treadle.cli.common import Parser, show, shown, terminal_width
from treadle.cli.script import add_trainer
from treadle.cli.sinks import add_log
from treadle.errors import UsageError
from treadle.files import existing
from treadle.sweeps.plan import BEST, PRUNERS, SAMPLERS, is_sweep

if TYPE_CHECKING:
    from treadle.recipes.registry import Recipe
    from treadle.sweeps.plan import Planned
    from treadle.sweeps.trials import Sweep

EXAMPLES = """  treadle sweep image --search learning_rate=log:1e-4..1e-1 'levels=8|12|16'
  treadle sweep image --search ... --trials 50 --workers 4 --prune median
  treadle sweep image --search ... --run runs/rates --repeat 3
  treadle sweep nerf --search 'learning_rate=cosine {log:1e-3..1e-1} to 1e-4'
  treadle sweep pix2pix --sampler grid --search 'weights.l1=10|50|100'
  treadle sweep runs/rates                how it stands; trains nothing
  treadle sweep runs/rates --resume       go on, here or on another machine
  treadle train runs/rates/config.yaml      the best settings once more

What is searched: 0..0.5 a range (whole numbers where the setting takes no
others), 16..128..16 with a step, log:1e-4..1e-1 evenly in the logarithm,
log:16..128..2 with a factor, 8|12|16 choices, text {1..9} text a number within
text.

The same command started again goes on, as does one that is started at the same
time, on other machines too: trials that were stopped or killed are resumed, new
ones begun. What random and grid try depends on the seed alone; what tpe tries,
and what is pruned, depends on which trials have ended by then."""


SETTLED = (
    "search",
    "run",
    "sampler",
    "prune",
    "repeat",
    "metric",
    "direction",
    "overrides",
    "data",
    "storage",
    "study",
)
"""Options that begin a sweep; who goes on with one by its directory alone has them from there."""


def parser() -> Parser:
    """Return the command's parser."""
    result = Parser(
        "sweep",
        "Train a recipe with many settings, each time as a run of its own, and rank what comes of it.",
        EXAMPLES,
        usage="treadle sweep RECIPE --search NAME=VALUES ... [--trials N] [--run DIR]\n"
        "                     [--workers N] [--sampler tpe|random|grid]\n"
        "                     [--prune median] [--repeat N] [--set KEY=VALUE ...]\n"
        "                     [--log NAME[=WHERE] ...]\n"
        "       treadle sweep DIR [--resume [--trials N] [--workers N]\n"
        "                     [--log NAME[=WHERE] ...]]",
    )
    result.add_argument("recipe", metavar="RECIPE", nargs="?", help="a name from 'treadle recipes', or a YAML file; or "
                        "the directory of a sweep, to look at it")  # fmt: skip
    result.add_argument("--search", metavar="NAME=VALUES", nargs="+", action="extend", default=[],
                        help="the settings that are searched, and where (below)")  # fmt: skip
    result.add_argument("--trials", metavar="N", type=int, help="points to try (default: 20; of a grid all); more than "
                        "before lets a sweep go on")  # fmt: skip
    result.add_argument("--run", metavar="DIR", help="the sweep's directory, whose trial-001/v001 and so on are its "
                        "runs (default: runs/sweep-RECIPE)")  # fmt: skip
    result.add_argument("--workers", metavar="N", type=int, default=1, help="processes on this machine, which share "
                        "its processors (default: 1)")  # fmt: skip
    result.add_argument("--sampler", metavar="NAME", default="tpe", help=f"{', '.join(SAMPLERS)} (default: tpe, which "
                        "learns from the trials that have ended)")  # fmt: skip
    result.add_argument("--prune", metavar="NAME", help=f"{', '.join(PRUNERS)}: end a trial whose validations so far "
                        "are worse than the median of the others at that point")  # fmt: skip
    result.add_argument("--repeat", metavar="N", type=int, default=1, help="runs of each point, each with another "
                        "seed; their mean is ranked, their spread shown (default: 1)")  # fmt: skip
    result.add_argument("--metric", metavar="NAME", help="what trials are compared by (default: what the recipe "
                        "monitors)")  # fmt: skip
    result.add_argument("--direction", metavar="min|max", help="which is better (default: by the metric)")
    result.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], dest="overrides",
                        help="settings that all trials have, as YAML")  # fmt: skip
    result.add_argument("--data", metavar="PATH", help="what to train on, instead of the recipe's data")
    add_log(result)
    result.add_argument("--storage", metavar="URL", help="a database in place of a file in DIR: "
                        "sqlite:///trials.db, postgresql://host/name; one with a password is taken from the variable "
                        "TREADLE_SWEEP_STORAGE")  # fmt: skip
    result.add_argument("--study", metavar="NAME", help="the sweep's name in the database (default: that of DIR)")
    result.add_argument("--resume", action="store_true", help="with DIR alone: go on with that sweep")
    result.add_argument("--show", action="store_true", help="only show how the sweep in DIR stands")
    add_trainer(result, data=None)
    return result


def run(arguments: list[str]) -> int:
    """Sweep, or show a sweep; returns the exit code."""
    if not arguments:
        parser().print_help()
        return 2
    options = parser().parse_args(arguments)
    there = directory_of(options)
    if there is not None and not options.resume:
        return _look(there, options)
    from treadle.recipes.scripts import load_trainer
    from treadle.sweeps.beginning import go_on
    from treadle.sweeps.sweep import carry_out, check_workers, conclude
    from treadle.terminal import outliving_the_terminal

    check_workers(options.workers, options.log)
    kind = None if options.trainer is None else load_trainer(options.trainer)
    planned, recipe, url = begin_as(options, kind) if there is None else go_on(there, options.trials, kind)
    where = quote(shown(planned.path))
    print(f"sweep: {planned.plan.trials} trials by {planned.plan.sampler} into {where}", flush=True)
    with outliving_the_terminal():
        code = carry_out(planned, recipe, options.workers, url, lambda line: print(line, flush=True), options.log)
        found = conclude(planned, url)
    code_of_trainer = f" --trainer {quote(options.trainer)}" if options.trainer else ""
    logged = f" --log {' '.join(map(quote, options.log))}" if options.log else ""
    if code:
        print(f"stopped: {found.left} of {planned.plan.trials} trials to go; what was trained can be resumed")
        print(f"next: treadle sweep {where} --resume{code_of_trainer}{logged}")
        return code
    print()
    _show(found)
    print(f"page: {shown(planned.path / 'index.html')}")
    if found.best is None:
        print(f"no trial has finished: what they said is in {where}/trial-*/output.txt")
        return 1
    print(f"next: treadle train {quote(shown(planned.path / BEST))}{code_of_trainer}")
    return 0


def directory_of(options: Namespace) -> Path | None:
    """The sweep that is meant by its directory alone; None where one is begun, or gone on with by its whole command."""
    given = Path(options.recipe).expanduser() if options.recipe else None
    if options.show:
        wanted = Path(options.run).expanduser() if options.run else given
        if wanted is None:
            raise UsageError("treadle sweep --show: name the sweep's directory")
        return wanted
    if options.resume and options.search:
        raise UsageError("treadle sweep --resume takes a sweep's directory alone: without it this command goes on, too")
    if given is not None and (given.is_dir() or options.resume):
        settled = [name for name in SETTLED if getattr(options, name) != parser().get_default(name)]
        if settled:
            name = {"overrides": "set"}.get(settled[0], settled[0])
            raise UsageError(f"treadle sweep {given}: --{name} was settled when that sweep began")
        if not options.resume and (options.trials is not None or options.workers != 1 or options.log):
            raise UsageError(f"treadle sweep {given} shows it: --resume goes on with it")
        return given
    if options.resume:
        raise UsageError("treadle sweep --resume: name the sweep's directory first")
    if options.recipe is None and options.trainer is None:
        raise UsageError("treadle sweep: name a recipe (treadle recipes lists them), or a sweep's directory")
    return None


def begin_as(options: Namespace, kind: type | None) -> tuple[Planned, Recipe, str | None]:
    """Begin the sweep that the command line describes, or find it begun; returns what `begin` does."""
    from treadle.recipes.registry import load_recipe, recipe_of
    from treadle.sweeps.beginning import How, begin

    recipe = load_recipe(options.recipe, kind) if kind is None or options.recipe else recipe_of(kind)
    if options.data is not None:
        recipe = recipe.for_given_data(existing(options.data, "--data"))
    if options.overrides:
        recipe = recipe.with_overrides(options.overrides)
    how = How(**{each.name: getattr(options, each.name) for each in fields(How)})
    return begin(recipe, options.search, Path(options.run or Path("runs") / f"sweep-{recipe.name}"), how)


def _look(path: Path, options: Namespace) -> int:
    from treadle.sweeps.database import url_known
    from treadle.sweeps.plan import read_plan
    from treadle.sweeps.sweep import look

    planned = read_plan(path.expanduser().absolute())
    found = look(planned, url_known(planned.plan.storage))
    _show(found)
    code = f" --trainer {quote(options.trainer)}" if options.trainer else ""
    name = str(planned.recipe.get("trainer", ""))
    if ":" in name and not code:
        code = f" --trainer FILE.py:{name.rpartition(':')[2]}"
    if found.left:
        print(f"next: treadle sweep {quote(shown(planned.path))} --resume{code}   ({found.left} trials to go)")
    elif is_sweep(path) and (planned.path / BEST).is_file():
        print(f"next: treadle train {quote(shown(planned.path / BEST))}{code}")
    return 0


def _show(found: Sweep) -> None:
    """The ranked table, what was important, and the picture."""
    from treadle.sweeps.coordinates import draw
    from treadle.sweeps.importance import LEAST
    from treadle.sweeps.listing import table

    header, rows = table(found)
    if rows:
        show(header, rows, right=[name for name in header if name not in ("state", "error")])
    else:
        print("no trial has begun")
    errors = [trial for trial in found.trials if trial.error]
    for trial in errors[:3]:
        print(f"trial {trial.number} failed: {trial.error}")
    if len(errors) > 3:
        print(f"and {len(errors) - 3} more (treadle sweep DIR; trial-*/output.txt)")
    if found.importance:
        print("\nimportance: " + "  ".join(f"{name} {value:.2f}" for name, value in found.importance.items()))
    elif 0 < found.count("finished") < LEAST:
        print(f"\nimportance: known once {LEAST} trials have finished")
    picture = draw(found, min(terminal_width(), 120), color=sys.stdout.isatty())
    if picture:
        print(f"\n{picture}\n")
