"""`--log trackio`: what a run logs is in trackio's own database, through kills, resumes, rewinds and forks."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from read_back import points, recorded

from treadle.sinks.trackio import Trackio


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trackio_python: str) -> Path:
    """Where trackio keeps what it gets."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TREADLE_CLOSING_SECONDS", "60")  # the machine may be busy: nothing may be missing
    return tmp_path / "store"


def rows(database: Path) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """What was logged, step and values, by the names of the runs."""
    found: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    with closing(sqlite3.connect(database)) as connection:
        for name, step, metrics in connection.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id"):
            found.setdefault(name, []).append((step, json.loads(metrics)))
    return found


def test_every_value_is_there_once_after_a_rewind_and_the_run_is_what_it_is_without(
    line: Callable[..., Any], store: Path, tmp_path: Path
) -> None:
    plain = line(run_dir=tmp_path / "plain").train()
    trainer = line(run_dir=tmp_path / "line", hooks=[Trackio()], save_every="2 steps")
    for _ in range(6):
        trainer.iterate()
    trainer.log_image("probe", np.zeros((2, 2), dtype=np.uint8))
    trainer.rewind(2)
    assert trainer.train().digest == plain.digest
    ((name, logged),) = rows(store / "line.db").items()
    assert name.startswith("line-v001-")
    assert points(logged) == recorded(trainer.run.path) != []
    (summary,) = (row["summary"]["_value"] for _, row in logged if "summary" in row)
    assert {"what": "status", "value": "finished"} in summary


def test_a_killed_run_goes_on_as_the_same_and_its_fork_is_another(
    killed: Callable[..., Path], treadle: Callable[..., str], store: Path
) -> None:
    run = killed("trackio=pictures")
    treadle("resume", run, "--log", "trackio=pictures")
    ((name, logged),) = rows(store / "pictures.db").items()
    assert points(logged) == recorded(run) != []
    treadle("fork", run, "--at", 40, "--set", "learning_rate=1e-3", "--log", "trackio=pictures")
    runs = rows(store / "pictures.db")
    (fork,) = runs.keys() - {name}
    assert points(runs[fork]) == recorded(run.with_name("v002"))
    assert points(runs[name]) == recorded(run)  # as it was
