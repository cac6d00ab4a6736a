"""All pixels of all photographs, side by side: any of them is at hand, in memory or in a file that is mapped."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.cameras.capture import Photograph, Photographs
from treadle.errors import UsageError

_AHEAD = 2


class Seen(NamedTuple):
    """What single pixels show, and along which rays; n of them."""

    origins: Tensor
    """(n, 3) float32."""
    directions: Tensor
    """(n, 3) float32, of unit length."""
    pixels: Tensor
    """(n, 3 or 4) float32 from 0 to 1: a fourth value is straight alpha."""
    counts: Tensor | None
    """(n,) bool: False where a pixel is ignored; None where none is."""
    distances: Tensor | None
    """(n,) float32: how far along the ray it is seen, 0 where not known; None where no photograph has depth."""
    views: Tensor
    """(n,) int64: the number of its photograph."""
    before: int = 0
    """How many rays of the batch come before these, in other parts of it: what is drawn for each ray goes by that."""

    @property
    def alpha(self) -> Tensor | None:
        """(n,) from 0 to 1; None where photographs have none."""
        return self.pixels[:, 3] if self.pixels.shape[1] == 4 else None

    def chosen(self, which: Tensor) -> Seen:
        """Some of them: a mask (n,) or indices."""
        counts, distances = (None if values is None else values[which] for values in (self.counts, self.distances))
        origins, directions, pixels = (values[which] for values in self[:3])
        return Seen(origins, directions, pixels, counts, distances, self.views[which], self.before)

    def colors(self, background: Tensor) -> Tensor:
        """(n, 3) over a `background` (3,) or (n, 3) where they are transparent."""
        if self.pixels.shape[1] == 3:
            return self.pixels
        alpha = self.pixels[:, 3:]
        return background + alpha * (self.pixels[:, :3] - background)


@dataclass(frozen=True, eq=False)
class _Lenses:
    """What takes a pixel of a view to a ray."""

    intrinsics: NDArray[np.float64]
    rotations: NDArray[np.float64]
    centers: NDArray[np.float64]


class Pixels:
    """The pixels of photographs by number: those of the first photograph row by row, then those of the second.

    Photographs are read once, one after the other. What they hold together is kept in memory where it takes at most
    `memory` bytes, and else in a nameless temporary file that is mapped: then the operating system keeps what it can.

    Args:
        photographs: at least one.
        memory: bytes.
        threads: how many photographs are read at the same time.

    Raises:
        UsageError: the disk has no room for the temporary file.
        BadPicture: a file cannot be used.
    """

    def __init__(self, photographs: Photographs, memory: int = 1 << 30, threads: int = 2) -> None:
        cameras = photographs.cameras
        self.sizes = np.array([camera.size for camera in cameras], np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.sizes.prod(1))]).astype(np.int64)
        self._lenses = _Lenses(
            np.array([camera.intrinsics for camera in cameras]),
            np.stack([camera.world_to_camera[:3, :3] for camera in cameras]),
            np.stack([camera.center for camera in cameras]),
        )
        self._files: list[Any] = []
        self._memory = memory
        self._colors: NDArray[np.uint8] | None = None
        self._counts: NDArray[np.bool_] | None = None
        self._depths: NDArray[np.float32] | None = None
        for index, photograph in _in_order(photographs, max(1, threads)):
            self._take(slice(self.starts[index], self.starts[index + 1]), photograph)

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def mapped(self) -> bool:
        """Whether they lie in a file."""
        return bool(self._files)

    @property
    def transparent(self) -> bool:
        """Whether any photograph has alpha."""
        return self._colors is not None and self._colors.shape[1] == 4

    @property
    def has_depth(self) -> bool:
        """Whether any photograph has depth."""
        return self._depths is not None

    def seen(self, numbers: NDArray[np.int64], device: torch.device | str = "cpu") -> Seen:
        """What the pixels `numbers` (n,) show."""
        assert self._colors is not None
        view = np.searchsorted(self.starts, numbers, side="right") - 1
        row, column = np.divmod(numbers - self.starts[view], self.sizes[view, 0])
        focal_x, focal_y, center_x, center_y = self._lenses.intrinsics[view].T
        ahead = np.stack(
            [(column + 0.5 - center_x) / focal_x, (row + 0.5 - center_y) / focal_y, np.ones(len(view))], axis=1
        )
        lengths = np.sqrt((ahead * ahead).sum(1, keepdims=True))
        directions = ((ahead / lengths)[:, None] @ self._lenses.rotations[view])[:, 0]

        def tensor(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        return Seen(
            tensor(self._lenses.centers[view].astype(np.float32)),
            tensor(directions.astype(np.float32)),
            tensor(self._colors[numbers]).float() / 255,
            None if self._counts is None else tensor(self._counts[numbers]),
            None if self._depths is None else tensor(self._depths[numbers] * lengths[:, 0].astype(np.float32)),
            tensor(view),
        )

    def counted(self, numbers: NDArray[np.int64]) -> Tensor | None:
        """(n,) bool: which of the pixels `numbers` are not ignored; None where none is."""
        return None if self._counts is None else torch.from_numpy(self._counts[numbers])

    def _take(self, where: slice, photograph: Photograph) -> None:
        pixels = photograph.pixels.reshape(-1, photograph.pixels.shape[2])
        if self._colors is None:
            self._colors = self._room((len(self), pixels.shape[1]), np.uint8, 255)
        elif self._colors.shape[1] == 3 and pixels.shape[1] == 4:  # the first with alpha: all others are opaque
            wider = self._room((len(self), 4), np.uint8, 255)
            wider[: where.start, :3] = self._colors[: where.start]
            self._colors = wider
        self._colors[where, : pixels.shape[1]] = pixels
        if photograph.mask is not None:
            if self._counts is None:
                self._counts = self._room((len(self),), np.bool_, True)
            self._counts[where] = photograph.mask.reshape(-1)
        if photograph.depth is not None:
            if self._depths is None:
                self._depths = self._room((len(self),), np.float32, 0)
            self._depths[where] = photograph.depth.reshape(-1)

    def _room(self, shape: tuple[int, ...], dtype: Any, fill: Any) -> NDArray[Any]:
        """An array filled with a value, in memory or in a file, as memory allows."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if size <= self._memory:
            self._memory -= size
            return np.full(shape, fill, dtype)
        try:
            file = tempfile.TemporaryFile(prefix="treadle-pixels-")  # noqa: SIM115 (as long as the array)
            array = np.memmap(file, dtype, "w+", shape=shape)
        except OSError as error:
            raise UsageError(
                f"the photographs take {size >> 20} MB, more than memory_mb, and the temporary file for them cannot be "
                f"made ({error.strerror or error}): raise memory_mb, or factor"
            ) from None
        self._files.append(file)
        if fill:
            array[...] = fill
        return array


def _in_order(photographs: Photographs, threads: int) -> Iterator[tuple[int, Photograph]]:
    """The photographs with their numbers, read a few ahead."""
    with ThreadPoolExecutor(threads, thread_name_prefix="treadle-views") as pool:
        waiting = [pool.submit(photographs.__getitem__, index) for index in range(min(threads, len(photographs)))]
        for index in range(len(photographs)):
            photograph = waiting.pop(0).result()
            if index + threads < len(photographs):
                waiting.append(pool.submit(photographs.__getitem__, index + threads))
            yield index, photograph
