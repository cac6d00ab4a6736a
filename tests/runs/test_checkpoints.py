"""Checkpoints of a loop of one's own: whole or absent, the newest good one is found, one process writes."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from treadle import Checkpoints, RunError, State, StateError, UsageError, capture


def state(number: int) -> State:
    return capture({"weight": torch.full((3,), float(number)), "number": number})


def numbers(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name.startswith("step-"))


def test_the_newest_is_found_with_its_step_and_digest(tmp_path: Path) -> None:
    directory = tmp_path / "not" / "there"
    assert Checkpoints(directory).newest() is None and not directory.exists()
    checkpoints = Checkpoints(str(directory), keep=2)
    for step in (3, 40, 500):
        path = checkpoints.save(state(step), step)
        assert json.loads((path / "manifest.json").read_text())["digest"] == state(step).digest
    assert numbers(directory) == ["step-00000040", "step-00000500"]
    newest = Checkpoints(directory).newest()
    assert newest is not None and newest.step == 500 and newest.digest == state(500).digest


def test_without_a_step_they_are_counted(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert [checkpoints.save(state(k)).name for k in range(2)] == ["step-00000001", "step-00000002"]
    del checkpoints
    assert Checkpoints(tmp_path).save(state(2)).name == "step-00000003"


def test_a_loop_that_went_back_gives_up_what_came_later(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (2, 4, 6):
        checkpoints.save(state(step), step)
    checkpoints.save(state(30), 3)
    newest = checkpoints.newest()
    assert numbers(tmp_path) == ["step-00000002", "step-00000003"]
    assert newest is not None and newest.digest == state(30).digest


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_a_damaged_one_is_named_and_the_one_before_it_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    checkpoints = Checkpoints(tmp_path)
    paths = [checkpoints.save(state(step), step) for step in (1, 2)]
    data = bytearray((paths[1] / name).read_bytes())
    data[len(data) // 2] ^= 1
    (paths[1] / name).write_bytes(data)
    newest = checkpoints.newest()
    assert newest is not None and newest.digest == state(1).digest
    assert str(paths[1]) in (told := capsys.readouterr().err) and "trying the one before it" in told
    (paths[0] / name).unlink()
    with pytest.raises(StateError, match=rf"no checkpoint in {tmp_path} can be read: move it away to start anew"):
        checkpoints.newest()


def test_a_disk_that_refuses_leaves_what_there_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(tmp_path / "here")
    checkpoints.save(state(1), 1)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(RunError, match=r"step-00000002: No space left .* the previous one is intact"):
        checkpoints.save(state(2), 2)
    monkeypatch.undo()
    newest = checkpoints.newest()
    assert newest is not None and newest.step == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot write checkpoints to .*file/here: Not a directory"):
        Checkpoints(tmp_path / "file" / "here").save(state(1))


def test_without_waiting_what_there_was_is_written_beside_what_comes_next(tmp_path: Path) -> None:
    weight = torch.zeros(50_000)
    checkpoints, digests = Checkpoints(tmp_path, keep=9), []
    for step in range(1, 5):
        weight += 1
        digests.append(capture({"weight": weight}).copy().digest)
        assert checkpoints.save(capture({"weight": weight}), wait=False).name == f"step-{step:08d}"
        weight += 0.5
    newest = checkpoints.newest()
    assert newest is not None and newest.digest == digests[-1] and newest.step == 4
    manifests = [json.loads((path / "manifest.json").read_text()) for path in sorted(tmp_path.glob("step-*"))]
    assert [manifest["digest"] for manifest in manifests] == digests
    checkpoints.save(state(5), wait=False)
    del checkpoints  # which waits, too
    newest = Checkpoints(tmp_path).newest()
    assert newest is not None and newest.digest == state(5).digest


def test_without_waiting_a_failure_is_told_at_once_and_raised_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1), 1, wait=False)
    checkpoints.newest()
    for number, call in enumerate((lambda: checkpoints.save(state(3), 3, wait=False), checkpoints.newest)):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            checkpoints.save(state(2), 2, wait=False)
            with pytest.raises(RunError, match=r"step-00000002: No space left .* the previous one is intact"):
                call()
        assert "treadle: cannot write checkpoint" in capsys.readouterr().err
        newest = checkpoints.newest()
        assert newest is not None and newest.step == 1, number
    checkpoints.save(state(3), 3, wait=False)
    newest = checkpoints.newest()
    assert newest is not None and newest.step == 3


def test_one_writes_at_a_time_and_all_may_read(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1), 1)
    other = Checkpoints(tmp_path)
    newest = other.newest()
    assert newest is not None and newest.step == 1
    with pytest.raises(UsageError, match=rf"{tmp_path} is being trained by process {os.getpid()}"):
        other.save(state(2), 2)
    del checkpoints
    gc.collect()
    other.save(state(2), 2)


@pytest.mark.parametrize(("keep", "step"), [(0, 1), (True, 1), (2.5, 1), (2, -1), (2, 1.5), (2, True)])
def test_numbers_that_count_nothing_are_refused(tmp_path: Path, keep: Any, step: Any) -> None:
    with pytest.raises(UsageError, match="expected a whole number"):
        Checkpoints(tmp_path, keep=keep).save(state(1), step)


def test_reading_and_writing_them_needs_no_trainer(tmp_path: Path) -> None:
    code = (
        "import sys, treadle; treadle.Checkpoints(sys.argv[1]).save(treadle.capture({'n': 1}))\n"
        "print([name for name in sys.modules if name.startswith(('treadle.engine', 'treadle.hooks', 'treadle.sinks'))])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
