"""What trackio is given, read back with its own commands and from its database."""

from __future__ import annotations

import json
import math
import os
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SERVICE = "treadle.sinks.services.trackio:TrackioService"
ID = "0123456789abcdef"
NAME = "line-v001-012345"
TOKEN = "1234567890abcdef1234567890abcdef"


@pytest.fixture
def called(driven: Callable[..., Any], trackio_python: str, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Call the service, which keeps what it gets in `tmp_path / "store"`."""

    def call(calls: Any, file_bytes: int | None = None, **variables: str) -> list[dict[str, Any]]:
        store = {"TRACKIO_DIR": str(tmp_path / "store")}
        return driven(trackio_python, SERVICE, calls, store | variables, file_bytes)

    return call


@pytest.fixture
def asked(trackio_python: str, tmp_path: Path) -> Callable[..., Any]:
    """What a `trackio` command prints as JSON."""

    def ask(*words: str) -> Any:
        command = [Path(trackio_python).with_name("trackio"), *words, "--project", "line", "--json"]
        store = {"TRACKIO_DIR": str(tmp_path / "store"), "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, env=os.environ | store, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    return ask


def rows(store: Path) -> list[tuple[int, dict[str, Any]]]:
    """The steps and what was logged at each, in the order in which they came."""
    with closing(sqlite3.connect(store / "line.db")) as connection:
        found = connection.execute("SELECT step, metrics FROM metrics ORDER BY id").fetchall()
    return [(step, json.loads(metrics)) for step, metrics in found]


def test_everything_can_be_read_back(
    called: Callable[..., Any],
    opening: Callable[..., Any],
    scalars: Callable[..., Any],
    asked: Callable[..., Any],
    tmp_path: Path,
) -> None:
    model = tmp_path / "line" / "v001" / "best_model"
    model.mkdir(parents=True)
    (model / "weights.bin").write_bytes(b"123")
    grey = np.array([[[0], [1], [200]]], dtype=np.uint8)
    parent = {"run": "line/v000", "id": "f" * 16, "step": 20}
    answers = called(
        [
            opening(
                config={"lr": 0.1, "optimizer": {"betas": [0.9, 0.99]}, "_own": 1},
                environment={"python": "3.11.9"},
                parent=parent,
            ),
            ("event", {"entry": {"event": "start", "step": 0, "epoch": 0, "time": 1.0, "seed": 3}}),
            scalars(2, loss=0.5),
            scalars(4, loss=math.nan, lr=-math.inf),
            scalars(4, "validation", 1, psnr=31.5),
            ("picture", {"step": 4, "name": "step", "picture": grey.tolist()}),
            ("text", {"step": 4, "name": "note", "text": "hello *there*"}),
            ("artifact", {"name": "best_model", "kind": "model", "path": str(model)}),
            ("event", {"entry": {"event": "checkpoint failed", "step": 4, "epoch": 1, "time": 2.0, "error": "full"}}),
            ("summary", {"values": {"status": "finished", "step": 4, "best": {"a": "b"}}}),
            ("close", {"status": "finished"}),
            ("lost", {}),
        ]
    )
    assert [answer for answer in answers if "raised" in answer] == []
    assert answers[0]["returned"] == f"{tmp_path / 'store'} (trackio show --project line)"
    assert answers[-1]["returned"] == {}
    values = asked("get", "metric", "--run", NAME, "--metric", "train/loss")["values"]
    assert [(point["step"], str(point["value"]).lower()) for point in values] == [(2, "0.5"), (4, "nan")]
    told = asked("get", "run", "--run", NAME)
    assert told["config"]["optimizer"] == {"betas": [0.9, 0.99]} and told["config"]["own"] == 1
    assert told["config"]["environment"] == {"python": "3.11.9"} and told["config"]["parent"] == parent
    (artifact,) = asked("list", "artifacts")["artifacts"]
    assert (artifact["name"], artifact["type"], artifact["size_bytes"]) == (f"best_model-{ID}", "model", 3)

    logged = rows(tmp_path / "store")
    assert (2, {"epoch": 0, "train/loss": 0.5}) in logged
    assert (4, {"epoch": 0, "train/loss": "NaN", "train/lr": "-Infinity"}) in logged
    assert (4, {"epoch": 1, "validation/psnr": 31.5}) in logged
    (picture,) = (row["step_"] for _, row in logged if "step_" in row)
    shown = np.asarray(Image.open(tmp_path / "store" / "media" / picture["file_path"]).convert("L"))
    np.testing.assert_array_equal(shown, grey[..., 0])
    assert [row["note"]["_value"] for _, row in logged if "note" in row] == ["hello *there*"]
    (summary,) = (row["summary"]["_value"] for _, row in logged if "summary" in row)
    assert {"what": "status", "value": "finished"} in summary and {"what": "best", "value": '{"a": "b"}'} in summary
    with closing(sqlite3.connect(tmp_path / "store" / "line.db")) as connection:
        alerts = connection.execute("SELECT level, title, text, step FROM alerts ORDER BY id").fetchall()
    assert alerts == [("info", "start", "seed 3", 0), ("warn", "checkpoint failed", "error full", 4)]


def test_a_run_that_went_back_and_was_resumed_is_one_run_without_what_it_gave_up(
    called: Callable[..., Any], opening: Callable[..., Any], scalars: Callable[..., Any], tmp_path: Path
) -> None:
    steps = [scalars(step, loss=step) for step in (2, 4, 6)]
    called([opening(), *steps, ("cut", {"step": 2}), scalars(3, loss=30), ("close", {"status": "stopped"})])
    more = [scalars(5, loss=50), ("cut", {"step": 4}), scalars(6, loss=60), ("close", {"status": "killed"})]
    *_, lost = called([opening(goes_on=True, step=3), *more, ("lost", {})])
    called([opening(id="f" * 16), scalars(1, loss=1), ("close", {"status": "finished"})])  # another line/v001
    assert lost == {"returned": {}}
    logged = [(step, row["train/loss"]) for step, row in rows(tmp_path / "store")]
    assert logged == [(2, 2), (3, 30), (6, 60), (1, 1)]
    with closing(sqlite3.connect(tmp_path / "store" / "line.db")) as connection:
        runs = connection.execute(
            "SELECT run_name, COUNT(DISTINCT run_id), COUNT(*) FROM metrics GROUP BY 1"
        ).fetchall()
    assert runs == [(NAME, 1, 3), ("line-v001-ffffff", 1, 1)]


def test_what_was_flushed_is_there_whatever_ends_the_process(
    called: Callable[..., Any], opening: Callable[..., Any], scalars: Callable[..., Any], tmp_path: Path
) -> None:
    called([opening(), scalars(1, loss=1), ("flush", {})])
    assert [row["train/loss"] for _, row in rows(tmp_path / "store")] == [1]


def test_a_host_that_is_away_is_told_and_what_it_lacks_waits(
    called: Callable[..., Any], opening: Callable[..., Any], scalars: Callable[..., Any], tmp_path: Path
) -> None:
    away = {"TRACKIO_SERVER_URL": f"http://127.0.0.1:9/?write_token={TOKEN}"}
    opened, _, closed = called([opening(), scalars(1, loss=1), ("close", {"status": "finished"})], **away)
    assert TOKEN not in json.dumps(opened)
    assert closed["raised"].startswith("RuntimeError: not all has reached its host: the rest waits in")
    assert [row["train/loss"] for _, row in rows(tmp_path / "store")] == [1]


@pytest.fixture
def host(trackio_python: str, tmp_path: Path) -> Iterator[str]:
    """The address of a trackio server on this machine, which keeps what it gets in `tmp_path / "host"`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = f"import trackio; trackio.show(open_browser=False, block_thread=True, server_port={port})"
    variables = {"TRACKIO_DIR": str(tmp_path / "host"), "TRACKIO_WRITE_TOKEN": TOKEN, "HOME": str(tmp_path)}
    offline = {"HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
    process = subprocess.Popen(
        [trackio_python, "-c", code],
        env=os.environ | variables | offline,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert time.monotonic() < until and process.poll() is None
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.kill()
        process.wait()


def test_a_host_gets_every_row_once(
    called: Callable[..., Any], opening: Callable[..., Any], scalars: Callable[..., Any], host: str, tmp_path: Path
) -> None:
    model = tmp_path / "weights.bin"
    model.write_bytes(b"123")
    artifact = ("artifact", {"name": "best_model", "kind": "model", "path": str(model)})
    variables = {"TRACKIO_SERVER_URL": f"{host}?write_token={TOKEN}", "TREADLE_CLOSING_SECONDS": "30"}
    rows_told = [scalars(2, loss=2), scalars(4, loss=4), ("flush", {})]
    end = [artifact, ("close", {"status": "finished"}), ("flush", {})]
    answers = called([opening(), *rows_told, ("cut", {"step": 2}), scalars(4, loss=40), *end], **variables)
    assert [answer for answer in answers if "raised" in answer] == []
    assert answers[0]["returned"] == host  # without the token
    logged = [(step, row["train/loss"]) for step, row in rows(tmp_path / "host")]
    assert sorted(logged) == [(2, 2), (4, 4), (4, 40)]  # a host takes nothing back
    with closing(sqlite3.connect(tmp_path / "host" / "line.db")) as connection:
        assert connection.execute("SELECT title FROM alerts").fetchall() == [("went back to step 2",)]
        assert connection.execute("SELECT name FROM artifacts").fetchall() == [(f"best_model-{ID}",)]
    for path in (tmp_path / "store").rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path


def test_what_did_not_fit_on_the_disk_is_counted(
    called: Callable[..., Any], opening: Callable[..., Any], scalars: Callable[..., Any]
) -> None:
    many = [scalars(step, loss=step, psnr=step) for step in range(3000)]
    *_, lost = called([opening(), *many, ("close", {"status": "finished"}), ("lost", {})], file_bytes=300_000)
    assert 1000 < lost["returned"]["scalars"] <= 6000


def test_a_directory_may_be_called_what_no_project_can_be(
    called: Callable[..., Any], opening: Callable[..., Any], scalars: Callable[..., Any], tmp_path: Path
) -> None:
    answers = called([opening(project="line_traces"), scalars(1, loss=1), ("close", {"status": "finished"})])
    assert [answer for answer in answers if "raised" in answer] == []
    assert (tmp_path / "store" / "line_traces-runs.db").exists()
