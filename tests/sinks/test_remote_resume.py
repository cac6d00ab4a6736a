"""The same run at the service after a kill, a resume, a rewind and a fork: nothing twice, nothing missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from recording import Recorded, told

from treadle import Hook, testing
from treadle.recipes.actions import fork
from treadle.runs.metrics import read_metrics
from treadle.runs.run import read_journal, run_id
from treadle.sinks.history import OWN

HERE = Path(__file__).parent / "parts"

KILLED = """
import array, fcntl, os, signal, sys, termios, time
from pathlib import Path
from recording import Recorded, told
from treadle import testing

def unread():
    # The most bytes that wait in a pipe of this process.
    most = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{number}").startswith("pipe:"):
                count = array.array("i", [0])
                fcntl.ioctl(int(number), termios.FIONREAD, count)
                most = max(most, count[0])
        except OSError:  # the directory's own
            pass
    return most

file = Path(sys.argv[2])
data = testing.line_data(40)
trainer = testing.Line(data=data, validation_data=data, batch_size=10, max_epochs=4, log_every="2 steps",
                       save_every="3 steps", run_dir=sys.argv[1], hooks=[Recorded(file)])
while trainer.progress.step < 8:
    trainer.iterate()
    trainer.log_text("note", f"after {trainer.progress.step}".ljust(20000 if trainer.progress.step == 8 else 0))
    if trainer.progress.step == 4:
        trainer.log_image("probe", trainer.model.weight[None] * 0)
    if trainer.progress.step == 5:
        while len(told(file, "text")) < 5:
            time.sleep(0.01)
        os.kill(told(file, "open")[0]["process"], signal.SIGSTOP)
while unread() < 20000:
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""
"""It is killed when three texts are on their way, to a process that has stopped reading; the last one is long."""


def kept(file: Path, *kinds: str) -> list[dict[str, Any]]:
    """What a service has that does as it is told: what was cut is gone."""
    found: list[dict[str, Any]] = []
    for line in told(file, *kinds, "cut"):
        if line["what"] == "cut":
            found = [each for each in found if each["step"] <= line["step"]]
        else:
            found.append(line)
    return found


def scalars(lines: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(line["split"], line["step"], line["epoch"], line["values"]) for line in lines]


