"""Runs that are killed with SIGKILL and resumed end as if nobody had touched them. The long form is `make gauntlet`."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from gauntlet import STAGES_OF, Child, Row, reference_of, run_gauntlet
from gauntlet_child import STAGES
from gauntlet_trainers import BUILDERS, EXAMPLES, LOOPS, RECIPES, recipes

NAMES = [*BUILDERS, *LOOPS, *(name for name in recipes() if name in RECIPES)]
OWN_LOOP = {"own_loop", "inside_lightning", "inside_accelerate"}
"""Examples that are about something else than one run from its beginning to its end, or need what few have."""

NEVER_REACHED = {"start: config.yaml"}
"""Stages that a run has only before its first checkpoint, so it starts anew instead of being resumed."""


@pytest.fixture(scope="module")
def references(child: Child, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes, once, the run that nobody kills."""
    made: dict[str, Any] = {}
    directory = tmp_path_factory.mktemp("references")

    def get(name: str) -> Any:
        if name not in made:
            made[name] = reference_of(child, name, directory)
        return made[name]

    return get


def assert_equal_after(row: Row, kills: int) -> None:
    assert row.differences == [], f"killed at {dict(row.stages)}"
    assert row.kills >= kills


def test_every_example_and_recipe_runs_the_gauntlet() -> None:
    examples = {path.stem for path in EXAMPLES.rglob("*.py")}
    assert examples - OWN_LOOP <= set(BUILDERS) | set(LOOPS)
    assert set(recipes()) <= set(RECIPES)


@pytest.mark.parametrize("name", NAMES)
def test_killed_at_random_it_ends_with_the_same_digest_and_metric_lines(
    child: Child, references: Any, tmp_path: Path, name: str
) -> None:
    row = run_gauntlet(child, name, 0, 3, 1, tmp_path, list(STAGES), references(name))
    assert_equal_after(row, 3)


def test_a_loop_without_a_trainer_is_killed_in_every_stage_of_a_write(
    child: Child, references: Any, tmp_path: Path
) -> None:
    stages = [stage for stage in STAGES if stage.startswith(("checkpoint", "snapshot"))]
    plan = [{"at": stage, "nth": nth} for stage, nth in zip(stages, cycle((2, 1, 3)), strict=False)]
    row = run_gauntlet(child, "plain_loop", 0, len(plan), 1, tmp_path, list(STAGES), references("plain_loop"), plan)
    assert_equal_after(row, len(plan))
    assert set(row.stages) == set(stages)


def test_killed_with_worker_processes(child: Child, references: Any, tmp_path: Path) -> None:
    """Of those whose data may come from them, one: they start slowly. The long form has all."""
    name = "everything"
    plan = [{"at": "step: counted", "nth": 7}, {"at": "checkpoint: before its rename", "nth": 2}]
    row = run_gauntlet(child, name, 2, 2, 1, tmp_path, list(STAGES), references(name), plan)
    assert_equal_after(row, 2)


@pytest.mark.parametrize("stage", sorted(set(STAGES) - NEVER_REACHED))
def test_killed_at_each_stage(child: Child, references: Any, tmp_path: Path, stage: str) -> None:
    """The trainer that has everything: killed late enough to have a checkpoint, then once more early."""
    name = "everything"
    assert name in STAGES_OF.get(stage.partition(":")[0], (name,))
    first = [] if not stage.startswith("resume") else [{"at": "step: counted", "nth": 8}]
    nth = 1 if stage.startswith(("resume", "end", "rollback", "log: series")) else 3
    plan = [*first, {"at": stage, "nth": nth}, {"at": stage, "nth": 1}]
    row = run_gauntlet(child, name, 0, len(first) + 1, 1, tmp_path, list(STAGES), references(name), plan)
    assert_equal_after(row, len(first) + 1)
    assert row.stages[stage] >= 1
