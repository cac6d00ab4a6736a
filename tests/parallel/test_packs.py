"""One process against two, and a short gauntlet: the quick ones of proof_packs.py and gauntlet_ranks.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parallel.gauntlet_ranks import Gauntlet, Plan
from tests.parallel.packs import differ, train
from tests.parallel.together import together


def test_gaussians_grow_in_two_processes_as_in_one(tmp_path: Path) -> None:
    settings = {"max_steps": 20}
    (alone,) = together(1, tmp_path, train, "growing_gaussians", str(tmp_path / "alone"), settings)
    found = together(2, tmp_path, train, "growing_gaussians", str(tmp_path / "run"), settings)
    assert found[0]["digest"] == found[1]["digest"]
    assert differ(alone, found[0]) < 1e-5


def test_a_game_with_noise_has_the_same_bits_with_parts(tmp_path: Path) -> None:
    (alone,) = together(1, tmp_path, train, "gan_2d", str(tmp_path / "alone"), {"parts": 2})
    found = together(2, tmp_path, train, "gan_2d", str(tmp_path / "run"), {"parts": 2})
    assert [one["digest"] for one in found] == [alone["digest"]] * 2


@pytest.mark.timeout(900)  # torchrun starts eight processes, one after the other
def test_killed_three_times_a_run_of_two_ends_with_the_same_digest_and_lines(tmp_path: Path) -> None:
    """One of the processes and both of them, whom torchrun starts again, then torchrun itself."""
    plans: list[Plan] = [
        {"at": "row edit: in the middle", "nth": 1, "rank": 1, "victim": "itself"},
        {"at": "step: parameters updated", "nth": 4, "rank": 0, "victim": "ranks"},
        {"at": "checkpoint: half the tensors", "nth": 1, "rank": 0, "victim": "agent"},
    ]
    row = Gauntlet("growing_gaussians", "restarted", tmp_path, {"max_steps": 30}).kill(3, iter(plans))
    assert row.kills == {("row edit", "itself"): 1, ("step", "ranks"): 1, ("checkpoint", "agent"): 1}
    assert row.faults == []
