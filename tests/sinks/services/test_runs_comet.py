"""`--log comet`: what a run logs is in Comet's archives, each value once, through kills, resumes, rewinds and forks.

Requirements of the environment that TREADLE_COMET_PYTHON names: comet_ml, numpy, pillow.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comet_archives import archives, described, files, messages, others, pixels, told
from read_back import Point, recorded

from treadle.cli.main import main
from treadle.errors import UsageError
from treadle.runs.fork import fork_run
from treadle.runs.run import read_config
from treadle.sinks.comet import Comet

KEY = "abcdefgh1234567890abcdefgh"
SOURCES = Path(__file__).parents[3] / "src"

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from treadle import testing
from treadle.sinks.comet import Comet

class Line(testing.Line):
    def step(self, batch):
        if self.progress.step == 9:
            while not any('"train",8' in mark.read_text() for mark in self.run.path.glob("logs/sent.*.json")):
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        outputs = super().step(batch)
        return {"psnr": -outputs["loss"]} | outputs

data = testing.line_data(40)
settings = {"data": data, "validation_data": data, "batch_size": 10, "max_epochs": 3, "log_every": "2 steps"}
Line(**settings, save_every="4 steps", keep_every="4 steps", run_dir=sys.argv[1], hooks=[Comet()]).train()
"""


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody's settings, and no key."""
    for name in [name for name in os.environ if name.startswith("COMET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TREADLE_CLOSING_SECONDS", "60")  # the machine may be busy: nothing may be missing


def all_told(run: Path) -> list[Point]:
    """Every number in the archives of a run, sorted."""
    return sorted(point for path in archives(run / "comet") for point in told(path))


@pytest.mark.usefixtures("comet_python")
def test_every_value_is_there_once_and_the_run_is_what_it_is_without(line: Callable[..., Any], tmp_path: Path) -> None:
    plain = line(run_dir=tmp_path / "plain").train()
    trainer = line(run_dir=tmp_path / "line", hooks=[Comet("lines")])
    trainer.iterate()
    trainer.log_image("probe", np.full((2, 2), 7, dtype=np.uint8))
    trainer.log_text("note", "hello")
    summary = trainer.train()
    assert summary.digest == plain.digest
    (archive,) = archives(trainer.run.path / "comet")
    assert sorted(told(archive)) == recorded(trainer.run.path) != []
    assert described(archive)["project_name"] == "lines"
    said, kept = others(archive), files(archive)
    assert (said["Name"], said["status"], said["digest"]) == ("line/v001", "finished", summary.digest)
    assert pixels(kept["1/probe"]) == [[7, 7], [7, 7]] and kept["1/note"] == b"hello"
    assert "best_model/weights.safetensors" in kept
    events = [json.loads(entry)["event"] for entry in kept["events.jsonl"].splitlines()]
    assert events[0] == "start" and events[-1] == "finish"
    page = "".join(message["html"] for message in messages(archive, "html"))
    assert page.count("<div>") == len(events)
    assert main(["runs", "--to", "comet=lines", str(trainer.run.path)]) == 0  # all of it is there
    assert all_told(trainer.run.path) == recorded(trainer.run.path)


@pytest.mark.usefixtures("comet_python")
def test_a_rewind_is_told_and_what_follows_is_beside_what_was_given_up(
    line: Callable[..., Any], tmp_path: Path
) -> None:
    trainer = line(run_dir=tmp_path / "line", hooks=[Comet()], save_every="2 steps")
    for _ in range(6):
        trainer.iterate()
    given_up = recorded(trainer.run.path)
    trainer.rewind(2)
    trainer.optimizer.param_groups[0]["lr"] = 0.01
    trainer.train()
    (archive,) = archives(trainer.run.path / "comet")
    (line_of_it,) = (
        message["message_id"] for message in messages(archive, "html") if "back to step 2" in message["html"]
    )
    points = told(archive)
    metrics = [
        message for message in messages(archive, "metric_msg") if message["metric"]["metricName"] != "process duration"
    ]
    after = [point for point, message in zip(points, metrics, strict=True) if message["message_id"] > line_of_it]
    before = points[: len(points) - len(after)]
    assert set(before) <= set(given_up)  # what was on its way is not sent at all
    assert sorted([point for point in before if point[1] <= 2] + after) == recorded(trainer.run.path)


@pytest.mark.usefixtures("comet_python")
def test_a_killed_run_goes_on_as_the_same_and_its_fork_is_another(line: Callable[..., Any], tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(SOURCES)}
    killed = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / "line")], env=environment, timeout=250)
    assert killed.returncode == -signal.SIGKILL
    run = tmp_path / "line" / "v001"
    resumed = line(run_dir=run, resume=True, hooks=[Comet()], save_every="4 steps", keep_every="4 steps")
    resumed.train()
    plain = line(run_dir=tmp_path / "plain", save_every="4 steps", keep_every="4 steps").train()
    assert resumed.summary().digest == plain.digest
    first, second = archives(run / "comet")
    assert described(first)["offline_id"] == described(second)["offline_id"]
    assert all_told(run) == recorded(run) != []
    assert (others(first)["status"], others(second)["status"]) == ("killed", "finished")
    fork = fork_run(run, 8, read_config(run))
    line(run_dir=fork, resume=True, hooks=[Comet()], save_every="4 steps", keep_every="4 steps").train()
    (third,) = archives(fork / "comet")
    assert sorted(told(third)) == recorded(fork)
    assert others(third)["parent_key"] == described(first)["offline_id"] != described(third)["offline_id"]
    assert others(third)["parent"] == "line/v001 at step 8" and described(third)["tags"] == ["fork"]


