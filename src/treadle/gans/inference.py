"""Using what was trained: the generator of a run's model, and one picture translated by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from treadle.errors import UsageError
from treadle.gans.settings import Generator
from treadle.images.pixels import to_pixels, to_tensor
from treadle.images.reading import Pixels
from treadle.runs.models import Model


def generator_of(found: Model, config: Any, name: str = "generator", *, reverse: bool = False) -> Generator:
    """A generator of a run's model (averaged weights, where the run has them), in eval mode on the CPU.

    Args:
        found: the model, from `find_model`.
        config: its settings.
        name: the trainer's attribute that is the generator.
        reverse: whether it goes from output to input pictures.

    Raises:
        UsageError: the model has no such generator, or another one than its config describes.
    """
    weights = found.of(name)
    with torch.device("meta"):  # no memory, and no random draws, for weights that are replaced at once
        model: Generator = config.build_generator(reverse=reverse)
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        problem = " ".join(str(error).partition("\n")[2].split())[:200]
        raise UsageError(f"the {name} of the {found} is not what its config describes: {problem}") from None
    return model.eval().requires_grad_(False)


@torch.no_grad()
def translate(model: Generator, picture: Pixels) -> Pixels:
    """Translate one picture of any size: uint8 (H, W, in_channels) to uint8 (H, W, out_channels).

    Where the generator wants larger sizes or multiples, the picture is continued to the right and below by its mirror
    image, and the result is cut back.

    Raises UsageError for a picture with other channels than the generator takes.
    """
    height, width, channels = picture.shape
    if channels != model.in_channels:
        raise UsageError(f"the picture has {channels} channels: the generator takes {model.in_channels}")
    rows, columns = (max(model.least, -(-size // model.multiple) * model.multiple) for size in (height, width))
    continued = np.pad(picture, ((0, rows - height), (0, columns - width), (0, 0)), mode="symmetric")
    device = next(model.parameters()).device
    out: Pixels = to_pixels(model(to_tensor(continued)[None].to(device)))[0]
    return out[:height, :width]
