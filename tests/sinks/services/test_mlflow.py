"""MLflow, told directly and read back with its own client, from its database and from a real server."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sdk_process import Process

from treadle.sinks.services.mlflow import plain_name

SERVICE = ["treadle.sinks.services.mlflow", "MlflowService"]
HERE = Path(__file__).parent
NOW = 1_700_000_000.0
Calls = list[tuple[str, dict[str, Any]]]


def opening(id: str = "0123456789abcdef", **more: Any) -> tuple[str, dict[str, Any]]:
    said = {"run": "line/v001", "id": id, "project": "line", "trainer": "line", "directory": None, "step": 0}
    return "open", {"opening": said | {"goes_on": False} | more}


def scalars(step: int, split: str = "train", **values: float) -> tuple[str, dict[str, Any]]:
    return "scalars", {"step": step, "epoch": 0, "split": split, "values": values, "time": NOW + step}


FLUSH: tuple[str, dict[str, Any]] = ("flush", {})
LOST: tuple[str, dict[str, Any]] = ("lost", {})


def closing(status: str = "finished") -> tuple[str, dict[str, Any]]:
    return "close", {"status": status}


@pytest.fixture
def store(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(template, tmp_path / "mlflow.db"))


@pytest.fixture
def tell(process: Process, store: Path) -> Callable[..., list[dict[str, Any]]]:
    """Call a new service, or go on with the last; what it raises fails the test, unless `raises`."""

    def call(
        calls: Calls, uri: str = f"sqlite:///{store}", raises: bool = False, new: bool = True, **variables: str
    ) -> list[dict[str, Any]]:
        request: dict[str, Any] = {"calls": calls, "variables": {"MLFLOW_TRACKING_URI": uri} | variables}
        answers: list[dict[str, Any]] = process.ask(**request | ({"service": SERVICE} if new else {}))
        assert raises or not [answer for answer in answers if "raised" in answer]
        return answers

    return call


@pytest.fixture
def read(process: Process, store: Path) -> Callable[..., dict[str, list[dict[str, Any]]]]:
    """What the store holds, as MLflow's client reads it."""

    def reading(uri: str = f"sqlite:///{store}") -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = process.ask(read=uri)
        return found

    return reading


CONFIG = {"lr": 0.1, "model": {"width": 64, "name": "mlp"}, "steps": [1, 2], "long": "x" * 7000, "none": None}


def everything(model: Path, report: Path) -> Calls:
    """A run that has all there is."""
    environment = {"python": "3.11", "git": {"commit": "abc123"}, "packages": {"torch": "2.13.0"}, "directory": "/x"}
    return [
        opening(config=CONFIG, environment=environment),
        *(scalars(step, loss=1 / step, psnr=float(step)) for step in range(1, 1202)),  # more than go into a request
        scalars(1202, **{"acc>0.5": 0.75, "acc<0.5": 0.25, "../x": 1.0, "n" * 300: 2.0}),
        scalars(1203, loss=math.nan, psnr=math.inf),
        scalars(1203, "validation", loss=0.5),
        ("picture", {"step": 3, "name": "probe/left eye?", "picture": [[[0], [1], [2]], [[3], [4], [255]]]}),
        ("picture", {"step": 4, "name": "color", "picture": [[[1, 2, 3], [4, 5, 6]]]}),
        ("text", {"step": 3, "name": "notes: a", "text": "one\nzwei ü"}),
        ("event", {"entry": {"event": "start", "step": 0, "epoch": 0, "time": NOW}}),
        ("event", {"entry": {"event": "checkpoint", "step": 500, "epoch": 1, "time": NOW + 5, "path": "step-500"}}),
        ("artifact", {"name": "best_model", "kind": "model", "path": str(model)}),
        ("artifact", {"name": "report.html", "kind": "report", "path": str(report)}),
        (
            "summary",
            {
                "values": {
                    "status": "finished",
                    "reason": "",
                    "step": 1203,
                    "seconds": 2.5,
                    "digest": "d1",
                    "best": {"metric": "validation/loss", "value": 0.5, "step": 1203},
                }
            },
        ),
        closing(),
        LOST,
    ]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    model, report = tmp_path / "best_model", tmp_path / "report.html"
    model.mkdir()
    (model / "model.json").write_text("{}")
    report.write_text("<p>good</p>")
    return model, report


