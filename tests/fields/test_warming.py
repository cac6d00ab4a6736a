from __future__ import annotations

import pytest
import torch

from treadle import terminal
from treadle.fields.grids.hash import HashEncoding
from treadle.fields.hash_field import HashField
from treadle.fields.warming import ask_once, compile_now


def test_asking_once_changes_nothing() -> None:
    field = HashField(HashEncoding(3, levels=2, log2_size=4, n_max=16), outputs=2)
    before = {name: value.clone() for name, value in field.state_dict().items()}
    state = torch.random.get_rng_state()
    ask_once(field, torch.zeros(2, 3))
    assert all(torch.equal(value, before[name]) for name, value in field.state_dict().items())
    assert all(parameter.grad is None for parameter in field.parameters())
    assert torch.equal(state, torch.random.get_rng_state())


def test_what_takes_long_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    stages = {"rays": lambda: done.append("rays"), "grids": lambda: done.append("grids")}
    compile_now(stages)
    assert done == ["rays", "grids"] and capsys.readouterr().err == ""
    monkeypatch.setattr(terminal, "PATIENCE", -1.0)
    compile_now(stages)
    said = capsys.readouterr().err
    assert "once for this machine: rays (1 of 2)" in said and "grids (2 of 2)" in said
