"""What a trained run leaves on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from treadle import files
from treadle.config.files import load
from treadle.errors import RunError
from treadle.runs.metrics import read_metrics
from treadle.runs.run import Run, read_journal, read_summary
from treadle.testing import Line, line_data


@pytest.fixture
def line(tmp_path: Path) -> Callable[..., Line]:
    data = line_data(40)
    settings = {"data": data, "validation_data": data, "batch_size": 10, "max_epochs": 3, "log_every": "2 steps"}

    def make(**more: Any) -> Line:
        return Line(**(settings | {"run_dir": tmp_path / "runs" / "line"} | more))

    return make


def without_time(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "time"} for line in lines]


def test_files_of_a_finished_run(line: Callable[..., Line]) -> None:
    trainer = line()
    summary = trainer.train()
    path = trainer.run.path
    names = {p.name for p in path.iterdir()}
    assert {"config.yaml", "environment.json", "metrics.jsonl", "journal.jsonl", "summary.json", "checkpoints",
            "best_model", "logs"} <= names  # fmt: skip
    assert load(path / "config.yaml")["config"]["max_epochs"] == 3
    saved = read_summary(path)
    assert saved["status"] == "finished" and saved["digest"] == summary.digest and saved["best"] == trainer.best
    assert saved["metrics"] == summary.metrics and (saved["step"], saved["epoch"]) == (12, 3)
    splits = [line["split"] for line in read_metrics(path)]
    assert splits.count("train") == 6 and splits.count("epoch") == splits.count("validation") == 3
    assert read_journal(path)[0]["event"] == "start"
    assert read_journal(path)[-1]["event"] == "finish"
    series = np.load(path / "logs" / "validation.loss.npy")
    assert series[:, 0].tolist() == [4, 8, 12] and series[-1, 1] == summary.validation_metrics["loss"]


def test_stepping_writes_the_same_files(line: Callable[..., Line]) -> None:
    one, other = line(), line()
    one.train()
    while other.iterate():
        pass
    assert without_time(read_metrics(one.run.path)) == without_time(read_metrics(other.run.path))
    # A checkpoint is entered when its writer, a thread, is done: the step of that is up to the machine.
    journals = [without_time(read_journal(t.run.path)) for t in (one, other)]
    written = [[(e["checkpoint"], e["digest"]) for e in journal if e["event"] == "checkpoint"] for journal in journals]
    assert written[0] == written[1] and written[0]
    others = [[entry for entry in journal if entry["event"] != "checkpoint"] for journal in journals]
    assert others[0] == others[1]
    assert {p.name for p in one.run.path.rglob("*")} == {p.name for p in other.run.path.rglob("*")}


def test_recording_changes_nothing(line: Callable[..., Line]) -> None:
    on_disk, in_memory = line(), line(run_dir=None)
    on_disk.train()
    in_memory.train()
    assert torch.equal(on_disk.model.weight, in_memory.model.weight)


def test_a_failed_run_says_so(line: Callable[..., Line]) -> None:
    trainer = line()
    trainer.replace("step", lambda trainer, batch: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    summary = read_summary(trainer.run.path)
    assert summary["status"] == "failed" and "ZeroDivisionError" in summary["reason"]


def test_a_stopped_run_says_so(line: Callable[..., Line]) -> None:
    with line() as trainer:
        trainer.iterate()
        trainer.stop("enough")
        trainer.train()
    assert read_summary(trainer.run.path)["status"] == "stopped"


def test_a_full_disk_fails_the_run_in_one_line(line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        if b'"split"' in data:
            raise OSError(28, "No space left on device")
        return write(descriptor, data)

    trainer, write = line(), os.write
    monkeypatch.setattr(files.os, "write", full)
    with pytest.raises(RunError, match=r"cannot write .*metrics\.jsonl: No space left on device") as caught:
        trainer.train()
    assert "\n" not in str(caught.value)
    assert read_summary(trainer.run.path)["status"] == "failed"


def test_a_disk_that_refuses_the_summary_too_does_not_hide_the_first_error(
    line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise RunError("cannot write summary.json")

    trainer = line()
    trainer.replace("step", lambda trainer, batch: 1 / 0)
    monkeypatch.setattr(trainer.run, "write_summary", full)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    finishing = line()
    monkeypatch.setattr(finishing.run, "write_summary", full)
    with pytest.raises(RunError, match=r"summary\.json"):
        finishing.train()


def test_a_resumed_run_has_each_line_once(line: Callable[..., Line], tmp_path: Path) -> None:
    whole = line()
    whole.train()
    part = line(save_every="3 steps")
    for _ in range(8):
        part.iterate()
    path = part.run.path
    part.close()
    # As after a kill: lines of steps 7 and 8 were written, the last checkpoint is of step 6.
    for checkpoint in sorted((path / "checkpoints").glob("step-*"))[2:]:
        raise AssertionError(f"unexpected {checkpoint}")
    resumed = line(run_dir=path, resume=True, save_every="3 steps")
    resumed.train()
    assert without_time(read_metrics(path)) == without_time(read_metrics(whole.run.path))
    np.testing.assert_array_equal(
        np.load(path / "logs" / "epoch.loss.npy"), np.load(whole.run.path / "logs" / "epoch.loss.npy")
    )


def test_what_is_logged_after_the_end_is_kept(line: Callable[..., Line]) -> None:
    trainer = line(test_data=(torch.zeros(4, 1), torch.ones(4, 1)))
    trainer.train()
    metrics = trainer.test()
    last = read_metrics(trainer.run.path)[-1]
    assert last["split"] == "test" and last["values"] == metrics
    assert np.load(trainer.run.path / "logs" / "test.loss.npy").tolist() == [[12, metrics["loss"]]]


def test_pictures_and_texts(line: Callable[..., Line]) -> None:
    trainer = line()
    trainer.iterate()
    trainer.log_image("probe", torch.rand(4, 4, 3))
    trainer.log_text("note", "hello")
    trainer.log_image("bad", torch.rand(4))  # reported, never fatal
    trainer.train()
    assert sorted(p.name for p in (trainer.run.path / "examples").iterdir()) == [
        "step-00000001-note.txt",
        "step-00000001-probe.png",
    ]
    assert "observer failed" in [entry["event"] for entry in read_journal(trainer.run.path)]


def test_environment_of_the_run(line: Callable[..., Line]) -> None:
    trainer = line()
    environment = json.loads((Run.open(trainer.run.path).path / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    trainer.close()
