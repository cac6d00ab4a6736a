"""`--log wandb`: what a run logs is in the SDK's own files, through kills, resumes, rewinds and forks.

Requirements of the environment that TREADLE_WANDB_PYTHON names: wandb, numpy, pillow.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from read_back import Point, points, recorded

from treadle.reports.scene import Scene
from treadle.sinks.wandb import Wandb

KEY = "1234567890abcdef1234567890abcdef12345678"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wandb_python: str) -> None:
    """W&B's SDK keeps what it gets, and its settings are nobody's."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TREADLE_CLOSING_SECONDS", "60")  # the machine may be busy: nothing may be missing


@pytest.fixture
def kept(sessions: Callable[[Path], list[dict[str, Any]]]) -> Callable[[Path], list[dict[str, Any]]]:
    """Read back the sessions that are kept of the run in a directory."""
    return lambda run: sessions(run / "wandb")


def told(sessions: list[dict[str, Any]]) -> list[Point]:
    """Every number that was logged, sorted."""
    return points((row.get("step"), row) for session in sessions for row in session["rows"])


@pytest.mark.usefixtures("offline")
def test_every_value_is_there_once_and_the_run_is_what_it_is_without(
    line: Callable[..., Any], kept: Callable[..., Any], tmp_path: Path
) -> None:
    plain = line(run_dir=tmp_path / "plain").train()
    trainer = line(run_dir=tmp_path / "line", hooks=[Wandb(tags=["small"])])
    trainer.iterate()
    trainer.log_image("probe", np.zeros((2, 2), dtype=np.uint8))
    trainer.log_text("note", "hello")
    trainer.log_scene("cloud", Scene(points=np.zeros((3, 3), dtype=np.float32)))
    summary = trainer.train()
    assert summary.digest == plain.digest
    (session,) = kept(trainer.run.path)
    assert told([session]) == recorded(trainer.run.path) != []
    assert session["run"]["name"] == "line/v001" and session["run"]["tags"] == ["small"]
    assert session["config"]["batch_size"] == 10 and session["config"]["environment"]["python"]
    assert session["summary"]["status"] == "finished" and session["summary"]["digest"] == summary.digest
    assert [kind for kind, _, _ in session["artifacts"] if kind != "run_table"] == ["model"]
    assert [sum(name in row for row in session["rows"]) for name in ("probe", "note", "cloud")] == [1, 1, 1]
    events = [row["event"].partition(":")[0] for row in session["rows"] if "event" in row]
    assert events[0] == "start" and events[-1] == "finish"


@pytest.mark.usefixtures("offline")
def test_a_rewind_is_seen_and_what_follows_is_kept_beside_what_was_given_up(
    line: Callable[..., Any], kept: Callable[..., Any], tmp_path: Path
) -> None:
    trainer = line(run_dir=tmp_path / "line", hooks=[Wandb()], save_every="2 steps")
    for _ in range(6):
        trainer.iterate()
    given_up = recorded(trainer.run.path)
    trainer.rewind(2)
    trainer.optimizer.param_groups[0]["lr"] = 0.01
    trainer.train()
    (session,) = kept(trainer.run.path)
    (at,) = (index for index, row in enumerate(session["rows"]) if "rewound_to" in row)
    assert session["rows"][at]["rewound_to"] == 2
    before, after = ([{"rows": rows}] for rows in (session["rows"][:at], session["rows"][at:]))
    assert set(told(before)) <= set(given_up)  # what was on its way is not sent at all
    stayed = [entry for entry in told(before) if entry[1] <= 2]
    assert sorted(stayed + told(after)) == recorded(trainer.run.path)


@pytest.mark.usefixtures("offline")
def test_a_killed_run_goes_on_as_the_same_and_its_fork_is_another(
    killed: Callable[..., Path], treadle: Callable[..., str], kept: Callable[..., Any]
) -> None:
    run = killed("wandb")
    treadle("resume", run, "--log", "wandb")
    sessions = kept(run)
    assert len(sessions) == 3 and sessions[0]["exit"] == 255
    assert [kind for kind, *_ in sessions[2]["artifacts"]] == ["report"]  # made after the run's end
    assert told(sessions) == recorded(run) != []
    rows = [row for session in sessions for row in session["rows"]]
    assert [row["_step"] for row in rows] == list(range(len(rows)))
    assert sum("fit" in "".join(row) for row in rows) == 2  # each picture once
    treadle("fork", run, "--at", 40, "--set", "learning_rate=1e-3", "--log", "wandb")
    fork = run.with_name("v002")
    session, last = kept(fork)
    assert told([session, last]) == recorded(fork)
    parent = session["config"]["parent"]
    assert (parent["run"], parent["step"], parent["id"]) == ("noise/v001", 40, sessions[0]["run"]["id"])
    assert session["run"]["id"] != parent["id"] and session["run"]["tags"] == ["fork"]


def test_a_host_that_is_away_costs_a_line_and_a_few_seconds(
    line: Callable[..., Any],
    tmp_path: Path,
    wandb_python: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name, value in {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": KEY, "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TREADLE_CLOSING_SECONDS", "1")
    plain = line(run_dir=tmp_path / "plain").train()
    trainer = line(run_dir=tmp_path / "line", hooks=[Wandb()])
    began = time.monotonic()
    assert trainer.train().digest == plain.digest
    assert time.monotonic() - began < 10
    said = [text for text in capfd.readouterr().err.splitlines() if "W&B" in text]
    assert len(said) == 1 and f"treadle runs --to wandb {trainer.run.path} sends it" in said[0]
    for path in trainer.run.path.rglob("*"):
        assert not path.is_symlink(), path  # with one the run would not be resumed
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
