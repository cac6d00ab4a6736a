"""Optuna's journal in a file: whatever is torn off, whoever is killed, it can be read and written."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treadle import RunError, UsageError
from treadle.sweeps import locking
from treadle.sweeps.locking import locked

from .conftest import wait_for

optuna = pytest.importorskip("optuna")

from treadle.sweeps.journal import JournalFile  # noqa: E402


@pytest.fixture
def journal(tmp_path: Path) -> JournalFile:
    found = JournalFile(tmp_path / "optuna.journal")
    found.append_logs([{"op_code": 0, "n": 1}, {"op_code": 0, "n": 2}])
    return found


def numbers(journal: JournalFile, first: int = 0) -> list[int]:
    return [entry["n"] for entry in journal.read_logs(first)]


def test_what_a_kill_has_torn_off_is_cut_away_and_nothing_is_lost(journal: JournalFile) -> None:
    with open(journal.path, "ab") as file:
        file.write(b'{"op_code":0,"n"')
    assert numbers(JournalFile(journal.path)) == [1, 2]
    journal.append_logs([{"op_code": 0, "n": 3}])
    assert numbers(journal) == numbers(JournalFile(journal.path)) == [1, 2, 3]
    assert numbers(journal, 2) == [3]


def test_optunas_own_backend_would_be_stuck_there(journal: JournalFile) -> None:
    """Why there is one of ours; where this fails, Optuna's has come to do the same."""
    with open(journal.path, "ab") as file:
        file.write(b'{"op_code":0,"n"')
    theirs = optuna.storages.journal.JournalFileBackend(str(journal.path))
    theirs.append_logs([{"op_code": 0, "n": 3}, {"op_code": 0, "n": 4}])
    with pytest.raises(ValueError):
        list(optuna.storages.journal.JournalFileBackend(str(journal.path)).read_logs(0))


def test_optuna_reads_the_file(journal: JournalFile) -> None:
    theirs = optuna.storages.journal.JournalFileBackend(str(journal.path))
    assert [entry["n"] for entry in theirs.read_logs(0)] == [1, 2]


def test_damage_in_the_middle_is_named(journal: JournalFile) -> None:
    journal.append_logs([{"op_code": 0, "n": 3}])
    journal.path.write_bytes(journal.path.read_bytes().replace(b'"n":2', b'"n:2'))
    with pytest.raises(RunError, match="line 2 is damaged: restore the file from a copy, or delete that line"):
        numbers(JournalFile(journal.path))


def test_a_disk_that_fills_leaves_the_file_as_it_was(journal: JournalFile) -> None:
    before = journal.path.read_bytes()
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 7, limits[1]))
    try:
        with pytest.raises(UsageError, match=r"cannot write .*optuna.journal: .*; make room, then start again"):
            journal.append_logs([{"op_code": 0, "n": 3}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert journal.path.read_bytes() == before
    journal.append_logs([{"op_code": 0, "n": 3}])
    assert numbers(journal) == [1, 2, 3]


def test_the_lock_of_a_dead_process_holds_nobody_up(
    journal: JournalFile, tmp_path: Path, forked: Callable[[Callable[[], None]], int]
) -> None:
    def hold() -> None:
        with locked(journal.path):
            (tmp_path / "held").touch()
            time.sleep(1000)

    child = forked(hold)
    wait_for((tmp_path / "held").exists)
    os.kill(child, signal.SIGKILL)
    begin = time.monotonic()
    journal.append_logs([{"op_code": 0, "n": 3}])
    assert numbers(journal) == [1, 2, 3] and time.monotonic() - begin < 60


def test_a_lock_that_is_kept_is_said_and_not_waited_for_for_ever(
    journal: JournalFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "PATIENCE", 0.1)
    with locked(journal.path), pytest.raises(UsageError, match=r"has been locked for 0.1 s .* suspended"):
        journal.append_logs([{"op_code": 0, "n": 3}])


def test_processes_that_write_at_once_lose_no_line(tmp_path: Path, forked: Callable[[Callable[[], None]], int]) -> None:
    path = tmp_path / "optuna.journal"

    def write(first: int) -> Callable[[], None]:
        def go() -> None:
            own = JournalFile(path)
            for n in range(first, first + 40):
                own.append_logs([{"op_code": 0, "n": n}])

        return go

    for child in [forked(write(first)) for first in (0, 40, 80)]:
        os.waitpid(child, 0)
    assert sorted(numbers(JournalFile(path))) == list(range(120))


def test_a_study_goes_on_in_it(journal: JournalFile, tmp_path: Path) -> None:
    def study() -> Any:
        storage = optuna.storages.JournalStorage(JournalFile(tmp_path / "study.journal"))
        return optuna.create_study(storage=storage, study_name="s", load_if_exists=True)

    study().optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    with open(tmp_path / "study.journal", "ab") as file:
        file.write(b'{"op_co')
    study().optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    assert len(study().trials) == 4
