"""CSV tables, read back with Python's own `csv`."""

from __future__ import annotations

import csv
import json
import math
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.warm.python import python
from treadle import testing
from treadle.config.files import load
from treadle.runs.fork import fork_run
from treadle.runs.metrics import read_metrics
from treadle.runs.run import read_config, read_environment, read_journal, read_summary
from treadle.sinks import csv as sink
from treadle.sinks.csv import CSV, Table


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a table; each has a cell for each column."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(None not in row and None not in row.values() for row in rows)
    return rows


def steps(path: Path) -> list[int]:
    return [int(row["step"]) for row in read(path)]


def agrees(run: Path, tables: Path) -> None:
    """Each table holds what metrics.jsonl does: each step once, nothing else."""
    logged: dict[str, dict[int, dict[str, float]]] = {}
    for line in read_metrics(run):
        logged.setdefault(line["split"], {}).setdefault(line["step"], {"epoch": line["epoch"]}).update(line["values"])
    found = {
        path.stem: {
            int(row["step"]): {name: float(cell) for name, cell in row.items() if name not in ("step", "time") and cell}
            for row in read(path)
        }
        for path in tables.glob("*.csv")
        if path.stem != "events"
    }
    assert found == logged
    assert all(len(read(tables / f"{split}.csv")) == len(rows) for split, rows in found.items())
    events = [
        {"event": row["event"], "step": int(row["step"])} | (json.loads(row["details"]) if row["details"] else {})
        for row in read(tables / "events.csv")
    ]
    assert events == [
        {name: value for name, value in entry.items() if name not in ("epoch", "time")} for entry in read_journal(run)
    ]


def test_everything_can_be_read_back(line: Callable[..., Any], tmp_path: Path) -> None:
    trainer = line(run_dir=tmp_path / "line", hooks=[CSV()])
    trainer.train()
    trainer.test(trainer.validation_feed)
    tables = trainer.run.path / "csv"
    assert {path.name for path in tables.iterdir()} == {
        f"{name}.csv" for name in ("train", "epoch", "validation", "test", "events")
    }
    agrees(trainer.run.path, tables)
    assert steps(tables / "train.csv") == [2, 4, 6, 8, 10, 12] and steps(tables / "validation.csv") == [4, 8, 12]
    rows = read(tables / "train.csv")
    assert list(rows[0])[:3] == ["step", "epoch", "time"] and {"loss", "psnr", "lr"} <= rows[0].keys()
    logged = [line["time"] for line in read_metrics(trainer.run.path) if line["split"] == "train"]
    np.testing.assert_allclose([float(row["time"]) for row in rows], logged, atol=1)


def test_a_metric_that_appears_late_adds_a_column(tmp_path: Path) -> None:
    table = Table(tmp_path / "train.csv")
    table.add(1, 0, 0.0, {"loss": 0.5})
    table.add(2, 0, 0.0, {"psnr": math.inf, "loss": math.nan})
    table.add(2, 0, 0.0, {"a,b": 1e-30})  # what is logged at the same step joins its row
    table.add(3, 0, 0.0, {"=SUM(A1)": -1.0, "two\nlines": 0.1 + 0.2})
    rows = read(tmp_path / "train.csv")
    assert list(rows[0])[3:] == ["loss", "psnr", "a,b", "'=SUM(A1)", "two lines"]
    assert [list(row.values())[3:] for row in rows] == [
        ["0.5", "", "", "", ""],
        ["nan", "inf", "1e-30", "", ""],
        ["", "", "", "-1.0", "0.30000000000000004"],
    ]
    table.cut(2)
    table.add(3, 0, 0.0, {"loss": 1.0})
    assert steps(tmp_path / "train.csv") == [1, 2, 3]


def test_columns_are_bounded(line: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "COLUMNS", 4)
    trainer = line(run_dir=tmp_path / "line", hooks=[CSV()])
    trainer.log("first", 1.0)
    trainer.iterate(), trainer.iterate()
    for number in range(3):
        trainer.log(f"late {number}", 1.0)
    trainer.train()
    assert len(read(trainer.run.path / "csv" / "train.csv")[0]) == 3 + 4
    (note,) = (entry for entry in trainer.journal if entry["event"] == "not written by CSV")
    assert note["counts"]["values of too many metrics"] >= 3


