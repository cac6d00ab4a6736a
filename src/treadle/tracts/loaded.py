"""A trained model that tracks: what `load_model` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from treadle.tracts.models.direction_model import DirectionModel, build_direction_model
from treadle.tracts.settings import TractsConfig
from treadle.tracts.space import Space


class Facts(nn.Module):
    """What a model has to know of the data that it was trained on; saved with it."""

    inputs: Tensor
    """() int64: features per point, those of all neighbours."""
    step: Tensor
    """() float64: mm from point to point of a line, on average."""

    def __init__(self, inputs: int, step: float) -> None:
        super().__init__()
        self.register_buffer("inputs", torch.tensor(inputs))
        self.register_buffer("step", torch.tensor(step, dtype=torch.float64))


@dataclass(frozen=True, eq=False)
class TrackingModel:
    """A model, and how what it sees is read."""

    model: DirectionModel
    config: TractsConfig
    step: float
    """mm: what a step of tracking should be."""

    @property
    def group(self) -> str:
        """The name of the volume that it was trained on, in prepared data."""
        return str(self.config.volume)

    def offsets(self, space: Space) -> Tensor | None:
        """(k, 3) float32: the neighbourhood that it reads, in voxels of a grid; None: the point alone."""
        return None if self.config.neighbours == 1 else self.config.offsets(space.voxel_sizes)

    @classmethod
    def of(cls, config: TractsConfig, model: Mapping[str, Tensor], facts: Mapping[str, Tensor]) -> TrackingModel:
        """The model of a run's config and weights, in evaluation mode."""
        built = build_direction_model(config, config, int(facts["inputs"]), config.neighbours)
        built.load_state_dict(dict(model))
        return cls(built.eval(), config, float(facts["step"]))
