"""What every sink has in common."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from treadle.sinks.base import Sink
from treadle.sinks.console import Console
from treadle.sinks.tensorboard import TensorBoard


class Calls(Sink):
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def open(self, trainer: Any) -> None:
        self.calls.append("open")

    def close(self) -> None:
        self.calls.append("close")

    def scalars(self, step: int, values: Mapping[str, float], split: str) -> None:
        assert all(type(value) is float for value in values.values())
        self.calls.append((split, step))

    def image(self, step: int, name: str, picture: Any) -> None:
        assert isinstance(picture, np.ndarray)
        self.calls.append((name, step))

    def text(self, step: int, name: str, text: str) -> None:
        self.calls.append((name, step, text))


def test_opened_once_and_closed_once(line: Callable[..., Any]) -> None:
    sink = Calls()
    trainer = line(hooks=[sink], max_epochs=1)
    trainer.iterate()
    trainer.log_image("probe", torch.zeros(2, 2))
    trainer.log_text("note", "hello")
    trainer.train()
    assert sink.calls[:3] == ["open", ("probe", 1), ("note", 1, "hello")]
    assert sink.calls[3:] == [("train", 2), ("train", 4), ("epoch", 4), ("validation", 4), "close"]
    trainer.test(trainer.validation_feed)
    assert sink.calls[8:] == ["open", ("test", 4), "close"]


def test_a_sink_that_fails_does_not_end_the_run(line: Callable[..., Any], capfd: pytest.CaptureFixture[str]) -> None:
    class Broken(Sink):
        def scalars(self, step: int, values: Mapping[str, float], split: str) -> None:
            raise OSError("the logger's server is away")

    assert line(hooks=[Broken()]).train().status == "finished"
    assert "Broken.on_log failed (OSError: the logger's server is away)" in capfd.readouterr().err


def test_sinks_leave_the_run_and_the_global_streams_as_they_are(
    line: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bare = line()
    bare.train()
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    full = line(hooks=[Console(), TensorBoard(tmp_path)])
    full.iterate()
    full.log_image("probe", torch.zeros(4, 4, 3))
    full.log_text("note", "hello")
    full.train()
    after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
    assert before[:2] == after[:2] and torch.equal(before[2], after[2])
    assert torch.equal(bare.model.weight, full.model.weight)