def check_everything(run: dict[str, Any]) -> None:
    """All of `everything` is there, each value once."""
    assert (run["name"], run["status"]) == ("line/v001", "FINISHED")
    params = run["params"]
    assert params["lr"] == "0.1" and params["model.width"] == "64" and params["steps"] == "[1, 2]"
    assert params["none"] == "None" and len(params["long"]) == 6000
    tags = run["tags"]
    assert tags["treadle.cut_parameters"] == "cut, whole in config.yaml: long"
    assert json.loads(run["artifacts"]["config.yaml"]) == CONFIG
    assert "environment.directory" not in tags and "/x" in run["artifacts"]["environment.json"]
    assert tags["environment.python"] == "3.11" and tags["environment.packages.torch"] == "2.13.0"
    assert tags["mlflow.source.git.commit"] == "abc123" and tags["mlflow.source.name"] == "line"
    metrics = run["metrics"]
    loss = sorted(metrics["train/loss"])
    assert [point[0] for point in loss] == [*range(1, 1202), 1203]
    assert all(point[1] == 1 / point[0] and point[2] == (NOW + point[0]) * 1000 for point in loss[:-1])
    assert math.isnan(loss[-1][1])
    assert max(metrics["train/psnr"])[1] == sys.float_info.max  # so MLflow keeps infinity
    assert metrics["validation/loss"] == [[1203, 0.5, (NOW + 1203) * 1000]]
    renamed = {
        tags[f"treadle.name.{key}"]: points[0][1] for key, points in metrics.items() if f"treadle.name.{key}" in tags
    }
    expected = {"train/acc>0.5": 0.75, "train/acc<0.5": 0.25, "train/../x": 1.0, f"train/{'n' * 300}": 2.0}
    assert renamed == expected
    artifacts = run["artifacts"]
    (probe,) = (path for path in artifacts if re.match(r"images/probe~left eye_-\w{4}\+step\+3\+.*\.png", path))
    assert artifacts[probe] == [[0, 1, 2], [3, 4, 255]]
    (color,) = (path for path in artifacts if re.match(r"images/color\+step\+4\+.*\.png", path))
    assert artifacts[color] == [[[1, 2, 3], [4, 5, 6]]]
    assert tags["mlflow.loggedImages"] == "True"  # what its page looks for
    assert artifacts["text/notes- a/step-00000003.txt"] == "one\nzwei ü"
    events = [json.loads(line) for line in artifacts["events.jsonl"].splitlines()]
    assert [(event["event"], event["step"]) for event in events] == [("start", 0), ("checkpoint", 500)]
    assert tags["treadle.event.checkpoint"].startswith("step 500, ")
    assert artifacts["best_model/model.json"] == "{}" and artifacts["report.html"] == "<p>good</p>"
    assert (tags["treadle.status"], tags["treadle.digest"], tags["treadle.seconds"]) == ("finished", "d1", "2.5")
    assert json.loads(artifacts["summary.json"])["digest"] == "d1"
    assert [point[:2] for point in metrics["best/validation/loss"]] == [[1203, 0.5]]


def test_everything_can_be_read_back(tell: Any, read: Any, files: tuple[Path, Path], store: Path) -> None:
    answers = tell(everything(*files))
    (run,) = read()["line"]
    check_everything(run)
    assert answers[0]["returned"] == f"mlflow server --backend-store-uri sqlite:///{store} (run {run['id']})"
    assert answers[-1]["returned"] == {"values": 0}
    with sqlite3.connect(store) as database:  # else its page shows neither metrics nor parameters
        kinds = database.execute("SELECT value FROM experiment_tags WHERE key = 'mlflow.experimentKind'").fetchall()
    assert kinds == [("custom_model_development",)]


