"""What renders views of a trained scene, whatever it is made of: videos and meshes ask for no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from treadle.cameras.camera import Camera

SOLID = 0.5
"""The opacity from which a pixel's depth is believed; below it, the pixel sees nothing but free space."""


class View(NamedTuple):
    """What a camera sees: image (H, W, 3) from 0 to 1, depth (H, W) along its axis, alpha (H, W) from 0 to 1."""

    image: Tensor
    depth: Tensor
    alpha: Tensor


Look = Callable[[Camera], View]
"""What renders a view."""
