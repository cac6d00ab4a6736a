"""Going back: the ring of snapshots in memory, the checkpoints on disk, and rewinding to them; also after the end."""

from __future__ import annotations

import pytest

from treadle import RunError, UsageError
from treadle.checkpoint.compare import differences
from treadle.checkpoint.store import list_checkpoints
from treadle.runs.metrics import read_metrics
from treadle.testing import capture, kill


def test_it_goes_back_in_memory_and_forward_to_the_same_end(line, diary):
    trainer = line(snapshot_every="2 steps", max_epochs=4, hooks=[diary])
    digests = {}
    while trainer.iterate():
        digests[trainer.progress.step] = trainer.digest()
    end = trainer.digest()
    for step in (10, 9, 8):  # 8 is a snapshot; 9 and 10 are taken again from one
        trainer.rewind(step)
        assert trainer.progress.step == step and trainer.digest() == digests[step]
    assert trainer.train().status == "finished"
    assert trainer.digest() == end
    assert [name for name, *_ in diary.lines].count("teardown") == 2


def test_it_goes_back_on_disk_and_gives_up_the_future(line, tmp_path):
    trainer = line(run_dir=tmp_path / "line", save_every="2 steps", max_epochs=4, log_every="1 step")
    while trainer.progress.step < 9:
        trainer.iterate()
    trainer.rewind(5)
    checkpoints = list_checkpoints(trainer.run.path / "checkpoints")
    assert [path.name for path in checkpoints] == ["step-00000004"]
    assert max(entry["step"] for entry in read_metrics(trainer.run.path)) == 5
    assert [(e["to"], e["restored"]) for e in trainer.journal if e["event"] == "rewind"] == [(5, 4)]
    trainer.train()
    whole = line(max_epochs=4, log_every="1 step")
    whole.train()
    assert list(differences(capture(whole), capture(trainer))) == []


def test_without_a_state_or_for_the_future_it_says_what_to_do(line):
    trainer = line()
    trainer.iterate(), trainer.iterate()
    with pytest.raises(
        RunError, match="no snapshot or checkpoint at or before step 1, there is none: set snapshot_every"
    ):
        trainer.rewind(1)
    with pytest.raises(UsageError, match="cannot rewind to step 7: the run is at step 2"):
        trainer.rewind(7)
    assert trainer.train().step == 6


def test_the_ring_keeps_only_so_many(line):
    trainer = line(snapshot_every="1 step", keep_snapshots=2, max_epochs=3)
    while trainer.progress.step < 6:
        trainer.iterate()
    assert trainer.loop.snapshots.steps == [5, 6]


def test_snapshots_may_be_taken_every_epoch(line):
    trainer = line(snapshot_every="2 epochs", max_epochs=5)
    trainer.train()
    assert trainer.loop.snapshots.steps == [6, 12]


@pytest.mark.parametrize("during", ["restore", "forget_after"])
def test_killed_within_a_rewind_it_resumes_without_losing_a_line(line, tmp_path, monkeypatch, during):
    settings = {"save_every": "2 steps", "max_epochs": 4, "log_every": "1 step"}
    trainer = line(run_dir=tmp_path / "line", **settings)
    while trainer.progress.step < 9:
        trainer.iterate()
    owner = trainer.loop.state if during == "restore" else trainer.loop.archive
    real = getattr(owner, during)

    def killed(*args):
        real(*args)
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(owner, during, killed)
        trainer.rewind(5)
    kill(trainer)
    resumed = line(run_dir=trainer.run.path, resume=True, **settings)
    assert resumed.progress.step == 4
    resumed.train()
    whole = line(run_dir=tmp_path / "whole", **settings)
    whole.train()
    lines = [[entry | {"time": 0} for entry in read_metrics(run)] for run in (resumed.run.path, whole.run.path)]
    assert lines[0] == lines[1] and resumed.summary().digest == whole.summary().digest
