"""The choice of device and precision."""

from __future__ import annotations

import pytest
import torch

from treadle import Trainer
from treadle.engine.devices import choose_precision

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
