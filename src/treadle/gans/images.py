"""Datasets of image translation: samples for training and evaluation, made of the pictures of a source."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

import numpy as np
from torch import Tensor

from treadle.data.fingerprint import Fingerprint
from treadle.errors import UsageError
from treadle.gans.augmentation import Augmentation
from treadle.gans.sources import PairSource, PictureSource, UnpairedSource
from treadle.gans.values import Array
from treadle.images.pixels import to_tensor
from treadle.images.reading import Pixels


class _Cache:
    """Decoded pictures, up to a number of megabytes. A copy in another process starts empty.

    What came first stays: an epoch asks for every picture once, so none is worth more than another, and to throw one
    out for another would only cost time.
    """

    def __init__(self, megabytes: float) -> None:
        if not (megabytes >= 0 and isfinite(megabytes)):
            raise UsageError(f"cache_mb is {megabytes!r}: expected megabytes, 0 for none")
        self._room = self._size = megabytes * 1e6
        self._kept: dict[Any, tuple[Pixels, ...]] = {}

    def get(self, key: Any, make: Callable[[], tuple[Pixels, ...]]) -> tuple[Pixels, ...]:
        kept = self._kept.get(key)
        if kept is None:
            kept = make()
            size = sum(picture.nbytes for picture in kept)
            if size <= self._room:
                self._room -= size
                self._kept[key] = kept
        return kept

    def __getstate__(self) -> dict[str, Any]:
        return {"_room": self._size, "_size": self._size, "_kept": {}}


Transform = Callable[[Array, Array, np.random.Generator], tuple[Array, Array]]
"""A transform of one's own: two arrays, (size, size, C) of the files' type, and what to draw from; gives two such."""


class _Translation:
    """What both datasets share: sizes, augmentation and cache."""

    def __init__(
        self, size: int, augmentation: Augmentation | None, cache_mb: float, transform: Transform | None
    ) -> None:
        self.transform = transform
        self.still = (augmentation or Augmentation(load_size=size, crop_size=size)).still()
        self.augmentation = augmentation
        if self.still.crop_size != size:
            raise UsageError(
                f"size is {size}, but the augmentation's crop_size {self.still.crop_size}: make them equal"
            )
        self._cache = _Cache(cache_mb)

    def _transformed(self, first: Array, second: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """Both after the transform of one's own, which may write into what it gets."""
        if self.transform is None:
            return first, second
        found = self.transform(first.copy(), second.copy(), rng)
        wanted = [(first.shape, first.dtype), (second.shape, second.dtype)]
        if not isinstance(found, tuple) or [(np.shape(each), getattr(each, "dtype", None)) for each in found] != wanted:
            raise UsageError(f"augment gave {_described(found)}: expected two arrays, {_described((first, second))}")
        return found


def _described(found: Any) -> str:
    each = found if isinstance(found, tuple) else (found,)
    return " and ".join(
        f"{one.dtype} {one.shape}" if isinstance(one, np.ndarray) else type(one).__name__ for one in each
    )


