"""The writer beside the training: copies, back-pressure, failures, and the end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch

from treadle import RunError, StateError, Trainer
from treadle.checkpoint import writer as module
from treadle.checkpoint.state import State
from treadle.checkpoint.store import Retention, list_checkpoints, read_checkpoint, step_of, write_checkpoint
from treadle.checkpoint.writer import CheckpointWriter


def state(step, tensor):
    return State({"progress": {"step": step, "epoch": 0, "batch": 0}}, {"w": tensor}, {"seconds": 0.0})


class Gate:
    """Holds the writer's thread at the door of `write_checkpoint` until it is opened."""

    def __init__(self, monkeypatch):
        self.open, self.entered = threading.Event(), threading.Event()
        monkeypatch.setattr(module, "write_checkpoint", self)

    def __call__(self, *args):
        self.entered.set()
        assert self.open.wait(60)
        return write_checkpoint(*args)


@pytest.fixture
def copied_into(monkeypatch):
    """The states whose memory copies were made into, None for fresh memory."""
    found, copy = [], State.copy

    def watched(state, into=None):
        found.append(into)
        return copy(state, into=into)

    monkeypatch.setattr(State, "copy", watched)
    return found


@pytest.fixture
def reports():
    return []


@pytest.fixture
def make(tmp_path, reports):
    made = []

    def writer(patience=60.0):
        made.append(CheckpointWriter(tmp_path, lambda *report: reports.append(report), patience))
        return made[-1]

    yield writer
    for one in made:
        one.close()


def fail(monkeypatch, error=None):
    def refuse(*_):
        raise error or RunError("cannot write: the disk is full")

    monkeypatch.setattr(module, "write_checkpoint", refuse)


def threads():
    """The threads of writers that were made in this test."""
    return [
        each for each in threading.enumerate() if each.name.startswith("treadle-checkpoint") and each not in EARLIER
    ]


EARLIER = set()
"""Those that another test of this process has left, whose run was not closed."""


@pytest.fixture(autouse=True)
def earlier_threads():
    EARLIER.clear()
    EARLIER.update(threads())


def steps(path):
    return [step_of(each) for each in list_checkpoints(path)]


def test_training_goes_on_while_it_is_written_and_does_not_show(make, tmp_path, monkeypatch, reports):
    gate, writer, w = Gate(monkeypatch), make(), torch.ones(3)
    writer.submit(state(1, w), Retention())
    assert gate.entered.wait(60) and reports == []
    w += 1
    gate.open.set()
    writer.wait()
    [(step, path, digest)] = reports
    assert (step, path) == (1, tmp_path / "step-00000001")
    assert digest == state(1, torch.ones(3)).digest == read_checkpoint(path).digest


def test_the_next_waits_for_the_one_before(make, tmp_path, monkeypatch):
    gate, writer, w = Gate(monkeypatch), make(), torch.ones(3)
    writer.submit(state(1, w), Retention())
    second = threading.Thread(target=writer.submit, args=(state(2, w + 1), Retention()))
    second.start()
    second.join(0.1)
    assert second.is_alive() and steps(tmp_path) == []
    gate.open.set()
    second.join(60)
    writer.wait()
    assert not second.is_alive()
    assert [float(read_checkpoint(path).tensors["w"][0]) for path in list_checkpoints(tmp_path)] == [1.0, 2.0]


def test_memory_is_reused_while_shapes_stay_and_found_anew_where_they_change(make, monkeypatch):
    copies = []

    def keep(directory, state, retention):
        copies.append(state.tensors["w"])
        return directory, ""

    monkeypatch.setattr(module, "write_checkpoint", keep)
    writer = make()
    for tensor in (torch.ones(3), torch.ones(3) * 2, torch.ones(5), torch.ones(5).double(), torch.ones(())):
        writer.submit(state(1, tensor), Retention())
        writer.wait()
        assert torch.equal(copies[-1], tensor) and copies[-1].dtype == tensor.dtype
        assert copies[-1].data_ptr() != tensor.data_ptr()
    assert copies[0].data_ptr() == copies[1].data_ptr()


def test_memory_is_found_beforehand_on_the_writer_s_thread(make, tmp_path, monkeypatch, copied_into):
    written = []

    def keep(directory, state, retention):
        written.append(state.tensors["w"])
        return write_checkpoint(directory, state, retention)

    monkeypatch.setattr(module, "write_checkpoint", keep)
    writer, w = make(), torch.ones(3)
    writer.prepare(state(0, w))
    writer.wait()
    writer.submit(state(1, w), Retention())
    writer.prepare(state(1, w))
    writer.wait()
    (ready,) = copied_into
    assert written[0].data_ptr() == ready.tensors["w"].data_ptr() != w.data_ptr()
    assert torch.equal(read_checkpoint(tmp_path / "step-00000001").tensors["w"], w)


def test_a_tensor_that_no_checkpoint_can_hold_is_refused_at_once(make, tmp_path):
    writer = make()
    with pytest.raises(StateError, match=r"^w has dtype torch\.complex128"):
        writer.submit(state(1, torch.ones(2, dtype=torch.complex128)), Retention())
    writer.submit(state(2, torch.ones(2)), Retention())
    writer.wait()
    assert steps(tmp_path) == [2]


