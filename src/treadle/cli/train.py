"""`treadle train`: a recipe, overridden by `--set` and typed flags, becomes a run."""

from __future__ import annotations

import re
import tempfile
import textwrap
from argparse import SUPPRESS, Action, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from treadle.cli import several
from treadle.cli.common import Parser, print_results, shown, terminal_width
from treadle.cli.script import add_trainer
from treadle.cli.sinks import add_sinks, sinks, tell_report
from treadle.cli.studio_flags import add_studio, check, is_wanted, studio_beside, train_and_stay
from treadle.errors import UsageError
from treadle.files import existing, to_json
from treadle.recipes.registry import Recipe, load_recipe, recipe_of
from treadle.recipes.scripts import load_trainer
from treadle.terminal import outliving_the_terminal, say

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer

SCREENS = 48
"""Lines of a recipe's page of help: two screens of 24."""

EPOCHS = 200
"""Epochs that are recommended where a run sees its data too seldom: what pix2pix, CycleGAN and their peers take."""

EXAMPLES = """  treadle train image
  treadle train image --data photo.jpg --max-steps 500
  treadle train image --set log_every="100 steps" seed=1 --run runs/try
  treadle train image --log tensorboard visdom=http://gpu-box:8097
  treadle train runs/image/v001/config.yaml      the same run once more
  treadle train image --studio                   drive it in a browser
  treadle train image --try                      two steps of all, not kept
  treadle train image --resume auto              go on with the newest, or begin
  treadle train image --processes 2              as two processes
  treadle train --trainer prog.py:Mine           a trainer of your own
  treadle train image --help                     the recipe's own page of help
  treadle train image --help all                 every setting, in full

A value is taken from the flags, else from --set, else from the recipe (which
may have others with --data), else it is the setting's default."""


def parser() -> Parser:
    """Return the parser of everything but the recipe's own flags."""
    result = Parser(
        "train",
        "Train a recipe and keep everything about the run in a new directory.",
        EXAMPLES,
        usage="treadle train RECIPE [--set KEY=VALUE ...] [--data PATH] [--run DIR]\n"
        "                     [--log NAME[=WHERE] ...] [--studio]\n"
        "                     [--trainer FILE.py:CLASS] [FLAGS of the recipe]",
    )
    result.add_argument("recipe", metavar="RECIPE", help="a name from 'treadle recipes', or a YAML file; --trainer "
                        "alone is one, too")  # fmt: skip
    result.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], dest="overrides",
                        help="override settings, as YAML; dots reach into groups")  # fmt: skip
    result.add_argument("--data", metavar="PATH", help="what to train on, instead of the recipe's data")
    result.add_argument(
        "--run", metavar="DIR", help="where the run goes; DIR/v001 is made, then v002 (default: runs/RECIPE)"
    )
    result.add_argument("--resume", metavar="auto", choices=["auto"], help="go on with the newest run in DIR, unless "
                        "it has finished; where there is none begin one")  # fmt: skip
    result.add_argument("--try", action="store_true", dest="try_out", help="only try it out: two steps of everything, "
                        "a checkpoint saved and resumed; nothing is kept")  # fmt: skip
    add_sinks(result)
    add_studio(result)
    several.add_processes(result)
    add_trainer(result, data=None)
    return result


