"""What live views of fields share: levels of detail, scales of colours, cells as boxes, numbers with names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from treadle.images.heat import scale_bar, stamped
from treadle.reports.views import Option, Value, Window

MOST_CELLS = 4000
"""Cells that are laid over the picture; of more, the coarser ones that hold them."""


def level_option(field: Any) -> tuple[Option, ...]:
    """The option of the finest level that counts, where a field has several."""
    finest = field.levels - 1
    return (Option("level", "Finest level", "range", finest, low=0, high=finest, step=1),) if finest > 0 else ()


def lod_of(field: Any, options: Mapping[str, Value]) -> int | None:
    """The chosen finest level; None where that is all of them."""
    level = int(options.get("level", field.levels - 1))
    return level if level < field.levels - 1 else None


def with_scale(
    part: NDArray[np.uint8], window: Window, low: str, high: str, ends: tuple[float, float] = (0.0, 1.0)
) -> NDArray[np.uint8]:
    """A part of a picture with a scale of colours in the corner of the whole, unless that is moving."""
    if window.moving:
        return part
    return stamped(part, window.box, window.height, scale_bar(low, high, *ends))


def cell_boxes(cells: Tensor, side: float) -> NDArray[np.float32]:
    """(n, 2, 3) lower and upper corners of cells (n, 3), counted from -1, `side` wide."""
    low = cells.cpu().numpy() * side - 1
    return np.stack([low, low + side], 1).astype(np.float32)


def numbers(name: str, values: Sequence[float]) -> dict[str, float | str]:
    """A channel's values by name: one as it is, several by their place."""
    if len(values) == 1:
        return {name: values[0]}
    places = {3: ("red", "green", "blue") if name == "color" else tuple("xyz")}.get(len(values))
    return {f"{name} {place}": value for place, value in zip(places or range(len(values)), values, strict=True)}