def test_a_run_that_goes_on_is_the_same_run(tell: Any, read: Any) -> None:
    tell([opening(config={"lr": 0.1, "epochs": 2}), scalars(1, loss=1.0), scalars(2, loss=0.5), closing("killed")])
    first = read()["line"][0]
    tell(
        [
            opening(config={"lr": 0.1, "epochs": 4, "new": 1}, goes_on=True, step=2),
            scalars(2, loss=0.5),  # what a process had sent that was killed before it could note so
            scalars(3, loss=0.25),
            closing(),
        ]
    )
    (run,) = read()["line"]
    assert (first["status"], run["status"]) == ("KILLED", "FINISHED")
    assert [point[:2] for point in run["metrics"]["train/loss"]] == [[1, 1.0], [2, 0.5], [3, 0.25]]
    assert run["params"] == {"lr": "0.1", "epochs": "2", "new": "1"}
    assert run["tags"]["treadle.changed.epochs"] == "4"


def test_a_fork_stands_below_its_parent(tell: Any, read: Any) -> None:
    parent = {"run": "line/v001", "id": "0123456789abcdef", "step": 7}
    tell([opening(), closing("stopped")])
    tell([opening("fedcba9876543210", run="line/v002", parent=parent), scalars(8, loss=1.0), closing("failed")])
    first, fork = sorted(read()["line"], key=lambda run: run["name"])
    assert fork["tags"]["mlflow.parentRunId"] == first["id"]
    assert fork["tags"]["treadle.parent"] == "line/v001 (0123456789abcdef) at step 7"
    assert fork["tags"]["mlflow.note.content"] == "Forked from `line/v001` at step 7."
    assert (first["status"], first["tags"]["treadle.status"], fork["status"]) == ("KILLED", "stopped", "FAILED")


def test_a_rewind_is_told_with_when_it_was(tell: Any, read: Any) -> None:
    tell([opening(), scalars(1, loss=1.0), scalars(2, loss=2.0), ("cut", {"step": 1}), closing()])
    tell([opening(goes_on=True), ("cut", {"step": 0}), closing()])
    (run,) = read()["line"]
    rewinds = json.loads(run["tags"]["treadle.rewinds"])
    assert [(rewind["to_step"], rewind["given_up_through_step"]) for rewind in rewinds] == [(1, 2), (0, 0)]
    assert NOW < rewinds[0]["time"] < rewinds[1]["time"] <= time.time()


def test_where_it_is_kept_is_asked_of_the_hook_then_of_mlflows_variables(tell: Any, read: Any) -> None:
    named = {"MLFLOW_EXPERIMENT_NAME": "from the variable"}
    tell([opening(), closing()], **named)
    tell([opening(options={"experiment": "from the hook"}), closing()], **named)
    assert {name for name, runs in read().items() if runs} == {"from the variable", "from the hook"}


def test_what_a_store_drops_is_counted(tell: Any, read: Any, store: Path) -> None:
    with sqlite3.connect(store) as database:
        database.execute(
            "CREATE TRIGGER lying BEFORE INSERT ON metrics WHEN new.step = 7 BEGIN SELECT RAISE(IGNORE); END"
        )
    answers = tell([opening(), *(scalars(step, loss=1.0, psnr=2.0) for step in range(10)), closing(), LOST])
    assert answers[-1]["returned"] == {"values": 2}
    assert len(read()["line"][0]["metrics"]["train/loss"]) == 9


def test_a_locked_database_costs_nothing_once_it_is_free(tell: Any, read: Any, store: Path) -> None:
    uri = f"sqlite:///{store}?timeout=0.2"  # instead of the 5 seconds that SQLite waits, and MLflow several times
    tell([opening(), scalars(1, loss=1.0)], uri)
    locked = sqlite3.connect(store, isolation_level=None)
    locked.execute("BEGIN EXCLUSIVE")
    (answer,) = tell([FLUSH], uri, raises=True, new=False)
    assert "database is locked" in answer["raised"]
    locked.close()
    assert tell([scalars(2, loss=0.5), closing(), LOST], uri, new=False)[-1] == {"returned": {"values": 0}}
    assert [point[:2] for point in read()["line"][0]["metrics"]["train/loss"]] == [[1, 1.0], [2, 0.5]]


