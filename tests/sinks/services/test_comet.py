"""Comet, told directly without a server, and read back from the archives that it makes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from comet_archives import archives, described, files, messages, others, pixels, told

from treadle.sinks.services.comet import experiment_key, short_name

SERVICE = "treadle.sinks.services.comet:CometService"
ID = "0123456789abcdef"
NOW = 1_700_000_000.0
KEY = "abcdefgh1234567890abcdefgh"
HERE = Path(__file__).parent
Calls = list[tuple[str, dict[str, Any]]]


def scalars(step: int, split: str = "train", **values: float) -> tuple[str, dict[str, Any]]:
    return "scalars", {"step": step, "epoch": step // 10, "split": split, "values": values, "time": NOW + step}


FLUSH: tuple[str, dict[str, Any]] = ("flush", {})
LOST: tuple[str, dict[str, Any]] = ("lost", {})


def closing(status: str = "finished") -> tuple[str, dict[str, Any]]:
    return "close", {"status": status}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's directory."""
    directory = tmp_path / "line" / "v001"
    directory.mkdir(parents=True)
    return directory


@pytest.fixture
def opening(run: Path) -> Callable[..., tuple[str, dict[str, Any]]]:
    """The call that opens it."""

    def make(**more: Any) -> tuple[str, dict[str, Any]]:
        said = {"run": "line/v001", "id": ID, "project": "line", "trainer": "line", "directory": str(run), "step": 0}
        return "open", {"opening": said | {"goes_on": False} | more}

    return make


@pytest.fixture
def tell(comet_python: str, driven: Callable[..., list[dict[str, Any]]]) -> Callable[..., list[dict[str, Any]]]:
    """Call the service; what it raises fails the test, unless `raises`."""

    def call(
        calls: Calls, raises: bool = False, file_bytes: int | None = None, **variables: str
    ) -> list[dict[str, Any]]:
        answers = driven(comet_python, SERVICE, calls, variables, file_bytes=file_bytes)
        assert raises or not [answer for answer in answers if "raised" in answer]
        return answers

    return call


