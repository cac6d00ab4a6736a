"""What W&B is given, read back from the SDK's own files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SERVICE = "treadle.sinks.services.wandb:WandbService"
OFFLINE = {"WANDB_MODE": "offline"}
ID = "0123456789abcdef"
KEY = "1234567890abcdef1234567890abcdef12345678"


@pytest.fixture
def called(driven: Callable[..., Any], wandb_python: str) -> Callable[..., list[dict[str, Any]]]:
    """Call the service, offline, unless the variables say otherwise."""

    def call(calls: Any, file_bytes: int | None = None, **variables: str) -> list[dict[str, Any]]:
        return driven(wandb_python, SERVICE, calls, OFFLINE | variables, file_bytes)

    return call


@pytest.fixture
def kept(tmp_path: Path, sessions: Callable[[Path], list[dict[str, Any]]]) -> Callable[..., list[dict[str, Any]]]:
    """Read the sessions back that are kept of a run."""
    return lambda directory=tmp_path / "line" / "v001" / "wandb": sessions(directory)


def test_everything_can_be_read_back(
    called: Callable[..., Any],
    opening: Callable[..., Any],
    scalars: Callable[..., Any],
    kept: Callable[..., Any],
    tmp_path: Path,
) -> None:
    directory = tmp_path / "line" / "v001"
    (directory / "best_model").mkdir(parents=True)
    (directory / "best_model" / "weights.bin").write_bytes(b"123")
    (directory / "report.html").write_text("<h1>fine</h1>")
    dark = np.zeros((3, 4, 1), dtype=np.uint8)
    dark[1, 2] = 1  # not to be stretched to 255
    colours = np.random.default_rng(0).integers(0, 256, (1, 7, 3), dtype=np.uint8)  # one row: three axes all the same
    answers = called(
        [
            opening(
                config={"lr": 0.1, "optimizer": {"name": "sgd", "betas": [0.9, 0.99]}, "data": None},
                environment={"python": "3.11.9", "packages": {"torch": "2.13.0"}},
                options={"tags": ["small"], "notes": "a try"},
            ),
            ("event", {"entry": {"event": "start", "step": 0, "epoch": 0, "time": 1_700_000_000.0, "seed": 3}}),
            scalars(2, loss=0.5, lr=1e-3),
            scalars(4, loss=math.nan, lr=math.inf),
            scalars(4, "epoch", 1, loss=0.25),
            scalars(4, "validation", 1, psnr=31.5),
            ("picture", {"step": 4, "name": "dark", "picture": dark.tolist()}),
            ("picture", {"step": 4, "name": "step", "picture": colours.tolist()}),
            ("text", {"step": 4, "name": "note", "text": "a < b & <b>c</b>\n  d"}),
            ("scene", {"step": 4, "name": "cloud", "scene": {"points": [[0.0, 1.0, 2.0]], "colors": [[1, 2, 3]]}}),
            ("artifact", {"name": "best_model", "kind": "model", "path": str(directory / "best_model")}),
            ("artifact", {"name": "report", "kind": "report", "path": str(directory / "report.html")}),
            ("summary", {"values": {"status": "finished", "step": 4, "best": {"step": 4, "value": 31.5}}}),
            ("close", {"status": "finished"}),
            ("lost", {}),
        ]
    )
    assert [answer for answer in answers if "raised" in answer] == []
    assert answers[-1]["returned"] == {}
    (session,) = kept()
    assert Path(answers[0]["returned"]).parent == directory / "wandb"
    assert [path for path in directory.rglob("*") if path.is_symlink()] == []  # none that leads out of the run
    run = session["run"]
    assert (run["id"], run["project"], run["name"], run["notes"]) == (ID, "line", "line/v001", "a try")
    assert run["tags"] == ["small"] and session["exit"] == 0
    config = session["config"]
    assert config["optimizer"] == {"name": "sgd", "betas": [0.9, 0.99]} and config["lr"] == 0.1
    assert config["environment"]["packages"]["torch"] == "2.13.0" and config["trainer"] == "line"
    assert {("*", "step"), ("epoch/*", "epoch")} <= {tuple(axis) for axis in session["metrics"]}

    rows = session["rows"]
    assert [row["_step"] for row in rows] == list(range(len(rows)))
    two, four = (row for row in rows if "train/loss" in row)
    assert (two["step"], two["train/loss"], two["train/lr"]) == (2, 0.5, 1e-3)
    assert two["_timestamp"] == 1_700_000_002.5
    assert math.isnan(float(four["train/loss"])) and float(four["train/lr"]) == math.inf
    assert [(row["epoch"], row["epoch/loss"]) for row in rows if "epoch/loss" in row] == [(1, 0.25)]
    assert [(row["step"], row["validation/psnr"]) for row in rows if "validation/psnr" in row] == [(4, 31.5)]
    assert [row["event"] for row in rows if "event" in row] == ["start: seed 3"]

    files = Path(answers[0]["returned"]) / "files"
    (picture,) = (row["dark"] for row in rows if "dark" in row)
    np.testing.assert_array_equal(np.asarray(Image.open(files / picture["path"])), dark[..., 0])
    (picture,) = (row["step_"] for row in rows if "step_" in row)
    np.testing.assert_array_equal(np.asarray(Image.open(files / picture["path"])), colours)
    (text,) = (row["note"] for row in rows if "note" in row)
    assert "a &lt; b &amp; &lt;b&gt;c&lt;/b&gt;\n  d" in (files / text["path"]).read_text()
    (cloud,) = (row["cloud"] for row in rows if "cloud" in row)
    assert json.loads((files / cloud["path"]).read_text()) == [[0, 1, 2, 1, 2, 3]]
    (table,) = (row["journal"] for row in rows if "journal" in row)
    journal = json.loads((files / table["path"]).read_text())
    assert [row[1:] for row in journal["data"]] == [[0, 0, "start", "seed 3"]]

    artifacts = {kind: (name, contents) for kind, name, contents in session["artifacts"]}
    assert artifacts["model"] == (f"best_model-{ID}", ["weights.bin"])
    assert artifacts["report"] == (f"report-{ID}", ["report.html"])
    assert session["summary"]["status"] == "finished" and session["summary"]["best"] == {"step": 4, "value": 31.5}


def test_a_resumed_run_is_the_same_and_its_rows_go_on(
    called: Callable[..., Any],
    opening: Callable[..., Any],
    scalars: Callable[..., Any],
    kept: Callable[..., Any],
    tmp_path: Path,
) -> None:
    directory = tmp_path / "line" / "v001"
    directory.mkdir(parents=True)
    entries = [{"event": "start", "step": 0, "epoch": 0, "time": 1.0}, {"event": "rewind", "step": 2, "time": 2.0}]
    (directory / "journal.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries) + '{"half')
    end = ("close", {"status": "killed"})
    first = [("event", {"entry": entries[0]}), scalars(2, loss=2), scalars(4, loss=4), ("cut", {"step": 2}), end]
    called([opening(), *first])
    more = [scalars(3, loss=3), ("event", {"entry": entries[1]}), end, ("lost", {})]
    answers = called([opening(goes_on=True, step=2), *more])
    assert answers[-1]["returned"] == {}
    before, after = kept()
    assert before["run"]["id"] == after["run"]["id"] == ID and after["exit"] == 255
    rows = before["rows"] + after["rows"]
    assert [row["_step"] for row in rows] == list(range(len(rows)))  # nothing that a server would have twice
    assert [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row] == [(2, 2), (4, 4), (3, 3)]
    assert [row["step"] for row in rows if "rewound_to" in row] == [2]
    (table,) = (row["journal"] for row in after["rows"] if "journal" in row)
    journal = json.loads((Path(answers[0]["returned"]) / "files" / table["path"]).read_text())
    assert [row[3] for row in journal["data"]] == ["start", "rewind"]  # all of it, each entry once


def test_a_fork_names_its_parent_and_what_the_user_has_set_wins(
    called: Callable[..., Any],
    opening: Callable[..., Any],
    scalars: Callable[..., Any],
    kept: Callable[..., Any],
    tmp_path: Path,
) -> None:
    parent = {"run": "line/v001", "id": "f" * 16, "step": 20}
    variables = {"WANDB_PROJECT": "mine", "WANDB_NAME": "nice", "WANDB_TAGS": "a,b", "WANDB_DIR": str(tmp_path)}
    answers = called([opening(parent=parent), scalars(21, loss=1), ("close", {"status": "failed"})], **variables)
    assert Path(answers[0]["returned"]).parent == tmp_path / "wandb"
    (session,) = kept(tmp_path / "wandb")
    assert session["config"]["parent"] == parent and session["exit"] == 1
    run = session["run"]
    assert (run["project"], run["name"]) == ("mine", "nice") and run["tags"] == ["a", "b", "fork"]
    assert run["notes"] == f"forked from line/v001 ({'f' * 16}) at step 20"


def test_a_directory_may_be_called_what_no_project_can_be(
    called: Callable[..., Any], opening: Callable[..., Any], scalars: Callable[..., Any], kept: Callable[..., Any]
) -> None:
    directory = "a/b\\c#?%:" + "x" * 200
    answers = called([opening(project=directory), scalars(1, loss=1), ("close", {"status": "finished"})])
    assert [answer for answer in answers if "raised" in answer] == []
    (session,) = kept()
    assert session["run"]["project"] == directory.translate(str.maketrans("/\\#?%:", "------"))[:128]


def test_what_did_not_fit_on_the_disk_is_counted(
    called: Callable[..., Any], opening: Callable[..., Any], scalars: Callable[..., Any]
) -> None:
    rows = [scalars(step, loss=step, psnr=step) for step in range(2000)]
    *_, lost = called([opening(), *rows, ("close", {"status": "finished"}), ("lost", {})], file_bytes=100_000)
    assert 1000 < lost["returned"]["scalars"] < 4000


def test_switched_off_it_says_so(
    called: Callable[..., Any], opening: Callable[..., Any], scalars: Callable[..., Any]
) -> None:
    opened, *told = called(
        [opening(), scalars(1, loss=1), ("close", {"status": "finished"}), ("lost", {})], WANDB_MODE="disabled"
    )
    assert opened["returned"] == "nowhere: WANDB_MODE=disabled"
    assert told == [{"returned": None}, {"returned": None}, {"returned": {}}]