def test_two_runs_begin_at_once_in_a_store_that_is_not_there_yet(
    mlflow_python: str, driven: Callable[..., list[dict[str, Any]]], read: Any, tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path / 'new.db'}"
    ids = ["0123456789abcdef", "fedcba9876543210"]

    calls = {id: [opening(id), scalars(1, loss=1.0), closing()] for id in ids}
    answers: list[dict[str, Any]] = []

    def run(id: str) -> None:
        answers.extend(driven(mlflow_python, ":".join(SERVICE), calls[id], {"MLFLOW_TRACKING_URI": uri}))

    both = [threading.Thread(target=run, args=(id,)) for id in ids]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert [answer for answer in answers if "raised" in answer] == []
    runs = read(uri)["line"]
    assert {run["tags"]["treadle.id"] for run in runs} == set(ids)
    assert all(run["status"] == "FINISHED" and len(run["metrics"]["train/loss"]) == 1 for run in runs)


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "mlruns"])
def test_a_directory_of_files_is_refused_in_one_line(tell: Any, uri: str) -> None:
    (answer,) = tell([opening()], uri, raises=True)
    assert answer["raised"].startswith(f"ValueError: {uri} is a directory of files, which MLflow 3 takes no more")
    assert "\n" not in answer["raised"]


def test_a_run_that_is_not_where_it_was_is_not_begun_anew(tell: Any, read: Any) -> None:
    (answer,) = tell([opening(goes_on=True, step=50)], raises=True)
    assert "no run there has the tag treadle.id = 0123456789abcdef" in answer["raised"]
    assert not read().get("line")


def test_an_experiment_that_was_deleted_says_how_to_get_it_back(tell: Any, store: Path) -> None:
    tell([opening(), closing()])
    with sqlite3.connect(store) as database:
        database.execute("UPDATE experiments SET lifecycle_stage = 'deleted'")
    (answer,) = tell([opening()], raises=True)
    assert "the experiment 'line' was deleted: mlflow experiments restore -x" in answer["raised"]


@pytest.fixture
def mute() -> Iterator[str]:
    """The address of a server that takes every connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_host_that_is_away_or_mute_holds_up_nothing_for_long(tell: Any, mute: str) -> None:
    start = time.monotonic()
    (answer,) = tell([opening()], "http://127.0.0.1:9", raises=True)
    assert "127.0.0.1:9" in answer["raised"] or "port=9" in answer["raised"]
    (answer,) = tell([opening()], mute, raises=True, MLFLOW_HTTP_REQUEST_TIMEOUT="1")
    assert "raised" in answer and time.monotonic() - start < 30


def test_a_real_server_is_told_the_same(
    mlflow_python: str, tell: Any, read: Any, files: tuple[Path, Path], store: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [mlflow_python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{store}", "--artifacts-destination", str(tmp_path)]  # fmt: skip
    variables = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    server = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, env=variables
    )
    uri = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            if server.poll() is not None or not refused(port):
                break
            time.sleep(0.2)
        if server.poll() is not None:
            assert server.stdout is not None
            pytest.skip(f"mlflow server does not start there: {server.stdout.read().decode()[-200:]}")
        answers = tell(everything(*files), uri)
        (run,) = read(uri)["line"]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, 9)
        server.communicate()
    check_everything(run)
    assert re.fullmatch(rf"{uri}/#/experiments/\d+/runs/{run['id']}", answers[0]["returned"])
    assert answers[-1]["returned"] == {"values": 0}


def refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_names_that_mlflow_takes_stay_as_they_are() -> None:
    for name in ("train/loss", "validation/psnr_fine", "a.b-c d", "n" * 230):
        assert plain_name(name) == name


def test_names_that_it_refuses_become_others_each_one_of_its_own() -> None:
    names = ["a>b", "a<b", "/a", "a//b", "a/../b", "..", "", "ü", "n" * 231, "n" * 230 + "m"]
    mapped = [plain_name(name) for name in names]
    assert len(set(mapped)) == len(names) and plain_name("a>b") == "a_b-" + mapped[0][-4:]
    assert all(re.fullmatch(r"[\w.\- /]{1,235}", name, re.ASCII) and ".." not in name for name in mapped)