def run(arguments: list[str]) -> int:
    """Train; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        parser().print_help()
        return 0 if arguments else 2
    if arguments[0].startswith("-"):
        if not any(argument.partition("=")[0] == "--trainer" for argument in arguments):
            raise UsageError(f"treadle train: the recipe comes first: treadle train RECIPE {arguments[0]} ...")
        arguments = ["", *arguments]
    help_wanted = "-h" in arguments or "--help" in arguments
    options, flags = parser().parse_known_args([each for each in arguments if each not in ("-h", "--help")])
    check(options)
    kind = None if options.trainer is None else load_trainer(options.trainer)
    named = options.recipe or f"--trainer {options.trainer}"
    recipe = load_recipe(options.recipe, kind) if kind is None or options.recipe else recipe_of(kind)
    if help_wanted:
        return _explain(named, recipe, arguments[-1] == "all")
    recipe = resolved(recipe, named, options, flags)
    if options.try_out and is_wanted(options):
        raise UsageError("--try takes two steps and keeps nothing: there is nothing for a studio to show, choose one")
    if options.try_out and several.size() > 1:
        raise UsageError("--try is one process: leave --processes or the launcher out, it keeps nothing")
    several.check(recipe.config)
    if options.try_out:
        return _try(recipe, named)
    hooks = sinks(options)
    where = options.run or Path("runs") / recipe.name
    with recipe.build(run_dir=where, hooks=hooks, resume=options.resume or False) as trainer:
        if trainer.progress.step and not trainer.ended:
            print(f"resuming {shown(trainer.run.path)} after step {trainer.progress.step}")
        elif recipe.data is not None and (line := seldom_seen(trainer)):
            say(f"treadle: {line}")
        return drive(trainer, options)


def seldom_seen(trainer: Trainer) -> str:
    """What is to be said where the run sees its data fewer times than such a trainer needs; else empty."""
    feed, steps, least = trainer.feed, trainer.progress.total_steps, trainer.least_epochs
    if feed is None or not feed.batches or steps is None or steps >= least * feed.batches:
        return ""
    samples = f"its {feed.samples} samples" if feed.samples else "its data"
    limits = {name: getattr(trainer.config, name) for name in ("max_steps", "max_epochs")}
    ends = ", ".join(f"{name}={limit}" for name, limit in limits.items() if limit is not None)
    return (
        f"the run sees {samples} {steps / feed.batches:.3g} times ({ends}): {type(trainer).__name__} needs {least} or "
        f"more, and its peers take {EPOCHS}: --set max_steps=null max_epochs={EPOCHS}"
    )


def resolved(recipe: Recipe, named: str, options: Namespace, flags: list[str]) -> Recipe:
    """Return the recipe with everything from the command line applied: recipe, data, then `--set`, then flags."""
    from treadle.cli.flags import parse_flags

    if options.data is not None:
        recipe = recipe.for_given_data(existing(options.data, "--data"))
    if options.overrides:
        recipe = recipe.with_overrides(options.overrides)
    return replace(recipe, config=parse_flags(recipe.config, flags, f"treadle train {named}"))


def _try(recipe: Recipe, named: str) -> int:
    """Try the recipe out and say what came of it; 1 where a resumed run is another one."""
    from treadle.recipes.try_out import try_recipe

    tried = try_recipe(recipe, lambda what, seconds: print(f"  {what + ':':<11} {seconds:6.2f} s", flush=True))
    if not tried.holds:
        print("differs: resumed from its checkpoint after the first step, the run is another one after the second")
        print(f"first difference (never stopped and resumed): {tried.differences[0]}")
        return 1
    print(f"tried: {named}, two steps of everything in {sum(tried.seconds.values()):.1f} s; resumed with equal digests")
    return 0


def drive(trainer: Trainer, options: Namespace) -> int:
    """Train to the end, or to a signal, and say what came of it; returns the exit code."""
    directory: Path = trainer.run.path
    run = quote(shown(directory))
    code = f" --trainer {quote(options.trainer)}" if options.trainer else ""
    if trainer.ended:
        print(f"nothing to do: {shown(directory)} has finished at step {trainer.progress.step}")
        if is_wanted(options):
            print(f"look at it: treadle studio {run}{code}")
        print(f"next: {_longer(trainer, run + code) or _judged(trainer, run, code)}")
        return 0
    with outliving_the_terminal(), studio_beside(trainer, options) as studio:
        if studio is None or options.studio_exit:
            return _train(trainer, run, code)
        return train_and_stay(studio, lambda: _train(trainer, run, code))


def _train(trainer: Trainer, run: str, code: str) -> int:
    """Train, once; see `drive`."""
    from treadle.engine.interrupts import Interrupts
    from treadle.recipes.actions import reported

    directory: Path = trainer.run.path
    with Interrupts(trainer) as interrupts:
        summary = trainer.train()
        if summary.status == "stopped":
            trainer.save()
            trainer.close()
    world = trainer.loop.world
    exit_code = max(world.gather(interrupts.exit_code))  # a signal to one of several is for all
    if summary.status == "stopped":
        print(f"stopped: {summary.reason}, at step {summary.step}; checkpoint in {shown(directory / 'checkpoints')}")
        print(f"next: treadle resume {run}{code}")
    else:
        seconds = f"{summary.seconds:.1f} s{f' ({summary.reason})' if summary.reason else ''}"
        print(f"finished: step {summary.step} in {seconds}")
        with _report_of(trainer) as report:
            print_results(reported(trainer, report))
        print(f"run: {shown(directory)}")
        print(f"next: {_judged(trainer, run, code)}")
    world.wait()  # a launcher ends all where one has ended in another way than well
    return exit_code if summary.status == "stopped" else 0


@contextmanager
def _report_of(trainer: Trainer) -> Iterator[Path]:
    """Where the run's report goes; of several processes all make it, for some of it needs all, and one keeps it."""
    if not trainer.loop.world.main:
        with tempfile.TemporaryDirectory(prefix="treadle-report-") as folder:
            yield Path(folder)
        return
    report = trainer.run.path / "report"
    yield report
    tell_report(trainer, report)


