"""A picture too large for memory: its pixels in a mapped file, tile by tile, and batches that are spread over it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.data.feed import Feed
from treadle.data.fingerprint import Fingerprint
from treadle.data.random import derive_seed
from treadle.errors import RunError, UsageError
from treadle.files import reason
from treadle.images.picture import CHANNELS, Array, Picture

SIDE = 64
"""Pixels along each side of a tile: its values, three bytes a pixel, are three pages of a mapped file."""

Indices = NDArray[np.int64]


class TiledPicture:
    """A picture whose values lie in a mapped file, which the system reads and forgets as memory allows.

    The file has no name: it ends with the process. Its pixels are in the order of tiles of `SIDE` x `SIDE`, row by row,
    and within a tile row by row; tiles at the right and at the lower end may be smaller. `index` counts along them.

    Args:
        values: (height, width, channels) uint8, uint16 or float32, as `read_array` gives them; 1, 3 or 4 channels.
        name: what to call it: the file's path.

    Raises:
        UsageError: another shape or type, no pixels, or values that are not finite.
        RunError: the disk of temporary files has no room.

    Attributes:
        size: height and width in pixels.
        channels: 1, 3 or 4.
        linear: whether the values come from a float format.
        name: as given.
    """

    def __init__(self, values: NDArray[Any], name: str) -> None:
        if values.ndim != 3 or values.shape[2] not in CHANNELS or 0 in values.shape:
            raise UsageError(
                f"{name}: shape {values.shape} is no picture: expected (height, width, channels), 1, 3 or 4"
            )
        if values.dtype not in (np.uint8, np.uint16, np.float32):
            raise UsageError(f"{name}: values of type {values.dtype}: expected uint8, uint16 or float32")
        self.size, self.channels, self.name = (values.shape[0], values.shape[1]), values.shape[2], name
        self.linear = values.dtype == np.float32
        try:
            with tempfile.TemporaryFile() as file:
                _reserve(file.fileno(), values.nbytes)
                shape = (values.shape[0] * values.shape[1], self.channels)
                self._values = np.memmap(file, values.dtype, "w+", shape=shape)
                for first, pixels in _tiles(values):
                    self._values[first : first + len(pixels)] = pixels
        except OSError as error:
            where = tempfile.gettempdir()
            raise RunError(f"{name} needs {values.nbytes >> 20} MB in {where}: {reason(error)}; make room") from None
        if self.linear and not all(np.isfinite(part).all() for part in self._parts()):
            raise UsageError(f"{name} has values that are NaN or infinite: replace them with finite ones")

    def __len__(self) -> int:
        return len(self._values)

    def places(self, indices: Indices) -> tuple[Indices, Indices]:
        """Rows and columns of the pixels at `indices`, both of their shape."""
        height, width = self.size
        band, rest = np.divmod(indices, SIDE * width)
        rows = np.minimum(SIDE, height - band * SIDE)
        tile, rest = np.divmod(rest, rows * SIDE)
        row, column = np.divmod(rest, np.minimum(SIDE, width - tile * SIDE))
        return band * SIDE + row, tile * SIDE + column

    def values(self, indices: Indices) -> Array:
        """The values of the pixels at `indices` (n,): (n, channels) float32, of integer formats in [0, 1]."""
        found = np.asarray(self._values[indices])
        if self.linear:
            return found
        return np.divide(found, np.float32(np.iinfo(found.dtype).max), dtype=np.float32)

    def largest(self) -> float:
        """The largest magnitude of any value of a float picture."""
        return max(float(np.abs(part).max()) for part in self._parts())

    def preview(self, longest: int = 1024) -> Picture:
        """The picture with at most `longest` pixels along each side, each the mean of what it covers."""
        preview = Preview(self.size, self.channels, longest)
        for first in range(0, len(self), SIDE * SIDE * 64):
            indices = np.arange(first, min(first + SIDE * SIDE * 64, len(self)))
            preview.add(*self.places(indices), self.values(indices))
        return Picture(preview.means(), self.linear, self.name)

    def fingerprint(self) -> str:
        """SHA-256 over size, type and values."""
        found = Fingerprint().add((*self.size, self.channels))
        for part in self._parts():
            found.add(np.asarray(part))
        return found.hexdigest()

    def _parts(self) -> Iterator[NDArray[Any]]:
        for first in range(0, len(self), 1 << 22):
            yield self._values[first : first + (1 << 22)]


class Preview:
    """A small picture that a large one is added to, some pixels at a time, in any order."""

    def __init__(self, size: tuple[int, int], channels: int, longest: int) -> None:
        self._scale = -(-max(size) // longest)
        shape = tuple(-(-side // self._scale) for side in size)
        self._sums, self._counts = np.zeros((*shape, channels)), np.zeros(shape)

    def add(self, rows: Indices, columns: Indices, values: NDArray[np.float32]) -> None:
        """Take in `values` (n, channels) at `rows` and `columns` (n,) of the large picture."""
        flat = (rows // self._scale) * self._counts.shape[1] + columns // self._scale
        count = self._counts.size
        self._counts += np.bincount(flat, minlength=count).reshape(self._counts.shape)
        for channel in range(values.shape[1]):
            sums = np.bincount(flat, values[:, channel], count)
            self._sums[..., channel] += sums.reshape(self._counts.shape)

    def means(self) -> Array:
        """(height, width, channels) float32."""
        return np.asarray(self._sums / np.maximum(self._counts, 1)[..., None], np.float32)


def _reserve(file: int, size: int) -> None:
    """Take the room on the disk now: a mapped file that finds none later ends the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)


