"""`--trainer FILE.py:CLASS`: the trainer in a program of one's own, named where no file can."""

from __future__ import annotations

import importlib.util
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from treadle.cli.common import Parser
from treadle.errors import UsageError, nearest, one_line
from treadle.files import existing

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer
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

    data = getattr(options, "data", None)
    trainer = None if options.trainer is None else load_trainer(options.trainer)
    return recipe_of_run(run, trainer, None if data is None else existing(data, "--data"))


def load_trainer(text: str) -> type[Trainer]:
    """The class that "prog.py:Class" names. Raises UsageError in one line where there is none."""
    from treadle.engine.trainer import Trainer

    file, colon, name = text.rpartition(":")
    if not colon or not name.isidentifier() or not file.endswith(".py"):
        raise UsageError(f"--trainer {text}: expected FILE.py:CLASS, such as prog.py:LM")
    module = _imported(existing(file, "--trainer"), text)
    kinds = {key: kind for key, kind in vars(module).items() if isinstance(kind, type) and issubclass(kind, Trainer)}
    if name not in kinds:
        own = [key for key, kind in kinds.items() if kind is not Trainer]
        raise UsageError(f"--trainer {text}: {file} has no trainer {name!r}{nearest(name, own)}")
    return kinds[name]


def _imported(path: Path, text: str) -> ModuleType:
    """The module in a file, imported under the file's own name, with its folder on the path as for a script."""
    found: Any = sys.modules.get(path.stem)
    if found is not None and getattr(found, "__file__", None) == str(path):
        return found
    name = path.stem if found is None else f"treadle_script_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # it ends in .py
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UsageError(f"--trainer {text}: {path.name} cannot be imported: {one_line(error)}") from error
    return module
