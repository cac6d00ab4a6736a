"""Forking: a new run from a checkpoint, exact at the branch, with other settings after it; the parent keeps its own."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import treadle
from treadle import RunError, StateError, UsageError
from treadle.checkpoint.store import list_checkpoints, read_checkpoint
from treadle.runs.aside import ASIDE, create_run
from treadle.runs.best import read_best
from treadle.runs.compare import describe, find_runs
from treadle.runs.fork import fork_run
from treadle.runs.lock import RunLock
from treadle.runs.metrics import read_metrics
from treadle.runs.models import find_model
from treadle.runs.run import read_config, read_journal, versions
from treadle.testing import Line, kill, line_data

DATA = line_data(48)


def make(run_dir: Path, **settings: Any) -> Line:
    settings = {"batch_size": 8, "max_epochs": 3, "save_every": "4 steps", "log_every": "1 step"} | settings
    return Line(data=DATA, validation_data=DATA, run_dir=run_dir, **settings)


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    trainer = make(tmp_path / "line", keep_checkpoints=9)
    trainer.train()
    path: Path = trainer.run.path
    return path


def config(run: Path, **changes: Any) -> dict[str, Any]:
    document = read_config(run)
    return document | {"config": document["config"] | changes}


def test_it_begins_in_the_parents_state_and_goes_its_own_way(parent: Path) -> None:
    fork = fork_run(parent, 8, config(parent, seed=5, max_epochs=4, keep_checkpoints=9))
    assert fork == parent.with_name("v002") and read_config(fork)["config"]["seed"] == 5
    trainer = make(fork, resume=True, seed=5, max_epochs=4, keep_checkpoints=9)
    digest = read_checkpoint(parent / "checkpoints" / "step-00000008").digest
    assert (trainer.progress.step, trainer.digest()) == (8, digest)
    assert trainer.train().step == 24
    ends = [read_checkpoint(list_checkpoints(run / "checkpoints")[-1]) for run in (parent, fork)]
    assert (ends[0].step, ends[1].step) == (18, 24)
    at_twelve = [read_checkpoint(run / "checkpoints" / "step-00000012").digest for run in (parent, fork)]
    assert at_twelve[0] != at_twelve[1], "another seed, another order"


def test_with_the_same_settings_it_is_the_same_run(parent: Path) -> None:
    fork = fork_run(parent, 8, config(parent))
    trainer = make(fork, resume=True, keep_checkpoints=9)
    assert trainer.train().digest == read_checkpoint(list_checkpoints(parent / "checkpoints")[-1]).digest
    lines = [[line | {"time": 0} for line in read_metrics(run)] for run in (parent, fork)]
    assert lines[0] == lines[1]
    assert torch.equal(read_best(fork).weights["model.weight"], read_best(parent).weights["model.weight"])


def test_its_checkpoint_survives_the_parents_retention(parent: Path) -> None:
    fork_run(parent, 8, config(parent))
    more = make(parent, resume=True, max_epochs=6, keep_checkpoints=1)
    more.train()
    steps = [int(path.name[5:]) for path in list_checkpoints(parent / "checkpoints")]
    assert 8 in steps and steps[-1] == 36 and len(steps) <= 3
    read_checkpoint(parent / "checkpoints" / "step-00000008")


def test_it_stands_alone(parent: Path, tmp_path: Path) -> None:
    fork = fork_run(parent, 8, config(parent), tmp_path / "elsewhere")
    assert fork == tmp_path / "elsewhere" / "v001"
    assert max(line["step"] for line in read_metrics(fork)) == 8
    assert [(e["event"], e["step"], e["parent"]) for e in read_journal(fork)] == [("fork", 8, str(parent))]
    shutil.rmtree(parent)
    assert make(fork, resume=True, keep_checkpoints=9).train().status == "finished"


def test_the_best_model_comes_along_where_it_is_the_one_of_that_state(parent: Path, tmp_path: Path) -> None:
    info = read_best(parent).info
    at_end = fork_run(parent, info["step"], config(parent), tmp_path / "end")
    assert read_best(at_end).info == info
    earlier = fork_run(parent, 8, config(parent), tmp_path / "earlier")
    with pytest.raises(UsageError, match="has no best model"):
        read_best(earlier)
    worse = make(earlier, resume=True, keep_checkpoints=9)
    assert worse.best is not None and worse.best["step"] == 6
    for group in worse.optimizer.param_groups:
        group["lr"] = -0.5  # away from the line
    worse.train()
    assert read_best(earlier).info["step"] == 12, "the first validation writes one, better or not"
    assert worse.best["step"] == 6, "what the parent had is still what counts"


def test_what_cannot_be_forked_says_why_and_leaves_nothing(parent: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no checkpoint at step 7; there are: 4, 8, 12, 16, 18"):
        fork_run(parent, 7, config(parent))
    tensors = parent / "checkpoints" / "step-00000008" / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1])
    with pytest.raises(StateError, match="damaged"):
        fork_run(parent, 8, config(parent))
    assert versions(parent.parent) == [parent]
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="a file is in the way"):
        fork_run(parent, 12, config(parent), tmp_path / "file")
    assert json.loads((parent / "summary.json").read_text())["step"] == 18


def test_what_a_killed_fork_has_left_is_no_run_and_goes_with_the_next(parent: Path, tmp_path: Path) -> None:
    dead, living, linked = (tmp_path / "forks" / f"{ASIDE}{name}" for name in ("dead", "living", "linked"))
    for path in (dead, living):
        path.mkdir(parents=True)
        (path / "config.yaml").write_text("trainer: line\n")
    (tmp_path / "mine").mkdir()
    linked.symlink_to(tmp_path / "mine")
    lock = RunLock(living)
    assert find_runs(tmp_path / "forks") == [] and versions(tmp_path / "forks") == []
    fork = fork_run(parent, 8, config(parent), tmp_path / "forks")
    assert sorted((tmp_path / "forks").iterdir()) == sorted([living, linked, fork]), "one is being made"
    assert list((tmp_path / "mine").iterdir()) == []
    assert read_checkpoint(parent / "checkpoints" / "step-00000008").step == 8
    assert describe(fork).status == "unfinished", "nobody trains it yet"
    lock.release()


def test_another_process_may_be_faster(parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two have seen the same versions: the name goes to one of them, to the other the next that is free."""
    (tmp_path / "forks").mkdir()
    (tmp_path / "forks" / "v002").write_text("in the way")
    monkeypatch.setattr("treadle.runs.aside.versions", lambda directory: [])
    names = [fork_run(parent, 8, config(parent), tmp_path / "forks").name for _ in range(3)]
    assert names == ["v001", "v003", "v004"] and (tmp_path / "forks" / "v002").read_text() == "in the way"


