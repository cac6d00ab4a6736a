"""What a trained scene was trained with: asked for by exporters that render it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from treadle.cameras.camera import Camera
from treadle.cameras.capture import Capture
from treadle.checkpoint.state import State
from treadle.checkpoint.store import newest_good
from treadle.config.files import load
from treadle.errors import UsageError
from treadle.runs.run import CHECKPOINTS, CONFIG


class Setting(NamedTuple):
    """What a scene was trained with, in the coordinates of training."""

    cameras: Sequence[Camera]
    background: Tensor
    """(3,) behind the scene, in pictures."""
    points: NDArray[np.float64] | None = None
    """(n, 3) on surfaces, where some are known."""


def trained_on(trainer: type[Any], run: Path, config: Any) -> Capture:
    """The photographs that a run of `trainer` was trained on, read anew from where config.yaml says that they are.

    Raises:
        UsageError: they are not to be found, or a program gave them.
    """
    data = load(run / CONFIG).get("data")
    place = None if data is None else (run / Path(data).expanduser()).resolve()
    capture: Capture = trainer.load_data(config, place)["data"]
    if place is None and capture.train.fingerprint() != _data_of(run):
        raise UsageError(
            f"{run} was trained on photographs that a program gave it, and does not say where they are: export what"
            " needs no pictures (such as --ply of splats), or render it in that program"
        )
    return capture


def _data_of(run: Path) -> str | None:
    """The fingerprint of what a run was trained on, from its newest checkpoint; None where it has none."""
    for _, state in newest_good(run / CHECKPOINTS):
        if isinstance(state, State):
            fingerprint: str | None = state.values["data"].get("feed")
            return fingerprint
    return None
