"""`treadle fork`: a new run that branches from a checkpoint of another."""

from __future__ import annotations

from treadle.cli.common import Parser
from treadle.cli.script import add_trainer, recipe_at
from treadle.config.files import parse_override

EXAMPLES = """  treadle fork runs/image/v001 --at 500 --set lr="cosine 5e-3 to 1e-4"
  treadle fork runs/image/v001 --at 500 --set seed=2 --run runs/other
  treadle fork runs/pix2pix --at 9000 --data mine --set max_epochs=400
  treadle fork runs/mine --at 500 --trainer prog.py:Mine"""


def run(arguments: list[str]) -> int:
    """Fork and train on; returns the exit code."""
    from treadle.cli.sinks import add_sinks, sinks
    from treadle.cli.train import drive
    from treadle.recipes.actions import branch
    from treadle.runs.run import find_run

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
    add_trainer(parser, data="what to train on from here on, where it is other data or has moved (or --set data=PATH)")
    options = parser.parse_args(arguments)
    hooks = sinks(options)
    parent = find_run(options.run)
    settings = [text for text in options.overrides if parse_override(text)[0] != ("data",)]
    if named := [parse_override(text)[1] for text in options.overrides if text not in settings]:
        options.data = str(named[-1])
    before = recipe_at(parent, options)
    with branch(parent, before, before.with_overrides(settings), options.at, options.target, hooks) as trainer:
        print(f"forked {parent} at step {options.at} into {trainer.run.path}")
        return drive(trainer, options)
