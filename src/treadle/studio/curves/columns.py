"""Growing arrays that take little memory: what the curves of long runs are made of."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

EXACT = 1 << 17
"""Values of a curve that are kept in double precision; of a longer one all are kept to seven digits."""
PAGED = 1 << 16
"""Bytes from which a column has pages of its own."""


class Column:
    """A one-dimensional array that grows in constant time per value, in the narrower of two types where that will do.

    Args:
        narrow: the type that is used once there are more than `exact` values, if it holds all of them.
        wide: the type for everything else.
        exact: how many values are kept in `wide` in any case.
    """

    def __init__(self, narrow: Any, wide: Any, exact: int = 0) -> None:
        self._narrow, self._wide, self._exact = np.dtype(narrow), np.dtype(wide), exact
        self._array: NDArray[Any] = np.empty(0, self._wide if exact else self._narrow)
        self._fits = True
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def values(self) -> NDArray[Any]:
        """The values so far, not a copy: good until the next change."""
        return self._array[: self._count]

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self._count * self._array.itemsize

    def extend(self, values: ArrayLike) -> None:
        """Add values at the end."""
        new = np.asarray(values)
        if len(new) == 0:
            return
        self._fits = self._fits and _fits(new, self._narrow)
        count = self._count + len(new)
        kind = self._narrow if self._fits and count > self._exact else self._wide
        if count > len(self._array) or kind != self._array.dtype:
            array = _room(count + count // 2 + 16, kind)
            array[: self._count] = self.values
            self._array = array
        self._array[self._count : count] = new
        self._count = count

    def cut(self, count: int) -> None:
        """Keep the first `count` values."""
        self._count = min(count, self._count)


def integers() -> Column:
    """A column of whole numbers of up to 53 bits."""
    return Column(np.int32, np.int64)


def numbers(exact: int = EXACT) -> Column:
    """A column of real numbers, NaN among them; the first `exact` (or all, where need be) in double precision."""
    return Column(np.float32, np.float64, exact)


def times() -> Column:
    """A column of seconds."""
    return Column(np.float64, np.float64)


def _room(count: int, kind: np.dtype[Any]) -> NDArray[Any]:
    """Room for so many values. Large ones are pages of their own: what is not used of them takes no memory, and what
    is given up goes back to the system at once, where the allocator would keep holes."""
    size = count * kind.itemsize
    return np.empty(count, kind) if size < PAGED else np.frombuffer(mmap.mmap(-1, size), kind)


_ENDS = {np.dtype(kind): (np.iinfo(kind).min, np.iinfo(kind).max) for kind in (np.int8, np.int32, np.int64)}


def place(rising: NDArray[Any], values: ArrayLike, *, after: bool = False) -> NDArray[np.int64]:
    """How many of `rising` are before each of the whole numbers `values`, or with `after` not after it.

    NumPy's own search would copy all that is searched, where the types differ.
    """
    wanted, (least, most) = np.asarray(values, np.int64), _ENDS[rising.dtype]
    there = rising.searchsorted(wanted.clip(least, most).astype(rising.dtype), "right" if after else "left")
    return np.where(wanted > most, len(rising), np.where(wanted < least, 0, there))


def place_one(rising: NDArray[Any], value: int, *, after: bool = False) -> int:
    """As `place`, for one whole number."""
    least, most = _ENDS[rising.dtype]
    if not least <= value <= most:
        return 0 if value < least else len(rising)
    return int(rising.searchsorted(rising.dtype.type(value), "right" if after else "left"))


def _fits(values: NDArray[Any], kind: np.dtype[Any]) -> bool:
    """Whether `kind` holds all values: whole numbers as they are, others to the digits that it has."""
    if values.dtype == kind:
        return True
    if kind.kind == "i":
        info = np.iinfo(kind)
        return bool(values.min() >= info.min and values.max() <= info.max)
    finite = values[np.isfinite(values)]
    size = np.abs(finite)
    limits = np.finfo(kind)
    if np.any(size > limits.max) or np.any((size < limits.tiny) & (size > 0)):
        return False
    large = finite[size > 2.0 ** (limits.nmant + 1)]
    return not np.any((large.astype(kind) != large) & (large == np.rint(large)))
