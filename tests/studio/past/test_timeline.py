"""The timeline: marks, bookmarks and lost stretches from the journal, states and forks from the directory."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import treadle
from treadle.runs.run import read_journal
from treadle.studio.past.timeline import MARKS, History, KeptOnDisk
from treadle.testing import Line, line_data


def make(run_dir: Path, **settings: Any) -> Line:
    settings = {"batch_size": 10, "max_epochs": 4, "save_every": "5 steps", "keep_checkpoints": 99} | settings
    return Line(data=line_data(), validation_data=line_data(), run_dir=run_dir, seed=4, **settings)


def kinds(kept: KeptOnDisk) -> list[tuple[int, str]]:
    return [(state["step"], state["kind"]) for state in kept.states]


def test_what_was_given_up_stays_known(tmp_path: Path) -> None:
    trainer = make(tmp_path / "line")
    while trainer.progress.step < 13:
        trainer.iterate()
    trainer.rewind(5)
    trainer.train()
    history = History(read_journal(trainer.run.path))
    assert history.lost() == [[5, 13]]
    assert [mark["step"] for mark in history.marks() if mark["kind"] == "rewind"] == [5]
    trainer.rewind(10)
    assert History(read_journal(trainer.run.path)).lost() == [[5, 13], [10, 20]]
    trainer.close()


def test_marks_have_a_step_a_kind_and_a_line(tmp_path: Path) -> None:
    history = History()
    history.add({"event": "start", "step": 0, "epoch": 0, "time": 1.0, "settings": {"seed": 1}})
    history.add({"event": "prune", "step": 40, "epoch": 1, "time": 2.0, "cells": 12, "of": 64})
    history.add({"event": "edit", "step": 50, "what": "lr_multiplier", "before": 1.0, "after": 0.5})
    history.add({"event": "note", "step": 60, "at": 50, "text": "before the <b>edit</b>"})
    history.add({"event": "pause", "step": 60})
    history.add({"event": "rollback", "step": 55, "from_step": 70, "restored": 55})
    assert history.marks() == [
        {"step": 0, "kind": "start", "text": ""},
        {"step": 40, "kind": "prune", "text": "cells 12, of 64"},
        {"step": 50, "kind": "edit", "text": "what lr_multiplier, before 1.0, after 0.5"},
        {"step": 50, "kind": "note", "text": "before the <b>edit</b>"},
        {"step": 55, "kind": "rollback", "text": "from_step 70, restored 55"},
    ]
    assert history.notes == {50: "before the <b>edit</b>"} and history.lost() == [[55, 70]]


def test_a_long_journal_is_told_in_bounds() -> None:
    history = History({"event": "checkpoint" if step % 2 else "prune", "step": step} for step in range(20_000))
    marks = history.marks()
    assert len(marks) <= MARKS and marks[-1]["step"] == 19_999
    assert len([mark for mark in marks if mark["kind"] == "prune"]) > len(marks) / 2
    history.add({"event": "edit", "step": 5, "text": "x" * 5000})
    assert len(history.marks()[-1]["text"]) == 200


def test_kept_states_come_and_go_with_the_directory(tmp_path: Path) -> None:
    trainer = make(tmp_path / "line", validate_every="7 steps", keep_best=2)
    path = trainer.run.path
    kept = KeptOnDisk(path)
    assert kept.changed() and kept.states == []
    assert not kept.changed()
    trainer.train()
    assert kept.changed()
    checkpoints = [state for state in kept.states if state["kind"] == "checkpoint"]
    assert [state["step"] for state in checkpoints] == [5, 10, 15, 20]
    first = path / "checkpoints" / "step-00000005"
    assert checkpoints[0]["bytes"] == sum(file.stat().st_size for file in first.iterdir())
    assert [state["rank"] for state in kept.states if state["kind"] == "best"] == [1, 2]
    assert not kept.changed(), "nothing has happened"
    shutil.rmtree(first)
    assert kept.changed() and (5, "checkpoint") not in kinds(kept)
    trainer.close()


def test_forks_are_known_as_long_as_they_are_there(tmp_path: Path) -> None:
    trainer = make(tmp_path / "line")
    trainer.train()
    kept = KeptOnDisk(trainer.run.path)
    kept.changed()
    with treadle.fork(trainer.run.path, at=10, trainer=Line, data=line_data(), validation_data=line_data()) as fork:
        assert kept.changed() and kept.forks == [{"step": 10, "run": "line/v002"}]
    shutil.rmtree(fork.run.path)
    trainer.rewind(10)
    assert kept.changed() and kept.forks == []
    trainer.close()


def test_a_pinned_state_of_a_future_that_was_given_up_says_so(tmp_path: Path) -> None:
    trainer = make(tmp_path / "line")
    trainer.train()
    data = {"trainer": Line, "data": line_data(), "validation_data": line_data()}
    treadle.fork(trainer.run.path, at=15, **data).close()
    trainer.rewind(10)
    kept = KeptOnDisk(trainer.run.path)
    kept.changed()
    assert [(s["step"], s["given_up"]) for s in kept.states if s["kind"] == "checkpoint"] == [
        (5, False), (10, False), (15, True),
    ]  # fmt: skip
    trainer.close()