def test_a_failure_is_reported_and_made_good_by_the_next(make, tmp_path, monkeypatch, reports):
    writer, w = make(), torch.ones(1)
    with monkeypatch.context() as patch:
        fail(patch)
        writer.submit(state(1, w), Retention())
        with pytest.raises(RunError, match="disk is full"):
            writer.wait()
        writer.submit(state(2, w), Retention())
        with pytest.raises(RunError, match="disk is full"):
            writer.wait()
    writer.submit(state(3, w), Retention())
    writer.wait()
    assert [(step, path is None) for step, path, _ in reports] == [(1, True), (2, True), (3, False)]
    assert steps(tmp_path) == [3]


def test_failures_end_the_run_once_the_last_good_one_is_too_old(make, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    writer, w = make(patience=60.0), torch.ones(1)
    fail(monkeypatch)
    for seconds in (0, 60):
        now[0] = 1000.0 + seconds
        writer.submit(state(1, w), Retention())
        with pytest.raises(RunError, match=r"disk is full$"):
            writer.wait()
    now[0] += 0.5
    with pytest.raises(RunError, match=r"disk is full \(no checkpoint could be written for 60 s\)"):
        writer.submit(state(2, w), Retention())


def test_an_error_that_nobody_expected_is_a_failure_too(make, tmp_path, monkeypatch, reports):
    writer, w = make(), torch.ones(1)
    with monkeypatch.context() as patch:
        fail(patch, ZeroDivisionError("what?"))
        writer.submit(state(1, w), Retention())
        with pytest.raises(RunError, match=r"^cannot write checkpoint .*step-00000001: ZeroDivisionError: what\?$"):
            writer.wait()
    writer.submit(state(2, w), Retention())
    writer.wait()
    assert [step for step, _, _ in reports] == [1, 2] and steps(tmp_path) == [2]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
def test_the_thread_gives_way_to_training_and_training_stays_as_it_was(make, monkeypatch):
    def priority():
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    found, before = [], priority()
    monkeypatch.setattr(
        module, "write_checkpoint", lambda directory, *_: (found.append(priority()), (directory, ""))[1]
    )
    writer = make()
    writer.submit(state(1, torch.ones(1)), Retention())
    writer.wait()
    assert found == [min(before + 10, 19)] and priority() == before


def test_closing_waits_and_can_be_done_again(make, tmp_path, monkeypatch):
    gate, writer = Gate(monkeypatch), make()
    writer.submit(state(1, torch.ones(1)), Retention())
    threading.Timer(0.1, gate.open.set).start()
    writer.close()
    assert steps(tmp_path) == [1]
    assert threads() == []
    writer.close()


def test_closing_does_not_raise_what_was_reported(make, monkeypatch, reports):
    fail(monkeypatch)
    writer = make()
    writer.submit(state(1, torch.ones(1)), Retention())
    writer.close()
    assert [path for _, path, _ in reports] == [None]


def test_without_a_checkpoint_there_is_nothing_to_wait_for(make):
    writer = make()
    writer.wait()
    writer.close()


class Watched(Trainer):
    transient = ("asked",)

    def setup(self):
        self.model = torch.nn.Linear(2, 1)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.asked = []

    def step(self, batch):
        loss = self.model(batch[0]).square().mean()
        self.minimize(loss)
        return loss

    def on_save(self, state):
        self.asked.append(self.progress.step)


def watched(tmp_path, **settings):
    data = (torch.ones(8, 2),)
    return Watched(data=data, batch_size=2, max_steps=4, run_dir=tmp_path / "run", **settings)


def test_a_trainer_prepares_after_its_first_step_and_asks_nobody(tmp_path, copied_into):
    trainer = watched(tmp_path, save_every="2 steps")
    trainer.iterate()
    trainer.loop.archive.finish()
    assert trainer.asked == [] and copied_into == []
    trainer.iterate()
    (ready,) = copied_into
    assert any("exp_avg" in name for name in ready.tensors) and trainer.asked == [2]
    trainer.close()


def test_a_trainer_that_saves_only_at_its_end_prepares_nothing(tmp_path, copied_into):
    trainer = watched(tmp_path, save_every=None)
    trainer.iterate()
    assert threads() == []
    trainer.train()
    assert copied_into == [None]


def test_what_must_be_on_the_disk_first_is_and_its_failure_is_a_failed_write(tmp_path, reports):
    seen = []

    def first():
        seen.append(steps(tmp_path))
        if len(seen) == 2:
            raise OSError(5, "Input/output error")

    writer = CheckpointWriter(tmp_path, lambda *report: reports.append(report), 60.0, first=first)
    for step in (1, 2):
        writer.submit(state(step, torch.ones(3)), Retention())
    with pytest.raises(RunError, match="Input/output error"):
        writer.wait()
    writer.close()
    assert seen == [[], [1]] and steps(tmp_path) == [1]


COUNT = """
import os, tempfile, torch
from pathlib import Path
from treadle.checkpoint.state import State
from treadle.checkpoint.store import Retention
from treadle.checkpoint.writer import CheckpointWriter
torch.set_num_threads(4)
torch.ones(4_000_000).add_(1)  # the team of this thread
before = len(os.listdir("/proc/self/task"))
tensors = {"model/a": torch.ones(900_000), "model/b": torch.ones(900_000, dtype=torch.bfloat16)}
state = State({"progress": {"step": 1, "epoch": 0}}, tensors, {"seconds": 0.0})
with tempfile.TemporaryDirectory() as directory:
    writer = CheckpointWriter(Path(directory), lambda *_: None, 60.0)
    writer.prepare(state)
    writer.wait()
    prepared = len(os.listdir("/proc/self/task"))
    writer.close()
print(prepared - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_the_writer_starts_no_threads_but_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
