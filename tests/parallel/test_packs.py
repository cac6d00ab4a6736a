"""One process against two, and a short gauntlet: the quick ones of proof_packs.py and gauntlet_ranks.py."""

from __future__ import annotations

from pathlib import Path

from tests.parallel.gauntlet_ranks import run_gauntlet
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


def test_killed_three_times_a_run_of_two_ends_with_the_same_digest_and_lines(tmp_path: Path) -> None:
    plans = [
        {"at": "row edit: in the middle", "nth": 1, "ranks": [1]},
        {"at": "checkpoint: half the tensors", "nth": 1, "ranks": [0]},
        {"at": "step: parameters updated", "nth": 4, "ranks": [0, 1]},
    ]
    row = run_gauntlet("growing_gaussians", tmp_path, 3, 1, {"max_steps": 20}, plans)
    assert sum(row.kills.values()) == 3 and row.differences == []