@pytest.fixture
def unharmed(
    line: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[[], list[str]]:
    """Train with Comet in some trouble: the run is what it is without, ends in time, and holds no secret."""

    def train() -> list[str]:
        plain = line(run_dir=tmp_path / "plain").train()
        trainer = line(run_dir=tmp_path / "line", hooks=[Comet()])
        began = time.monotonic()
        assert trainer.train().digest == plain.digest
        assert time.monotonic() - began < 25
        for path in trainer.run.path.rglob("*"):
            assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
        said = [text for text in capfd.readouterr().err.splitlines() if "Comet" in text]
        assert KEY not in "".join(said) and f"treadle runs --to comet {trainer.run.path} sends it" in said[-1]
        return said

    return train


@pytest.mark.usefixtures("comet_python")
def test_a_host_that_is_away_or_mute_costs_a_line_and_a_few_seconds(
    unharmed: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMET_API_KEY", KEY)
    monkeypatch.setenv("TREADLE_CLOSING_SECONDS", "2")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("COMET_URL_OVERRIDE", f"http://127.0.0.1:{server.getsockname()[1]}/clientlib/")
        assert len(unharmed()) <= 2


def test_a_full_disk_costs_the_log_and_not_the_run(
    comet_python: str, unharmed: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process beside the run may write no file of more than four kilobytes."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/bash\nulimit -f 4\nexec {comet_python} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("TREADLE_COMET_PYTHON", str(python))
    monkeypatch.setenv("TREADLE_CLOSING_SECONDS", "15")
    assert len(unharmed()) <= 4


def test_what_makes_no_sense_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREADLE_COMET_PYTHON", sys.executable)
    assert Comet.at("lines").options == {"project": "lines"}
    assert Comet.at("me/lines").options == {"project": "lines", "workspace": "me"}
    assert Comet.at(None).options == {}
    for where in ("a/b/c", "/lines", "me/"):
        with pytest.raises(
            UsageError, match=re.escape(f"{where!r} is no project: expected PROJECT or WORKSPACE/PROJECT")
        ):
            Comet.at(where)


def test_without_the_sdk_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TREADLE_COMET_PYTHON", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"Comet is not installed: pip install 'treadle\[comet\]'"):
        Comet()
