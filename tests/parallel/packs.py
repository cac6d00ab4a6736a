"""What several processes are proved on: the examples and recipes of the gauntlet, in few steps."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from treadle import TreadleError
from treadle.parallel import this_world

CONFORMANCE = Path(__file__).parents[1] / "conformance"


def train(name: str, place: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Train what the gauntlet calls `name`, with other settings; digest, weights and counts, or why not."""
    if str(CONFORMANCE) not in sys.path:
        sys.path.insert(0, str(CONFORMANCE))
    import gauntlet_trainers

    try:
        if name in gauntlet_trainers.BUILDERS:
            trainer = gauntlet_trainers.build(name, 0, run_dir=place, **settings)
        else:
            recipe = gauntlet_trainers.small_recipe(name, Path(place).parent)
            trainer = recipe.with_overrides([f"{key}={value}" for key, value in settings.items()]).build(run_dir=place)
        trainer.train()
    except TreadleError as error:
        return {"error": str(error)}
    weights = {key: p.detach().flatten().tolist() for key, p in trainer.parts.all_parameters().items()}
    return {"digest": trainer.digest(), "weights": weights, "step": trainer.progress.step, "rank": this_world().rank}


def differ(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference of any weight; infinity where there are others, or another number."""
    mine, theirs = one["weights"], other["weights"]
    if list(mine) != list(theirs) or any(len(mine[name]) != len(theirs[name]) for name in mine):
        return float("inf")
    return max(
        float((torch.tensor(mine[name]) - torch.tensor(theirs[name])).abs().max()) for name in mine if mine[name]
    )
