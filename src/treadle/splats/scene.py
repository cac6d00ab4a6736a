"""A trained scene as exporters need it: the splats, what they were trained with, and what renders them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.cameras.background import Background
from treadle.cameras.camera import Camera
from treadle.cameras.paths import camera_path
from treadle.export.look import Look, View
from treadle.export.setting import Setting, trained_on
from treadle.runs.models import At, find_model
from treadle.splats.cloud import Cloud
from treadle.splats.rendering import render

SHARPER = 4
"""As how many of each splat, one behind the other, the splats count for depth alone."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A trained scene, as a trainer hands it to its exporters.

    Attributes:
        cloud: the splats, in the coordinates in which they were trained.
        to_input: (4, 4) float64, from those coordinates to the input's: `Capture.to_input`.
        setting: gives what they were trained with; asked only where something is rendered, as data has to be read.
        path: makes a video's cameras, in the coordinates of training: from the kind (orbit, spiral ... or a file), what
            `setting` gives and the number of frames.
        facts: what else is to be printed, such as the step.
    """

    cloud: Cloud
    to_input: NDArray[np.float64]
    setting: Callable[[], Setting]
    path: Callable[[str, Setting, int], Sequence[Camera]]
    facts: Mapping[str, Any] = field(default_factory=dict)


def looking(cloud: Cloud, background: Tensor) -> Look:
    """What renders views of a cloud over a background (3,)."""

    def look(camera: Camera) -> View:
        with torch.no_grad():
            rendered = render(cloud, camera, background=background.to(cloud.means), depth=True)
        assert rendered.depth is not None  # it was asked for
        return View(rendered.image.clamp(0, 1), rendered.depth, rendered.alpha)

    return look


def surfaces(cloud: Cloud, background: Tensor, scatter: float) -> Look:
    """What renders views of a cloud with the depth of its surface, as far as there is one.

    The mean depth of what is seen lies behind the surface wherever the first splats are not opaque, and among things
    where there are edges. So depth is taken of splats that are `SHARPER` times as dense, and is -1, not known, where
    what is seen scatters about it by more than `scatter` (standard deviation).
    """
    look = looking(cloud, background)
    transmitted = (1 - cloud.logits.double().sigmoid()) ** SHARPER
    logits = torch.logit((1 - transmitted).clamp(1e-6, 1 - 1e-6)).to(cloud.logits)

    def look_sharply(camera: Camera) -> View:
        pose = torch.from_numpy(camera.world_to_camera[2])
        depths = cloud.means.double().cpu() @ pose[:3] + pose[3]
        middle = depths.median()  # squares about it keep their digits
        moments = torch.stack([depths - middle, (depths - middle).square()], 1).to(cloud.means)
        dense = replace(cloud, logits=logits, extra={"moments": moments})
        with torch.no_grad():
            rendered = render(dense, camera, depth=True, extra=("moments",))
        assert rendered.depth is not None  # it was asked for
        mean, square = (rendered.extra["moments"] / rendered.alpha[..., None].clamp(min=1e-6)).unbind(-1)
        known = square - mean.square() < scatter**2
        view = look(camera)
        return View(view.image, torch.where(known, rendered.depth, -1), view.alpha)

    return look_sharply


def trained_scene(trainer: type[Any], run: Path, at: At | None = None) -> Scene:
    """The scene of the model `at` a step of a run of `trainer`, a `SplatsTrainer`; by default of the best model.

    Its data is read anew, from where config.yaml says that it is, once something is rendered.

    Raises:
        UsageError: the run has no such model, or none of that trainer's; or, once something is rendered, its data is
            not to be found.
    """
    found = find_model(run, at, trainer.preferred_model)
    config = found.config(trainer.Config)

    def setting() -> Setting:
        capture = trained_on(trainer, run, config)
        background = Background.of(config.background, capture.train)
        return Setting(capture.train.cameras, background.in_tests(torch.device("cpu")), capture.points)

    def path(kind: str, setting: Setting, frames: int) -> Sequence[Camera]:
        return camera_path(kind, setting.cameras, frames, points=setting.points, to_input=to_input)

    to_input = found.of("model")["to_input"].double().numpy()
    return Scene(trainer.load_model(run, at=at), to_input, setting, path, {"model": str(found)})
