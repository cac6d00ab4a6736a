"""`treadle resume`: a run goes on from its newest good checkpoint."""

from __future__ import annotations

from treadle.cli import several
from treadle.cli.common import Parser
from treadle.cli.script import add_trainer, recipe_at

EXAMPLES = """  treadle resume runs/image/v001
  treadle resume runs/image                           its newest version
  treadle resume runs/image/v001 --set max_steps=5000
  treadle resume runs/image --processes 2             as two processes
  treadle resume runs/mine --trainer prog.py:Mine    a run that prog.py made

Limits may be raised (max_steps, max_epochs, max_time, patience); what
determines the past (seed, batch size, model, data) may not: use treadle fork."""


def parser() -> Parser:
    """Return the command's parser."""
    from treadle.cli.sinks import add_sinks
    from treadle.cli.studio_flags import add_studio

    result = Parser(
        "resume",
        "Continue a run, bit for bit, from its newest good checkpoint: after Ctrl-C, a kill, a full disk, or its end.",
        EXAMPLES,
    )
    result.add_argument("run", metavar="RUN", help="a run's directory, or the one that holds its versions")
    result.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], dest="overrides",
                        help="change settings that do not determine the past, as YAML")  # fmt: skip
    add_sinks(result)
    add_studio(result)
    several.add_processes(result)
    add_trainer(result)
    return result


def run(arguments: list[str]) -> int:
    """Resume; returns the exit code."""
    from treadle.cli.sinks import sinks
    from treadle.cli.studio_flags import check
    from treadle.cli.train import drive
    from treadle.runs.run import find_run

    options = parser().parse_args(arguments)
    check(options)
    directory = find_run(options.run)
    recipe = recipe_at(directory, options).with_overrides(options.overrides)
    several.check(recipe.config)
    with recipe.build(run_dir=directory, hooks=sinks(options), resume=True) as trainer:
        if not trainer.ended:
            print(f"resuming {directory} after step {trainer.progress.step}")
        return drive(trainer, options)
