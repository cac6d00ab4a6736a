"""Small trainers that the engine's tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from treadle import Hook, Trainer


class Line(Trainer):
    """Fits y = 3x + 1 and writes down every event it sees."""

    def setup(self) -> None:
        self.model = torch.nn.Linear(1, 1)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)
        self.seen: list[str] = []

    def step(self, batch: Any) -> Any:
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.model(x), y)
        self.minimize(loss)
        return {"loss": loss}

    def validation_step(self, batch: Any) -> Any:
        x, y = batch
        return {"loss": torch.nn.functional.mse_loss(self.model(x), y)}


class Diary(Hook):
    """Writes down every event with the counters at that moment."""

    def __init__(self) -> None:
        self.lines: list[tuple[Any, ...]] = []

    def _write(self, event: str, trainer: Trainer) -> None:
        self.lines.append((event, trainer.progress.epoch, trainer.progress.step))


def _recorder(event: str) -> Callable[..., None]:
    def record(self: Diary, trainer: Trainer, *_: Any) -> None:
        self._write(event, trainer)

    return record


for _event in (
    *("pre_training", "pre_epoch", "pre_step", "pre_update", "post_step", "post_epoch"),
    *("pre_validation", "post_validation", "post_training", "teardown", "on_exception"),
):
    setattr(Diary, _event, _recorder(_event))


@pytest.fixture
def line_data() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.linspace(-1, 1, 50)[:, None]
    return x, 3 * x + 1


@pytest.fixture
def line(line_data: tuple[torch.Tensor, torch.Tensor]) -> Callable[..., Line]:
    """Make a `Line` on 50 points in batches of 20, so that the last batch of an epoch is short."""

    def make(kind: type[Line] = Line, **settings: Any) -> Line:
        return kind(**({"data": line_data, "batch_size": 20, "max_epochs": 2, "seed": 0} | settings))

    return make


@pytest.fixture
def diary() -> Diary:
    return Diary()


@pytest.fixture
def line_class() -> type[Line]:
    return Line
