"""Datasets of image translation: samples for training and evaluation, made of the pictures of a source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from math import isfinite
from typing import Any

import numpy as np
from torch import Tensor

from treadle.data.fingerprint import Fingerprint
from treadle.errors import UsageError
from treadle.gans.augmentation import Augmentation, Size, sides
from treadle.gans.sources import PairSource, PictureSource, UnpairedSource
from treadle.gans.values import Array, Values
from treadle.images.pixels import to_tensor


class _Cache:
    """Decoded pictures, up to a number of megabytes. A copy in another process starts empty.

    What came first stays: an epoch asks for every picture once, so none is worth more than another, and to throw one
    out for another would only cost time.
    """

    def __init__(self, megabytes: float) -> None:
        if not (megabytes >= 0 and isfinite(megabytes)):
            raise UsageError(f"cache_mb is {megabytes!r}: expected megabytes, 0 for none")
        self._room = self._size = megabytes * 1e6
        self._kept: dict[Any, tuple[Array, ...]] = {}

    def get(self, key: Any, make: Callable[[], tuple[Array, ...]]) -> tuple[Array, ...]:
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
    """What both datasets share: sizes, augmentation, cache, and how numbers become a network's."""

    def __init__(
        self,
        size: int | Size,
        augmentation: Augmentation | None,
        cache_mb: float,
        transform: Transform | None,
        values: tuple[Values, Values] | None,
        still: Augmentation | None,
    ) -> None:
        self.transform = transform
        self.still = still or (augmentation or Augmentation(load_size=size, crop_size=size)).still()
        self.augmentation = augmentation
        if sides(self.still.crop_size) != sides(size):
            raise UsageError(
                f"size is {size}, but the augmentation's crop_size {self.still.crop_size}: make them equal"
            )
        self.values = values
        self._encode = (to_tensor, to_tensor) if values is None else (values[0].encode, values[1].encode)
        self._cache = _Cache(cache_mb)

    @property
    def how(self) -> Augmentation:
        """What is done to pictures when they are sampled."""
        return self.augmentation or self.still

    def _encoded(self, pair: Sequence[Array]) -> tuple[Tensor, Tensor]:
        return self._encode[0](pair[0]), self._encode[1](pair[1])

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
    """Samples (x, y) for paired translation: input and target, float32 (C, H, W) in [-1, 1].

    `dataset[i]` is pair i as it is evaluated, whole. `sample(i, rng)` is augmented; without augmentation it is
    `dataset[i]`. The fingerprint is that of the source: what is made of the pictures are settings.

    Args:
        source: `PairFolder`, `ArrayPairs` or any other `PairSource`.
        size: the `crop_size` of the augmentation, in pixels: the side of a square, or (height, width).
        augmentation: None for evaluation.
        cache_mb: memory for decoded and resized pictures, in MB, in each process that makes samples. It never changes
            a sample.
        transform: `f(x, y, rng)`, done to the augmented pair, where there is an augmentation. What is random should
            come from `rng` alone, which is that of (seed, epoch, index). Processes that make samples import it.
        values: how the numbers of input and target become a network's; None is for 8 bits.
        still: how pictures are evaluated; None takes what the augmentation's `still()` says, or without one `size`.

    Making a sample raises UsageError for two pictures that differ in size where neither is resized.
    """

    def __init__(
        self,
        source: PairSource,
        size: int | Size,
        augmentation: Augmentation | None = None,
        cache_mb: float = 512,
        transform: Transform | None = None,
        values: tuple[Values, Values] | None = None,
        still: Augmentation | None = None,
    ) -> None:
        super().__init__(size, augmentation, cache_mb, transform, values, still)
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self._encoded(self._resized(index, self.still))

    def sample(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Pair `index`, augmented; what is random is drawn from `rng`."""
        if self.augmentation is None:
            return self[index]
        x, y = self.augmentation.vary(self._resized(index, self.augmentation), rng)
        return self._encoded(self._transformed(x, y, rng))

    def name(self, index: int) -> str:
        """The pair's short name."""
        return self.source.name(index)

    def describe(self, index: int) -> str:
        """Where the pair comes from."""
        return self.source.describe(index)

    def fingerprint(self) -> str:
        """That of the source."""
        return self.source.fingerprint()

    def sizes(self) -> Iterator[tuple[str, Size]]:
        """Where each pair comes from, and height and width of what is made of it; raises UsageError as `shapes`."""
        return _sizes(self.source, self.how)

    def shapes(self) -> list[Size]:
        """Height and width of each sample. Raises UsageError for a picture that is too small to cut from."""
        return [size for _, size in self.sizes()]

    def _resized(self, index: int, how: Augmentation) -> tuple[Array, ...]:
        def make() -> tuple[Array, Array]:
            x, y = self.source.pair(index)
            size = x.shape[:2]
            how.size(size)
            if not how.resizes and y.shape[:2] != size:
                raise UsageError(
                    f"the input has {size[1]} x {size[0]} pixels and the target {y.shape[1]} x {y.shape[0]}: make them "
                    f"equal, or choose preprocess resize_and_crop instead of {how.preprocess}"
                )
            return how.resize(x, labels=how.label_input), how.resize(y, like=size)

        return self._cache.get((index, how.preprocess, how.load_size), make)


class UnpairedImages(_Translation):
    """Samples (a, b) for unpaired translation, float32 (C, H, W) in [-1, 1] each.

    An epoch goes once through the longer of the two sources. With augmentation, the picture of the other one is drawn
    for each sample, and each is cut, mirrored and turned on its own; without (and for `dataset[i]`), picture i of the
    longer one comes with picture i of the shorter one, which starts again at its end.

    Args:
        source: `UnpairedFolders`, or anything with the sources `a` and `b`.
        size, augmentation, cache_mb, transform, values, still: as for `PairedImages`; of the augmentation, only
            geometry.

    Raises UsageError for an augmentation of the input's appearance: here both pictures are input and target.
    """

    def __init__(
        self,
        source: UnpairedSource,
        size: int | Size,
        augmentation: Augmentation | None = None,
        cache_mb: float = 512,
        transform: Transform | None = None,
        values: tuple[Values, Values] | None = None,
        still: Augmentation | None = None,
    ) -> None:
        super().__init__(size, augmentation, cache_mb, transform, values, still)
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
        return self._encode[0](a), self._encode[1](b)

    def sample(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Picture `index` of the longer source and one of the other, augmented; what is random is drawn from `rng`."""
        if self.augmentation is None:
            return self[index]
        pictures: list[Array] = []
        for side, of in self._sides.items():
            which = index if side == self._longer else int(rng.integers(len(of)))
            pictures += self.augmentation.vary((self._resized(side, which, self.augmentation),), rng)
        return self._encoded(self._transformed(pictures[0], pictures[1], rng))

    def name(self, index: int) -> str:
        """The names of the two pictures of `dataset[index]`."""
        return " + ".join(of.name(index % len(of)) for of in self._sides.values())

    def describe(self, index: int) -> str:
        """Where the picture of the longer source comes from."""
        return self._sides[self._longer].describe(index)

    def fingerprint(self) -> str:
        """Over those of both sources."""
        return Fingerprint().add(self.source.a.fingerprint()).add(self.source.b.fingerprint()).hexdigest()

    def sizes(self) -> Iterator[tuple[str, Size]]:
        """Where each picture comes from, and height and width of what is made of it; raises UsageError as `shapes`."""
        return chain(*(_sizes(of, self.how) for of in self._sides.values()))

    def shapes(self) -> list[tuple[Size, Size]]:
        """Height and width of a and b of each sample.

        Raises UsageError for a picture that is too small to cut from, and where they depend on which two are drawn.
        """
        a, b = ([size for _, size in _sizes(of, self.how)] for of in self._sides.values())
        shorter = a if self._longer == "b" else b
        if self.augmentation is not None and len(set(shorter)) > 1:
            raise UsageError(
                "unpaired pictures of different shapes, drawn by chance, make no batches of one shape: set batch_size "
                "to 1, or preprocess to resize_and_crop or crop"
            )
        return [(a[index % len(a)], b[index % len(b)]) for index in range(len(self))]

    def _resized(self, side: str, index: int, how: Augmentation) -> Array:
        def make() -> tuple[Array]:
            picture = self._sides[side].picture(index)
            how.size(picture.shape[:2])
            return (how.resize(picture),)

        return self._cache.get((side, index, how.preprocess, how.load_size), make)[0]


def _sizes(source: Any, how: Augmentation) -> Iterator[tuple[str, Size]]:
    """The sizes that `how` gives the pictures of a source; one that cannot be used is named."""
    for index in range(len(source)):
        where = source.describe(index)
        try:
            yield where, how.size(source.size(index))
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
