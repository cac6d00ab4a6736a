"""`--trainer FILE.py:CLASS`: the trainer in a program of one's own, named where no file can."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from treadle.cli.common import Parser
from treadle.files import existing

if TYPE_CHECKING:
    from treadle.recipes.registry import Recipe

DATA = "what the trainer's load_data gets, in place of the path on record"


def add_trainer(parser: Parser, data: str | None = DATA) -> None:
    """Give `parser` the options that name the code of a run's trainer, and where its `data` is, in these words."""
    if data is not None:
        parser.add_argument("--data", metavar="PATH", help=data)
    parser.add_argument("--trainer", metavar="FILE.py:CLASS",
                        help="the trainer, where it is in a program of your own; FILE.py is imported, so what it does "
                        "when it is started belongs under if __name__ == '__main__'")  # fmt: skip


def recipe_at(run: Path, options: Namespace) -> Recipe:
    """The recipe of a run: its config.yaml, and the trainer and data that the command line names.

    Raises UsageError in one line, also where the run was trained by a class of another name.
    """
    from treadle.recipes.actions import recipe_of_run
    from treadle.recipes.scripts import load_trainer

    data = getattr(options, "data", None)
    trainer = None if options.trainer is None else load_trainer(options.trainer)
    return recipe_of_run(run, trainer, None if data is None else existing(data, "--data"))
