"""`treadle train`: a recipe, overridden by `--set` and typed flags, becomes a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from treadle.cli.common import Parser, existing, print_results, shown, write_report
from treadle.cli.sinks import add_sinks, sinks
from treadle.errors import UsageError
from treadle.recipes.registry import Recipe, load_recipe
from treadle.terminal import outliving_the_terminal

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer

EXAMPLES = """  treadle train image
  treadle train image --data photo.jpg --max-steps 500
  treadle train image --set log_every="100 steps" seed=1 --run runs/try
  treadle train image --log tensorboard visdom=http://gpu-box:8097
  treadle train runs/image/v001/config.yaml      the same run once more
  treadle train image --help                     every setting of a recipe

A value is taken from the flags, else from --set, else from the recipe, else it
is the setting's default."""


def parser() -> Parser:
    """Return the parser of everything but the recipe's own flags."""
    result = Parser(
        "train",
        "Train a recipe and keep everything about the run in a new directory.",
        EXAMPLES,
        usage="treadle train RECIPE [--set KEY=VALUE ...] [--data PATH] [--run DIR]\n"
        "                     [--log NAME[=WHERE] ...] [FLAGS of the recipe]",
    )
    result.add_argument("recipe", metavar="RECIPE", help="a name from 'treadle recipes', or a YAML file")
    result.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], dest="overrides",
                        help="override settings, as YAML; dots reach into groups")  # fmt: skip
    result.add_argument("--data", metavar="PATH", help="what to train on, instead of the recipe's data")
    result.add_argument(
        "--run", metavar="DIR", help="where the run goes; DIR/v001 is made, then v002 (default: runs/RECIPE)"
    )
    add_sinks(result)
    return result


def run(arguments: list[str]) -> int:
    """Train; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        parser().print_help()
        return 0 if arguments else 2
    if arguments[0].startswith("-"):
        raise UsageError(f"treadle train: the recipe comes first: treadle train RECIPE {arguments[0]} ...")
    if "-h" in arguments or "--help" in arguments:
        return _explain(arguments[0])
    options, flags = parser().parse_known_args(arguments)
    recipe = resolve(options.recipe, options.overrides, options.data, flags)
    hooks = sinks(options)
    trainer = recipe.build(run_dir=options.run or Path("runs") / recipe.name, hooks=hooks)
    with trainer:
        return drive(trainer)


def resolve(name: str, overrides: list[str], data: str | None, flags: list[str]) -> Recipe:
    """Return the recipe with everything from the command line applied: recipe, then `--set`, then flags."""
    from treadle.cli.flags import parse_flags

    recipe = load_recipe(name)
    if overrides:
        recipe = recipe.with_overrides(overrides)
    recipe = replace(recipe, config=parse_flags(recipe.config, flags, f"treadle train {name}"))
    return recipe if data is None else replace(recipe, data=existing(data, "--data"))


def drive(trainer: Trainer) -> int:
    """Train to the end, or to a signal, and say what came of it; returns the exit code."""
    from treadle.engine.interrupts import Interrupts

    directory: Path = trainer.run.path
    with outliving_the_terminal(), Interrupts(trainer) as interrupts:
        summary = trainer.train()
        if summary.status == "stopped":
            trainer.save()
            trainer.close()
    if summary.status == "stopped":
        print(f"stopped: {summary.reason}, at step {summary.step}; checkpoint in {shown(directory / 'checkpoints')}")
        print(f"next: treadle resume {shown(directory)}")
        return interrupts.exit_code
    print(f"finished: step {summary.step} in {summary.seconds:.1f} s{f' ({summary.reason})' if summary.reason else ''}")
    report = write_report(trainer, directory / "report")
    print_results(report or {**summary.metrics, **summary.validation_metrics})
    print(f"run: {shown(directory)}")
    print(f"next: treadle test {shown(directory)}")
    return 0


def _explain(name: str) -> int:
    from treadle.cli.flags import flags_help

    recipe = load_recipe(name)
    parser().print_help()
    print(f"\nflags of {name}{f': {recipe.description}' if recipe.description else ''}\n")
    print(flags_help(recipe.config, f"treadle train {name}"))
    return 0
