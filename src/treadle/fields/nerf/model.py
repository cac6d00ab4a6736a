"""What is trained and kept: the field, the tracer with its occupancy, and the way back to the input's coordinates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.cameras.camera import Camera
from treadle.export.look import View
from treadle.fields.nerf.field import NeRFField
from treadle.fields.nerf.settings import NeRFConfig
from treadle.fields.pipeline import Pipeline
from treadle.fields.rendering import render
from treadle.fields.settings import build_grid
from treadle.fields.structures.occupancy import OccupancyGrid
from treadle.fields.tracers.radiance import RadianceTracer


class Radiance(Pipeline):
    """A radiance field under a tracer that skips empty space.

    Buffers: `to_input` (4, 4) float64, from its coordinates to those of the input, a similarity; the occupancy.
    """

    field: NeRFField
    tracer: RadianceTracer
    to_input: Tensor

    def __init__(self, field: NeRFField, tracer: RadianceTracer, to_input: NDArray[np.float64] | None = None) -> None:
        super().__init__(field, tracer)
        matrix = np.eye(4) if to_input is None else np.array(to_input, np.float64)
        self.register_buffer("to_input", torch.from_numpy(matrix))

    @property
    def occupancy(self) -> OccupancyGrid:
        """Where it is not empty."""
        structure = self.tracer.structure
        assert isinstance(structure, OccupancyGrid)
        return structure

    def look(self, camera: Camera, background: Tensor) -> View:
        """What a camera, in the model's own coordinates, sees over a `background` (3,)."""
        found = render(self, camera, ("color",), background=background)
        return View(found["color"], found["depth"][..., 0], found["opacity"][..., 0])

    def looking(self, background: Tensor) -> Callable[[Camera], View]:
        """What renders views over a background (3,)."""
        return lambda camera: self.look(camera, background)


def build(config: NeRFConfig, to_input: NDArray[np.float64] | None = None, cells: Tensor | None = None) -> Radiance:
    """The model that settings describe, which all say something by now: `box`, `bound`, `near` and `cone`.

    Args:
        config: the settings.
        to_input: (4, 4), from the model's coordinates to the input's.
        cells: (m, 3) the cells that a grid of type octree or codebook has features at; None gives all.
    """
    bound, cone, near = config.bound, config.cone, config.near
    assert bound is not None and cone is not None and near is not None
    field = NeRFField(
        build_grid(config, cells=cells),
        bound=bound,
        contracted=config.contracted,
        hidden=config.hidden,
        layers=config.layers,
        activation=config.activation,
    )
    occupancy = OccupancyGrid(config.occupancy, config.cascades)
    tracer = RadianceTracer(occupancy, step=config.step, stop=config.stop, cone=cone, near=near)
    return Radiance(field, tracer, to_input)
