"""The dispatcher: help, unknown commands, and what every ending says and returns."""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings
from typing import Any

import pytest

from treadle.cli import main as entry
from treadle.errors import RunError, UsageError


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("help",)])
def test_help_names_every_command(treadle: Any, arguments: tuple[str, ...]) -> None:
    assert treadle(*arguments) == 0
    for command in entry.COMMANDS:
        assert f"\n  {command}" in treadle.out
    assert "examples:" in treadle.out and max(map(len, treadle.out.splitlines())) <= 80


def test_without_a_command_it_explains_itself_and_fails(treadle: Any) -> None:
    assert treadle() == 2 and "usage:" in treadle.out


@pytest.mark.parametrize("command", entry.COMMANDS)
def test_every_command_explains_itself_with_examples(treadle: Any, command: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for arguments in [(command, "--help"), ("help", command)]:
        assert treadle(*arguments) == 0
        assert f"usage: treadle {command}" in treadle.out and f"  treadle {command}" in treadle.out
        assert max(map(len, treadle.out.splitlines())) <= 80


def test_version(treadle: Any) -> None:
    assert treadle("--version") == 0 and treadle.out == "treadle 0.1.0\n"


def test_an_unknown_command_is_answered_with_the_nearest(treadle: Any) -> None:
    assert treadle("trian") == 2
    assert treadle.err == "treadle: unknown command 'trian'; did you mean 'train'?\n"
    assert treadle("--trian") == 2 and "unknown option '--trian'" in treadle.err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("bad\nkey"), 2, "treadle: bad key\n"),
        (RunError("it broke"), 1, "treadle: it broke\n"),
        (KeyboardInterrupt(), 130, "treadle: interrupted\n"),
        (ZeroDivisionError("x"), 1, "treadle: failed: ZeroDivisionError: x (--debug shows the traceback)\n"),
    ],
)
def test_every_ending_is_one_line_and_a_code(
    treadle: Any, monkeypatch: Any, error: BaseException, code: int, said: str
) -> None:
    def fail(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(importlib.import_module("treadle.cli.recipes"), "run", fail)
    assert treadle("recipes") == code
    assert treadle.err == said
    if not isinstance(error, KeyboardInterrupt):
        assert treadle("recipes", "--debug") == code
        assert "Traceback" in treadle.err and treadle.err.splitlines()[-1].startswith("treadle: ")


def test_notes_on_an_error_are_part_of_the_line(treadle: Any, monkeypatch: Any) -> None:
    def fail(arguments: list[str]) -> int:
        error = ValueError("bad shape")
        error.add_note("in step, at step 3")
        raise error

    monkeypatch.setattr(importlib.import_module("treadle.cli.recipes"), "run", fail)
    treadle("recipes")
    assert "ValueError: bad shape in step, at step 3" in treadle.err


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from treadle.cli.main import main; main(['--help']); "
        "print([m for m in ('torch', 'numpy', 'numba', 'tyro', 'rich', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = "import sys; from treadle.cli import main; main.HELP *= 20000; sys.exit(main.main(['--help']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 0 and said == b""


def test_what_is_said_of_the_data_is_one_line(treadle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def warning(arguments: list[str]) -> int:
        warnings.warn("3 photographs were left out", stacklevel=2)
        return 0

    before = warnings.showwarning
    monkeypatch.setattr("treadle.cli.recipes.run", warning)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert treadle("recipes") == 0
    said = treadle.err
    assert "treadle: 3 photographs were left out\n" in said and "UserWarning" not in said
    assert warnings.showwarning is before
