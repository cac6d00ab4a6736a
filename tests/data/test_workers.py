"""Spawned workers import torch (some 3 s): the tests share processes where they can."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from data_cases import Broken, Noisy, Obedient, Words, as_list

from treadle.data.dataset import DatasetFeed
from treadle.data.fetch import SampleError
from treadle.errors import RunError

HERE = str(Path(__file__).parent)


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_gone(pids: list[int], seconds: float = 60) -> bool:
    """Whether all of `pids` end within `seconds`."""
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(alive, pids))


def equal(one: list[Any], other: list[Any]) -> bool:
    """Whether two lists of batches are bitwise the same."""
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes through /proc")
def test_same_bits_for_0_1_and_3_workers() -> None:
    here = DatasetFeed(Noisy(), 3, seed=4)
    expected = [list(here.iterate(epoch)) for epoch in range(2)]
    assert not equal(*expected)
    for workers in (1, 3):
        feed = DatasetFeed(Noisy(), 3, seed=4, workers=workers)
        batches = feed.iterate(0)
        flags = []
        got = []
        for batch in batches:
            got.append(batch)
            flags.append(batches.exhausted)
        assert equal(got, expected[0]) and flags == [False] * 6 + [True]
        pids = feed.pool().pids
        assert len(pids) == workers
        # From the middle, beside an iterator that is left unfinished, twice at once: the position is the iterator's.
        left = feed.iterate(0)
        next(left)
        one, two = feed.iterate(1, 2), feed.iterate(1)
        pairs = [next(two), next(two)] + [x for pair in zip(one, two, strict=True) for x in pair]
        assert equal(pairs[:2] + pairs[3::2], expected[1]) and equal(pairs[2::2], expected[1][2:])
        assert feed.pool().pids == pids  # kept over epochs
        left = feed.iterate(0)
        del left  # before its batches are there
        list(feed.iterate(0))
        assert feed.pool().waiting == 0  # what nobody takes is not kept
        if workers == 1:
            feed.close()
            feed.close()
        else:
            del feed, batches, one, two
            gc.collect()
        assert wait_gone(pids)


def test_everything_travels() -> None:
    here = DatasetFeed(Words(), 2, shuffle=False, collate=as_list)
    feed = DatasetFeed(Words(), 2, shuffle=False, collate=as_list, workers=1)
    for got, expected in zip(feed.iterate(0), here.iterate(0), strict=True):
        for a, b in zip(got, expected, strict=True):
            assert a[:3] == b[:3]
            assert a[3].shape == (0, 4) and torch.equal(a[4], b[4]) and a[4].dtype == torch.bfloat16
            assert a[4].data_ptr() % 64 == 0
    feed.close()


def test_errors_and_deaths_are_reported() -> None:
    with pytest.raises(SampleError) as here:
        list(DatasetFeed(Broken(), 4, shuffle=False).iterate(0))
    feed = DatasetFeed(Broken(), 4, shuffle=False, workers=2)
    batches = feed.iterate(0)
    next(batches)
    for _ in range(2):  # asked again it is tried again, as without workers
        with pytest.raises(SampleError) as there:
            next(batches)
        assert str(there.value) == str(here.value)
        assert "data worker 1" in there.value.__notes__[0] and "data_cases.py" in there.value.__notes__[0]
    assert next(feed.iterate(0, 2))["index"].tolist() == [8, 9, 10, 11]  # the workers live on
    feed.close()

    feed = DatasetFeed(Obedient({9: "die"}), 4, shuffle=False, workers=1)
    pids = feed.pool().pids
    batches = feed.iterate(0)
    assert next(batches).tolist() == [0, 1, 2, 3]
    next(batches)
    with pytest.raises(RunError, match=rf"data worker 0 \(pid {pids[0]}\) was killed by SIGKILL.*out of memory"):
        next(batches)
    assert next(feed.iterate(0, 3)).tolist() == [12, 13, 14, 15]  # with a new worker
    assert feed.pool().pids != pids
    feed.close()


SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs the tests in the background may have it ignored
sys.path.insert(0, {here!r})
from data_cases import Obedient
from treadle.data.dataset import DatasetFeed

if {guard}:
    feed = DatasetFeed(Obedient({acts}), 4, shuffle=False, workers={workers})
    batches = feed.iterate(0)
"""


def script(
    tmp_path: Path, body: str, acts: object = None, workers: int = 2, guard: str = "__name__ == '__main__'"
) -> subprocess.Popen[str]:
    """Run a program that has a feed with workers, in a process group of its own."""
    file = tmp_path / "program.py"
    head = SCRIPT.format(here=HERE, guard=guard, acts=acts or {}, workers=workers)
    file.write_text(head + textwrap.indent(textwrap.dedent(body).strip(), "    ") + "\n")
    return subprocess.Popen(
        [sys.executable, str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes through /proc")
def test_interrupted_or_killed_owners_leave_no_orphans(tmp_path: Path) -> None:
    (tmp_path / "killed").mkdir()
    body = "next(batches); print(*feed.pool().pids, flush=True); time.sleep(1000)"
    killed = script(tmp_path / "killed", body, acts={5: "sleep"})
    # Ctrl-C reaches the whole group. The owner takes it, still gets the batches it wants, and ends with its workers.
    taken = script(
        tmp_path,
        """
        next(batches)
        try:
            print(*feed.pool().pids, flush=True)
            time.sleep(1000)
        except KeyboardInterrupt:
            print(len(list(batches)), flush=True)
            raise
        """,
    )
    assert taken.stdout is not None
    pids = [int(pid) for pid in taken.stdout.readline().split()]
    assert len(pids) == 2 and all(map(alive, pids))
    os.killpg(taken.pid, signal.SIGINT)
    out, err = taken.communicate(timeout=60)
    assert out.strip() == "4" and taken.returncode == -signal.SIGINT
    assert err.count("Traceback") == 1  # the owner's own
    assert wait_gone(pids)

    # kill -9 of the owner, while a worker is in the middle of a sample that takes ten minutes.
    assert killed.stdout is not None
    pids = [int(pid) for pid in killed.stdout.readline().split()]
    assert all(map(alive, pids))
    killed.kill()
    assert wait_gone(pids)
    killed.communicate()


def test_a_script_without_guard_is_told_what_to_do(tmp_path: Path) -> None:
    program = script(tmp_path, "next(batches)", workers=1, guard="True")
    _, err = program.communicate(timeout=100)
    assert program.returncode == 1
    assert "before it had the dataset: in a script, start training under `if __name__ == '__main__':`" in err
