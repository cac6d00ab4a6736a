"""What `--log wandb=WHERE` and the hook's arguments mean; what reaches W&B is read back in services/."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treadle.errors import UsageError
from treadle.sinks.wandb import Wandb


def test_where_it_goes_is_said_in_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREADLE_WANDB_PYTHON", sys.executable)
    assert Wandb.at("lines").options == {"project": "lines"}
    assert Wandb.at("us/lines").options == {"project": "lines", "entity": "us"}
    assert Wandb.at(None).options == {}
    assert Wandb("lines", tags=["a"]).mark == Wandb("lines", notes="b").mark != Wandb("others").mark
    for where in ("", "us/", "/lines", "a/b/c", "li#ne", "x" * 129):
        with pytest.raises(UsageError, match=r"is no (project|entity) of W&B: 1 to 128 characters, without"):
            Wandb.at(where)


def test_without_the_sdk_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TREADLE_WANDB_PYTHON", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"W&B is not installed: pip install 'treadle\[wandb\]'"):
        Wandb()


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="this Python has W&B's SDK")
def test_another_python_without_the_sdk_costs_a_line(
    line: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TREADLE_WANDB_PYTHON", sys.executable)
    monkeypatch.setenv("TREADLE_CLOSING_SECONDS", "3")
    plain = line(run_dir=tmp_path / "plain").train()
    trainer = line(run_dir=tmp_path / "line", hooks=[Wandb()])
    assert trainer.train().digest == plain.digest
    said = [text for text in capfd.readouterr().err.splitlines() if "W&B" in text]
    assert said and "No module named 'wandb'" in said[0]
    assert f"treadle runs --to wandb {trainer.run.path} sends it" in said[-1]
