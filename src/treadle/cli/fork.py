"""`treadle fork`: a new run that branches from a checkpoint of another."""

from __future__ import annotations

from pathlib import Path

from treadle.cli.common import Parser, find_run
from treadle.cli.script import add_trainer, recipe_of

EXAMPLES = """  treadle fork runs/image/v001 --at 500 --set lr="cosine 5e-3 to 1e-4"
  treadle fork runs/image/v001 --at 500 --set seed=2 --run runs/other"""


def run(arguments: list[str]) -> int:
    """Fork and train on; returns the exit code."""
    from treadle.cli.sinks import add_sinks, sinks
    from treadle.cli.train import drive
    from treadle.runs.fork import changed_hyperparameters, fork_run

    parser = Parser(
        "fork",
        "Make a new run that goes on from a checkpoint of another, with other settings. "
        "The checkpoint is copied; in the parent run it is kept for good.",
        EXAMPLES,
    )
    parser.add_argument("run", metavar="RUN", help="a run's directory, or the one that holds its versions")
    parser.add_argument("--at", metavar="STEP", type=int, required=True, help="the step of the checkpoint")
    parser.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], dest="overrides",
                        help="settings of the new run, as YAML")  # fmt: skip
    parser.add_argument("--run", metavar="DIR", dest="target", help="where it goes (default: beside its parent)")
    add_sinks(parser)
    add_trainer(parser)
    options = parser.parse_args(arguments)
    hooks = sinks(options)
    parent = find_run(options.run)
    before = recipe_of(parent, options)
    recipe = before.with_overrides(options.overrides)
    target = Path(options.target) if options.target else None
    with before.build() as old, recipe.build() as new:
        changes = changed_hyperparameters(old.parts.optimizers, new.parts.optimizers)
    directory = fork_run(parent, options.at, recipe.document(), target, changes)
    print(f"forked {parent} at step {options.at} into {directory}")
    with recipe.build(run_dir=directory, hooks=hooks, resume=True) as trainer:
        return drive(trainer)
