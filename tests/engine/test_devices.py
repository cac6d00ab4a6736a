"""The choice of device and precision."""

from __future__ import annotations

import pytest
import torch

from treadle import Trainer, UsageError
from treadle.engine.devices import choose_device, choose_precision

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


@pytest.mark.parametrize(
    ("rank", "count", "visible", "name", "expected"),
    [
        (None, 4, None, "auto", "cuda"),
        ("2", 4, None, "auto", "cuda:2"),
        ("2", 4, None, "cuda", "cuda:2"),
        ("2", 4, None, "cuda:0", "cuda:0"),
        ("2", 4, None, "cpu", "cpu"),
        ("2", 1, "5", "auto", "cuda:0"),  # as Slurm shows each task only its own
        ("2", 1, None, "auto", None),
        ("2", 2, "0,1", "cuda", None),
    ],
)
def test_each_process_of_a_machine_has_the_gpu_of_its_number(
    monkeypatch: pytest.MonkeyPatch, rank: str | None, count: int, visible: str | None, name: str, expected: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    for variable, value in (("LOCAL_RANK", rank), ("CUDA_VISIBLE_DEVICES", visible)):
        if value is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, value)
    if expected is None:
        with pytest.raises(
            UsageError, match=f"torch sees {count} GPU\\(s\\) here, and this is process 2 of this machine"
        ):
            choose_device(name)
    else:
        assert str(choose_device(name)) == expected