def test_a_fork_may_be_given_its_name(parent: Path, tmp_path: Path) -> None:
    (tmp_path / "forks" / "v008").mkdir(parents=True)
    for name in ("v007", "v008"):
        assert fork_run(parent, 8, config(parent), tmp_path / "forks" / name) == tmp_path / "forks" / name
        with pytest.raises(UsageError, match=f"{name} is not empty: give .*forks to get its next version"):
            fork_run(parent, 8, config(parent), tmp_path / "forks" / name)
    assert fork_run(parent, 8, config(parent), tmp_path / "forks").name == "v009"
    with pytest.raises(UsageError, match="v010 is not empty"):  # another process was faster
        create_run(tmp_path / "forks" / "v010", lambda run: (run.path.parent / "v010" / "more").mkdir(parents=True))
    shutil.rmtree(tmp_path / "forks" / "v010")
    with pytest.raises(UsageError, match="is a run itself"):
        moved = tmp_path / "moved"
        (tmp_path / "forks" / "v008").rename(moved)
        fork_run(parent, 8, config(parent), moved)
    assert sorted(path.name for path in (tmp_path / "forks").iterdir()) == ["v007", "v009"]


def test_it_is_on_the_disk_before_it_gets_its_name(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a power cut there is the whole of it, or nothing."""
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def syncing(descriptor: int) -> None:
        done.append(os.readlink(f"/proc/self/fd/{descriptor}").partition(ASIDE)[2].partition("/")[2])
        fsync(descriptor)

    def renaming(old: Path, new: Path) -> None:
        there = {str(path.relative_to(old)) for path in Path(old).rglob("*")}
        if Path(old).name.startswith(ASIDE):
            assert there <= set(done), "each file and folder"
            done.append("renamed")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "rename", renaming)
    fork_run(parent, 8, config(parent))
    assert done.count("renamed") == 1


def test_a_parent_that_cannot_be_written_is_forked_all_the_same(
    parent: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("treadle.runs.fork.pin", refuse)
    fork = fork_run(parent, 8, config(parent))
    assert "step-00000008 is not kept for good, its run cannot be written (Read-only file system)" in (
        capsys.readouterr().err
    )
    assert read_checkpoint(fork / "checkpoints" / "step-00000008").step == 8


def test_a_pipe_where_a_file_should_be_is_named(parent: Path) -> None:
    checkpoint = parent / "checkpoints" / "step-00000008"
    os.mkfifo(checkpoint / "more")
    with pytest.raises(RunError, match=r"cannot be forked: .*step-00000008/more: it is no regular file: remove it"):
        fork_run(parent, 8, config(parent))
    assert list(parent.parent.iterdir()) == [parent]


class Judged(Line):
    """Has two metrics more, of which one rises with every step."""

    def validation_step(self, batch: Any) -> Any:
        steps = self.progress.step
        return {**super().validation_step(batch), "rises": float(steps), "falls": -float(steps)}


def judged(run_dir: Path, **settings: Any) -> Judged:
    given = {"batch_size": 8, "max_epochs": 3, "save_every": "4 steps", "keep_checkpoints": 9, "monitor": "rises"}
    given |= {"patience": 9, "run_dir": run_dir}
    return Judged(**{"data": DATA, "validation_data": DATA} | given | settings)


@pytest.fixture
def falling(tmp_path: Path) -> Path:
    """A run in which the first validation, of step 6, is the best: `rises` is to be small."""
    with judged(tmp_path / "judged") as trainer:
        trainer.train()
        assert trainer.best["step"] == 6
        path: Path = trainer.run.path
    return path


@pytest.mark.parametrize(
    ("settings", "data", "own"),
    [
        ({"max_epochs": 4}, None, False),
        ({"max_epochs": 4, "patience": 5, "keep_best": 2, "save_every": "1 epoch", "workers": 0}, None, False),
        ({"monitor_mode": "min"}, None, False),
        ({"clip_norm": 1.0}, None, True),
        ({"seed": 5}, None, True),
        ({"monitor": "falls"}, None, True),
        ({"monitor_mode": "max"}, None, True),
        ({}, line_data(24), True),
    ],
)
def test_what_determines_the_future_says_whether_the_parents_best_is_the_forks(
    falling: Path, tmp_path: Path, settings: dict[str, Any], data: Any, own: bool
) -> None:
    before = read_best(falling)
    feeds = {"data": DATA if data is None else data, "validation_data": DATA}
    fork = treadle.fork(falling, 8, trainer=Judged, run_dir=tmp_path / "fork", **feeds, **settings)
    assert (fork.best is None) == own
    assert find_model(fork.run.path, "final").step == 8, "there at once"
    if own:
        with pytest.raises(UsageError, match="has no best model"):
            read_best(fork.run.path)
    else:
        assert read_best(fork.run.path).info == before.info == fork.best
    fork.train()
    found = read_best(fork.run.path)
    if own:
        later = 18 if "monitor" in settings or "monitor_mode" in settings else 9 if data is not None else 12
        assert (found.info["step"], fork.best["step"]) == (later, later)
        assert found.info["value"] == (-18.0 if "monitor" in settings else float(later))
        assert not torch.equal(found.weights["model.weight"], before.weights["model.weight"])
    else:
        assert found.info["step"] == fork.best["step"] == 6
        assert torch.equal(found.weights["model.weight"], before.weights["model.weight"])


def test_a_fork_that_judges_anew_does_so_through_a_kill_a_rewind_and_a_verification(
    falling: Path, tmp_path: Path
) -> None:
    feeds: dict[str, Any] = {"trainer": Judged, "data": DATA, "validation_data": DATA}
    whole = treadle.fork(falling, 8, run_dir=tmp_path / "whole", clip_norm=1.0, **feeds)
    whole.train()
    fork = treadle.fork(falling, 8, run_dir=tmp_path / "fork", clip_norm=1.0, **feeds)
    for _ in range(3):
        fork.iterate()
    kill(fork)
    again = treadle.resume(fork.run.path, **feeds)
    assert again.progress.step == 8 and again.best is None
    while again.progress.step < 13:
        again.iterate()
    assert again.best["step"] == 12
    again.rewind(8)
    assert again.best is None
    again.train()
    assert (again.best["step"], again.digest()) == (12, whole.digest())
    again.close()
    assert treadle.verify(again.run.path, start=8, **feeds).holds


def test_a_fork_says_what_makes_it_judge_anew(falling: Path, capsys: pytest.CaptureFixture[str]) -> None:
    feeds: dict[str, Any] = {"trainer": Judged, "data": DATA, "validation_data": DATA}
    treadle.fork(falling, 8, clip_norm=1.0, seed=5, max_epochs=4, **feeds).close()
    said = capsys.readouterr().err
    assert "treadle: with other clip_norm, seed nothing is best yet: the next validation begins anew" in said
    treadle.fork(falling, 8, max_epochs=4, **feeds).close()
    assert "nothing is best" not in capsys.readouterr().err
    entries = [read_journal(falling.with_name(name))[0] for name in ("v002", "v003")]
    assert [entry.get("others") for entry in entries] == [["clip_norm", "seed"], None]
