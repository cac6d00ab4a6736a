"""One process against two, and a short gauntlet: the quick ones of proof_packs.py and gauntlet_ranks.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.parallel.gauntlet_ranks import Gauntlet, Plan
from tests.parallel.packs import differ, train, write_data
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


def test_windows_of_ragged_batches_are_those_of_one_process_in_three(tmp_path: Path) -> None:
    (alone,) = together(1, tmp_path, train, "mlp", str(tmp_path / "alone"), {})
    found = together(3, tmp_path, train, "mlp", str(tmp_path / "run"), {})
    assert len({one["digest"] for one in found}) == 1 and differ(alone, found[0]) <= 1.8e-7


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("splats_adc", {"parts": 2, "batch_size": 2}),
        ("nerf", {"max_steps": 10, "parts": 2}),
        ("sdf", {"max_steps": 8, "parts": 2}),
        ("cyclegan", {"max_steps": 8, "parts": 2, "pool": 3}),
    ],
)
def test_rows_and_pools_have_the_same_bits_with_parts_also_after_a_resume_in_one(
    tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    (alone,) = together(1, tmp_path, train, name, str(tmp_path / "alone"), settings)
    run = tmp_path / "run"
    assert together(2, tmp_path, train, name, str(run), settings, 7) == [{}] * 2
    (found,) = together(1, tmp_path, train, name, str(run), settings | {"resume": True})
    assert "error" not in found, found
    assert found["digest"] == alone["digest"]


def test_a_pool_of_two_processes_goes_on_after_a_kill(tmp_path: Path) -> None:
    write_data("cyclegan", tmp_path)
    settings = {"max_steps": 8, "pool": 3}
    whole = together(2, tmp_path, train, "cyclegan", str(tmp_path / "whole"), settings)
    run = tmp_path / "run"
    assert together(2, tmp_path, train, "cyclegan", str(run), settings, 6) == [{}] * 2
    found = together(2, tmp_path, train, "cyclegan", str(run), settings | {"resume": True})
    assert [one["digest"] for one in found] == [one["digest"] for one in whole]
    assert found[0]["digest"] == found[1]["digest"]


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