def test_everything_can_be_read_back(opening: Any, tell: Any, run: Path, tmp_path: Path, comet_python: str) -> None:
    model, report = tmp_path / "best_model", tmp_path / "report.html"
    model.mkdir()
    (model / "weights.bin").write_bytes(b"weights")
    report.write_text("<p>good</p>")
    config = {"lr": 0.1, "model": {"width": 64}, "steps": [1, 2], "long": "x" * 3000}
    environment = {"python": "3.11", "packages": {"torch": "2.13.0"}}
    best = {"metric": "validation/loss", "value": 0.5, "step": 40}
    answers = tell(
        [
            opening(config=config, environment=environment),
            *(scalars(step, loss=1 / step, psnr=float(step)) for step in range(1, 41)),
            scalars(41, **{"loss": math.nan, "psnr": math.inf, "n" * 200: 1.0, "n" * 201: 2.0}),
            scalars(41, "validation", loss=0.5),
            ("picture", {"step": 3, "name": "probe/left", "picture": [[[0], [1]], [[2], [3]]]}),
            ("picture", {"step": 4, "name": "color", "picture": [[[1, 2, 3], [4, 5, 6]]]}),
            ("text", {"step": 3, "name": "notes", "text": "one\nzwei ü"}),
            ("event", {"entry": {"event": "start", "step": 0, "epoch": 0, "time": NOW}}),
            ("event", {"entry": {"event": "note", "step": 5, "epoch": 0, "time": NOW + 5, "text": "<b>&"}}),
            ("artifact", {"name": "best_model", "kind": "model", "path": str(model)}),
            ("artifact", {"name": "report.html", "kind": "report", "path": str(report)}),
            ("summary", {"values": {"status": "finished", "step": 41, "digest": "d1", "best": best}}),
            closing(),
            LOST,
        ]
    )
    assert answers[0]["returned"] == str(run / "comet") and answers[-1]["returned"] == {"values": 0, "files": 0}
    (archive,) = archives(run / "comet")
    assert sorted(path.name for path in (run / "comet").iterdir()) == [archive.name]
    said = described(archive)
    assert said["offline_id"] == experiment_key(ID) and said["project_name"] == "line"
    assert said["resume_strategy"] == "get_or_create"
    points = told(archive)
    expected = [("train/loss", step, 1 / step) for step in range(1, 41)]
    assert [point for point in points if point[0] == "train/loss"][:-1] == expected
    last = {name: value for name, step, value in points if step == 41}
    assert math.isnan(last["train/loss"]) and last["train/psnr"] == math.inf and last["validation/loss"] == 0.5
    assert sorted(value for name, value in last.items() if name.startswith("train/nnn")) == [1.0, 2.0]
    assert [message["metric"]["epoch"] for message in messages(archive, "metric_msg")][18] == 1
    parameters = {
        message["param"]["paramName"]: message["param"]["paramValue"] for message in messages(archive, "parameter_msg")
    }
    assert parameters["lr"] == 0.1 and parameters["model.width"] == 64 and parameters["steps"] == "[1, 2]"
    assert len(parameters["long"]) == 1000 and others(archive)["cut_parameters"].endswith("long")
    kept = files(archive)
    assert json.loads(kept["config.yaml"]) == config and json.loads(kept["environment.json"]) == environment
    assert pixels(kept["3/probe/left"]) == [[0, 1], [2, 3]] and pixels(kept["4/color"]) == [[[1, 2, 3], [4, 5, 6]]]
    assert kept["3/notes"].decode() == "one\nzwei ü"
    assert kept["best_model/weights.bin"] == b"weights" and kept["report.html"] == b"<p>good</p>"
    assert [json.loads(entry)["event"] for entry in kept["events.jsonl"].splitlines()] == ["start", "note"]
    assert json.loads(kept["summary.json"])["digest"] == "d1"
    page = "".join(message["html"] for message in messages(archive, "html"))
    assert "step 0: start" in page and "step 5: note: text &lt;b&gt;&amp;" in page
    said = others(archive)
    assert (said["Name"], said["id"], said["status"], said["digest"]) == ("line/v001", ID, "finished", "d1")
    assert said["best.value"] == 0.5 and said["environment.packages.torch"] == "2.13.0"
    assert not messages(archive, "stdout_msg") and not messages(archive, "git_metadata")  # nothing by itself
    shown = subprocess.run(
        [comet_python, "-c", "from comet_ml.scripts.comet import main; main()", "offline", str(archive)],
        capture_output=True, text=True, check=True, env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
    ).stdout  # fmt: skip
    assert "train/loss [41]" in shown and "validation/loss [1]: 0.5" in shown


def test_a_run_that_goes_on_is_the_same_experiment(opening: Any, tell: Any, run: Path) -> None:
    tell([opening(), scalars(1, loss=1.0), closing("killed")])
    tell([opening(goes_on=True), scalars(2, loss=0.5), closing()])
    first, second = archives(run / "comet")
    assert described(first)["offline_id"] == described(second)["offline_id"] == experiment_key(ID)
    assert told(first) + told(second) == [("train/loss", 1, 1.0), ("train/loss", 2, 0.5)]
    assert (others(first)["status"], others(second)["status"]) == ("killed", "finished")


