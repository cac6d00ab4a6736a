"""The values of very long curves, kept in a file without a name: only their newest are in memory."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.studio.curves.columns import EXACT, Column, numbers

BLOCK = 1 << 15
"""Values that are written, and given up, together."""


class Spill:
    """Blocks of `BLOCK` values in a file that nobody else sees, and that is gone with this object.

    It is made when the first block comes. Where there is no room for one, it is kept in memory.
    """

    def __init__(self) -> None:
        self._file: Any = None
        self._free: list[int] = []
        self._end = 0

    def keep(self, values: NDArray[np.floating]) -> Block:
        """A block with these values, as many as there are in one."""
        data = np.ascontiguousarray(values)
        with suppress(OSError):
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="treadle-curves-", buffering=0)  # noqa: SIM115
            place = self._free.pop() if self._free else self._end
            written = os.pwrite(self._file.fileno(), data.data.cast("B"), place)
            if written == data.nbytes:
                self._end = max(self._end, place + BLOCK * 8)
                return Block(self, data.dtype, place)
            self._free.append(place)
        return Block(self, data.dtype, 0, data.copy())

    def read(self, kind: np.dtype[Any], place: int, start: int, stop: int) -> NDArray[np.floating]:
        """The values from `start` to `stop` of the block at a place."""
        size = kind.itemsize
        data = os.pread(self._file.fileno(), (stop - start) * size, place + start * size)
        return np.frombuffer(data, kind)

    def give_up(self, place: int) -> None:
        """The block at a place is not needed any more."""
        self._free.append(place)


class Block:
    """`BLOCK` values that are somewhere.

    Args:
        spill: the file.
        kind: of its values.
        place: where in the file.
        held: the values themselves, where they are not in it.
    """

    def __init__(self, spill: Spill, kind: np.dtype[Any], place: int, held: NDArray[np.floating] | None = None) -> None:
        self._spill, self._kind, self._place, self._held = spill, kind, place, held

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return 0 if self._held is None else self._held.nbytes

    def slice(self, start: int, stop: int) -> NDArray[np.floating]:
        """Its values from number `start` to `stop`."""
        if self._held is not None:
            return self._held[start:stop]
        return self._spill.read(self._kind, self._place, start, stop)

    def give_up(self) -> None:
        """It is not needed any more."""
        if self._held is None:
            self._spill.give_up(self._place)


class Numbers:
    """The values of a curve as they grow: in memory, but for those that came before the newest of a long one.

    Args:
        spill: where those go; None keeps them in memory, too.
    """

    def __init__(self, spill: Spill | None = None) -> None:
        self._spill = spill
        self._older: list[Block] = []
        self._newest = numbers()

    def __len__(self) -> int:
        return len(self._older) * BLOCK + len(self._newest)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self._newest.nbytes + sum(block.nbytes for block in self._older)

    def extend(self, values: NDArray[np.floating]) -> None:
        """Add values at the end."""
        self._newest.extend(values)
        most = 2 * BLOCK if self._older else EXACT
        if self._spill is None or len(self._newest) <= most:
            return
        newest, whole = self._newest.values, len(self._newest) // BLOCK * BLOCK
        for start in range(0, whole, BLOCK):
            self._older.append(self._spill.keep(newest[start : start + BLOCK]))
        self._newest = _further(newest[whole:])

    def cut(self, count: int) -> None:
        """Keep the first `count` values."""
        whole, rest = divmod(count, BLOCK)
        if whole >= len(self._older):
            self._newest.cut(count - len(self._older) * BLOCK)
            return
        self._newest = _further(self._older[whole].slice(0, rest))
        for block in self._older[whole:]:
            block.give_up()
        del self._older[whole:]

    def slice(self, start: int, stop: int | None = None) -> NDArray[np.floating]:
        """The values from number `start` to `stop`, good until the next change."""
        stop = len(self) if stop is None else min(stop, len(self))
        behind = len(self._older) * BLOCK
        if start >= behind:
            return self._newest.values[start - behind : max(stop - behind, 0)]
        pieces = []
        for number in range(start // BLOCK, min(len(self._older), -(-stop // BLOCK))):
            begin = number * BLOCK
            pieces.append(self._older[number].slice(max(start - begin, 0), min(stop - begin, BLOCK)))
        if stop > behind:
            pieces.append(self._newest.values[: stop - behind])
        return np.concatenate(pieces) if len(pieces) != 1 else pieces[0]


def _further(values: NDArray[np.floating]) -> Column:
    """A column that begins with these values, of a curve that is long already."""
    column = numbers(exact=0)
    column.extend(values)
    return column