def _tiles(values: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Where the pixels of a band of tiles begin, and they themselves (n, channels)."""
    height, width, channels = values.shape
    whole = width // SIDE * SIDE
    for top in range(0, height, SIDE):
        band = values[top : top + SIDE]
        rows = len(band)
        tiles = band[:, :whole].reshape(rows, -1, SIDE, channels).transpose(1, 0, 2, 3).reshape(-1, channels)
        yield top * width, tiles
        if whole < width:
            yield top * width + len(tiles), band[:, whole:].reshape(-1, channels)


class TileFeed(Feed):
    """Batches (points, targets) of a tiled picture, evenly spread, in memory that does not grow with the picture.

    The pixels are cut into as many runs as a batch has pixels, each a few tiles long; a batch takes one of each run. In
    which order a run's pixels come is an affine sequence modulo its length, with a factor and a start drawn from
    (seed, epoch): an epoch takes every pixel once, and no order has to be kept.

    Args:
        picture: the pixels.
        encode: makes what is fitted of their values (n, channels).
        batch_size: pixels per batch at most. Batches differ in size by one at most.
        seed: an own seed instead of the run's.
    """

    def __init__(
        self, picture: TiledPicture, encode: Callable[[Tensor], Tensor], batch_size: int, *, seed: int | None = None
    ) -> None:
        super().__init__(seed)
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}: expected at least 1")
        self.picture, self._encode = picture, encode
        self._run = -(-len(picture) // batch_size)
        self._runs = -(-len(picture) // self._run)

    @property
    def batches(self) -> int:
        """Batches per epoch."""
        return self._run

    @property
    def samples(self) -> int:
        """Pixels per epoch: all."""
        return len(self.picture)

    def plan(self, epoch: int) -> Sequence[Indices]:
        """The batches of `epoch`, each made when it is asked for."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "tiles", epoch))
        units = np.arange(1, self._run + 1)
        units = units[np.gcd(units, self._run) == 1]
        factors = units[torch.randint(len(units), (self._runs,), generator=generator).numpy()]
        starts = torch.randint(self._run, (self._runs,), generator=generator).numpy()
        return _Plan(factors, starts, self._run, len(self.picture))

    def gather(self, epoch: int, indices: Indices) -> tuple[Tensor, Tensor]:
        """The pixels at `indices`."""
        points = centres(*self.picture.places(indices), self.picture.size)
        targets = self._encode(torch.from_numpy(self.picture.values(indices)))
        return points.to(self.device), targets.to(self.device)

    def fingerprint(self) -> str:
        """That of the picture."""
        return self.picture.fingerprint()


class _Plan(Sequence[Indices]):
    """The batches of an epoch as arithmetic."""

    def __init__(self, factors: Indices, starts: Indices, run: int, count: int) -> None:
        self._factors, self._starts, self._run, self._count = factors, starts, run, count

    def __len__(self) -> int:
        return self._run

    def __getitem__(self, batch: Any) -> Any:
        within = (self._factors * range(self._run)[batch] + self._starts) % self._run
        indices = within + self._run * np.arange(len(within))
        # The last run is shorter than the others: where it has no pixel left, the batch has one less.
        return indices[:-1] if indices[-1] >= self._count else indices


class SpreadFeed(Feed):
    """One batch: pixels of a tiled picture at equal distances, at most `most`, to measure a fit on."""

    batches = 1

    def __init__(self, feed: TileFeed, most: int) -> None:
        super().__init__()
        self._feed, self._step = feed, -(-len(feed.picture) // most)

    @property
    def samples(self) -> int:
        """How many pixels."""
        return -(-len(self._feed.picture) // self._step)

    def plan(self, epoch: int) -> Sequence[Indices]:
        """All of them."""
        return [np.arange(0, len(self._feed.picture), self._step)]

    def gather(self, epoch: int, indices: Indices) -> tuple[Tensor, Tensor]:
        """The pixels at `indices`."""
        return self._feed.gather(epoch, indices)

    def fingerprint(self) -> str:
        """That of the picture, and which pixels."""
        return Fingerprint().add((self._feed.fingerprint(), self._step)).hexdigest()


def numbers_of(rows: Indices, columns: Indices, size: tuple[int, int]) -> Indices:
    """The `index` of the pixels at `rows` and `columns`, both of one shape: the way back from `places`."""
    height, width = size
    band, tile = rows // SIDE, columns // SIDE
    high, wide = np.minimum(SIDE, height - band * SIDE), np.minimum(SIDE, width - tile * SIDE)
    before = band * SIDE * width + tile * SIDE * high
    return np.asarray(before + (rows - band * SIDE) * wide + columns - tile * SIDE)


def centres(rows: Indices, columns: Indices, size: tuple[int, int]) -> Tensor:
    """The centres of pixels in [-1, 1]^2, (n, 2) float32: x before y, y downwards."""
    height, width = size
    y = (2 * torch.from_numpy(rows) + 1) / height - 1
    x = (2 * torch.from_numpy(columns) + 1) / width - 1
    return torch.stack((x, y), 1)


def read_tiled(path: str | Path) -> TiledPicture:
    """Read a picture as `read_picture` does, into a mapped file. While it is decoded, it is in memory once."""
    from treadle.images.reading import read_array

    return TiledPicture(read_array(path), str(path))
