"""What works here, and that a broken part is named and makes the command fail."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from treadle.cli import doctor


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


@pytest.mark.parametrize("extra", ["fields", "gans", "onnx", "tensorboard", "dev"])
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
    assert line.split()[:2] == ["runs", "note"] and line.endswith("MB free")
