"""A field that is a picture: it knows its size and how the picture's values became what it was trained on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from treadle.fields.grid import Grid
from treadle.fields.hash_field import HashField
from treadle.fields.image.tiles import TiledPicture
from treadle.images.picture import Array, Picture


class PictureField(HashField):
    """A field over [-1, 1]^2 with the channels of a picture, trained on `targets(picture)`.

    Integer pictures are fitted as stored, in [0, 1]. Float pictures (EXR) have no upper end, so sign(v) log(1 + |v|) is
    fitted, divided by its largest magnitude. PSNR is that of these targets, for a peak of 1.

    Buffers: `size` (height, width) of the picture; `peak`, the divisor of a float picture, 0 for an integer one.
    """

    size: Tensor
    peak: Tensor

    def __init__(
        self, grid: Grid, channels: int, hidden: int = 64, layers: int = 2, decoder: nn.Module | None = None
    ) -> None:
        super().__init__(grid, channels, hidden, layers, "none", decoder)
        self.register_buffer("size", torch.zeros(2, dtype=torch.int64))
        self.register_buffer("peak", torch.zeros(()))

    def describe(self, picture: Picture | TiledPicture) -> None:
        """Take over size and range of the picture to be fitted."""
        self.size.copy_(torch.tensor(picture.size))
        if not picture.linear:
            self.peak.fill_(0.0)
            return
        largest = picture.largest() if isinstance(picture, TiledPicture) else np.abs(picture.values).max()
        peak = float(np.log1p(largest))
        self.peak.fill_(peak if peak > 0 else 1.0)

    @property
    def linear(self) -> bool:
        """Whether the picture has linear values of any range, from a float format."""
        return float(self.peak) > 0

    def targets(self, picture: Picture) -> Tensor:
        """What the field is to give at the picture's pixel centres: (height * width, channels)."""
        return self.encode(torch.from_numpy(np.ascontiguousarray(picture.values)).reshape(-1, picture.channels))

    def encode(self, values: Tensor) -> Tensor:
        """What the field is to give where the picture has `values` (n, channels)."""
        return values.sign() * values.abs().log1p() / self.peak.cpu() if self.linear else values

    def values(self, output: Tensor) -> Array:
        """What the field gave, as values of the picture: clipped to [0, 1], or for a float picture in its own range."""
        output = output.detach().float().cpu()
        result: Array
        if self.linear:
            result = (output.sign() * (output.abs() * self.peak.cpu()).expm1()).numpy()
        else:
            result = output.clamp(0, 1).numpy()
        return result

    def picture(self, height: int | None = None, width: int | None = None, name: str = "fit") -> Picture:
        """The field as a picture, of the size it was trained on unless told otherwise."""
        own_height, own_width = self.size.tolist()
        rendered = self.render(height or own_height, width or own_width)
        return Picture(self.values(rendered), self.linear, name)