def _judged(trainer: Trainer, run: str, code: str) -> str:
    """The command that says how good a finished run is: its test, or where there is nothing to test on its curves."""
    if trainer.test_feed is not None or trainer.validation_feed is not None:
        return f"treadle test {run}{code}"
    print("there are neither test nor validation data: treadle test RUN --data PATH tests on other data")
    return f"treadle runs {run}"


def _longer(trainer: Trainer, run: str) -> str:
    """The command that lets a run go on that has reached its limit, twice as far; empty where it ended otherwise."""
    config, progress = trainer.config, trainer.progress
    for name, taken in (("max_steps", progress.step), ("max_epochs", progress.epoch)):
        limit = getattr(config, name)
        if limit is not None and taken >= limit:
            return f"treadle resume {run} --set {name}={2 * limit}"
    return ""


def _is_minor(action: Action) -> bool:
    """Whether an option is only told by `treadle train --help`: it is old, or says more about another."""
    return action.help == SUPPRESS or action.dest.startswith("studio_")


def _explain(name: str, recipe: Recipe, everything: bool) -> int:
    """Print a recipe's settings: the common ones on two screens at most, or all of them."""
    from treadle.cli.settings_page import clause, full_page, short_page

    train, width = parser(), terminal_width()
    usage = " ".join(f"usage: {train.usage}".replace("RECIPE", name, 1).split())
    whole = re.sub(r"\[(?:[^][]|\[[^]]*\])*\]", lambda option: option[0].replace(" ", "\0"), usage)
    page = [textwrap.fill(whole, width, subsequent_indent=" " * 21).replace("\0", " "), ""]
    if recipe.description:
        page += [*textwrap.wrap(recipe.description, width)[:2], ""]
    for action in train._actions:
        if action.option_strings and action.dest != "help" and not _is_minor(action):
            value = action.metavar or ""
            option = f"  {action.option_strings[-1]} {value}{' ...' if action.nargs == '+' else ''}"
            text = clause((action.help or "").partition(": ")[0] % vars(action), width - 28)
            page.append(option.ljust(26) + f"  {text}")
    given = " ".join(f"{key}={to_json(value)}" for key, value in recipe.with_data.items())
    with_data = [f"With --data: {given}"] if given else []
    if everything:
        notes = [
            "resumable: treadle resume RUN --set NAME=VALUE may change it later",
            "live: the studio, or a command, may change it while the run goes on",
        ]
        print("\n".join([*page, "", *notes, *with_data, "", full_page(recipe.config, width=width)]))
        return 0
    room = SCREENS - sum(text.count("\n") + 1 for text in page) - 4 - len(with_data)
    settings, left_out = short_page(recipe.config, lines=room, width=width)
    more = [f"{left_out} more settings: treadle train {name} --help all"] if left_out else []
    print("\n".join([*page, "", settings, "", "The values are those of the recipe.", *with_data, *more]))
    return 0
