"""`--log mlflow`: what a run logs is in MLflow's database, each value once, through kills, resumes, rewinds and forks.

Requirements of the environment that TREADLE_MLFLOW_PYTHON names: mlflow (or mlflow-skinny, sqlalchemy, alembic), numpy,
pillow.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from read_back import SPLITS, Point, recorded
from sdk_process import Process

from treadle.cli.main import main
from treadle.errors import UsageError
from treadle.sinks.mlflow import MLflow

KEY = "hunter2hunter2hunter2"
Runs = dict[str, list[dict[str, Any]]]

PROGRAM = """
import os, signal, time
from pathlib import Path
from treadle.fields.image_trainer import ImageTrainer

class Killed(ImageTrainer):
    def step(self, batch):
        if self.progress.step == int(os.environ.get("KILLED_AT", -1)):
            while not any('"train",40' in mark.read_text() for mark in self.run.path.glob("logs/sent.*.json")):
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(batch)
"""
SETTINGS = (
    *("max_steps=80", "levels=4", "log2_size=8", "n_min=4", "hidden=8", "batch_size=64", "device=cpu"),
    *("log_every=2 steps", "examples_every=50%", "save_every=20 steps", "keep_every=20 steps", "validate_every=25%"),
)


@pytest.fixture
def store(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where MLflow's own variables say that runs are kept."""
    monkeypatch.setenv("TREADLE_CLOSING_SECONDS", "60")  # the machine may be busy: nothing may be missing
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # where MLflow keeps artifacts of a database
    path = Path(shutil.copy(template, tmp_path / "mlflow.db"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    return path


@pytest.fixture
def stored(process: Process, store: Path) -> Callable[[], Runs]:
    """What the store holds."""
    return lambda: process.ask(read=f"sqlite:///{store}")


def told(run: dict[str, Any], since: float = 0.0) -> list[Point]:
    """Every number of a run that was logged at `since` or after: name, step and value, sorted."""
    return sorted(
        (name, step, value)
        for name, points in run["metrics"].items()
        for step, value, when in points
        if when >= since * 1000 and name.startswith(SPLITS)
    )


def test_every_value_is_there_once_and_the_run_is_what_it_is_without(
    line: Callable[..., Any], stored: Callable[[], Runs], tmp_path: Path
) -> None:
    plain = line(run_dir=tmp_path / "plain").train()
    trainer = line(run_dir=tmp_path / "line", hooks=[MLflow()])
    trainer.iterate()
    trainer.log_image("probe", np.full((2, 2), 7, dtype=np.uint8))
    trainer.log_text("note", "hello")
    summary = trainer.train()
    assert summary.digest == plain.digest
    (run,) = stored()["line"]
    assert told(run) == recorded(trainer.run.path) != []
    assert (run["name"], run["status"]) == ("line/v001", "FINISHED")
    assert run["params"]["batch_size"] == "10" and run["tags"]["treadle.digest"] == summary.digest
    artifacts = run["artifacts"]
    assert artifacts["text/note/step-00000001.txt"] == "hello"
    assert [artifacts[path] for path in artifacts if re.match(r"images/probe\+step\+1\+.*png", path)] == [
        [[7, 7], [7, 7]]
    ]
    assert "best_model/weights.safetensors" in artifacts
    events = [json.loads(entry)["event"] for entry in artifacts["events.jsonl"].splitlines()]
    assert events[0] == "start" and events[-1] == "finish"
    best = summary.best
    assert best is not None
    assert [point[:2] for point in run["metrics"][f"best/{best['monitor']}"]] == [[best["step"], best["value"]]]
    assert main(["runs", "--to", "mlflow", str(trainer.run.path)]) == 0  # all of it is there
    (again,) = stored()["line"]
    assert told(again) == told(run) and again["status"] == "FINISHED"


def test_after_a_rewind_the_tag_says_which_of_both_futures_is_which(
    line: Callable[..., Any], stored: Callable[[], Runs], tmp_path: Path
) -> None:
    trainer = line(run_dir=tmp_path / "line", hooks=[MLflow()], save_every="2 steps")
    for _ in range(6):
        trainer.iterate()
    given_up = recorded(trainer.run.path)
    trainer.rewind(2)
    trainer.optimizer.param_groups[0]["lr"] = 0.01
    trainer.train()
    (run,) = stored()["line"]
    (rewind,) = json.loads(run["tags"]["treadle.rewinds"])
    assert rewind["to_step"] == 2
    begun = next(entry["time"] for entry in journal(trainer.run.path) if entry["event"] == "rewind")
    after, before = told(run, begun), [entry for entry in told(run) if entry not in told(run, begun)]
    assert set(before) <= set(given_up)  # what was on its way is not sent at all
    assert sorted([entry for entry in before if entry[1] <= 2] + after) == recorded(trainer.run.path)


def journal(run: Path) -> list[dict[str, Any]]:
    return [json.loads(entry) for entry in (run / "journal.jsonl").read_text().splitlines()]


@pytest.mark.timeout(300)
def test_a_killed_run_goes_on_as_the_same_and_its_fork_is_another(stored: Callable[[], Runs], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    (tmp_path / "prog.py").write_text(PROGRAM)

    def treadle(*words: object, code: int = 0, **variables: str) -> None:
        command = [sys.executable, "-m", "treadle.cli", *map(str, words), "--trainer", "prog.py:Killed"]
        done = subprocess.run(
            command, cwd=tmp_path, env=os.environ | variables, capture_output=True, text=True, timeout=250
        )
        assert done.returncode == code, done.stderr

    log = ("--log", "mlflow=pictures")
    treadle("train", "--data", "noise.png", "--run", "noise", "--set", *SETTINGS, *log, code=-9, KILLED_AT="50")
    run = tmp_path / "noise" / "v001"
    treadle("resume", run, *log)
    treadle("fork", run, "--at", 40, "--set", "learning_rate=1e-3", *log)
    first, fork = sorted(stored()["pictures"], key=lambda found: found["name"])
    assert told(first) == recorded(run) != [] and told(fork) == recorded(run.with_name("v002"))
    assert first["status"] == fork["status"] == "FINISHED"
    events = [json.loads(entry)["event"] for entry in first["artifacts"]["events.jsonl"].splitlines()]
    assert events.count("start") == events.count("resume") == 1
    slider = [path.split("+")[2] for path in first["artifacts"] if path.endswith(".png") and "+" in path]
    assert {"report/fit.png", "report/comparison.png"} <= set(first["artifacts"])
    assert sorted(slider) == sorted(set(slider)) != []  # each picture once
    assert fork["tags"]["mlflow.parentRunId"] == first["id"]
    assert fork["tags"]["treadle.parent"] == f"noise/v001 ({first['tags']['treadle.id']}) at step 40"


@pytest.fixture
def unharmed(
    line: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """Train with MLflow in some trouble: the run is what it is without, ends in time, and holds no secret."""
    monkeypatch.setenv("TREADLE_CLOSING_SECONDS", "2")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", KEY)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")

    def train(**more: Any) -> list[str]:
        plain = line(run_dir=tmp_path / "plain").train()
        trainer = line(run_dir=tmp_path / "line", hooks=[MLflow(**more)])
        began = time.monotonic()
        assert trainer.train().digest == plain.digest
        assert time.monotonic() - began < 15
        for path in trainer.run.path.rglob("*"):
            assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
        said = [text for text in capfd.readouterr().err.splitlines() if "MLflow" in text]
        assert KEY not in "".join(said) and f"treadle runs --to mlflow {trainer.run.path} sends it" in said[-1]
        return said

    return train


def test_a_host_that_is_away_costs_a_line_and_a_few_seconds(store: Path, unharmed: Callable[..., list[str]]) -> None:
    assert len(unharmed(uri="http://127.0.0.1:9")) <= 2


def test_a_server_that_never_answers_is_not_waited_for(store: Path, unharmed: Callable[..., list[str]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert len(unharmed(uri=f"http://127.0.0.1:{server.getsockname()[1]}")) <= 2


def test_a_locked_database_is_not_waited_for(store: Path, unharmed: Callable[..., list[str]]) -> None:
    locked = sqlite3.connect(store, isolation_level=None)
    locked.execute("BEGIN EXCLUSIVE")
    assert len(unharmed()) <= 2
    locked.close()


def test_a_full_disk_costs_the_log_and_not_the_run(
    mlflow_python: str,
    store: Path,
    unharmed: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process beside the run may write no file beyond half of what the database is already."""
    python = tmp_path / "python"
    size = store.stat().st_size // 2048
    python.write_text(f'#!/bin/bash\nulimit -f {size}\nexec {mlflow_python} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("TREADLE_MLFLOW_PYTHON", str(python))
    monkeypatch.setenv("TREADLE_CLOSING_SECONDS", "10")
    assert len(unharmed()) <= 3


def test_what_makes_no_sense_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREADLE_MLFLOW_PYTHON", sys.executable)
    made = MLflow.at("runs of mine").options, MLflow.at("http://h:5000").options, MLflow.at("databricks").options
    assert made == ({"experiment": "runs of mine"}, {"uri": "http://h:5000"}, {"uri": "databricks"})
    assert MLflow.at("sqlite:///here.db").options == {"uri": f"sqlite:///{Path.cwd() / 'here.db'}"}
    assert MLflow.at(None).options == {}
    for where, why in {
        "file:///tmp/mlruns": "is no server or database of MLflow's",
        "./mlruns": "is no name of an experiment: a database is written sqlite:///FILE.db",
        "mine.db": "is no name of an experiment",
        "postgresql://me:secret@host/db": "uri holds a password: leave it to MLflow's own variables and files",
    }.items():
        with pytest.raises(UsageError, match=re.escape(why)):
            MLflow.at(where)
    with pytest.raises(UsageError, match="is no server or database of MLflow's"):
        MLflow(uri="mlruns")


def test_without_the_sdk_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TREADLE_MLFLOW_PYTHON", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"MLflow is not installed: pip install 'treadle\[mlflow\]'"):
        MLflow()
