"""What the gauntlet trains to have every kind of state: memory in another order, sparse gradients, closures."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from treadle import EMA, LearningRate, Trainer
from treadle.testing import Line, line_data

SHORT = {"log_every": "1 step", "save_every": "3 steps", "seed": 3}
"""Settings of every run here: a line per step shows each one that is lost or doubled."""


class Conv(Trainer):
    """Weights, moments, averages, buffers and pending gradients whose memory is channels_last."""

    def setup(self) -> None:
        net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(6, 4, 2))
        self.net = net.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=0.02)
        self.average = EMA(self.net, decay=0.8, buffers=True)

    def step(self, batch: Any) -> Any:
        loss = self.net(batch.contiguous(memory_format=torch.channels_last)).square().mean()
        self.minimize(loss)
        return {"loss": loss}

    def validation_step(self, batch: Any) -> Any:
        return {"loss": self.net(batch).square().mean()}


def channels_last(workers: int, **where: Any) -> Trainer:
    pictures = torch.randn(30, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    settings = {"max_epochs": 3, "accumulate": 2, "clip_norm": 1.0, "validate_every": "4 steps"}
    return Conv(data=pictures, validation_data=pictures[:4], batch_size=4, **settings, **SHORT, **where)


class Words(Trainer):
    """Rows of a table, and what reads them, each with its own optimizer, micro-batches and clipping."""

    def setup(self) -> None:
        self.table, self.reader = nn.Embedding(20, 3, sparse=True), nn.Linear(3, 1)
        self.phase = nn.Parameter(torch.randn(3, dtype=torch.complex64))
        self.table_optimizer = torch.optim.SparseAdam(self.table.parameters(), lr=0.05)
        self.reader_optimizer = torch.optim.Adam([*self.reader.parameters(), self.phase], lr=0.05)

    def step(self, batch: Any) -> Any:
        read = nn.functional.dropout((self.table(batch) * self.phase.conj()).abs(), 0.2)
        loss = (self.reader(read) - batch[:, None] / 10).square().mean()
        self.minimize(loss, [self.table_optimizer, self.reader_optimizer])
        return {"loss": loss}


def sparse(workers: int, **where: Any) -> Trainer:
    words = torch.randint(20, (70,), generator=torch.Generator().manual_seed(2))
    clip = {"table_optimizer": 0.1}
    return Words(data=words, batch_size=7, max_epochs=3, accumulate=4, clip_norm=clip, **SHORT, **where)


class Sine(Trainer):
    """Fits a curve by LBFGS, whose closure draws; at two steps the loss is none, and they are passed over."""

    def setup(self) -> None:
        self.net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        self.optimizer = torch.optim.LBFGS(
            self.net.parameters(), max_iter=4, history_size=3, line_search_fn="strong_wolfe"
        )
        self.rate = LearningRate(self.optimizer, "linear 0.5 to 0.1")
        self.average = EMA(self.net, decay=0.7)

    def step(self, batch: Any) -> Any:
        x, y = batch
        losses = []

        def closure() -> Any:
            loss = (self.net(x + 0.01 * torch.randn_like(x)) - y).square().mean()
            losses.append(loss * float("nan") if self.progress.step in (5, 11) else loss)
            return losses[-1]

        self.minimize(closure)
        return {"loss": losses[0]}


def lbfgs(workers: int, **where: Any) -> Trainer:
    x = torch.linspace(-2, 2, 40)[:, None]
    return Sine(data=(x, x.sin()), batch_size=20, max_epochs=9, clip_norm=5.0, on_bad_step="skip", **SHORT, **where)


class Ranked(Line):
    """Validates as the digits of a weight say: which of its models are the best changes all the time."""

    def validation_step(self, batch: Any) -> Any:
        return {"digits": float(self.model.weight.detach()) * 1000 % 1}


def ranked(workers: int, **where: Any) -> Trainer:
    settings = {"validate_every": "1 step", "monitor": "digits", "keep_best": 3, "keep_checkpoints": 1, **SHORT}
    data = line_data(30)
    return Ranked(data=data, validation_data=data, batch_size=10, max_epochs=8, **settings, **where)
