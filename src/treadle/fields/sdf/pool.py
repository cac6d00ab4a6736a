"""Samples around a solid as training data: drawn anew every so many epochs, a function of (seed, epoch)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from treadle.data.feed import Feed
from treadle.data.random import derive_seed
from treadle.data.sampler import batch_count, epoch_order
from treadle.errors import UsageError
from treadle.fields.sdf.solid import Solid


class Samples(NamedTuple):
    """Points and what a field should say there."""

    points: Tensor
    """(n, 3) float32 in [-1, 1]^3."""
    distances: Tensor
    """(n, 1) float32, negative inside."""
    colors: Tensor
    """(n, 3) float32, of the nearest place on the surface; (n, 0) where the solid has no colours."""


class Mixture(NamedTuple):
    """What samples are made of, in parts; by default as kaolin-wisp's: rand / near / near / trace / trace."""

    uniform: int = 1
    """Anywhere in the box."""
    near: int = 2
    """Beside the surface, by a normal deviate along each axis."""
    surface: int = 2
    """On it, evenly by area."""


MIXTURE = Mixture()


def draw(solid: Solid, count: int, seed: int, mixture: Mixture = MIXTURE, spread: float = 0.01) -> Samples:
    """Draw `count` samples; a function of all that is given, whatever the number of threads.

    Those on the surface stand last. `spread` is the standard deviation of those near it, in units of the solid.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = sum(mixture)
    on = count * mixture.surface // parts
    near = count * mixture.near // parts
    uniform = count - near - on
    anywhere = torch.rand(uniform, 3, generator=generator, dtype=torch.float64).mul_(2).sub_(1).numpy()
    places, faces = solid.surface(torch.rand(near + on, 3, generator=generator, dtype=torch.float64).numpy())
    moved = spread * torch.randn(near, 3, generator=generator, dtype=torch.float64).numpy()
    asked = np.concatenate([anywhere, (places[:near] + moved).clip(-1, 1)]).astype(np.float32)
    distances, nearest, closest = solid.seen_from(asked.astype(np.float64))
    colors = np.empty((count, 0), np.float32)
    if solid.paint is not None:
        colors = solid.colors(np.concatenate([closest, places[near:]]), np.concatenate([nearest, faces[near:]]))
    return Samples(
        torch.from_numpy(np.concatenate([asked, places[near:].astype(np.float32)])),
        torch.from_numpy(np.concatenate([distances, np.zeros(on)]).astype(np.float32)[:, None]),
        torch.from_numpy(colors),
    )


class PoolFeed(Feed):
    """Batches of samples around a solid, from a pool that is drawn anew every so many epochs.

    The pool is a function of (seed, epoch): nothing of it is saved, and a run that is resumed in the middle of an epoch
    draws the same one. It is drawn in the training process (libigl holds Python's lock), when the epoch begins.

    Args:
        solid: around which.
        size: samples of a pool; an epoch is each of them once.
        batch_size: samples per batch, at most `size`.
        mixture, spread: see `draw`.
        epochs: for how many epochs a pool is kept.
        seed: an own seed instead of the run's.
    """

    def __init__(
        self,
        solid: Solid,
        size: int,
        batch_size: int,
        *,
        mixture: Mixture = MIXTURE,
        spread: float = 0.01,
        epochs: int = 1,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        if not 1 <= batch_size <= size:
            raise UsageError(f"batch_size is {batch_size}: expected 1 to {size}, the samples of the pool")
        if sum(mixture) < 1 or min(mixture) < 0:
            raise UsageError(f"samples are to be made of {tuple(mixture)} parts: expected 0 or more each, one in all")
        self.solid, self.size, self.batch_size, self.mixture = solid, size, batch_size, mixture
        self.spread, self.epochs = spread, epochs
        self._pool: tuple[int, Samples] | None = None

    @property
    def batches(self) -> int:
        """Batches per epoch."""
        return batch_count(self.size, self.batch_size)

    @property
    def samples(self) -> int:
        """Samples per epoch."""
        return self.size

    def pool(self, epoch: int) -> Samples:
        """The pool that `epoch` draws from."""
        number = epoch // self.epochs
        if self._pool is None or self._pool[0] != number:
            self._pool = None  # let the old one go before there is a new one
            seed = derive_seed(self.seed, "pool", number)
            made = draw(self.solid, self.size, seed, self.mixture, self.spread)
            self._pool = number, Samples(*(column.to(self.device) for column in made))
        return self._pool[1]

    def plan(self, epoch: int) -> list[Tensor]:
        """The samples of each batch, by number."""
        order = torch.from_numpy(epoch_order(self.size, self.seed, epoch))
        return list(order.split(self.batch_size))

    def gather(self, epoch: int, indices: Tensor) -> Samples:
        """The samples of these numbers."""
        pool = self.pool(epoch)
        return Samples(*(column.index_select(0, indices.to(column.device)) for column in pool))

    def fingerprint(self) -> str:
        """SHA-256 over the solid."""
        return self.solid.fingerprint()