class PairedImages(_Translation):
    """Samples (x, y) for paired translation: input and target, float32 (C, size, size) in [-1, 1].

    `dataset[i]` is pair i as it is, resized. `sample(i, rng)` is augmented; without augmentation it is `dataset[i]`.
    The fingerprint is that of the source: what is made of the pictures are settings.

    Args:
        source: `PairFolder`, `ArrayPairs` or any other `PairSource`.
        size: side of the square, in pixels; the `crop_size` of the augmentation.
        augmentation: None for evaluation.
        cache_mb: memory for decoded and resized pictures, in MB, in each process that makes samples. It never changes
            a sample.
        transform: `f(x, y, rng)`, done to the augmented pair, where there is an augmentation. What is random should
            come from `rng` alone, which is that of (seed, epoch, index). Processes that make samples import it.
    """

    def __init__(
        self,
        source: PairSource,
        size: int,
        augmentation: Augmentation | None = None,
        cache_mb: float = 512,
        transform: Transform | None = None,
    ) -> None:
        super().__init__(size, augmentation, cache_mb, transform)
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self._resized(index, self.still)
        return to_tensor(x), to_tensor(y)

    def sample(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Pair `index`, augmented; what is random is drawn from `rng`."""
        if self.augmentation is None:
            return self[index]
        x, y = self.augmentation.vary(self._resized(index, self.augmentation), rng)
        x, y = self._transformed(x, y, rng)
        return to_tensor(x), to_tensor(y)

    def name(self, index: int) -> str:
        """The pair's short name."""
        return self.source.name(index)

    def describe(self, index: int) -> str:
        """Where the pair comes from."""
        return self.source.describe(index)

    def fingerprint(self) -> str:
        """That of the source."""
        return self.source.fingerprint()

    def _resized(self, index: int, how: Augmentation) -> tuple[Pixels, ...]:
        def make() -> tuple[Pixels, Pixels]:
            x, y = self.source.pair(index)
            return how.resize(x, labels=how.label_input), how.resize(y)

        return self._cache.get((index, how.load_size), make)


class UnpairedImages(_Translation):
    """Samples (a, b) for unpaired translation, float32 (C, size, size) in [-1, 1] each.

    An epoch goes once through the longer of the two sources. With augmentation, the picture of the other one is drawn
    for each sample, and each is cut, mirrored and turned on its own; without (and for `dataset[i]`), picture i of the
    longer one comes with picture i of the shorter one, which starts again at its end.

    Args:
        source: `UnpairedFolders`, or anything with the sources `a` and `b`.
        size, augmentation, cache_mb, transform: as for `PairedImages`; of the augmentation, only geometry.

    Raises UsageError for an augmentation of the input's appearance: here both pictures are input and target.
    """

    def __init__(
        self,
        source: UnpairedSource,
        size: int,
        augmentation: Augmentation | None = None,
        cache_mb: float = 512,
        transform: Transform | None = None,
    ) -> None:
        super().__init__(size, augmentation, cache_mb, transform)
        if augmentation is not None and augmentation != augmentation.geometry():
            raise UsageError(
                "unpaired pictures are input and target at once: leave out what changes the input alone, such as jitter"
            )
        self.source = source
        self._sides: dict[str, PictureSource] = {"a": source.a, "b": source.b}
        self._longer = "b" if len(source.b) > len(source.a) else "a"

    def __len__(self) -> int:
        return len(self._sides[self._longer])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        a, b = (self._resized(side, index % len(of), self.still) for side, of in self._sides.items())
        return to_tensor(a), to_tensor(b)

    def sample(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Picture `index` of the longer source and one of the other, augmented; what is random is drawn from `rng`."""
        if self.augmentation is None:
            return self[index]
        pictures: list[Array] = []
        for side, of in self._sides.items():
            which = index if side == self._longer else int(rng.integers(len(of)))
            pictures += self.augmentation.vary((self._resized(side, which, self.augmentation),), rng)
        a, b = self._transformed(pictures[0], pictures[1], rng)
        return to_tensor(a), to_tensor(b)

    def name(self, index: int) -> str:
        """The names of the two pictures of `dataset[index]`."""
        return " + ".join(of.name(index % len(of)) for of in self._sides.values())

    def describe(self, index: int) -> str:
        """Where the picture of the longer source comes from."""
        return self._sides[self._longer].describe(index)

    def fingerprint(self) -> str:
        """Over those of both sources."""
        return Fingerprint().add(self.source.a.fingerprint()).add(self.source.b.fingerprint()).hexdigest()

    def _resized(self, side: str, index: int, how: Augmentation) -> Pixels:
        return self._cache.get((side, index, how.load_size), lambda: (how.resize(self._sides[side].picture(index)),))[0]
