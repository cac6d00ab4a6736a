"""The crop box of a view in space: six options, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from treadle.reports.views import Option, Value

EDGES = tuple(f"{axis}_{end}" for end in ("low", "high") for axis in "xyz")
"""The options' names."""


def crop_options(lower: Sequence[float], upper: Sequence[float], unit: str = "") -> tuple[Option, ...]:
    """Options for the six sides of a crop box that can be moved between two corners; at its end a side cuts nothing.

    Args:
        lower, upper: (3,) the corners, in the world's coordinates.
        unit: of these, such as "mm".
    """
    found = []
    for name, end in zip(EDGES, (*lower, *upper), strict=True):
        axis, side = "xyz".index(name[0]), "from" if name.endswith("low") else "to"
        low, high = float(lower[axis]), float(upper[axis])
        label = f"Crop {name[0]} {side}" + (f", {unit}" if unit else "")
        found.append(Option(name, label, "range", float(end), low=low, high=high, step=(high - low) / 200))
    return tuple(found)


def crop_of(options: Mapping[str, Value], given: Sequence[Option]) -> NDArray[np.float64]:
    """The crop box under the options of a window: (2, 3), its lower and upper corner; infinite where nothing is cut.

    `given` are the options that the view has, those of `crop_options` among them.
    """
    ends = {option.name: (option.low, option.high) for option in given if option.name in EDGES}
    box = np.empty(6)
    for place, name in enumerate(EDGES):
        low, high = ends[name]
        value = float(options[name])
        box[place] = (-np.inf if value <= low else value) if place < 3 else (np.inf if value >= high else value)
    return box.reshape(2, 3)
