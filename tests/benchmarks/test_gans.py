"""The pix2pix benchmark: all its loops do the same work, and its measuring is right."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.warm.python import python
from treadle import TensorFeed

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench() -> Any:
    """The benchmark's modules, as its own scripts import them."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import _gan_overhead
        import _gan_peers
        import _gan_workload
        import gans
    finally:
        sys.path.remove(str(BENCHMARKS))
    return SimpleNamespace(overhead=_gan_overhead, peers=_gan_peers, workload=_gan_workload, gans=gans)


@pytest.fixture(scope="module")
def played(bench: Any) -> dict[str, Any]:
    """What each of our own loops comes to on the tiny networks."""
    loops = [loop for loop in bench.peers.LOOPS if not loop.startswith("lightning")]
    return {loop: bench.gans.Figure(**bench.peers.play(loop, bench.workload.TINY)) for loop in loops}


def test_the_quick_run_measures_and_judges() -> None:
    found = subprocess.run(
        [python(everything=True), str(BENCHMARKS / "gans.py"), "--quick"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=250,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    for name in ("plain recipe", "fast loop by hand", "Treadle", "Tiny networks, 32 px"):
        assert f"| {name} " in found.stdout
    assert "Python calls per iteration over the fast loop by hand" in found.stdout


def test_treadle_ends_with_the_bits_of_the_fast_loop_its_average_included(bench: Any, played: dict[str, Any]) -> None:
    bench.gans.check_work(played)
    assert played["treadle"].digest == played["fast"].digest
    assert played["treadle+ema"].digest == played["treadle+ema on disk"].digest == played["fast+ema"].digest
    assert len({figure.digest for figure in played.values()}) == 3  # plain, fast, and fast with its average
    assert all(len(figure.seconds) == bench.workload.TINY.rounds for figure in played.values())


def test_lightning_does_the_same_work(bench: Any, played: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightning")
    tiny, play = bench.workload.TINY, bench.peers.play
    assert play("lightning plain", tiny)["digest"] == played["plain"].digest
    # Its bf16 is the fast loop's, but for the copies of weights, which it does not keep.
    autocast = torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: autocast(*args, **kwargs, cache_enabled=False))
    without = play("fast", tiny)["digest"]
    monkeypatch.undo()
    assert play("lightning fast", tiny)["digest"] == without != played["fast"].digest


def test_work_that_is_not_equal_ends_the_benchmark(bench: Any) -> None:
    figure = bench.gans.Figure
    figures = {loop: figure([1.0], "a", 0.2) for loop in ("plain", "fast", "treadle")}
    bench.gans.check_work(figures)
    figures["treadle"].digest = "b"
    with pytest.raises(SystemExit, match="Treadle did not end with the weights of fast loop by hand"):
        bench.gans.check_work(figures)
    figures["treadle"] = figure([1.0], "a", 0.23)
    with pytest.raises(SystemExit, match=r"Treadle ended at an L1 of 0\.2300, plain at 0\.2000"):
        bench.gans.check_work(figures)


def test_the_batches_are_those_of_the_feed(bench: Any) -> None:
    workload = bench.workload.TINY
    feed = TensorFeed(workload.data(), 1)
    theirs = [batch for epoch in range(2) for batch in feed.iterate(epoch)]
    ours = list(bench.workload.Batches(workload.data(), len(theirs)))
    assert len(ours) == 8
    assert all(torch.equal(a, b) for pair in zip(ours, theirs, strict=True) for a, b in zip(*pair, strict=True))


def test_the_clock_times_what_has_settled(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    workload = bench.workload.Workload("", {}, warm_up=2, settle=1, timed=2, rounds=2)
    now, turns = [0.0], []
    monkeypatch.setattr(bench.peers.time, "perf_counter", lambda: now[0])
    clock = bench.peers.Clock(workload, turns.append)
    for step in range(workload.steps):
        clock.tick()
        now[0] += step  # steps 3, 4 and 6, 7 are timed
    assert clock.seconds == pytest.approx([(3 + 4) / 2, (6 + 7) / 2])
    assert turns == [0, 1]


def test_single_steps_in_turns_count_calls(bench: Any) -> None:
    gc.disable()  # a collection calls finalizers, which count
    try:
        steps = bench.overhead.compare(bench.workload.TINY, 2)
    finally:
        gc.enable()
    assert len(steps["hand"]) == len(steps["treadle"]) == 2
    assert min(steps["treadle calls"]) - min(steps["hand calls"]) <= 120
    assert sys.getprofile() is None
    assert bench.overhead.calls(lambda: [str(i) for i in range(9)]) in (1, 2)  # before Python 3.12 the list is a call


def test_single_steps_notice_other_work(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.overhead, "fast_step", bench.peers.plain_step)
    with pytest.raises(SystemExit, match="the work is not equal"):
        bench.overhead.compare(bench.workload.TINY, 1)


def test_ratios_are_paired_and_the_least_overhead_counts(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = bench.gans.Figure
    figures = {"plain": figure([1.0, 100.0, 3.0]), "treadle": figure([0.4, 50.0, 1.8])}
    assert bench.gans.ratio(figures, "treadle") == pytest.approx(0.5)

    outputs = iter(
        [
            '{"hand": [1.0, 2.0], "treadle": [1.5, 2.5], "hand calls": [10], "treadle calls": [15]}',
            '{"hand": [1.0, 3.0], "treadle": [1.2, 3.2], "hand calls": [10], "treadle calls": [15]}',
        ]
    )
    monkeypatch.setattr(
        bench.gans.subprocess, "run", lambda *args, **kwargs: SimpleNamespace(returncode=0, stdout=next(outputs))
    )
    found = bench.gans.overhead("recipe", 2, 2)
    assert (found.hand, found.added, found.percent) == pytest.approx((2000, 200, 10))
    assert found.added_calls == 5
