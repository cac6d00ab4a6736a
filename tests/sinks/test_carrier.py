"""The process beside a run: it needs no torch, keeps no secret's trace, and ends after its run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from recording import Recorded, told

from treadle.sinks.services.scrub import scrub
from treadle.sinks.services.wire import frame, head_bytes

SOURCES = Path(__file__).parents[2] / "src"


def test_it_needs_numpy_and_nothing_else_of_this_environment() -> None:
    code = "import treadle.sinks.services.carrier, treadle.sinks.services.service, sys; print(sorted(sys.modules))"
    environment = {"PYTHONPATH": str(SOURCES), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0].strip("' ") for name in done.stdout.strip("[]\n").split(",")}
    third = loaded - set(sys.stdlib_module_names) - {"treadle", "numpy"}
    assert not {name for name in third if name in ("torch", "yaml", "numba", "scipy", "rich", "safetensors", "tyro")}
    assert "treadle" in loaded


HANGS = """
import os, sys, time
sys.path.insert(0, {parts!r})
from treadle.sinks.services import carrier
carrier.KILLED_SECONDS = 0.3
carrier.main()
"""


def test_it_ends_after_its_parent_whatever_it_hangs_in(tmp_path: Path) -> None:
    inbox, orders = os.pipe()
    answers, outbox = os.pipe()
    parent = subprocess.Popen(["sleep", "100"])
    code = HANGS.format(parts=str(Path(__file__).parent / "parts"))
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(inbox), str(outbox), str(parent.pid)],
        pass_fds=(inbox, outbox),
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
    )
    try:
        opening = {"run": "x", "id": "0", "project": "x", "trainer": "x", "directory": None, "step": 0}
        opening["options"] = {"file": str(tmp_path / "told")}
        said = {"do": "open", "opening": opening, "service": "hostile_service:HangsInScalars", "mark": None}
        scalars = {"do": "scalars", "step": 1, "epoch": 0, "split": "train", "values": {}, "time": 0.0}
        for head in (said | {"goes_on": False}, scalars):
            os.write(orders, b"".join(frame(head_bytes(head))))
        assert b"opened" in os.read(answers, 1 << 16)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.5)
        parent.kill()
        parent.wait()
        assert child.wait(100) == -signal.SIGALRM
    finally:
        for process in (child, parent):
            process.kill()
            process.wait()
        for descriptor in (inbox, orders, answers, outbox):
            os.close(descriptor)


def pipes() -> int:
    """How many descriptors of pipes this process has."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{name}").startswith("pipe:")
    return found


def test_a_process_that_the_run_forks_keeps_no_service_waiting(line: Callable[..., Any], tmp_path: Path) -> None:
    trainer = line(hooks=[Recorded(tmp_path / "told")], max_epochs=1)
    trainer.iterate()
    until = time.monotonic() + 60
    while not told(tmp_path / "told"):
        assert time.monotonic() < until
        time.sleep(0.01)
    forked = os.fork()
    if not forked:
        try:
            os._exit(pipes())
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) <= pipes() - 5  # three to the process, two to wake
    trainer.train()
    assert told(tmp_path / "told")[-1]["what"] == "close"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no\n  route to host", "no route to host"),
        ("https://me:hunter2@host/x refused", "https://***@host/x refused"),
        ("bad key 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b", "bad key ***"),
        ("token=abcd1234, next", "token=***, next"),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("it said opensesame today", "it said *** today"),
        ("/tmp/run-0123456789abcdef0123456789abcdef/x", "/tmp/run-0123456789abcdef0123456789abcdef/x"),
        ("x" * 400, "x" * 297 + "..."),
    ],
)  # fmt: skip
def test_secrets_are_left_out_of_what_is_said(text: str, expected: str) -> None:
    assert scrub(text, {"WANDB_API_KEY": "opensesame", "HOME": "/root"}) == expected


def test_an_address_keeps_the_id_of_its_run() -> None:
    address = "http://me:hunter2@box/runs?id=0123456789abcdef0123456789abcdef"
    assert scrub(address, {}, ids=True) == "http://***@box/runs?id=0123456789abcdef0123456789abcdef"
