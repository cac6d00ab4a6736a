"""A slow link costs time, and nothing else."""

from __future__ import annotations

import functools
from pathlib import Path

from tests.parallel.slow_link import STEPS, train
from tests.parallel.together import together


def test_over_a_slow_link_a_run_has_the_same_bits_and_a_step_one_message_and_all_stop_after_the_same_step(
    tmp_path: Path,
) -> None:
    quick = together(2, tmp_path, train, "mlp", str(tmp_path / "quick"), 0.0)
    asked = together(2, tmp_path, functools.partial(train, ask=True), "mlp", str(tmp_path / "slow"), 0.05)
    assert len({one["digest"] for one in (*quick, *asked)}) == 1
    assert [one["messages"] for one in (*quick, *asked)] == [1] * 4
    (stopped,) = {one["stopped"] for one in asked}
    assert 5 <= stopped < STEPS
