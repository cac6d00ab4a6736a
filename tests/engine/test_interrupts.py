"""Signals to real processes: stop after the step, save and go on, die at once even in a step that never ends."""

from __future__ import annotations

import os
import signal
import subprocess
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.warm.python import python
from treadle import UsageError
from treadle.checkpoint.store import list_checkpoints, read_checkpoint
from treadle.engine.interrupts import Interrupts
from treadle.runs.run import read_journal, read_summary

PROGRAM = """
    import ctypes, sys, threading, time
    from treadle.engine.interrupts import Interrupts
    from treadle.testing import Line, line_data

    run, where, how = sys.argv[1:]

    class Slow(Line):
        def step(self, batch):
            outputs = super().step(batch)
            if self.progress.step == 4:
                self.loop.archive.finish()  # what is being written is on the disk
                print("at step", flush=True)
                if how == "loops":
                    while not (self.run.path.parent / "go").exists():
                        time.sleep(0.01)
                elif how == "hangs":  # a mutex that is taken twice: no signal ends this call
                    mutex, libc = ctypes.create_string_buffer(256), ctypes.CDLL(None)
                    libc.pthread_mutex_lock(mutex), libc.pthread_mutex_lock(mutex)
            time.sleep(0.005)
            return outputs

    trainer = Slow(data=line_data(64), batch_size=1, max_epochs=1000, run_dir=run,
                   save_every="1 epoch" if how == "goes on" else "2 steps")
    with Interrupts(trainer) as interrupts:
        if where == "main":
            trainer.train()
        else:
            thread = threading.Thread(target=trainer.train)
            thread.start()
            thread.join()
        assert trainer.status == "stopped", trainer.status
        trainer.save()
        trainer.close()
    sys.exit(interrupts.exit_code)
"""


class Process:
    """The program above, in its fifth step."""

    def __init__(self, run: Path, where: str, how: str) -> None:
        self.run = run
        self.process = subprocess.Popen(
            [python(), "-c", textwrap.dedent(PROGRAM), str(run), where, how],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "at step\n", self.process.communicate()[1]

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def wait_for(self, what: str) -> str:
        """The next line that it says and that begins so."""
        assert self.process.stderr is not None
        while not (line := self.process.stderr.readline()).startswith(what):
            assert line, f"it ended, and never said {what}"
        return line

    def end(self) -> tuple[int, str]:
        _, err = self.process.communicate(timeout=100)
        assert "Traceback" not in err, err
        return self.process.returncode, err

    def newest_good(self) -> Any:
        return read_checkpoint(list_checkpoints(self.run / "checkpoints")[-1])


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that another thread or process does."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)


def saved(run: Path) -> list[dict[str, Any]]:
    """The checkpoints that the journal names."""
    return [entry for entry in read_journal(run) if entry["event"] == "checkpoint"]


@pytest.mark.parametrize(("where", "number", "code"), [("main", signal.SIGINT, 130), ("thread", signal.SIGTERM, 143)])
def test_the_first_one_ends_the_run_after_its_step_with_a_checkpoint(
    tmp_path: Path, where: str, number: int, code: int
) -> None:
    process = Process(tmp_path / "v001", where, "goes on")
    process.send(number)
    returned, err = process.end()
    assert returned == code and "stopping after this step" in err
    summary = read_summary(process.run)
    assert summary["status"] == "stopped" and summary["reason"] == f"interrupted by {signal.Signals(number).name}"
    state = process.newest_good()
    assert (state.step, state.digest) == (summary["step"], summary["digest"])


@pytest.mark.parametrize(("where", "how"), [("main", "hangs"), ("thread", "loops")])
def test_a_second_one_ends_even_a_step_that_never_ends(tmp_path: Path, where: str, how: str) -> None:
    process = Process(tmp_path / "v001", where, how)
    process.send(signal.SIGTERM)
    assert process.wait_for("stopping") == "stopping after this step (once more: at once)\n"
    assert process.process.poll() is None
    process.send(signal.SIGTERM)
    returned, err = process.end()
    assert returned in (143, -signal.SIGTERM)  # a shell says 143 to both
    assert err == ""
    assert process.newest_good().step == 4
    assert read_summary(process.run) == {}


@pytest.mark.parametrize("manager", ["SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"])
def test_a_manager_may_send_sigterm_twice(tmp_path: Path, manager: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(manager, "1")
    process = Process(tmp_path / "v001", "main", "loops")
    process.send(signal.SIGTERM)
    process.wait_for("stopping")
    process.send(signal.SIGTERM)
    (tmp_path / "go").touch()
    returned, _ = process.end()
    assert returned == 143
    assert process.newest_good().step == read_summary(process.run)["step"] == 5


def test_in_a_step_that_never_ends_it_may_too_and_a_person_still_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    process = Process(tmp_path / "v001", "main", "hangs")
    process.send(signal.SIGTERM)
    process.wait_for("stopping")
    process.send(signal.SIGTERM)
    time.sleep(0.5)  # in which it would end
    assert process.process.poll() is None
    process.send(signal.SIGINT)
    assert process.end()[0] in (130, -signal.SIGINT)  # a shell says 130 to both


def test_sigusr1_saves_and_goes_on(tmp_path: Path) -> None:
    process = Process(tmp_path / "v001", "main", "goes on")
    for count in (1, 2):
        process.send(signal.SIGUSR1)
        until(lambda: len(saved(process.run)) == count)  # noqa: B023
    process.send(signal.SIGTERM)
    assert process.end()[0] == 143
    entries = saved(process.run)
    assert len({entry["checkpoint"] for entry in entries}) == 3, "two that were asked for, one at the end"
    assert read_summary(process.run)["step"] > entries[1]["step"] > entries[0]["step"]


def test_sigusr1_without_a_run_on_disk_says_so(line: Any, capfd: pytest.CaptureFixture[str]) -> None:
    trainer = line(max_epochs=2)
    with Interrupts(trainer):
        os.kill(os.getpid(), signal.SIGUSR1)
        until(lambda: "nothing is saved" in capfd.readouterr().err)
        assert trainer.train().status == "finished"


def test_it_puts_back_what_it_found_and_needs_the_main_thread(line: Any) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    threads = set(threading.enumerate())
    with Interrupts(line()):
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before
    assert set(threading.enumerate()) <= threads and signal.set_wakeup_fd(-1) == -1
    errors: list[UsageError] = []

    def enter() -> None:
        try:
            Interrupts(line()).__enter__()
        except UsageError as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert "main" in str(errors[0])
