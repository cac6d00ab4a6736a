"""What a process does about the launcher that has started it: it ends with it, and counts how often it was started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.parallel.test_group import Net, some_data
from tests.parallel.together import together
from treadle import Trainer, UsageError
from treadle.parallel import this_world

LAUNCHED = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "1", "RANK": "0"}
ENDLESS = """
import pathlib, time
from treadle.parallel import this_world
this_world()
pathlib.Path("begun").touch()
while True:
    time.sleep(0.1)
"""


def start(place: Path, command: list[str], **launched: str) -> subprocess.Popen[bytes]:
    source = str(Path(__file__).parents[2] / "src")
    return subprocess.Popen(command, cwd=place, env={**os.environ, **LAUNCHED, "PYTHONPATH": source, **launched})


def test_a_process_that_is_alone_ends_with_its_launcher(tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text(ENDLESS)
    launcher = start(tmp_path, ["sh", "-c", f"{sys.executable} endless.py & echo $! > number; wait"])
    end = time.monotonic() + 120
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    number = int((tmp_path / "number").read_text())
    os.kill(number, 0)
    launcher.kill()
    launcher.wait()
    try:
        while Path(f"/proc/{number}/cmdline").exists() and Path(f"/proc/{number}/cmdline").read_bytes():
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def test_one_whose_launcher_was_killed_while_it_imported_ends_too(tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text(ENDLESS)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # where nobody listens any more
    where = {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    process = start(tmp_path, [sys.executable, "endless.py"], **where)
    try:
        assert process.wait(120) == -signal.SIGTERM
    finally:
        process.kill()


def test_restarts_that_could_not_meet_are_refused_before_anything_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "GROUP_WORLD_SIZE": "2"}
    for name, text in {**launched, "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_MAX_RESTARTS": "3"}.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(UsageError, match=r"needs --rdzv-backend c10d, and .* TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        this_world()


def begin(run: str, restarts: list[int]) -> str:
    """Train a run for a few steps as torchrun's processes that have been started again so often, each by its count."""
    given = {"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_RESTART_COUNT": str(restarts[this_world().rank])}
    before = dict(os.environ)
    os.environ.update(given)
    try:
        trainer: Trainer = Net(data=some_data(), batch_size=8, max_steps=4, run_dir=run, save_every="2 steps")
        for _ in range(3):
            trainer.iterate()
        trainer.close()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return str(trainer.run.path.name)


def test_started_again_on_one_machine_of_two_the_same_run_goes_on(tmp_path: Path) -> None:
    assert together(2, tmp_path, begin, str(tmp_path / "run"), [0, 0]) == ["v001"] * 2
    assert together(2, tmp_path, begin, str(tmp_path / "run"), [0, 1]) == ["v001"] * 2
    assert together(2, tmp_path, begin, str(tmp_path / "run"), [0, 0]) == ["v002"] * 2