def check_the_same(file: Path, run: Path) -> None:
    """The service has each line of the run's metrics and journal once."""
    assert sorted(map(str, scalars(kept(file, "scalars")))) == sorted(map(str, scalars(read_metrics(run))))
    journal = [(entry["event"], entry["step"]) for entry in read_journal(run) if entry["event"] not in OWN]
    assert sorted((line["event"], line["step"]) for line in told(file, "event")) == sorted(journal)


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_run_that_was_killed_goes_on_at_the_service(tmp_path: Path) -> None:
    file, runs = tmp_path / "told", tmp_path / "runs" / "line"
    path = {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", KILLED, runs, file], env={**os.environ, **path}, timeout=100)
    before = len(told(file, "text"))
    os.kill(told(file, "open")[0]["process"], signal.SIGCONT)
    assert done.returncode == -signal.SIGKILL and before == 5
    wait_for(lambda: told(file, "close"))
    assert told(file)[-1] == {"what": "close", "status": "killed"}
    assert len(told(file, "text")) == 8  # those that were on their way came through

    settings: dict[str, Any] = {"batch_size": 10, "max_epochs": 4, "log_every": "2 steps", "save_every": "3 steps"}
    data = testing.line_data(40)
    trainer = testing.Line(
        data=data, validation_data=data, hooks=[Recorded(file)], run_dir=runs, resume=True, **settings
    )
    assert trainer.progress.step == 6
    while trainer.iterate():
        if trainer.progress.step <= 8:
            trainer.log_text("note", f"after {trainer.progress.step}".ljust(20000 if trainer.progress.step == 8 else 0))
    run = trainer.run.path
    check_the_same(file, run)
    assert [(line["step"], line["text"].rstrip()) for line in told(file, "text")] == [
        (n, f"after {n}") for n in range(1, 9)
    ]
    assert [(line["step"], line["name"]) for line in told(file, "picture")] == [(4, "probe")]
    first, second = told(file, "open")
    assert first["id"] == second["id"] == run_id((run / "journal.jsonl").read_bytes().splitlines()[0])
    assert (first["goes_on"], second["goes_on"]) == (False, True) and not told(file, "cut")
    assert told(file)[-1] == {"what": "close", "status": "finished"}


def test_a_service_that_comes_late_is_told_all_that_there_is(line: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "told"
    trainer = line(run_dir=tmp_path / "runs" / "line", max_epochs=2)
    trainer.iterate()
    trainer.log_image("a b/c", torch.arange(6).reshape(2, 3) / 6)
    trainer.log_text("note", "hello")
    while trainer.progress.step < 5:
        trainer.iterate()
    trainer.add_hook(Recorded(file))
    trainer.train()
    check_the_same(file, trainer.run.path)
    assert [line["step"] for line in told(file, "scalars")][:3] == [2, 4, 4]
    picture = told(file, "picture")[0]
    assert (picture["step"], picture["name"], picture["shape"]) == (1, "a b-c", [2, 3, 1])
    assert told(file, "text")[0]["text"] == "hello"


def test_a_process_that_is_killed_is_started_again(
    line: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "told"
    trainer = line(hooks=[Recorded(file)], run_dir=tmp_path / "runs" / "line")
    while trainer.progress.step < 5:
        trainer.iterate()
    wait_for(lambda: len(told(file, "scalars")) == 4)
    os.kill(told(file, "open")[0]["process"], signal.SIGKILL)
    trainer.iterate()
    trainer.iterate()
    wait_for(lambda: len(told(file, "open")) == 2)
    trainer.train()
    check_the_same(file, trainer.run.path)
    first, second = told(file, "open")
    assert second["goes_on"] and first["id"] == second["id"]
    assert "treadle: Recording: its process was ended by signal 9; the run goes on\n" in capfd.readouterr().err


def test_a_rewind_cuts(line: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "told"
    trainer = line(hooks=[Recorded(file)], run_dir=tmp_path / "runs" / "line", save_every="2 steps")
    for _ in range(9):
        trainer.iterate()
    trainer.rewind(6)
    trainer.train()
    assert [line["step"] for line in told(file, "cut")] == [6]
    check_the_same(file, trainer.run.path)
    trainer.rewind(10)  # after its end: the run is open again
    trainer.train()
    check_the_same(file, trainer.run.path)
    assert [line["what"] for line in told(file, "open", "cut", "close")] == [
        "open", "cut", "close", "open", "cut", "close"
    ]  # fmt: skip


class Shove(Hook):
    """Changes the weights after a step: another future."""

    def __init__(self, step: int) -> None:
        self.step = step

    def post_step(self, trainer: Any, batch: Any, outputs: Any) -> None:
        if trainer.progress.step == self.step:
            with torch.no_grad():
                trainer.model.weight += 1


@pytest.mark.parametrize("shoved", [None, 9])
def test_what_a_resumed_run_does_otherwise_takes_the_place(
    line: Callable[..., Any], tmp_path: Path, shoved: int | None
) -> None:
    file, runs = tmp_path / "told", tmp_path / "runs" / "line"
    trainer = line(hooks=[Recorded(file)], run_dir=runs, save_every="4 steps")
    for _ in range(11):
        trainer.iterate()
    wait_for(lambda: len(told(file, "scalars")) == 9)
    testing.kill(trainer)
    hooks = [Recorded(file), *([Shove(shoved)] if shoved else [])]
    again = line(hooks=hooks, run_dir=runs, resume=True, save_every="4 steps")
    assert again.progress.step == 8
    again.train()
    check_the_same(file, again.run.path)
    assert [line["step"] for line in told(file, "cut")] == ([] if shoved is None else [9])


def test_a_fork_is_a_run_of_its_own_that_names_its_parent(line: Callable[..., Any], tmp_path: Path) -> None:
    file, other = tmp_path / "told", tmp_path / "other"
    trainer = line(hooks=[Recorded(file)], run_dir=tmp_path / "runs" / "line", save_every="4 steps")
    trainer.train()
    data = testing.line_data(40)
    forked = fork(trainer.run.path, 4, trainer=type(trainer), data=data, validation_data=data, hooks=[Recorded(other)])
    forked.train()
    opened, parent = told(other, "open")[0], told(file, "open")[0]
    assert opened["parent"] == {"run": "line/v001", "id": parent["id"], "step": 4}
    assert opened["id"] != parent["id"] and not opened["goes_on"] and opened["step"] == 4
    check_the_same(other, forked.run.path)
    assert read_journal(forked.run.path)[0]["parent_id"] == parent["id"]  # also when the parent is gone


def test_a_run_without_a_directory_is_told_too(line: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "told"
    trainer = line(hooks=[Recorded(file)])
    trainer.iterate()
    trainer.iterate()
    wait_for(lambda: told(file, "scalars"))
    os.kill(told(file, "open")[0]["process"], signal.SIGKILL)
    trainer.train()
    first, second = told(file, "open")
    assert first["id"] == second["id"] and len(first["id"]) == 16 and second["goes_on"]
    assert [line["step"] for line in told(file, "scalars")] == [2, 4, 4, 4, 6, 8, 8, 8, 10, 12, 12, 12]
    assert told(file)[-1] == {"what": "close", "status": "finished"}
    trainer.test(trainer.validation_feed)
    assert [line["what"] for line in told(file)[-3:]] == ["open", "scalars", "close"]
