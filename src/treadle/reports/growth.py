"""How a run has come to what it is: the pictures it made on its way as one that moves, and a count in quarters."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from treadle.images.reading import read_array
from treadle.images.video import write_gif
from treadle.runs.metrics import series

_GROWTH = re.compile(r"step-(\d+)-view\.png")


def growth(path: Path, examples: Path) -> Path | None:
    """Write the pictures "view" in a run's `examples` as a GIF; None where there are less than two.

    Pictures of another size than the last one (those of another fork, say) are left out.
    """
    found = {int(match[1]): file for file in examples.glob("*.png") if (match := _GROWTH.fullmatch(file.name))}
    pictures = [read_array(found[step]) for step in sorted(found)]
    frames = [picture for picture in pictures if picture.shape == pictures[-1].shape]
    if len(frames) < 2:
        return None
    write_gif(path, [*frames, *[frames[-1]] * 12], 8)
    return path


def course(run: Path, name: str, first: int, last: int) -> str:
    """How a count went, in quarters of the run, as it was logged by `name`: "5000, 6381, 8144, 9999, 10000"."""
    steps, counts = series(run, name)
    between = np.searchsorted(steps, steps[-1] * np.array([0.25, 0.5, 0.75])) if len(steps) else []
    return ", ".join([str(first), *(f"{counts[at]:.0f}" for at in between), str(last)])
