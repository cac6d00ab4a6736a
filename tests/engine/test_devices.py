"""The choice of device and precision."""

from __future__ import annotations

import pytest
import torch

from treadle import Trainer, UsageError
from treadle.engine.devices import choose_device, choose_precision
from treadle.parallel import World

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx2": True, "avx512_bf16": False}, "fp32")],
)
def test_auto_is_bf16_where_the_cpu_multiplies_in_it(
    capabilities: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert choose_precision("auto", CPU) == expected


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_named_precision_is_taken(precision: str) -> None:
    assert choose_precision(precision, CPU) == precision


def test_a_trainer_settles_auto_and_leaves_the_given_config_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare(Trainer):
        pass

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    config = Bare.Config(precision="auto", max_steps=1)
    assert Bare(config).config.precision == "bf16"
    assert config.precision == "auto"


def process(local_rank: int, local_size: int) -> World:
    """One of as many processes on each of two machines."""
    world = World()
    world.rank, world.size = local_size + local_rank, 2 * local_size
    world.local_rank, world.local_size = local_rank, local_size
    return world


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """The devices that "cuda" was made to mean, on a machine with four GPUs."""
    devices: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", devices.append)
    return devices


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_of_several_processes_each_takes_the_gpu_of_its_number(name: str, taken: list[torch.device]) -> None:
    assert choose_device(name) == torch.device("cuda") and not taken
    assert [choose_device(name, process(rank, 4)) for rank in range(4)] == [torch.device("cuda", k) for k in range(4)]
    assert taken == [torch.device("cuda", k) for k in range(4)]
    assert choose_device("cpu", process(3, 4)) == CPU


def test_where_each_process_sees_a_gpu_of_its_own_that_is_the_one(
    taken: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("auto", process(3, 4)) == torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [
        ("cuda:1", 2, "device is 'cuda:1' in each of 2 processes, which would share that GPU: set device='cuda'"),
        ("auto", 5, "5 processes on a machine where torch sees 4 GPUs: start 4 at most, or set device='cpu'"),
    ],
)
def test_a_gpu_for_two_processes_is_refused(name: str, size: int, said: str, taken: list[torch.device]) -> None:
    with pytest.raises(UsageError, match=said):
        choose_device(name, process(0, size))
    assert not taken
