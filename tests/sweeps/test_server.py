"""Trials in a real PostgreSQL, which is started here; where there is none, or no psycopg, these are left out."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from treadle import UsageError
from treadle.runs.run import read_summary

from .conftest import held, wait_for
from .test_study import by_number, end, opened, play

pytest.importorskip("optuna")
pytest.importorskip("psycopg")

PASSWORD = "hunter2"


class Server:
    """A PostgreSQL of its own in a new directory, which a password opens; `start` and `stop` it.

    It refuses to run as root: root's is that of the user whom Debian's package makes.
    """

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._as = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        self._home = Path(tempfile.mkdtemp(prefix="postgres-"))
        secret = self._home / "password"
        secret.write_text(PASSWORD)
        if self._as:
            for path in (self._home, secret):
                shutil.chown(path, "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._run("initdb", "-U", "ada", "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync")
        self.start()

    def url(self, database: str, *, password: str = f":{PASSWORD}") -> str:
        """Where a database is that is made anew."""
        import psycopg

        address = f"postgresql://ada{password}@127.0.0.1:{self._port}"
        with psycopg.connect(f"postgresql://ada:{PASSWORD}@127.0.0.1:{self._port}/postgres", autocommit=True) as ours:
            ours.execute(f'create database "{database}"')
        return f"{address}/{database}"

    def start(self) -> None:
        """Take connections."""
        how = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._run("pg_ctl", "-w", "-o", how, "-l", str(self._home / "log"), "start")

    def stop(self) -> None:
        """End, and all connections with it."""
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def remove(self) -> None:
        """Stop, and leave nothing."""
        self.stop()
        shutil.rmtree(self._home)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as, str(self._programs / program), "-D", str(self._home / "data"), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self._home)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A PostgreSQL."""
    found = shutil.which("initdb") or max(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), default=None)
    if found is None:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    if os.getuid() == 0 and "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    server = Server(Path(found).parent)
    yield server
    server.remove()


def test_directories_share_a_server_and_draw_what_one_draws(
    slope: Any,
    tmp_path: Path,
    server: Server,
    forked: Callable[[Callable[[], None]], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)  # as the database's own client has it
    url = server.url("shared", password="")
    given: dict[str, Any] = {"storage": url, "study": "shared", "sampler": "random", "trials": 12}

    def go(place: Path) -> None:
        study, _ = opened(slope, place, **given)
        while (claim := study.claim()) is not None:
            with claim:
                end(study, claim)

    opened(slope, tmp_path / "a", **given)
    for child in [forked(lambda place=tmp_path / name: go(place)) for name in "aabb"]:
        os.waitpid(child, 0)
    trials = {trial.number: trial for name in "ab" for trial in by_number(tmp_path / name)}
    assert sum(len(by_number(tmp_path / name)) for name in "ab") == len(trials) >= 12
    assert {trial.state for trial in trials.values()} == {"finished"}
    whole = play(slope, tmp_path / "whole", 12, sampler="random")
    assert [trials[number].drawn for number in range(1, 13)] == whole


def test_a_server_that_was_gone_is_said_and_then_gone_on_with(
    slope: Any, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TREADLE_SWEEP_STORAGE", server.url("gone"))
    study, _ = opened(slope, tmp_path / "s", trials=3)
    claim = study.claim()
    assert claim is not None
    server.stop()
    server.start()  # as it is when a network has dropped what was idle: of a trial that takes hours
    end(study, claim)
    claim.release()
    server.stop()
    with pytest.raises(UsageError, match=r"^the database postgresql://ada@.* cannot be used: .*refused") as refused:
        study.claim()
    assert PASSWORD not in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(UsageError, match="cannot be used"):
        opened(slope, tmp_path / "new", trials=3)
    assert not (tmp_path / "new").exists()
    server.start()
    again = study.claim()
    assert again is not None and again.trial.number == 2


def test_a_killed_command_and_one_without_its_server_go_on_to_the_same_digests(
    program: Path, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, said = tmp_path / "s", tmp_path / "said"

    def command(place: Path) -> subprocess.Popen[bytes]:
        words = ["sweep", "--trainer", f"{program}:Slope", "--search", "lr=log:1e-3..1", "--sampler", "random"]
        words += ["--trials", "3", "--set", "save_every=2 steps", "--run", str(place), "--workers", "1"]
        with open(said, "wb") as file:
            return subprocess.Popen(
                [sys.executable, "-m", "treadle", *words], stdout=file, stderr=file, start_new_session=True
            )

    assert command(tmp_path / "calm").wait(100) == 0
    monkeypatch.setenv("TREADLE_SWEEP_STORAGE", server.url("killed"))
    monkeypatch.setenv("SLOPE_HOLD", "trial-002 trial-003")
    killed = command(place)
    wait_for(lambda: held(place / "trial-002"))
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    (place / "trial-002" / "go").touch()
    alone = command(place)
    wait_for(lambda: held(place / "trial-003"))
    server.stop()
    (place / "trial-003" / "go").touch()
    code = alone.wait(100)
    server.start()
    assert code != 0 and "Traceback" not in said.read_text() and PASSWORD not in said.read_text()
    assert "the database postgresql://ada@127.0.0.1" in said.read_text()
    assert command(place).wait(100) == 0
    assert [trial.state for trial in by_number(place)] == ["finished"] * 3
    assert (place / "trial-002" / "held").read_text() == "xx"  # it was begun once more, where it had been saved
    for number in (1, 2, 3):
        run = Path(f"trial-00{number}/v001")
        assert read_summary(place / run)["digest"] == read_summary(tmp_path / "calm" / run)["digest"]
    files = [each for each in place.rglob("*") if each.is_file()]
    assert not [each for each in files if PASSWORD.encode() in each.read_bytes()]
