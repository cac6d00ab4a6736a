"""World: alone, every method gives back what it was given; parts of any world cover everything once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from treadle import UsageError
from treadle.parallel import ALONE, World, this_world
from treadle.testing import Line, line_data


def test_alone_nothing_changes() -> None:
    tensor = torch.tensor([1.0, 2.0])
    ALONE.sum([tensor])
    assert tensor.tolist() == [1.0, 2.0]
    assert ALONE.gather(3) == [3] and ALONE.share("a") == "a" and ALONE.agree([1], "it") == [1]
    ALONE.wait()
    assert ALONE.main and (ALONE.rank, ALONE.size) == (0, 1)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_alone_the_part_is_the_whole(count: int) -> None:
    assert list(range(count))[ALONE.part(count)] == list(range(count))


@given(st.integers(0, 500), st.integers(1, 9))
def test_the_parts_of_a_world_are_all_there_is_in_order(count: int, size: int) -> None:
    found = []
    for rank in range(size):
        world = World()
        world.rank, world.size = rank, size
        found += list(range(count))[world.part(count)]
    assert found == list(range(count))


@pytest.mark.parametrize("size", ["1", "", "many"])
def test_a_process_of_its_own_is_alone(monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    assert this_world() is ALONE


def test_a_launcher_that_does_not_say_who_is_who_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"2 processes train together, but RANK is not set: start them with torchrun"):
        Line(data=line_data(), max_epochs=1, run_dir=tmp_path / "line")
    assert not list(tmp_path.iterdir())
