"""A model and what reads directions from it: what is trained, saved as the best model, and tracked with."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from treadle.tracts.batch import LineBatch
from treadle.tracts.getters.getter import DirectionGetter
from treadle.tracts.getters.settings import GetterSettings, build_getter
from treadle.tracts.models.model import LineModel
from treadle.tracts.models.settings import ModelSettings, build_model


class DirectionModel(nn.Module):
    """From features and past directions to the parameters that `getter` reads.

    With `residual` what the network says is about the previous direction: a network that says 0 copies it, at a line's
    first point excepted.
    """

    def __init__(self, model: LineModel, getter: DirectionGetter, *, residual: bool = False) -> None:
        super().__init__()
        self.model, self.getter, self.residual = model, getter, residual

    def forward(self, features: Tensor, previous: Tensor, offsets: Tensor) -> Tensor:
        """The getter's parameters (p, k) at all points of packed lines; arguments as of `LineModel.forward`."""
        return self._read(self.model(features, previous, offsets), previous)

    def loss(self, batch: LineBatch) -> tuple[Tensor, Tensor | None]:
        """What is wrong about each point of a batch: the direction's loss and the end's; see `DirectionGetter.loss`."""
        parameters = self(batch.features, batch.previous, batch.offsets)
        return self.getter.loss(parameters, batch.targets, batch.last)

    def start(self, count: int) -> Any:
        """The state of `count` lines before their first point."""
        return self.model.start(count)

    def advance(self, state: Any, features: Tensor, previous: Tensor) -> tuple[Tensor, Any]:
        """One point on: features (n, inputs) and previous (n, 3) there -> parameters (n, k), the new state."""
        outputs, state = self.model.advance(state, features, previous)
        return self._read(outputs, previous), state

    def keep(self, state: Any, indices: Tensor) -> Any:
        """The state of the lines `indices` (k,) int64 alone, in that order."""
        return self.model.keep(state, indices)

    def _read(self, outputs: Tensor, previous: Tensor) -> Tensor:
        parameters: Tensor = self.getter(outputs)
        return self.getter.about(parameters, previous) if self.residual else parameters


def build_direction_model(
    model: ModelSettings, getter: GetterSettings, inputs: int, neighbours: int = 1
) -> DirectionModel:
    """The model and the getter of settings (one object that is both will do); arguments as of `build_model`."""
    built = build_model(model, inputs, neighbours)
    return DirectionModel(built, build_getter(getter, built.width), residual=model.is_residual)