PROGRAM = """
import os, signal, socket, sys
def connect(self, address):
    raise SystemExit(f"connects to {address}")
socket.socket.connect = connect
from pathlib import Path
from treadle.sinks.services.comet import CometService
from treadle.sinks.services.service import Opening
service = CometService()
service.open(Opening("line/v001", sys.argv[2], "line", "line", Path(sys.argv[1]), 0, False))
for step in range(5):
    service.scalars(step, 0, "train", {"loss": step / 2}, 1e9)
service.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_has_left_becomes_an_archive(
    opening: Any, tell: Any, run: Path, comet_python: str, tmp_path: Path
) -> None:
    """And it connects to nobody."""
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": str(HERE.parents[2] / "src")}
    killed = subprocess.run(
        [comet_python, "-c", PROGRAM, run, ID], env=home, capture_output=True, text=True, cwd=tmp_path
    )
    assert killed.returncode == -9, killed.stderr
    (left,) = (run / "comet").glob(f".{experiment_key(ID)}/*/messages.json")
    left.write_bytes(left.read_bytes() + b'{"payload": {"tor')
    tell([opening(goes_on=True), scalars(5, loss=2.5), closing()])
    first, second = archives(run / "comet")
    assert told(first) == [("train/loss", step, step / 2) for step in range(5)]
    assert told(second) == [("train/loss", 5, 2.5)]
    assert {described(path)["offline_id"] for path in (first, second)} == {experiment_key(ID)}
    assert sorted((run / "comet").iterdir()) == sorted([first, second])


def test_forks_name_their_parent_and_rewinds_are_told(opening: Any, tell: Any, run: Path) -> None:
    parent = {"run": "line/v000", "id": "fedcba9876543210", "step": 7}
    tell(
        [
            opening(parent=parent),
            scalars(8, loss=1.0),
            scalars(9, loss=1.0),
            ("cut", {"step": 8}),
            scalars(9, loss=2.0),
            closing(),
        ]
    )
    (archive,) = archives(run / "comet")
    said = others(archive)
    assert said["parent"] == "line/v000 at step 7" and said["parent_key"] == experiment_key("fedcba9876543210")
    assert described(archive)["tags"] == ["fork"]
    assert said["rewind"] == "to step 8, from step 9" and "back to step 8" in messages(archive, "html")[0]["html"]
    assert told(archive) == [("train/loss", 8, 1.0), ("train/loss", 9, 1.0), ("train/loss", 9, 2.0)]


def test_comets_own_settings_say_where_it_goes(opening: Any, tell: Any, run: Path, tmp_path: Path) -> None:
    """With a key and COMET_START_ONLINE=0 it stays offline, and the key is in nothing that is written."""
    settings = {
        "COMET_API_KEY": KEY,
        "COMET_START_ONLINE": "0",
        "COMET_OFFLINE_DIRECTORY": str(tmp_path / "elsewhere"),
        "COMET_PROJECT_NAME": "theirs",
        "COMET_WORKSPACE": "ours",
    }
    answers = tell([opening(), closing()], **settings)
    assert answers[0]["returned"] == str(tmp_path / "elsewhere") and not (run / "comet").exists()
    (archive,) = archives(tmp_path / "elsewhere")
    said = described(archive)
    assert (said["project_name"], said["workspace"]) == ("theirs", "ours")
    assert KEY not in json.dumps([said, others(archive)])
    tell([opening(id="fedcba9876543210", options={"project": "mine"}), closing()], **settings)
    projects = Counter(described(path)["project_name"] for path in archives(tmp_path / "elsewhere"))
    assert projects == {"theirs": 1, "mine": 1}


def test_a_host_that_is_away_holds_up_nothing_for_long(opening: Any, tell: Any) -> None:
    start = time.monotonic()
    online = {"COMET_API_KEY": KEY, "COMET_URL_OVERRIDE": "http://127.0.0.1:9/clientlib/"}
    (answer,) = tell([opening()], raises=True, **online)
    assert "raised" in answer and time.monotonic() - start < 40


def test_what_a_full_disk_takes_is_counted(opening: Any, tell: Any, run: Path) -> None:
    calls = [opening(), *(scalars(step, loss=1.0) for step in range(200)), FLUSH, closing(), LOST]
    *_, flushed, closed, lost = tell(calls, raises=True, file_bytes=16384)
    assert "do not get into" in flushed["raised"] and "is the disk full?" in flushed["raised"]
    assert "raised" in closed or lost["returned"]["values"] > 0


def test_long_names_stay_apart_and_keys_are_what_comet_wants() -> None:
    assert short_name("train/loss") == "train/loss" and len(short_name("n" * 101)) == 100
    assert short_name("n" * 101) != short_name("n" * 102)
    key = experiment_key(ID)
    assert key.isalnum() and 32 <= len(key) <= 50 and key.startswith(ID) and key != experiment_key("fedcba9876543210")
