"""A small trainer that the sinks' tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from treadle import Trainer


class Line(Trainer):
    def setup(self) -> None:
        self.model = torch.nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def step(self, batch: Any) -> Any:
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.model(x), y)
        self.minimize(loss)
        return {"psnr": -loss, "loss": loss}

    def validation_step(self, batch: Any) -> Any:
        x, y = batch
        return {"loss": torch.nn.functional.mse_loss(self.model(x), y)}


@pytest.fixture
def line() -> Callable[..., Line]:
    """Make a `Line` on 40 points, 4 steps an epoch, logging every 2 steps."""
    x = torch.linspace(-1, 1, 40)[:, None]
    data = (x, 3 * x + 1)
    settings = {"data": data, "validation_data": data, "batch_size": 10, "max_epochs": 3, "log_every": "2 steps"}

    def make(**more: Any) -> Line:
        return Line(**(settings | more))

    return make
