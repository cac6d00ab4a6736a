"""A trained model as what says where lines go on."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from treadle.errors import UsageError
from treadle.kernels.trilinear import interpolate
from treadle.tracts.tracking.propagator import Propagator

FEW_LINES, FEW_OUTPUTS = 4, 16
"""Rows and columns of a product below which MKL rounds by how many rows there are and by a row's place, on some
processors: so it was found on AMD's, where Intel's own do not."""

if TYPE_CHECKING:
    from treadle.tracts.models.direction_model import DirectionModel


class ModelPropagator(Propagator):
    """Reads the volume where lines are, advances the model by that point, and asks its getter for a direction."""

    def __init__(
        self, model: DirectionModel, volume: Tensor, offsets: Tensor | None = None, *, sampled: bool = False
    ) -> None:
        """Take a copy of a model as it is, in evaluation mode.

        Args:
            model: on any device; what it computes comes back to the CPU.
            volume: (x, y, z, features) float32, on the CPU, contiguous.
            offsets: (k, 3) float32: the neighbourhood that is read at each point; None: the point alone.
            sampled: draw directions from the getter's distribution.

        Raises:
            UsageError: the volume does not have the features that the model takes, or its getter cannot be sampled.
        """
        features = volume.shape[3] * (1 if offsets is None else len(offsets))
        if features != model.model.inputs:
            raise UsageError(
                f"the volume gives {features} features for each point, the model was trained on {model.model.inputs}: "
                "give the kind of volume, and the neighbourhood, of the training"
            )
        if sampled and model.getter.uniforms == 0:
            raise UsageError(f"the direction getter {model.getter.name!r} says one direction: it cannot be sampled")
        self._model, self._volume, self._offsets, self._sampled = _line_by_line(model), volume, offsets, sampled
        self._device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        self.uniforms = model.getter.uniforms if sampled else 0

    def start(self, count: int) -> Any:
        """See `Propagator`."""
        return self._model.start(count)

    def advance(self, state: Any, points: Tensor, previous: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor, Any]:
        """See `Propagator`. What becomes of a line does not depend on how many others there are."""
        model = self._model
        if 0 < len(points) < FEW_LINES:
            return self._among_copies(state, points, previous, uniforms)
        features = interpolate(self._volume, points, self._offsets).to(self._device)
        parameters, state = model.advance(state, features, previous.to(self._device))
        if self._sampled:
            direction = model.getter.sample(parameters, uniforms.to(self._device))
        else:
            direction = model.getter.direction(parameters)
        return direction.cpu(), model.getter.end(parameters).cpu(), state

    def keep(self, state: Any, indices: Tensor) -> Any:
        """See `Propagator`."""
        return self._model.keep(state, indices.to(self._device))

    def _among_copies(
        self, state: Any, points: Tensor, previous: Tensor, uniforms: Tensor
    ) -> tuple[Tensor, Tensor, Any]:
        """`advance` of a few lines, with copies of the last of them that make them enough."""
        count = len(points)
        rows = torch.arange(FEW_LINES).clamp(max=count - 1)
        direction, end, state = self.advance(self.keep(state, rows), points[rows], previous[rows], uniforms[rows])
        return direction[:count], end[:count], self.keep(state, torch.arange(count))


class LineByLine(nn.Module):
    """A linear layer of few outputs, each the sum of a line's own products: the same bits wherever a line stands."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs) to (n, outputs)."""
        said = torch.stack([(x * row).sum(-1) for row in self.weight], -1)
        return said if self.bias is None else said + self.bias


def _line_by_line(model: DirectionModel) -> DirectionModel:
    model = deepcopy(model).eval()
    for within in list(model.modules()):
        for name, layer in within.named_children():
            if type(layer) is nn.Linear and layer.out_features < FEW_OUTPUTS:
                setattr(within, name, LineByLine(layer))
    return model
