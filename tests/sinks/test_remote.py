"""Sinks that speak with services: what a run logs arrives, through a real process, whatever happens to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recording import Recorded, told

import treadle
from treadle import UsageError
from treadle.engine.events import Record
from treadle.sinks.services.service import Scene
from treadle.sinks.table import make

HERE = Path(__file__).parent


class Elsewhere(Recorded):
    """A service whose SDK nobody has."""

    package = "an_sdk_that_nobody_has"


def test_what_a_sink_needs_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"Recording is not installed: pip install 'treadle\[recorded\]'"):
        Elsewhere(tmp_path / "told")
    with pytest.raises(UsageError, match="file holds a password: leave it to Recording's own variables"):
        Recorded("http://me:hunter2@localhost/told")
    monkeypatch.setenv("TREADLE_RECORDED_PYTHON", str(tmp_path / "python"))
    with pytest.raises(UsageError, match=r"TREADLE_RECORDED_PYTHON is '.*': expected the path of a Python that has"):
        Elsewhere(tmp_path / "told")


def test_another_python_is_given_this_package_and_nothing_else(
    line: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    parts = Path(__file__).parent / "parts"
    python.write_text(f'#!/bin/sh\ncd /\nPYTHONPATH={parts} exec {sys.executable} -W ignore "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("TREADLE_RECORDED_PYTHON", str(python))
    monkeypatch.setenv("TREADLE_CLOSING_SECONDS", "30")
    line(hooks=[Elsewhere(tmp_path / "told")], max_epochs=1).train()
    (opened,) = told(tmp_path / "told", "open")
    assert opened["path"][0] == str(parts) and not {str(HERE), os.getcwd()} & set(opened["path"])
    assert opened["package"] == treadle.__file__
    assert told(tmp_path / "told")[-1] == {"what": "close", "status": "finished"}


def test_all_that_a_run_logs_arrives_in_its_order(line: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "told"
    sink = Recorded(file)
    trainer = line(hooks=[sink], run_dir=tmp_path / "runs" / "line", max_epochs=1)
    trainer.iterate()
    trainer.log_image("probe", torch.full((2, 3), 0.5))
    trainer.log_text("note", "hello")
    scene = Scene(points=np.array([[1, 2, 3]], np.float32), faces=np.array([[0, 1, 2]], np.int32))
    trainer.loop.events.fire("on_log", Record("scene", "cloud", scene, 1, 0))
    trainer.train()
    lines = told(file)
    assert [line["what"] for line in lines if line["what"] != "event"] == [
        "open", "picture", "text", "scene", *["scalars"] * 4, "artifact", "summary", "close"
    ]  # fmt: skip
    opened = lines[0]
    assert opened["run"] == "line/v001" and opened["step"] == 0 and not opened["goes_on"] and len(opened["id"]) == 16
    assert opened["config"]["batch_size"] == 10
    picture, text, shape = (told(file, what)[0] for what in ("picture", "text", "scene"))
    assert picture == {"what": "picture", "step": 1, "name": "probe", "shape": [2, 3, 1], "mean": 128.0}
    assert text == {"what": "text", "step": 1, "name": "note", "text": "hello"}
    assert shape["arrays"] == {"points": ["float32", [[1.0, 2.0, 3.0]]], "faces": ["int32", [[0, 1, 2]]]}
    scalars = told(file, "scalars")
    assert [(line["split"], line["step"]) for line in scalars] == [
        ("train", 2), ("train", 4), ("epoch", 4), ("validation", 4)
    ]  # fmt: skip
    assert scalars[1]["values"]["loss"] == trainer.metrics["loss"] and scalars[1]["epoch"] == 0
    assert [line["event"] for line in told(file, "event")] == ["start", "checkpoint", "finish"]
    assert told(file, "artifact")[0]["files"] == ["config.yaml", "metrics.json", "weights.safetensors"]
    summary = trainer.summary()
    assert told(file, "summary")[0] == {"what": "summary", "status": "finished", "step": 4, "digest": summary.digest}
    assert lines[-1] == {"what": "close", "status": "finished"}
    assert (trainer.run.path / "logs" / f"sent.{sink.mark}.json").is_file()


def test_what_is_not_sent_can_be_sent_to_the_same_place(
    line: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TREADLE_CLOSING_SECONDS", "0.2")
    trainer = line(hooks=[make("visdom", "http://127.0.0.1:9")], run_dir=tmp_path / "line", max_epochs=1)
    trainer.train()
    said = capfd.readouterr().err.splitlines()[-1]
    assert said.endswith(f"; treadle runs --to visdom=http://127.0.0.1:9 {trainer.run.path} sends it")
