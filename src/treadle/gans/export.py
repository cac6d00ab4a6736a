"""What of a translation leaves Treadle: generators, with all that a program needs to know to use them."""

from __future__ import annotations

from typing import Any

from treadle import __version__
from treadle.export.onnx import Exportable
from treadle.gans.augmentation import sides
from treadle.gans.inference import generator_of
from treadle.gans.padding import fitting
from treadle.runs.models import Model
from treadle.runs.run import Run


def exportable_generator(
    found: Model, config: Any, direction: str, name: str = "generator", *, reverse: bool = False
) -> Exportable:
    """A generator of a run's model, for `write_onnx`: pictures (N, C, H, W) to (N, C, H, W), any H and W.

    `direction` is what the file will say that it does: "AtoB" or "BtoA"; it also says which numbers of pictures are -1
    and 1. The other arguments, and the errors, are those of `generator_of`.
    """
    model = generator_of(found, config, name, reverse=reverse)
    height, width = (fitting(side, model.multiple, model.least) for side in sides(config.size))
    inputs, outputs = config.values[:: -1 if reverse else 1]
    return Exportable(
        model,
        shape=(model.in_channels, height, width),
        free={2: "height", 3: "width"},
        multiple=model.multiple,
        metadata={
            "treadle": __version__,
            "run": Run.open(found.run).name,
            "model": str(found),
            "step": str(found.step),
            "direction": direction,
            "range": "[-1, 1]",
            "inputs": inputs.describe(),
            "outputs": outputs.describe(),
            "size": f"{width} x {height}",
            "multiple": str(model.multiple),
        },
    )
