"""A trained radiance field as exporters need it: the model, and what it was trained with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from treadle.cameras.background import Background
from treadle.cameras.camera import Camera
from treadle.cameras.paths import camera_path
from treadle.export.setting import Setting, trained_on
from treadle.fields.nerf.model import Radiance
from treadle.fields.nerf.placing import Box, placed
from treadle.fields.nerf.settings import NeRFConfig
from treadle.runs.models import At, find_model


@dataclass(frozen=True, eq=False)
class Scene:
    """A trained scene, as a trainer hands it to its exporters.

    Attributes:
        model: in its own coordinates, in which the scene's box is [-1, 1]^3.
        config: the settings of the run.
        setting: gives what it was trained with, in the same coordinates; asked only where something is rendered, as
            data has to be read.
        path: makes a video's cameras: from the kind (orbit, spiral ... or a file), what `setting` gives and the number
            of frames.
        facts: what else is to be printed, such as the step.
    """

    model: Radiance
    config: NeRFConfig
    setting: Callable[[], Setting]
    path: Callable[[str, Setting, int], Sequence[Camera]]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def to_input(self) -> NDArray[np.float64]:
        """(4, 4), from the model's coordinates to the input's."""
        matrix: NDArray[np.float64] = self.model.to_input.numpy()
        return matrix


def trained_scene(trainer: type[Any], run: Path, at: At | None = None) -> Scene:
    """The scene of the model `at` a step of a run of `trainer`, a `NeRFTrainer`; by default of the best model.

    Raises:
        UsageError: the run has no such model, or none of that trainer's; or, once something is rendered, its data is
            not to be found.
    """
    found = find_model(run, at, trainer.preferred_model)
    config = found.config(trainer.Config)
    model: Radiance = trainer.load_model(run, at=at)

    def setting() -> Setting:
        assert config.box is not None  # a trained run has settled it
        capture = placed(trained_on(trainer, run, config), Box(config.box[:3], config.box[3]))
        background = Background.of(config.background, capture.train)
        return Setting(capture.train.cameras, background.in_tests(torch.device("cpu")), capture.points)

    def path(kind: str, setting: Setting, frames: int) -> Sequence[Camera]:
        return camera_path(kind, setting.cameras, frames, points=setting.points, to_input=model.to_input.numpy())

    return Scene(model, config, setting, path, {"model": str(found)})