def test_in_a_place_of_its_own_it_has_pictures_and_texts(line: Callable[..., Any], tmp_path: Path) -> None:
    trainer = line(run_dir=tmp_path / "line", hooks=[CSV(tmp_path / "tables"), CSV()], snapshot_every="1 steps")
    trainer.iterate()
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    trainer.log_image("a probe/1", picture)
    trainer.iterate()
    trainer.log_image("later", picture)
    trainer.log_text("note", "héllo")
    place = tmp_path / "tables" / "line" / "v001"
    np.testing.assert_array_equal(Image.open(place / "pictures" / "step-00000001-a probe-1.png"), picture)
    assert (place / "texts" / "step-00000002-note.txt").read_text() == "héllo\n"
    trainer.rewind(1)
    assert [path.name for path in place.glob("*/step-*")] == ["step-00000001-a probe-1.png"]
    trainer.train()
    agrees(trainer.run.path, place)
    assert load(place / "config.yaml") == read_config(trainer.run.path) | {"data": None}
    assert read_environment(place) == read_environment(trainer.run.path)
    assert read_summary(place) | {"seconds": 0} == read_summary(trainer.run.path) | {"seconds": 0}
    assert all(path.suffix == ".csv" for path in (trainer.run.path / "csv").iterdir()), "the run has the rest"


def test_a_rewound_run_has_each_step_once(line: Callable[..., Any], tmp_path: Path) -> None:
    trainer = line(run_dir=tmp_path / "line", hooks=[CSV()], snapshot_every="2 steps")
    for _ in range(9):
        trainer.iterate()
    trainer.rewind(4)
    assert steps(trainer.run.path / "csv" / "train.csv") == [2, 4]
    trainer.train()
    agrees(trainer.run.path, trainer.run.path / "csv")
    assert steps(trainer.run.path / "csv" / "train.csv") == [2, 4, 6, 8, 10, 12]


def test_a_run_in_memory_goes_where_it_is_told(
    line: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for epochs in (2, 1):  # the second is shorter, and nothing of the first stays
        trainer = line(hooks=[CSV(tmp_path)], max_epochs=epochs, snapshot_every="1 steps")
        trainer.iterate(), trainer.iterate(), trainer.iterate()
        trainer.rewind(1)
        trainer.train()
    assert steps(tmp_path / "Line" / "train.csv") == [2, 4]
    assert line(hooks=[CSV()]).train().status == "finished"
    assert "CSV has nowhere to write" in capfd.readouterr().err


KILLED = """
import os, signal, sys
from pathlib import Path
from treadle import testing
from treadle.config.files import load
from treadle.sinks.csv import CSV
trainer = testing.Line(data=testing.line_data(40), batch_size=10, log_every="2 steps", max_epochs=3,
                       run_dir=sys.argv[1], hooks=[CSV()], save_every="3 steps")
for _ in range(8):
    trainer.iterate()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_goes_on_and_a_fork_has_its_past(tmp_path: Path) -> None:
    done = subprocess.run([python(), "-c", KILLED, str(tmp_path / "line")])
    assert done.returncode == -signal.SIGKILL
    run = tmp_path / "line" / "v001"
    assert steps(run / "csv" / "train.csv") == [2, 4, 6, 8], "whole rows, at once"
    with open(run / "csv" / "train.csv", "a") as file:
        file.write("10,2,0.0,0.1")  # a row that was torn
    settings = {"data": testing.line_data(40), "batch_size": 10, "log_every": "2 steps", "max_epochs": 3}
    resumed = testing.Line(**settings, run_dir=run, resume=True, hooks=[CSV()], save_every="3 steps")
    assert resumed.progress.step in (3, 6)
    resumed.train()
    agrees(run, run / "csv")
    assert steps(run / "csv" / "train.csv") == [2, 4, 6, 8, 10, 12]
    fork = fork_run(run, 9, read_config(run))
    branch = testing.Line(**settings, run_dir=fork, resume=True, hooks=[CSV()], save_every="3 steps")
    branch.train()
    agrees(fork, fork / "csv")
    assert steps(fork / "csv" / "train.csv") == [2, 4, 6, 8, 10, 12], "with its parent's, as its metrics.jsonl"
