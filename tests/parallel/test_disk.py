"""Runs on disk that several processes train: written once, resumed by as many, or as few, bit for bit."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import treadle
from tests.parallel.test_group import Dropping, some_data
from tests.parallel.together import together
from treadle import RunError, Trainer, UsageError
from treadle.hooks import KeptModels
from treadle.parallel import this_world

SETTINGS: dict[str, Any] = {
    "batch_size": 12,
    "max_steps": 14,
    "log_every": "4 steps",
    "save_every": "3 steps",
    "keep_checkpoints": 20,
    "accumulate": 2,
    "seed": 5,
}


def train(path: str, resume: Any, until: int | None = None, kill: int | None = None, **more: Any) -> dict[str, Any]:
    data = some_data(54)
    trainer = Dropping(data=data, validation_data=data, run_dir=path, resume=resume, **SETTINGS | more)
    begun = trainer.progress.step
    if until is not None:
        while trainer.progress.step < until:
            trainer.iterate()
        if kill == this_world().rank:
            os.kill(os.getpid(), signal.SIGKILL)
        if kill == -1:  # as when all of them are killed, but they can be used again
            trainer.driver.abandon()
            return {}
    summary = trainer.train()
    return {"digest": trainer.digest(), "begun": begun, "path": str(trainer.run.path), "step": summary.step}


def journal(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "journal.jsonl").read_text().splitlines()]


def test_a_run_on_disk_is_written_once(tmp_path: Path) -> None:
    found = together(2, tmp_path, train, str(tmp_path / "runs"), False)
    assert found[0] == found[1]
    run = tmp_path / "runs" / "v001"
    assert found[0]["path"] == str(run) and not (tmp_path / "runs" / "v002").exists()
    events = [entry["event"] for entry in journal(run)]
    assert events.count("start") == events.count("finish") == 1
    saved = [entry for entry in journal(run) if entry["event"] == "checkpoint"]
    assert [entry["checkpoint"] for entry in saved] == [f"step-{step:08d}" for step in (3, 6, 9, 12, 14)]
    assert json.loads((run / "summary.json").read_text())["digest"] == saved[-1]["digest"] == found[0]["digest"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "train"] == [4, 8, 12, 14]
    assert (run / "best_model").is_dir()
    with pytest.raises(UsageError, match="was trained by 2 processes at step 14, which one cannot take again"):
        treadle.verify(run, trainer=Dropping, data=some_data(54), validation_data=some_data(54))


@pytest.mark.parametrize("kill", [1, -1])
def test_whoever_is_killed_the_run_goes_on_to_the_undisturbed_digest(tmp_path: Path, kill: int) -> None:
    undisturbed = together(2, tmp_path, train, str(tmp_path / "whole"), False)
    if kill < 0:
        together(2, tmp_path, train, str(tmp_path / "killed"), False, 8, kill)
    else:
        with pytest.raises(RuntimeError, match=r"has died|another process of this run is gone"):
            together(2, tmp_path, train, str(tmp_path / "killed"), False, 8, kill)
    found = together(2, tmp_path, train, str(tmp_path / "killed" / "v001"), True)
    assert found[0]["begun"] in (3, 6)
    assert [one["digest"] for one in found] == [undisturbed[0]["digest"]] * 2


@pytest.mark.parametrize(("before", "now"), [(2, 3), (2, 1), (1, 2)])
def test_another_number_of_processes_goes_on_and_says_so(tmp_path: Path, before: int, now: int) -> None:
    together(before, tmp_path, train, str(tmp_path / "run"), False, 8, -1)
    found = together(now, tmp_path, train, str(tmp_path / "run" / "v001"), True)
    assert len({one["digest"] for one in found}) == 1 and found[0]["step"] == 14
    (said,) = [entry for entry in journal(tmp_path / "run" / "v001") if entry["event"] == "processes changed"]
    assert (said["before"], said["now"]) == (before, now)


def test_where_it_has_to_be_exact_another_number_is_refused(tmp_path: Path) -> None:
    together(2, tmp_path, _deterministic, str(tmp_path / "run"), False, 8, -1)
    with pytest.raises(RuntimeError, match="the run was trained by 2 processes, and here are 3: resume it with 2"):
        together(3, tmp_path, _deterministic, str(tmp_path / "run" / "v001"), True)


def _deterministic(*arguments: Any) -> dict[str, Any]:
    return train(*arguments, deterministic=True)


def test_auto_begins_and_goes_on_in_one_run(tmp_path: Path) -> None:
    together(2, tmp_path, train, str(tmp_path / "run"), "auto", 8, -1)
    found = together(2, tmp_path, train, str(tmp_path / "run"), "auto")
    assert found[0]["path"] == found[1]["path"] == str(tmp_path / "run" / "v001") and found[0]["begun"] > 0


class ComeApart(Dropping):
    def post_step(self, batch: Any, outputs: Any) -> None:
        super().post_step(batch, outputs)
        if self.progress.step == 5 and this_world().rank == 1:
            with torch.no_grad():
                self.model[0].weight[0, 0] += 1e-6


def come_apart(path: str) -> str:
    trainer: Trainer = ComeApart(data=some_data(54), run_dir=path, **SETTINGS)
    try:
        trainer.train()
    except RunError as error:
        return str(error)
    return "none"


def test_processes_that_come_apart_end_the_run_and_are_named(tmp_path: Path) -> None:
    said = together(3, tmp_path, come_apart, str(tmp_path / "run"))
    assert said[0] == said[1] == said[2]
    assert said[0].startswith("process 1 has come apart from the others by step 6: model/state/0.weight is another")


def stop_one(path: str, rank: int, after: int) -> dict[str, Any]:
    """One process is told to save and to stop, by a hook or as by a signal; all of them do, at one step."""
    data = some_data(54)
    trainer = Dropping(data=data, validation_data=data, run_dir=path, **SETTINGS)
    while trainer.progress.step < after:
        trainer.iterate()
    if this_world().rank == rank:
        trainer.request_save()
        trainer.stop("enough")
    first = trainer.train()
    stopped = [first.status, first.reason, trainer.progress.step]
    trainer.train()
    return {"stopped": stopped, "digest": trainer.digest()}


@pytest.mark.parametrize("rank", [0, 1])
def test_what_one_process_is_told_all_of_them_obey_at_one_step(tmp_path: Path, rank: int) -> None:
    whole = together(2, tmp_path, train, str(tmp_path / "whole"), False)
    found = together(2, tmp_path, stop_one, str(tmp_path / "run"), rank, 4)
    assert found[0] == found[1]
    status, reason, step = found[0]["stopped"]
    assert (status, reason) == ("stopped", "enough") and 4 < step <= 6
    assert found[0]["digest"] == whole[0]["digest"]
    saved = [entry["step"] for entry in journal(tmp_path / "run" / "v001") if entry["event"] == "checkpoint"]
    assert step in saved


def time_out(path: str) -> list[Any]:
    trainer = Dropping(data=some_data(54), run_dir=path, max_time=1e-6, **SETTINGS)
    summary = trainer.train()
    return [summary.status, summary.reason, summary.step]


def test_a_time_limit_ends_all_at_one_step(tmp_path: Path) -> None:
    found = together(2, tmp_path, time_out, str(tmp_path / "run"))
    assert found[0] == found[1] and found[0][:2] == ["stopped", "time limit"]


def keep_models(path: str) -> list[int]:
    settings: dict[str, Any] = SETTINGS | {"validate_every": "3 steps"}
    data = some_data(54)
    trainer = Dropping(data=data, validation_data=data, run_dir=path, hooks=[KeptModels(2, ["model"])], **settings)
    trainer.train()
    return [trainer.progress.step]


def test_what_the_main_process_keeps_alone_keeps_nobody_waiting(tmp_path: Path) -> None:
    assert together(2, tmp_path, keep_models, str(tmp_path / "run")) == [[14], [14]]
    assert 1 <= len(list((tmp_path / "run" / "v001" / "models").iterdir())) <= 2
