"""The promises of the project's own files: pins, walls, what is imported when, what a wheel holds."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import treadle

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "treadle"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(path: Path = ROOT / "constraints.txt") -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {normal(name): version for name, version in (line.split("==") for line in lines)}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_torch_is_pinned_exactly() -> None:
    assert pins()["torch"] == "2.13.0"


def test_every_requirement_is_pinned() -> None:
    """Those of a logging service in a file of its own: no environment has them all."""
    for extra, wanted in {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}.items():
        own = ROOT / "tests" / "sinks" / "pins" / f"{extra}.txt"
        names = {normal(re.match(r"[\w.-]+", line)[0]) for line in wanted}  # type: ignore[index]
        assert names <= (pins(own) if own.is_file() else pins()).keys()


def test_the_metadata_gives_ranges_and_a_licence() -> None:
    assert PROJECT["requires-python"] == ">=3.11" and "torch>=2.6" in PROJECT["dependencies"]
    assert PROJECT["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()


def test_ci_does_what_a_person_does() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "\nmake test\n" in script and "exec make test-loggers" in script


def test_kernels_know_only_numpy_numba_and_torch() -> None:
    known = {"numpy", "numba", "llvmlite", "torch", "treadle"} | set(sys.stdlib_module_names)  # llvmlite: Numba's
    for path in (PACKAGE / "kernels").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.partition(".")[0] for name in names} <= known, path
            own = [name for name in names if name.startswith("treadle")]
            assert all(name.startswith(("treadle.kernels", "treadle.errors")) for name in own), path


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import treadle", ("torch", "numpy", "numba", "tyro", "rich", "yaml", "PIL", "tensorboard")),
        ("from treadle import Trainer, Hook, Feed", ("numba", "tyro", "rich", "PIL", "tensorboard", "plotext")),
    ],
)
def test_importing_is_light(statement: str, absent: tuple[str, ...]) -> None:
    code = f"{statement}\nimport sys; print([name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", treadle.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(treadle, name)
    assert name == "__version__" or (value.__doc__ or "").strip()


def test_no_code_can_come_from_a_file() -> None:
    """torch.load reads other programs' files, as weights alone: its restricted unpickler knows no code."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        safe = {
            id(call.func) for call in calls if any(ast.unparse(key) == "weights_only=True" for key in call.keywords)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "dill", "cloudpickle", "marshal", "shelve"} & set(names), path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), path
            if isinstance(node, ast.Attribute) and node.attr == "load" and getattr(node.value, "id", "") == "torch":
                assert id(node) in safe, f"{path} has torch.load without weights_only=True"


def test_the_sources_hold_what_a_wheel_needs() -> None:
    assert (PACKAGE / "py.typed").exists()
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)  # a folder without it would be left out


LOOKS_INSIDE = {
    "seen._replace": "a named tuple's own method: fields have no underscore",
    "os._exit": "documented, in spite of its name",
    "atexit._run_exitfuncs": "what an interpreter does at its end, for a program that is run within another one",
    "threading._shutdown": "the same",
    "sys._current_frames": "documented: by nothing else can be seen that another thread waits",
    "sys._getframe": "who reads a setting is known from the stack alone",
    "util._exit_function": "multiprocessing's own end, for a child that is to leave nothing behind",
    "np.random.mtrand._rand": "NumPy's global generator has no other name",
    "switched._step_supports_amp_scaling": "torch's mark of a fused optimizer",
    "fused._step_supports_amp_scaling": "torch's mark of a fused optimizer",
    "outer._cache": "the attribute of a class that is made by the test",
    "registry._files": "a cache that is emptied when a package was installed meanwhile",
}
"""What tests touch all the same of what is nobody's business, and why."""


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.name)
def test_no_test_touches_what_is_private(path: Path) -> None:
    """It would stand in the way of whoever rebuilds that. `treadle.testing` has what tests need."""
    assert private_names(path.read_text()) - LOOKS_INSIDE.keys() == set()


def private_names(source: str) -> set[str]:
    """What a program takes by a name with one underscore in front, from anything but itself."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                found.add(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names if is_private(alias.name)}
    return found


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_private_names_are_found() -> None:
    source = "from a import _b, c\nself._x; cls._y; d.e._f.g; h()._i = 1; j.__class__; k.l_\nsetattr(m, '_n', 1)"
    assert private_names(source) == {"a._b", "d.e._f", "h()._i"}


def test_nothing_private_of_the_engine_is_in_the_users_namespace(tmp_path: Path) -> None:
    """`self._steps`, `self._counts` and `self._settle` are the author's to take."""
    from treadle import Trainer
    from treadle.testing import Line, line_data

    data = line_data()
    trainer = Line(data=data, validation_data=data, test_data=data, run_dir=tmp_path / "line", max_steps=2)
    assert set(vars(trainer)) == {"model", "optimizer"}, "what its own setup has made"
    assert trainer.train().status == "finished"
    assert set(vars(trainer)) == {"model", "optimizer"}
    assert [name for name in dir(Trainer) if is_private(name)] == []
