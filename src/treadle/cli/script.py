"""`--trainer FILE.py:CLASS`: the trainer of a run that a program of one's own has made, named where no file can."""

from __future__ import annotations

import importlib.util
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from treadle.cli.common import Parser, existing
from treadle.errors import UsageError, nearest, one_line
from treadle.recipes.registry import Recipe, load_recipe

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer


def add_trainer(parser: Parser) -> None:
    """Give `parser` the option that names the code of a run's trainer."""
    parser.add_argument("--trainer", metavar="FILE.py:CLASS",
                        help="the run's trainer, where a program of your own has made the run; FILE.py is imported, so "
                        "what it does when it is started belongs under if __name__ == '__main__'")  # fmt: skip


def recipe_of(run: Path, options: Namespace) -> Recipe:
    """The recipe of a run: its config.yaml, and the trainer that the command line or else the registry names.

    Raises UsageError in one line, also where the run was trained by a class of another name.
    """
    path = run / "config.yaml"
    if options.trainer is None:
        return load_recipe(path)
    return load_recipe(path, load_trainer(options.trainer))


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
