"""What works here, and that a broken part is named and makes the command fail."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from treadle.cli import doctor
from treadle.sinks import table


def pretend(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Let these packages have other versions, or be absent."""

    def version(name: str) -> str:
        found = versions[name] if name in versions else real(name)
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    real = metadata.version
    monkeypatch.setattr(metadata, "version", version)


def test_it_is_a_table_for_80_columns(treadle: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    assert treadle("doctor") == 0
    assert max(map(len, treadle.out.splitlines())) <= 80
    for name in ("torch", "numba", "CPU", "fields", "tensorboard", "kernel cache", "runs", "all that Treadle needs"):
        assert name in treadle.out
    assert os.listdir(tmp_path) == []  # looking leaves nothing behind


def test_requirements_come_from_the_packages_metadata() -> None:
    assert ("torch", "2.6") in doctor.requirements(None)
    assert ("tensorboard", "2.15") in doctor.requirements("tensorboard")
    assert not {name for name, _ in doctor.requirements(None)} & {name for name, _ in doctor.requirements("dev")}


@pytest.mark.parametrize("extra", ["fields", "gans", "onnx", "sweep", "dev"])
def test_every_extra_says_what_it_is_for(extra: str) -> None:
    assert doctor.PURPOSE[extra] and doctor.requirements(extra)


def test_a_missing_or_old_requirement_fails_and_is_named(treadle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, safetensors="0.4.4", numpy=None)
    assert treadle("doctor") == 1
    assert "0.4.4, but 0.4.5 or later is needed" in treadle.out and "not installed, 1.26 or later" in treadle.out
    assert "does not work: numpy, safetensors" in treadle.out


def test_a_missing_extra_is_said_with_its_remedy_and_is_no_failure(
    treadle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    pretend(monkeypatch, OpenEXR=None)
    assert treadle("doctor") == 0
    assert "lacks OpenEXR: pip install 'treadle[fields]' (for pictures" in treadle.out


def test_an_extra_that_pip_cannot_build_alone_has_a_remedy_that_can(
    treadle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    pretend(monkeypatch, visdom=None)
    assert treadle("doctor") == 0
    assert "lacks visdom: pip install 'setuptools<80' wheel, then pip install --no-build-isolation" in treadle.out


EXTRAS = [
    "numpy>=1.26",
    'wandb>=0.31; extra == "wandb"',
    'mlflow-skinny>=3.17; extra == "mlflow"',
    'sqlalchemy>=2; extra == "mlflow"',
]


def loggers(treadle: Any) -> dict[str, tuple[str, str]]:
    """State and finding of each logger."""
    assert treadle("doctor") == 0
    lines = treadle.out.splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("loggers"))
    rows = [line.removeprefix("loggers").strip().split(maxsplit=2) for line in lines[first:]]
    return {name: (state, found) for name, state, found in (row for row in rows if len(row) == 3)}


def test_loggers_are_there_or_have_a_remedy(treadle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    for name in ("WANDB", "MLFLOW"):
        monkeypatch.delenv(f"TREADLE_{name}_PYTHON", raising=False)
    monkeypatch.setattr(table, "SINKS", table.SINKS | {"wandb": ("m:W", "W&B"), "mlflow": ("m:M", "MLflow")})
    monkeypatch.setattr(metadata, "requires", lambda name: EXTRAS)
    pretend(monkeypatch, wandb="0.31.2", **{"mlflow-skinny": "3.16.0"}, sqlalchemy=None)
    found = loggers(treadle)
    assert found["wandb"] == ("ok", "W&B; wandb 0.31.2, in this Python")
    assert found["csv"] == ("ok", f"{table.SINKS['csv'][1]}; needs no package")
    assert found["mlflow"] == (
        "missing",
        "MLflow; lacks mlflow-skinny>=3.17, sqlalchemy>=2: pip install 'treadle[mlflow]', or "
        "TREADLE_MLFLOW_PYTHON=PYTHON of an environment that has it",
    )
    assert "console" not in found and "; one to run here: visdom " in found["visdom"][1]


def test_a_logger_may_have_another_python(treadle: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    sinks = {name: ("m:S", name) for name in ("wandb", "mlflow", "comet")}
    monkeypatch.setattr(table, "SINKS", sinks)
    monkeypatch.setattr(metadata, "requires", lambda name: [*EXTRAS, 'comet_ml; extra == "comet"'])
    pythons = {
        "wandb": "echo NumPy=2.4.0 wandb=0.32.0",
        "mlflow": "echo numpy=2.4.0 mlflow_skinny=3.17",
        "comet": "echo no such thing >&2; exit 3",
    }
    for name, answer in pythons.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{answer}\n")
        path.chmod(0o755)
        monkeypatch.setenv(f"TREADLE_{name.upper()}_PYTHON", str(path))
    found = loggers(treadle)
    assert found["wandb"] == ("ok", f"wandb; wandb 0.32.0, in {tmp_path}/wandb (TREADLE_WANDB_PYTHON)")
    python = f"{tmp_path}/mlflow"
    lack = f"mlflow; TREADLE_MLFLOW_PYTHON={python} lacks sqlalchemy>=2: {python} -m pip install 'sqlalchemy>=2'"
    assert found["mlflow"] == ("missing", lack)
    assert found["comet"][0] == "note" and f"TREADLE_COMET_PYTHON={tmp_path}/comet cannot be run" in found["comet"][1]


def test_another_python_is_really_asked(treadle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(table, "SINKS", {"wandb": ("m:S", "wandb")})
    monkeypatch.setattr(metadata, "requires", lambda name: ["numpy>=1.26", 'pillow>=10; extra == "wandb"'])
    monkeypatch.setenv("TREADLE_WANDB_PYTHON", sys.executable)
    version = metadata.version("pillow")
    assert loggers(treadle)["wandb"] == ("ok", f"wandb; pillow {version}, in {sys.executable} (TREADLE_WANDB_PYTHON)")


def test_broken_compilers_fail(treadle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise OSError("no\nlibrary")

    monkeypatch.setattr(doctor, "_compile_with_numba", broken)
    assert treadle("doctor") == 1
    assert "OSError: no library" in treadle.out and "does not work: Numba" in treadle.out


def test_a_run_folder_that_cannot_be_made_fails(treadle: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert treadle("doctor", "--run", str(tmp_path / "file" / "runs")) == 1
    assert "does not work: runs" in treadle.out


def test_a_nearly_full_disk_is_noted(treadle: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(doctor, "MINIMUM_FREE", 10**30)
    assert treadle("doctor", "--run", str(tmp_path / "runs")) == 0
    (line,) = (line for line in treadle.out.splitlines() if str(tmp_path / "runs") in line)
    assert line.split()[:2] == ["runs", "note"] and line.rstrip().endswith("MB free")
