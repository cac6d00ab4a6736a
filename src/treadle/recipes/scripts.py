"""Trainers in programs of one's own: found by "prog.py:Class", as `--trainer` names them, and named so."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from treadle.errors import UsageError, nearest, one_line
from treadle.files import existing
from treadle.runs.names import trainer_name

if TYPE_CHECKING:
    from treadle.engine.trainer import Trainer


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
        module: ModuleType = found
        return module
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


def script_of(kind: type[Any]) -> str | None:
    """What `load_trainer` finds this class by in another process; None for one of the registry, which needs no file.

    Raises UsageError, saying why, for one that another process could not have.
    """
    if trainer_name(kind) is not None:
        return None
    name, why = kind.__name__, f"{kind.__name__} cannot be had in another process:"
    if kind.__qualname__ != name:
        raise UsageError(f"{why} it is defined inside {kind.__qualname__.rpartition('.')[0]}; define it in a module")
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    if module is None or file is None or not str(file).endswith(".py") or getattr(module, name, None) is not kind:
        raise UsageError(f"{why} it is in no file (a notebook, or a prompt); put it into a .py file and import it")
    if kind.__module__ == "__main__" and not _is_guarded(Path(file)):
        raise UsageError(
            f"{why} {Path(file).name} would train anew when it is imported; put what it does when it is started under "
            "if __name__ == '__main__'"
        )
    return f"{Path(file).absolute()}:{name}"


def _is_guarded(file: Path) -> bool:
    """Whether a program asks if it was started, or does nothing but define things."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return False
    plain = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Assign, ast.AnnAssign)
    asks = any(isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) for node in tree.body)
    strings = [node for node in tree.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    return asks or all(isinstance(node, plain) or node in strings for node in tree.body)
