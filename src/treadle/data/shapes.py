"""Batches of samples that have one shape, where shapes differ and nothing is to be padded."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from treadle.data.random import derive_seed
from treadle.data.sampler import Indices, check_batches
from treadle.errors import UsageError


class ShapeBuckets:
    """Batches of `batch_size` samples whose shapes are equal; what is left of a shape is a smaller batch.

    Each sample comes once per epoch. With `shuffle` the samples of a shape, and the batches of all shapes, come in a
    new order each epoch; without, samples keep their own order and a batch ends where the next one's shape differs.

    Args:
        shapes: of each sample, anything that can be compared.
        batch_size: most samples per batch.
        drop_last: leave out batches of fewer.

    Raises:
        UsageError: no samples, a batch size below 1, a shape of which `drop_last` would leave nothing.
    """

    def __init__(
        self, shapes: Iterable[Hashable], batch_size: int, *, shuffle: bool = True, drop_last: bool = False
    ) -> None:
        each = list(shapes)
        check_batches(len(each), batch_size, False)
        self.batch_size, self.shuffle, self.drop_last = batch_size, shuffle, drop_last
        groups: dict[Hashable, list[int]] = {}
        for index, shape in enumerate(each):
            groups.setdefault(shape, []).append(index)
        for shape, group in groups.items():
            if drop_last and len(group) < batch_size:
                raise UsageError(
                    f"only {len(group)} samples have the shape {shape}, fewer than one batch of {batch_size}, and "
                    f"drop_last leaves none: set batch_size to at most {len(group)}, or drop_last=False"
                )
        if shuffle:
            self._groups = [np.array(group, np.int64) for group in groups.values()]
        else:
            ends = [index for index in range(1, len(each)) if each[index] != each[index - 1]]
            self._groups = np.split(np.arange(len(each), dtype=np.int64), ends)
        self._batches = self._cut(self._groups)
        if not self._batches:
            raise UsageError(
                f"no {batch_size} samples in a row have one shape, and drop_last leaves none: set it to false"
            )

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self._batches)

    @property
    def samples(self) -> int:
        """Samples per epoch."""
        return sum(map(len, self._batches))

    def epoch(self, seed: int, epoch: int) -> Sequence[Indices]:
        """The batches of an epoch as sample indices."""
        if not self.shuffle:
            return self._batches
        rng = np.random.Generator(np.random.PCG64(derive_seed(seed, "shapes", epoch)))
        batches = self._cut([rng.permutation(group) for group in self._groups])
        return [batches[place] for place in rng.permutation(len(batches))]

    def _cut(self, groups: Sequence[Indices]) -> list[Indices]:
        size = self.batch_size
        return [
            group[first : first + size]
            for group in groups
            for first in range(0, len(group) - (size - 1 if self.drop_last else 0), size)
        ]
