"""Pictures of any size through a network that wants multiples: continued by their mirror image, and cut back."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def at_own_size(generator: nn.Module, x: Tensor) -> Tensor:
    """What a generator makes of pictures (N, C, H, W) of any size, (N, out, H, W).

    A generator may say `multiple` and `least`: heights and widths must be multiples of the one and at least the other.
    Where they are not, the pictures are continued to the right and below by their mirror image, and what is made of it
    is cut off: no loss and no discriminator sees anything but the picture.
    """
    multiple, least = getattr(generator, "multiple", 1), getattr(generator, "least", 1)
    height, width = x.shape[-2:]
    if height % multiple == 0 == width % multiple and height >= least <= width:
        out: Tensor = generator(x)
        return out
    rows, columns = (mirrored(size, fitting(size, multiple, least)) for size in (height, width))
    out = generator(x.index_select(-2, rows.to(x.device)).index_select(-1, columns.to(x.device)))
    return out[..., :height, :width]


def fitting(size: int, multiple: int, least: int) -> int:
    """The smallest height or width that a network takes and `size` fits into."""
    return -(-max(size, least) // multiple) * multiple


def mirrored(size: int, length: int) -> Tensor:
    """Where each of `length` pixels is taken from in a row of `size`, mirrored at its ends (both pixels repeated)."""
    places = torch.arange(length) % (2 * size)
    return torch.where(places < size, places, 2 * size - 1 - places)
