"""Keeping the future that a rewind gives up: as a run of its own, whatever kills it; and its curves in the run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from treadle import RunError, UsageError
from treadle.checkpoint.store import list_checkpoints, read_checkpoint, step_of
from treadle.runs import metrics
from treadle.runs.metrics import ABANDONED, MetricLog, all_series, read_abandoned
from treadle.runs.run import read_journal, read_summary, versions
from treadle.runs.verify import verify_run
from treadle.testing import Line, kill, line_data

SETTINGS: dict[str, Any] = {
    "batch_size": 20,
    "max_steps": 12,
    "save_every": "2 steps",
    "keep_checkpoints": 30,
    "seed": 0,
}


def make(path: Path, kind: type[Line] = Line, **more: Any) -> Line:
    data = line_data()
    return kind(data=data, validation_data=data, run_dir=path, log_every="1 step", **(SETTINGS | more))


def steps_of(run: Path) -> list[int]:
    return [step_of(path) for path in list_checkpoints(run / "checkpoints")]


def at(trainer: Line, step: int) -> Line:
    while trainer.progress.step < step:
        trainer.iterate()
    if trainer.loop.archive is not None:
        trainer.loop.archive.finish()
    return trainer


def test_the_future_becomes_a_run_that_goes_on_where_this_one_was(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole")
    whole.train()
    trainer = at(make(tmp_path / "line"), 9)
    trainer.commands.lr_multiplier(0.5)
    trainer.commands.lr_multiplier(1.0)
    trainer.iterate()
    answer = trainer.commands.rewind(5, keep=True)
    trainer.iterate()
    kept = answer.result(timeout=0)
    assert kept == tmp_path / "line" / "v002" and trainer.progress.step == 6
    (entry,) = (entry for entry in trainer.journal if entry["event"] == "rewind")
    assert (entry["to"], entry["restored"], entry["from_step"], entry["kept"]) == (5, 4, 10, str(kept))
    at(trainer, 6)
    assert steps_of(kept) == [6, 8, 9, 10] and steps_of(trainer.run.path) == [2, 4, 6]
    for path in list_checkpoints(kept / "checkpoints"):
        read_checkpoint(path)
    journal = read_journal(kept)
    assert [entry["event"] for entry in journal if entry["event"] != "checkpoint"] == ["fork", "edit", "edit"]
    assert journal[0]["step"] == 5 and journal[0]["parent"] == str(trainer.run.path)
    assert list(all_series(kept)["train/loss"][0]) == list(range(1, 11))
    assert read_summary(kept)["status"] == "stopped" and read_summary(kept)["step"] == 10
    trainer.train()
    assert trainer.digest() == whole.digest()
    resumed = make(kept, resume=True)
    assert resumed.progress.step == 10
    resumed.train()
    assert verify_run(kept, make, 6).holds and verify_run(kept, make, 10).holds
    assert verify_run(trainer.run.path, make, 0).holds


def test_what_came_after_a_finished_run_went_back_is_a_finished_run(tmp_path: Path) -> None:
    trainer = make(tmp_path / "line")
    trainer.train()
    digest = trainer.digest()
    kept = trainer.rewind(6, keep=True)
    assert kept is not None and not read_summary(trainer.run.path)
    assert read_summary(kept)["status"] == "finished" and read_summary(kept)["digest"] == digest
    again = make(kept, resume=True)
    assert again.ended and again.digest() == digest
    assert (kept / "best_model" / "weights.safetensors").is_file()
    trainer.close()


def test_files_are_shared_and_outlive_the_parent(tmp_path: Path) -> None:
    trainer = at(make(tmp_path / "line"), 8)
    tensors = trainer.run.path / "checkpoints" / "step-00000008" / "tensors.safetensors"
    inode = tensors.stat().st_ino
    kept = trainer.rewind(4, keep=True)
    assert kept is not None and not tensors.exists()
    assert (kept / "checkpoints" / "step-00000008" / "tensors.safetensors").stat().st_ino == inode
    trainer.close()
    shutil.rmtree(trainer.run.path)
    make(kept, resume=True).train()


def test_without_links_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no links here")

    trainer = at(make(tmp_path / "line"), 8)
    monkeypatch.setattr(os, "link", refuse)
    kept = trainer.rewind(4, keep=True)
    assert kept is not None and steps_of(kept) == [4, 6, 8]
    monkeypatch.undo()
    trainer.close()
    make(kept, resume=True).train()


def test_where_nothing_came_later_nothing_is_kept(tmp_path: Path) -> None:
    trainer = at(make(tmp_path / "line"), 4)
    assert trainer.rewind(4, keep=True) is None
    assert len(versions(tmp_path / "line")) == 1
    assert "kept" not in trainer.journal[-1]
    trainer.close()


def test_a_run_in_memory_can_keep_nothing_and_says_so(tmp_path: Path) -> None:
    trainer = Line(data=line_data(), batch_size=20, max_steps=6, snapshot_every="1 step")
    trainer.iterate(), trainer.iterate()
    with pytest.raises(UsageError, match="the future cannot be kept, the run is only in memory: rewind without keep"):
        trainer.rewind(1, keep=True)
    assert trainer.progress.step == 2
    trainer.rewind(1)


def test_a_rewind_that_is_asked_for_in_a_step_keeps_too(tmp_path: Path) -> None:
    class Back(Line):
        gone = False

        def step(self, batch: Any) -> Any:
            if self.progress.step == 7 and not type(self).gone:
                type(self).gone = True
                self.rewind(4, keep=True)
            return super().step(batch)

    trainer = make(tmp_path / "line", Back)
    trainer.train()
    assert steps_of(tmp_path / "line" / "v002") == [4, 6, 8] and trainer.status == "finished"


@pytest.mark.parametrize("stage", ["save", "fill", "fork", "give up", "restore"])
def test_killed_anywhere_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """Whatever stops it, the future is in the run, or whole in a run of its own, or in both."""
    whole = make(tmp_path / "whole")
    whole.train()

    class Killed(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    trainer = at(make(tmp_path / "line"), 9)
    digest = trainer.digest()
    target = {
        "save": ("treadle.engine.driver.Driver.save", die),
        "fill": ("treadle.runs.keeping.write_json", die),
        "fork": ("treadle.runs.aside.sync_tree", die),
        "give up": ("treadle.runs.saving.forget_after", die),
        "restore": ("treadle.engine.state.RunState.restore", die),
    }[stage]
    monkeypatch.setattr(*target)
    with pytest.raises(Killed):
        trainer.rewind(4, keep=True)
    monkeypatch.undo()
    kill(trainer)
    runs = versions(tmp_path / "line")
    assert len(runs) == (1 if stage in ("save", "fill", "fork") else 2)
    future = [run for run in runs if steps_of(run)[-1] >= (8 if stage == "save" else 9)]
    assert future, "some run still has it"
    for run in runs:
        resumed = make(run, resume=True)
        if run in future and stage != "save":
            assert resumed.progress.step == 9 and resumed.digest() == digest
        resumed.train()
        assert resumed.digest() == whole.digest()


def test_a_disk_that_refuses_leaves_the_run_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = at(make(tmp_path / "line"), 8)

    def full(*_: Any, **__: Any) -> None:
        raise RunError("no space left")

    monkeypatch.setattr("treadle.runs.keeping.create_run", full)
    wrong = trainer.commands.rewind(4, keep=True)
    assert trainer.iterate() and trainer.progress.step == 9
    assert "what came after step 4 cannot be kept: no space left; nothing was changed" in str(
        wrong.exception(timeout=0)
    )
    trainer.close()


# The curves of what was given up -----------------------------------------------------------------------------------


def test_what_rewinds_drop_from_the_metrics_is_kept_with_their_number(tmp_path: Path) -> None:
    trainer = at(make(tmp_path / "line"), 8)
    before = all_series(trainer.run.path)
    assert read_abandoned(trainer.run.path) == {}
    trainer.rewind(4)
    at(trainer, 6)
    trainer.rewind(2)
    trainer.train()
    found = read_abandoned(trainer.run.path)
    assert list(found) == [1, 2]
    steps, values = found[1]["train/loss"]
    assert list(steps) == [5, 6, 7, 8] and list(values) == list(before["train/loss"][1][4:])
    assert list(found[2]["train/loss"][0]) == [3, 4, 5, 6]
    assert list(all_series(trainer.run.path)["train/loss"][0]) == list(range(1, 13))


def test_what_a_rollback_gives_up_is_kept_too(tmp_path: Path) -> None:
    class Bad(Line):
        def step(self, batch: Any) -> Any:
            if self.progress.step == 7 and not self.loop.recovery.count:
                batch = batch[0], batch[1] * float("nan")
            return super().step(batch)

    trainer = make(tmp_path / "line", Bad, on_bad_step="rollback", snapshot_every="3 steps")
    trainer.train()
    assert [entry["restored"] for entry in trainer.journal if entry["event"] == "rollback"] == [6]
    assert list(read_abandoned(trainer.run.path)[1]["train/loss"][0]) == [7]


def test_what_a_resume_takes_again_was_not_given_up(tmp_path: Path) -> None:
    trainer = at(make(tmp_path / "line"), 9)
    kill(trainer)
    make(trainer.run.path, resume=True).train()
    assert not (trainer.run.path / ABANDONED).exists()


def test_what_is_kept_of_them_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MOST_ABANDONED", 20_000)
    log = MetricLog(tmp_path)
    for rewind in range(6):
        for step in range(1, 400 if rewind == 3 else 40):
            log.append("train", {"loss": float(step)}, step=step, epoch=0)
            if step % 100 == 0:
                log.append("validation", {"loss": float(step)}, step=step, epoch=0)
        log.abandon(0)
        log.rewind(0)
        assert (tmp_path / ABANDONED).stat().st_size <= 20_000
    found = read_abandoned(tmp_path)
    assert list(found)[-1] == 6 and 1 not in found
    log.close()


def test_a_long_future_is_thinned_but_validations_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MOST_ABANDONED", 20_000)
    log = MetricLog(tmp_path)
    for step in range(1, 1001):
        log.append("train", {"loss": float(step)}, step=step, epoch=0)
        if step % 100 == 0:
            log.append("validation", {"loss": float(step)}, step=step, epoch=0)
    log.abandon(10)
    found = read_abandoned(tmp_path)[1]
    assert list(found["validation/loss"][0]) == list(range(100, 1001, 100))
    assert 50 < len(found["train/loss"][0]) < 150 and found["train/loss"][0][0] > 10
    log.close()


# Bookmarks ---------------------------------------------------------------------------------------------------------


def test_a_bookmark_is_journalled_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    trainer = at(make(tmp_path / "line", keep_checkpoints=1), 4)
    there, none = trainer.commands.note(4, "  look here "), trainer.commands.note(3, "nothing saved")
    wrong = trainer.commands.note(9, "not yet")
    trainer.iterate()
    assert there.result(timeout=0) is True and none.result(timeout=0) is False
    assert "no bookmark can be at step 9: the run is at step 4" in str(wrong.exception(timeout=0))
    trainer.train()
    assert steps_of(trainer.run.path) == [4, 12]
    noted = [(e["at"], e["text"], e["pinned"]) for e in read_journal(trainer.run.path) if e["event"] == "note"]
    assert noted == [(4, "look here", True), (3, "nothing saved", False)]
    assert trainer.commands.note(12, "the end").result(timeout=0) is True
    trainer.close()


@pytest.mark.parametrize("text", ["", "   ", "x" * 2001, 3])
def test_a_bookmark_has_a_text(tmp_path: Path, text: Any) -> None:
    trainer = Line(data=line_data(), batch_size=20, max_steps=3)
    with pytest.raises(UsageError, match="note: expected a text of 1 to 2000 characters"):
        trainer.commands.note(0, text)
    trainer.commands.note(0, "in memory")
    trainer.iterate()
    assert [entry["pinned"] for entry in trainer.journal if entry["event"] == "note"] == [False]
