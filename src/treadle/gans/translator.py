"""What a trained generator makes of pictures of any size and depth: several at once, or a large one in tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from treadle.errors import UsageError
from treadle.gans.quickened import quickened
from treadle.gans.settings import Generator
from treadle.gans.tiles import Grid, grid, has_instance_norm, parts, surveying, translate_tiles
from treadle.gans.values import Array, Values, as_dtype
from treadle.runs.models import At

PIXELS = 4_000_000
"""Pixels that go through the network at once, by default."""
OVERLAP = 256
"""Of neighbouring tiles, in pixels, by default."""

Half = Literal["left", "right"]

_WHITE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}


class Unsuitable(UsageError):
    """A picture with other channels or numbers than a model takes."""


@dataclass(frozen=True, kw_only=True)
class Translator:
    """A trained model that makes pictures of pictures: what a trainer offers to `treadle translate`.

    A trainer class does by `translators(run) -> dict[str, Translator]`, under the names of its directions. The model
    may be any module that takes (N, inputs.planes, H, W) float32 in [-1, 1] and gives (N, outputs.planes, H, W).

    Example:
        translator = Pix2PixTrainer.translators("runs/pix2pix/v001")["AtoB"]
        picture = translator.translate(picture)        # (H, W, C) of any size; uint8, uint16 or float32
    """

    model: nn.Module
    """In eval mode."""
    inputs: Values = field(default_factory=Values)
    """What the numbers of input pictures mean to the model."""
    outputs: Values = field(default_factory=Values)
    """What the model's numbers mean in output pictures."""
    multiple: int = 1
    """What heights and widths have to be multiples of; pictures are continued by their mirror image."""
    least: int = 1
    """What heights and widths have to be at least."""
    half: Half = "left"
    """Where the input is in files that show A and B side by side."""
    name: str = "model"
    """What messages call it: "final model, step 800"."""

    def translate(
        self,
        picture: Array,
        *,
        pixels: int = PIXELS,
        overlap: int = OVERLAP,
        progress: Callable[[float], object] | None = None,
    ) -> Array:
        """Translate one picture, (H, W, C) uint8, uint16 or float32, of any size; see `opened` and `closed`.

        Args:
            picture: what is to be translated.
            pixels: larger pictures are translated in tiles of so many; see `treadle.gans.tiles`.
            overlap: of tiles, in pixels. Where no pixel's output depends on inputs further away than three eighths of
                it, the tiles are the translation of the whole picture.
            progress: is called with the share of a picture in tiles that is done.

        Raises UsageError for a picture that the model does not take.
        """
        height, width = picture.shape[:2]
        if self.padded(height) * self.padded(width) <= pixels:
            return self.closed(self.run(self.opened(picture)[None])[0], picture)
        return self._in_tiles(picture, pixels, overlap, progress or (lambda share: None))

    def padded(self, size: int) -> int:
        """The height or width that a picture of this one is continued to."""
        return max(-(-self.least // self.multiple), -(-size // self.multiple)) * self.multiple

    def grid(self, height: int, width: int, pixels: int, overlap: int) -> Grid:
        """The tiles of a picture of this size. Raises UsageError where `pixels` are too few for the model."""
        return grid(self.padded(height), self.padded(width), pixels, overlap, self.multiple, self.least)

    def opened(self, picture: Array) -> Tensor:
        """A picture (H, W, C) as the model takes it: (planes, padded H, padded W) float32.

        Its channels become those of `inputs`: what is transparent shows white. All that 16 bits hold is as good as all
        that 8 bits hold, and floats lie in [0, 1], unless the inputs have a type or a range of their own.

        Raises UsageError for other channels and numbers.
        """
        values, picture = self._conformed(picture)
        return values.encode(_continued(picture, *map(self.padded, picture.shape[:2])))

    def closed(self, made: Tensor, picture: Array) -> Array:
        """What the model made of `picture`, (planes, padded H, padded W), as a picture of its size, depth and alpha.

        The numbers are of the type of `picture`, unless that of the outputs is `fixed`. Alpha is kept where the model
        neither takes nor makes it: after gray or colours as a last channel.
        """
        height, width = picture.shape[:2]
        out = self._outputs(picture).decode(made[:, :height, :width])
        return self._with_alpha(out, picture)

    def run(self, tensors: Tensor) -> Tensor:
        """What the model makes of opened pictures, (N, planes, H, W), on the model's device; returned on the CPU."""
        parameter = next(self.model.parameters(), tensors)
        with torch.inference_mode(), torch.autocast(parameter.device.type, enabled=False):
            made: Tensor = self.model(tensors.to(parameter.device))
        return made.cpu()

    def _conformed(self, picture: Array) -> tuple[Values, Array]:
        """The picture with the channels and the type that the returned values encode."""
        if picture.ndim != 3 or picture.dtype.name not in _WHITE:
            raise Unsuitable(
                f"the picture is {picture.dtype} of shape {picture.shape}: expected (H, W, C) uint8, uint16 or float32"
            )
        values = _as_deep(self.inputs, picture.dtype.name)
        if values.dtype == "float32" != self.inputs.dtype and not (picture.min() >= 0 and picture.max() <= 1):
            found = f"from {picture.min():g} to {picture.max():g}"
            raise Unsuitable(f"holds values {found}, where the model's pictures have 0.0 to 1")
        try:
            return values, values.conform(picture)
        except UsageError as error:
            raise Unsuitable(str(error)) from None

    @property
    def fixed(self) -> bool:
        """Whether results have the type of `outputs` whatever the picture's is: a range, floats, other than inputs."""
        inputs, outputs = self.inputs, self.outputs
        return outputs.dtype == "float32" or outputs.range is not None or inputs.dtype != outputs.dtype

    def _outputs(self, picture: Array) -> Values:
        """The values of what is made of `picture`."""
        return self.outputs if self.fixed else _as_deep(self.outputs, picture.dtype.name)

    def _with_alpha(self, out: Array, picture: Array) -> Array:
        if picture.shape[2] != 4 or not {self.inputs.channels, self.outputs.channels} <= {1, 3}:
            return out
        return np.concatenate([out, as_dtype(picture[:, :, 3:], out.dtype.name)], axis=2)  # type: ignore[arg-type]

    def _in_tiles(self, picture: Array, pixels: int, overlap: int, progress: Callable[[float], object]) -> Array:
        height, width = picture.shape[:2]
        tiles = self.grid(height, width, pixels, overlap)
        values, conformed = self._conformed(picture)
        outputs = self._outputs(picture)
        out = np.empty((height, width, outputs.channels), outputs.dtype)
        done = 0

        def read(down: slice, across: slice) -> Tensor:
            part = conformed[down, across]
            return values.encode(_continued(part, down.stop - down.start, across.stop - across.start))

        def write(down: slice, made: Tensor) -> None:
            out[down] = outputs.decode(made[:, : max(0, height - down.start), :width])

        def count() -> None:
            nonlocal done
            done += 1
            progress(done / len(tiles))

        tiler = self
        if has_instance_norm(self.model):
            tiler = replace(self, model=surveying(self.model))
            tiler.run(torch.stack([read(*part) for part in parts(tiles, self.multiple, self.least)]))
        translate_tiles(tiler.run, tiles, read, write, count)
        return self._with_alpha(out, picture)


def translator_named(
    trainer: type[Any], run: Path, direction: str | None = None, at: At | None = None
) -> tuple[str, Translator]:
    """The name and the translator of one direction that `trainer` offers for a run; None takes the first.

    `at` says which of the run's models: see `find_model`.

    Raises UsageError where it offers none, or none of that name.
    """
    found: dict[str, Translator] = trainer.translators(run, at=at)
    if not found:
        raise UsageError(f"{run}: {trainer.__name__} does not translate pictures")
    name = next(iter(found)) if direction is None else direction
    if name not in found:
        raise UsageError(f"direction {name}: {run} has learnt {' and '.join(found)}")
    return name, found[name]


def translator_of(model: Generator, config: Any, name: str, half: Half, *, reverse: bool = False) -> Translator:
    """The translator that a generator is, called `name`; `reverse` where it makes inputs of outputs."""
    values = config.input_values, config.output_values
    inputs, outputs = values[::-1] if reverse else values
    return Translator(
        model=quickened(model),
        inputs=inputs,
        outputs=outputs,
        multiple=model.multiple,
        least=model.least,
        half=half,
        name=name,
    )


def _continued(picture: Array, height: int, width: int) -> Array:
    """A picture (h, w, C) continued to the right and below by its mirror image."""
    missing = height - picture.shape[0], width - picture.shape[1]
    if missing == (0, 0):
        return picture
    return np.pad(picture, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")


def _as_deep(values: Values, dtype: Any) -> Values:
    """`values` for numbers of another type: with the same share of all that the type holds, of floats [0, 1].

    Themselves for floats, and for a range of their own where there are fewer bits.
    """
    if dtype == values.dtype or values.dtype == "float32" or (dtype == "uint8" and values.range is not None):
        return values
    share = _WHITE[dtype] / _WHITE[values.dtype]
    low, high = (end * share for end in values.ends)
    return replace(values, dtype=dtype, range=None if values.range is None and dtype != "float32" else (low, high))
