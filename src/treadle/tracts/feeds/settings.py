"""What is said about the lines that models train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from treadle.config.settings import Settings, require, setting
from treadle.kernels.trilinear import neighbourhood


@dataclass(kw_only=True)
class LinesSettings(Settings):
    """Which lines form batches, what is done to them, and what is read beside them."""

    volume: str | None = setting(None, common=True)
    """The group of the volume that models see; null: the only one."""
    lines: str | None = setting(None, common=True)
    """The group of streamlines; null: the only one."""

    batch_size: int = setting(100, least=1, common=True)
    """How much a batch holds at most, in `batch_units`; a line that is longer than that is a batch of its own."""
    validation_batch_size: int | None = setting(None, least=1)
    """The same in validation; null: as in training."""
    batch_units: Literal["nb_streamlines", "length_mm"] = setting("nb_streamlines", common=True)
    """Lines, or their length in millimetres as they are in the data."""
    subjects_per_batch: int | None = setting(None, least=1)
    """The subjects that the lines of a batch come from at most; null: all. Fewer need fewer volumes at a time."""
    cycles: int = setting(1, least=1)
    """Batches that the same subjects serve before others are drawn."""
    max_batches: int | None = setting(None, least=1, common=True)
    """Batches of a training epoch; null: until every line came once."""
    max_validation_batches: int | None = setting(None, least=1)
    """Batches of a validation; null: until every line came once."""

    step_size: float | None = setting(None, above=0, common=True)
    """Millimetres between points; null leaves them as they are in the data."""
    nb_points: int | None = setting(None, least=2)
    """Points of every line, instead of a step."""
    compress: float | None = setting(None, least=0)
    """Millimetres by which points may lie off the line that is left without them, instead of a step."""

    split: float = setting(0.0, least=0, most=1)
    """The share of lines that are cut in two, at a point that both parts keep."""
    reverse: float = setting(0.0, least=0, most=1)
    """The share of lines (of parts, where they are cut) that run the other way."""
    noise: float = setting(0.0, least=0)
    """Standard deviation, in millimetres, of the noise on the points that a model sees. It is cut at twice that, and a
    point moves by at most half the way to the nearer of its neighbours."""
    pull: float = setting(0.0, least=0, most=1)
    """How much of that noise the direction to be told takes back: 0 goes on beside the line, 1 leads to its next point,
    so that a model learns to come back to where lines run."""
    noise_targets: float = setting(0.0, least=0)
    """The same of the directions that it is trained towards; cut at twice that, and at half their length."""
    rotate: bool = False
    """Turn each line at random, with everything that is read along it: the volume must hold tensors or harmonics."""

    neighbourhood: Literal["none", "axes", "grid"] = "none"
    """What is read at a point besides it: "axes" before and behind it along each axis, "grid" the cube around it."""
    radius: float = setting(1.0, above=0)
    """How far away that is, in `radius_units`."""
    rings: Literal[1, 2] = 1
    """2 reads at twice that radius, too."""
    radius_units: Literal["voxels", "mm"] = "voxels"
    """Voxels are as long as they are along each axis; millimetres are alike in all subjects."""

    lazy: bool = setting(False, resumable=True, affects_state=False)
    """Read lines and volumes when they are needed. The batches are the same."""
    cache_mb: int = setting(1024, least=0, resumable=True, affects_state=False)
    """lazy: the volumes that are kept, in MB, in each process that reads."""

    def __post_init__(self) -> None:
        """Check what one setting cannot say alone."""
        super().__post_init__()
        chosen = [name for name in ("step_size", "nb_points", "compress") if getattr(self, name) is not None]
        if len(chosen) > 1:
            require(self, chosen[1], False, f"null, since {chosen[0]} says where points are")

    def budget(self, training: bool) -> int:
        """What a batch holds at most."""
        return self.batch_size if training or self.validation_batch_size is None else self.validation_batch_size

    @property
    def neighbours(self) -> int:
        """Points that are read at each point, itself included."""
        return {"none": (1, 1), "axes": (7, 13), "grid": (27, 125)}[self.neighbourhood][self.rings - 1]

    def offsets(self, voxel_sizes: np.ndarray | Sequence[float]) -> Tensor:
        """Where they are: (neighbours, 3) float32 in voxels of that size, the point itself first."""
        radii = [self.radius * ring for ring in range(1, self.rings + 1)]
        found = neighbourhood(self.neighbourhood, radii)
        if self.radius_units == "voxels":
            return found
        return (found.double() / torch.as_tensor(np.asarray(voxel_sizes), dtype=torch.float64)).float()
