"""A small trainer that the hooks' tests share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from treadle import Trainer


class Scripted(Trainer):
    """Trains a line; its n-th validation gives the n-th value of `script` (the last is held)."""

    def __init__(self, script: Sequence[float] = (), **arguments: Any) -> None:
        self.script = list(script)
        self.validations = 0
        super().__init__(**arguments)

    def setup(self) -> None:
        self.model = torch.nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def step(self, batch: Any) -> Any:
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.model(x), y)
        self.minimize(loss)
        return {"loss": loss}

    def post_validation(self, metrics: Any) -> None:
        self.validations += 1

    def validation_step(self, batch: Any) -> Any:
        x, y = batch
        real = torch.nn.functional.mse_loss(self.model(x), y)
        return {"loss": self.script[min(self.validations, len(self.script) - 1)] if self.script else real}


@pytest.fixture
def scripted() -> Callable[..., Scripted]:
    """Make a `Scripted` on 40 points, 4 steps an epoch."""
    x = torch.linspace(-1, 1, 40)[:, None]
    data = (x, 3 * x + 1)

    def make(script: Sequence[float] = (), kind: type[Scripted] = Scripted, **settings: Any) -> Scripted:
        return kind(script, **({"data": data, "validation_data": data, "batch_size": 10, "max_epochs": 8} | settings))

    return make
