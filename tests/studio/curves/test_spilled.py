"""Long curves are in a file, and nobody notices."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("msgspec", reason="the studio's packages are not installed: pip install 'treadle[studio]'")

from treadle.studio.curves.columns import EXACT
from treadle.studio.curves.pyramid import Pyramid
from treadle.studio.curves.rows import Rows
from treadle.studio.curves.smoothing import Smoothed
from treadle.studio.curves.spilled import BLOCK, Numbers, Spill
from treadle.studio.curves.topic import Book


def curves(count: int, *, step: int = 7_001) -> tuple[Pyramid, Pyramid]:
    """The same noise in memory and in a file, as it came in pieces."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=count)
    values[count // 3] = 99.0
    values[rng.integers(0, count, 20)] = np.nan
    found = []
    for spill in (None, Spill()):
        rows = Rows(spill)
        rows.steps.extend(np.arange(count) * 3)
        rows.times.extend(np.arange(count, dtype=np.float64))
        pyramid = Pyramid(rows)
        for start in range(0, count, step):
            pyramid.extend(values[start : start + step])
        found.append(pyramid)
    return found[0], found[1]


def alike(one: Pyramid, other: Pyramid, low: float | None, high: float | None, most: int) -> bool:
    here, there = one.points(low, high, most), other.points(low, high, most)
    same = [np.array_equal(getattr(here, name), getattr(there, name)) for name in ("steps", "low", "high", "last")]
    return all(same) and np.array_equal(here.marks, there.marks) and len(here) > 0


def test_what_is_drawn_is_the_same_and_takes_no_memory() -> None:
    held, spilled = curves(400_000)
    for low, high, most in [(None, None, 1000), (0, 9_000, 4000), (390_000, 400_003, 4000), (3 * BLOCK, 6 * BLOCK, 50)]:
        assert alike(held, spilled, low, high, most)
        assert alike(Smoothed(held, 0.9), Smoothed(spilled, 0.9), low, high, most)
    assert np.array_equal(held.values(), spilled.values(), equal_nan=True)
    assert np.array_equal(held.values(BLOCK - 3, BLOCK + 3), spilled.values(BLOCK - 3, BLOCK + 3), equal_nan=True)
    assert spilled.values(5, 5).size == 0 == held.values(5, 5).size
    levels = held.nbytes - held.values().nbytes
    assert spilled.nbytes < levels + 3 * 4 * BLOCK < held.nbytes


@pytest.mark.parametrize("keep", [0, 100, BLOCK, 2 * BLOCK + 5, 5 * BLOCK, 399_999])
def test_it_is_cut_and_goes_on(keep: int) -> None:
    held, spilled = curves(400_000)
    for pyramid in (held, spilled):
        pyramid.cut(keep)
        pyramid.extend(np.linspace(-5, 5, 400_000 - keep))
    assert len(held) == len(spilled) == 400_000
    assert np.array_equal(held.values(), spilled.values(), equal_nan=True)
    assert alike(held, spilled, None, None, 300) and alike(held, spilled, keep * 3 - 900, keep * 3 + 900, 50)


def test_what_needs_double_precision_has_it() -> None:
    numbers = Numbers(Spill())
    numbers.extend(np.arange(EXACT + 1, dtype=np.float64))
    numbers.extend(np.full(3 * BLOCK, 2.0**40 + 1))
    assert numbers.slice(0, 3).tolist() == [0, 1, 2] and numbers.slice(len(numbers) - 1).tolist() == [2.0**40 + 1]
    assert numbers.slice(EXACT, EXACT + 2).tolist() == [EXACT, 2.0**40 + 1]


def test_a_full_disk_costs_memory_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    room, write = [3], os.pwrite

    def pwrite(descriptor: int, data: Any, place: int) -> int:
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data, place) if room[0] else write(descriptor, data[:100], place)

    monkeypatch.setattr(os, "pwrite", pwrite)
    held, spilled = curves(300_000)
    assert room[0] < 0 and np.array_equal(held.values(), spilled.values(), equal_nan=True)
    assert spilled.nbytes > 5 * 4 * BLOCK


def test_nothing_is_left_of_it_and_a_run_that_writes_nothing_has_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    _, spilled = curves(200_000)
    assert len(spilled) == 200_000 and list(tmp_path.iterdir()) == []
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: pytest.fail("a file was made"))
    from treadle.studio.curves.lines import Line

    book = Book(None)
    book.waiting.extend(Line("train", step, {"loss": 1.0}) for step in range(EXACT + 10))
    book.read()
    assert len(book.series.curve("train/loss")) == EXACT + 10


def test_blocks_that_are_given_up_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[int] = []
    write = os.pwrite

    def pwrite(descriptor: int, data: Any, place: int) -> int:
        places.append(place)
        return write(descriptor, data, place)

    monkeypatch.setattr(os, "pwrite", pwrite)
    numbers = Numbers(Spill())
    for _ in range(5):
        numbers.extend(np.ones(6 * BLOCK))
        numbers.cut(0)
    assert len(places) == 30 and len(set(places)) == 6
