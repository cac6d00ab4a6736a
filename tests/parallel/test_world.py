"""World: alone, every method gives back what it was given; parts of any world cover everything once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from treadle import UsageError
from treadle.parallel import ALONE, World, this_world
from treadle.parallel import group as group_module
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


@pytest.mark.parametrize("size", ["1", "", "0"])
def test_a_process_of_its_own_is_alone(monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    assert this_world() is ALONE


def test_a_number_of_processes_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "many", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="WORLD_SIZE is 'many': expected a whole number of at least 1"):
        this_world()


def test_a_launcher_that_does_not_say_who_is_who_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"2 processes train together, but RANK is not set: start them with torchrun"):
        Line(data=line_data(), max_epochs=1, run_dir=tmp_path / "line")
    assert not list(tmp_path.iterdir())


def test_tensors_on_gpus_are_added_up_by_nccl_and_all_others_by_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as that can be seen without a GPU: what torch is asked for, and which number a launcher's process has."""
    found: dict[str, object] = {}

    def init(backend: str, **how: object) -> None:
        found.update(how, backend=backend)

    named = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    for name, value in (named | {"MASTER_ADDR": "localhost", "MASTER_PORT": "1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(group_module, "knock", lambda *_: None)  # nobody listens
    store = torch.distributed.HashStore()
    monkeypatch.setattr(group_module, "rendezvous", lambda *_, **__: iter([(store, 5, 8)]))
    monkeypatch.setattr(torch.distributed, "init_process_group", init)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 8)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 5)
    monkeypatch.setattr(torch.distributed.distributed_c10d, "_get_default_store", lambda: store)
    for gpus, backend in ((True, "cpu:gloo,cuda:nccl"), (False, "gloo")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpus=gpus: gpus)
        group_module.group.cache_clear()
        world = this_world()
        group_module.group.cache_clear()
        assert found["backend"] == backend
        assert [world.rank, world.size, world.local_rank, world.local_size] == [5, 8, 1, 4]
