"""The colours of a mesh's surface: those of its corners, or a texture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Paint:
    """What colour each point of each face has.

    Attributes:
        corners: (m, 3, 3) float32, sRGB from 0 to 1 at the three corners of each face; a texture is multiplied by them.
        places: (m, 3, 2) float32, where in its texture each corner is: from 0 to 1, v upwards; it repeats outside.
        images: textures, (height, width, 3) uint8 sRGB each.
        image: (m,) which of them a face has; -1 for none.
    """

    corners: NDArray[np.float32]
    places: NDArray[np.float32]
    images: Sequence[NDArray[np.uint8]]
    image: NDArray[np.int64]

    @classmethod
    def plain(cls, corners: NDArray[Any]) -> Paint:
        """Colours of corners alone."""
        count = len(corners)
        return cls(
            np.asarray(corners, np.float32), np.zeros((count, 3, 2), np.float32), (), np.full(count, -1, np.int64)
        )

    @classmethod
    def joined(cls, parts: Sequence[Paint]) -> Paint:
        """That of several meshes, one behind the other."""
        images: list[NDArray[np.uint8]] = []
        numbers = []
        for part in parts:
            numbers.append(np.where(part.image < 0, -1, part.image + len(images)))
            images += part.images
        return cls(
            np.concatenate([part.corners for part in parts]),
            np.concatenate([part.places for part in parts]),
            images,
            np.concatenate(numbers),
        )

    def of(self, faces: NDArray[Any], corners: NDArray[np.int64] | None = None) -> Paint:
        """That of some faces: a mask or indices; `corners` (k, 3) says in which order they have their corners now."""
        shades, places = self.corners[faces], self.places[faces]
        if corners is not None:
            shades = np.take_along_axis(shades, corners[:, :, None], 1)
            places = np.take_along_axis(places, corners[:, :, None], 1)
        return replace(self, corners=shades, places=places, image=self.image[faces])

    def at(self, faces: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float32]:
        """Colours (n, 3) from 0 to 1 at points given by their face (n,) and barycentric coordinates (n, 3)."""
        shades = np.einsum("nk,nkc->nc", weights, self.corners[faces])
        places = np.einsum("nk,nkc->nc", weights, self.places[faces])
        for number, picture in enumerate(self.images):
            rows = np.flatnonzero(self.image[faces] == number)
            if len(rows):
                shades[rows] *= _looked_up(picture, places[rows])
        return shades.clip(0, 1).astype(np.float32)


def _looked_up(picture: NDArray[np.uint8], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bilinear between pixels' centres, repeating beyond the edges: (n, 3) from 0 to 1."""
    height, width = picture.shape[:2]
    x, y = places[:, 0] * width - 0.5, (1 - places[:, 1]) * height - 0.5
    left, top = np.floor(x), np.floor(y)
    share_x, share_y = (x - left)[:, None], (y - top)[:, None]
    columns = [(left.astype(np.int64) + k) % width for k in (0, 1)]
    rows = [(top.astype(np.int64) + k) % height for k in (0, 1)]
    upper = picture[rows[0], columns[0]] * (1 - share_x) + picture[rows[0], columns[1]] * share_x
    lower = picture[rows[1], columns[0]] * (1 - share_x) + picture[rows[1], columns[1]] * share_x
    mixed: NDArray[np.float64] = (upper * (1 - share_y) + lower * share_y) / 255
    return mixed
