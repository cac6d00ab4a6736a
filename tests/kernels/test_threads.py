from __future__ import annotations

import os
import subprocess
import sys
import threading

import numba
import pytest
import torch

from treadle.kernels import threads
from treadle.kernels.hashgrid import encode
from treadle.kernels.layout import GridLayout

LAYOUT = GridLayout(2, levels=4, features=2, log2_size=8, n_min=4, n_max=40)


def test_parts_follow_torch_and_the_work(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert threads.parts_for(0) == 1
    assert threads.parts_for(1) == 1
    assert threads.parts_for(10) == min(2, numba.config.NUMBA_NUM_THREADS)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10_000)
    assert threads.parts_for(100_000) == numba.config.NUMBA_NUM_THREADS


def test_the_callers_numba_limit_is_put_back():
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        encode(torch.zeros(5000, 2), torch.zeros(LAYOUT.rows, 2), LAYOUT)
        assert numba.get_num_threads() == 1
    finally:
        numba.set_num_threads(before)


def test_torchs_thread_count_stays():
    # In a fresh process: Numba sets the count of a shared OpenMP runtime when it first starts.
    code = """
import torch
from treadle.kernels.hashgrid import encode
from treadle.kernels.layout import GridLayout
torch.set_num_threads(1)
layout = GridLayout(2, levels=4, features=2, log2_size=8, n_min=4, n_max=40)
for count in (1, 3, 1):
    torch.set_num_threads(count)
    encode(torch.zeros(5000, 2), torch.zeros(layout.rows, 2), layout)
    assert torch.get_num_threads() == count, torch.get_num_threads()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_error_in_a_kernel_leaves_the_gate_open():
    with pytest.raises(ZeroDivisionError):
        threads.launch(lambda parts: 1 // 0, 1)
    threads.launch(lambda parts: None, 1)


def test_two_threads_at_once_get_the_results_of_one():
    points = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    table = torch.randn(LAYOUT.rows, 2, generator=torch.Generator().manual_seed(1))
    expected = encode(points, table, LAYOUT)
    equal: list[bool] = []

    def work():
        equal.extend(torch.equal(encode(points, table, LAYOUT), expected) for _ in range(5))

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(100)
    assert equal == [True] * 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_forked_after_a_launch_computes_on_one_thread():
    points = torch.rand(5000, 2) * 2 - 1
    table = torch.randn(LAYOUT.rows, 2)
    expected = encode(points, table, LAYOUT)
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)  # torch itself does not survive a fork with more
            fine = threads.parts_for(100) == 1 and bool((encode(points, table, LAYOUT) == expected).all())
            os._exit(0 if fine else 3)
        finally:
            os._exit(4)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_torch_leaves_its_threads_to_kernels_for_a_while() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        most = threads.parts_for(100)
        with threads.left_to_kernels(), threads.left_to_kernels():
            assert torch.get_num_threads() == 1 and threads.parts_for(100) == most
        assert torch.get_num_threads() == 2 and threads.parts_for(100) == most
        with pytest.raises(ValueError), threads.left_to_kernels():
            raise ValueError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_spread_calls_every_part_once_and_passes_errors_on() -> None:
    called: list[tuple[int, int, int]] = []
    threads.spread(lambda value, part, parts: called.append((value, part, parts)), 5, 7)
    assert sorted(called) == [(7, part, 5) for part in range(5)]

    def refuse(part: int, parts: int) -> None:
        if part == 2:
            raise ValueError(f"part {part} of {parts}")

    with pytest.raises(ValueError, match="part 2 of 3"):
        threads.spread(refuse, 3)
