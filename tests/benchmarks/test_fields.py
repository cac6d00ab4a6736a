"""The benchmark of the tracing kernels: what it compares does the same work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import fields

    monkeypatch.setattr(fields, "RAYS", 128)
    return fields


def test_ours_and_torch_do_the_same_work(bench: Any) -> None:
    for found, samples in (
        bench.marching(1, 1), bench.marching(2, 1), bench.compositing(3, 1), bench.tracing(False, 1),
        bench.tracing(True, 1),
    ):  # fmt: skip
        assert len(found) == 5 and found[4] < 1e-3 and samples > 500


def test_other_work_ends_the_benchmark(bench: Any) -> None:
    with pytest.raises(SystemExit, match=r"march: ours does other work than torch, by 50\.0%"):
        bench.difference([torch.ones(3)], [torch.full((3,), 2.0)], "march")
    with pytest.raises(SystemExit, match="inf%"):
        bench.difference([torch.ones(3)], [torch.ones(4)], "march")


def test_pruned_rays_have_fewer_samples(bench: Any) -> None:
    line, held = bench.pruning()
    assert held and "times fewer, held (>= 8)" in line
