"""`verify` holds for everything that the gauntlet trains: from the last checkpoint but one, and from the beginning."""

from __future__ import annotations

from pathlib import Path

import pytest
from gauntlet_trainers import BUILDERS, RECIPES, build, recipes

from treadle.runs.verify import verify_run

NAMES = [*BUILDERS, *(name for name in recipes() if name in RECIPES)]


@pytest.mark.parametrize("name", NAMES)
def test_a_finished_run_can_be_taken_again(tmp_path: Path, name: str) -> None:
    run = tmp_path / "v001"
    build(name, run_dir=run).train()
    for start in (None, 0):
        with_it = verify_run(run, lambda where: build(name, run_dir=where), start)
        assert with_it.holds, with_it.differences[:3]
        assert with_it.compared
