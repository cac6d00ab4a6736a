"""The loop benchmark: what of it does not depend on time, and that its measuring is right."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from treadle import TensorFeed

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def bench() -> Any:
    """The benchmark's modules, as its own scripts import them."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import _peers
        import _report
        import _turns
        import _workload
        import loop
    finally:
        sys.path.remove(str(BENCHMARKS))
    modules = ModuleType("bench")
    modules.peers, modules.report, modules.turns, modules.workload, modules.loop = (
        _peers,
        _report,
        _turns,
        _workload,
        loop,
    )
    return modules


def train(bench: Any, framework: str, tier: str, workload: str) -> dict[str, Any]:
    clock = bench.workload.Clock(0)
    return bench.peers.train(framework, tier, workload, clock, bench.turns.orders(workload, clock.epochs))


@pytest.mark.parametrize("workload", ["mlp", "linear"])
def test_five_hooks_and_metrics_stay_within_60_python_calls_and_end_with_the_weights_of_the_raw_loop(
    bench: Any, workload: str
) -> None:
    raw = train(bench, "raw", "bare", workload)
    for framework in ("treadle", "iterate"):
        ours = train(bench, framework, "hooks", workload)
        assert ours["digest"] == raw["digest"]
        assert 10 < ours["calls"] - raw["calls"] <= 60
    assert train(bench, "treadle", "full", workload)["digest"] == raw["digest"]


def test_calls_are_the_same_every_time(bench: Any) -> None:
    gc.disable()  # a collection calls finalizers, which count
    try:
        assert len({train(bench, "treadle", "hooks", "linear")["calls"] for _ in range(3)}) == 1
    finally:
        gc.enable()


@pytest.mark.parametrize("workload", ["mlp", "linear"])
def test_fused_and_default_optimizers_agree_to_rounding(bench: Any, workload: str) -> None:
    assert bench.turns.agreement(workload) <= 1e-5


def test_the_batches_are_those_of_the_feed(bench: Any) -> None:
    workload = bench.workload.WORKLOADS["linear"]
    batches = bench.workload.Batches(workload.data(), bench.turns.orders("linear", 2), workload.batch_size)
    feed = TensorFeed(workload.data(), workload.batch_size)
    for epoch in range(2):
        pairs = list(zip(batches, feed.iterate(epoch), strict=True))
        assert len(pairs) == len(batches)
        assert all(torch.equal(a, b) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True))


def test_the_clock_counts_the_calls_of_a_step(bench: Any) -> None:
    def called() -> None:
        pass

    counted = []
    for calls in (0, 3):
        turns: list[int] = []
        clock = bench.workload.Clock(2, turns.append)
        for _ in range(clock.epochs * bench.workload.BATCHES):
            clock.tick()
            for _ in range(calls):
                called()
        counted.append(clock.calls)
        assert turns == [0, 1]
        assert len(clock.seconds) == 2
        assert sys.getprofile() is None
    assert counted == [1.0, 4.0]


def test_processes_take_turns_and_report(bench: Any) -> None:
    raw, ours = bench.loop.RAW, bench.loop.TRAIN
    figures = bench.turns.compete("linear", [raw, ours], [raw], 1, 2)
    assert figures[raw].digest == figures[ours].digest
    assert [len(rounds) for rounds in figures[ours].seconds] == [2]
    assert all(seconds > 0 for seconds in figures[ours].seconds[0])
    assert len(bench.loop.rows(figures)) == 2
    assert all(gate.held for gate in bench.loop.gates({"linear": figures}, timed=False))


def test_a_process_that_fails_says_why(bench: Any) -> None:
    nobody = bench.turns.Contestant("nobody", "bare")
    with pytest.raises(RuntimeError, match="KeyError: 'nobody'"):
        bench.turns.compete("linear", [nobody], [], 1, 1)


def test_differences_are_paired_and_the_least_median_counts(bench: Any) -> None:
    figure, raw, ours = bench.turns.Figure, bench.loop.RAW, bench.loop.TRAIN
    figures = {
        raw: figure(seconds=[[1e-6, 100e-6, 3e-6], [1e-6, 1e-6, 1e-6]]),
        ours: figure(seconds=[[6e-6, 105e-6, 9e-6], [8e-6, 9e-6, 2e-6]]),
    }
    assert bench.loop.over(figures, ours) == pytest.approx(5)
    assert bench.loop.ratio(figures, ours, raw) == pytest.approx(3)


def test_a_promise_that_does_not_hold_is_said_to(bench: Any) -> None:
    gate = bench.report.Gate
    assert gate("calls", 60.0, 60).held
    assert not gate("calls", 60.1, 60).held
    assert not gate("memory", float("nan"), 15).held
    text = bench.report.table(gate.HEAD, [gate("calls", 61, 60).row()])
    assert "NOT HELD" in text
    assert len({len(line) for line in text.splitlines()}) == 1


def test_unequal_weights_are_noticed(bench: Any) -> None:
    figure = bench.turns.Figure
    figures = {bench.loop.RAW: figure(digest="a"), bench.loop.TRAIN: figure(digest="a")}
    bench.loop.check_weights(figures)
    figures[bench.loop.TRAIN].digest = "b"
    with pytest.raises(SystemExit, match="weights"):
        bench.loop.check_weights(figures)
    assert np.isfinite(bench.workload.peak_memory()) or sys.platform != "linux"
