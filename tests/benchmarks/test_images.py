"""The benchmark of pictures runs, small; what it compares has the sizes it says, and begins from equal weights."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.warm.python import python

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import images

    return images


def test_the_quick_run_measures_everybody():
    found = subprocess.run(
        [python(everything=True), str(BENCHMARKS / "images.py"), "--quick"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=250,
    )
    assert found.returncode == 0, found.stderr
    for name in ("hash", "dense", "siren", "the demo", "2^17 rows, now ", "2^17 rows, as 0.1.0", "2^17 rows, now, at"):
        assert sum(f"| {name}" in line for line in found.stdout.splitlines()) == 1, name


def test_fields_are_smaller_than_their_picture_and_as_large_as_that_allows(bench):
    picture = bench.made(150, 200)
    assert picture.size == (150, 200) and 0.05 < picture.values.std() < 0.5
    for name, settings in bench.settings_of(picture):
        model = bench.ImageTrainer.Config(**settings).field(picture.size, picture.channels)
        share = sum(parameter.numel() for parameter in model.parameters()) / picture.values.size
        assert 0.1 < share <= bench.SHARE, name


def test_before_and_now_learn_alike_and_a_threshold_counts_from_when_it_holds_for_good(bench, monkeypatch):
    monkeypatch.setattr(bench, "TURN", 4)
    courses = bench.race(bench.made(30, 40), 3, bench.ALL, log2_size=8, levels=4, n_min=4, hidden=16, batch_size=300)
    _, then, now = courses.values()  # at equal rates
    assert [step for step, _, _ in now.points] == [step for step, _, _ in then.points] == [4, 8, 11]
    assert now.points[-1][2] == pytest.approx(then.points[-1][2], abs=3)
    course = bench.Course([(1, 1.0, 30.0), (2, 2.0, 41.0), (3, 3.0, 39.0), (4, 4.0, 40.5), (5, 5.0, 42.0)])
    assert (course.passed(40), course.passed(20), course.passed(50)) == (4.0, 1.0, torch.inf)
