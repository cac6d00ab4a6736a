"""How translations came to be: the same pictures, translated by the generator of each validation that is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from treadle.checkpoint.store import step_of
from treadle.gans.values import Values
from treadle.images.panels import panel
from treadle.images.reading import Pixels
from treadle.runs.best import read_at
from treadle.runs.models import kept_at_validations


@torch.no_grad()
def strip(
    run: Path,
    name: str,
    generator: nn.Module,
    step: int,
    pictures: Sequence[tuple[Tensor, Tensor | None]],
    translate: Callable[[Tensor, nn.Module], Tensor],
    values: tuple[Values, Values] = (Values(), Values()),
) -> Pixels | None:
    """A row for each picture, uint8 (H, W, 3): the input, its translations from the first step to the last, the target.

    Args:
        run: the directory of the run that keeps the earlier generators (see `KeptModels`).
        name: the attribute that is the generator.
        generator: as it is now, after `step` steps: it is the last of the row.
        step: see there.
        pictures: inputs and, where they are known, targets: (1, C, H, W) in [-1, 1].
        translate: what a generator makes of an input.
        values: what the numbers of inputs and of outputs are, to be shown.

    Returns None where there is no earlier generator, or no picture.
    """
    earlier = [path for path in kept_at_validations(run) if step_of(path) < step]
    if not earlier or not pictures:
        return None
    rows = [[x] for x, _ in pictures]
    device = next(generator.parameters()).device
    model = deepcopy(generator)
    for path in earlier:
        model.load_state_dict(read_at(path).of(name))
        _add(rows, lambda x: translate(x.to(device), model))
    _add(rows, lambda x: translate(x.to(device), generator))
    captions = ["input", *(f"step {step_of(path)}" for path in earlier), f"step {step}"]
    if all(target is not None for _, target in pictures):
        captions.append("target")
        for row, (_, target) in zip(rows, pictures, strict=True):
            assert target is not None
            row.append(target)
    inputs, outputs = values
    return panel([[inputs.shown(x[0]), *(outputs.shown(each[0]) for each in made)] for x, *made in rows], captions)


def _add(rows: Sequence[list[Tensor]], made: Callable[[Tensor], Tensor]) -> None:
    """Add to each row what is made of its input."""
    for row in rows:
        row.append(made(row[0]).cpu())
