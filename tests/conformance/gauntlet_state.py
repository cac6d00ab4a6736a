"""What the gauntlet trains of states that come late: parameters that join, data that appears, lazy modules, streams."""

from __future__ import annotations

import enum
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gauntlet_kinds import SHORT
from torch import Tensor, nn

from treadle import StreamFeed, Trainer

POINTS = torch.linspace(-1, 1, 60)[:, None]


class Phase(enum.Enum):
    """How far the training is."""

    HEAD = 1
    ALL = 2


@dataclass(frozen=True)
class Plan:
    """A frozen value that is replaced."""

    phase: Phase
    rate: np.float32


class Unfreezing(Trainer):
    """First the head learns, later the body joins, then all begins anew with another optimizer of the same class."""

    def setup(self) -> None:
        self.body, self.head = nn.Sequential(nn.Linear(1, 6), nn.BatchNorm1d(6), nn.Dropout(0.2)), nn.Linear(6, 1)
        self.optimizer = torch.optim.Adam(self.head.parameters(), lr=0.02)
        self.plan = Plan(Phase.HEAD, np.float32(0.1))
        self.pair = {"both.of": self.body, "them": self.head, "n": 0}

    def pre_step(self, batch: Any) -> None:
        step = self.progress.step
        if step == 4:
            self.optimizer.add_param_group({"params": list(self.body.parameters()), "lr": 0.005, "name": "late"})
            self.plan = Plan(Phase.ALL, np.float32(0.3))
            self.seen: Counter[Phase] = Counter()
            self.newest: deque[float] = deque(maxlen=3)
        if step == 11:
            parameters = [*self.body.parameters(), *self.head.parameters()]
            self.optimizer = torch.optim.Adam(parameters, lr=0.01)

    def step(self, batch: Tensor) -> dict[str, Any]:
        loss = (self.head(self.body(batch)) - batch**2).square().mean() * float(self.plan.rate)
        self.minimize(loss)
        if self.plan.phase is Phase.ALL:
            self.seen[self.plan.phase] += 1
            self.newest.append(float(loss.detach()) / self.seen[Phase.ALL])
            self.pair["n"] += len(self.newest)
        return {"loss": loss, "n": float(self.pair["n"])}


def late_groups(workers: int, **where: Any) -> Trainer:
    return Unfreezing(data=POINTS, batch_size=16, max_epochs=5, accumulate=2, **SHORT, **where)


class Recurrent(nn.Module):
    """Keeps a running mean as a plain tensor, a table that is not persistent, and one that it makes when it is used."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.calls = torch.zeros(1), 0
        self.register_buffer("table", torch.zeros(4), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
            self.calls += 1
            self.table[self.calls % 4] += self.mean[0]
            if not hasattr(self, "late"):
                self.register_buffer("late", torch.zeros(1))
            self.late += self.calls
        return x - self.mean + self.table.mean() + 0.001 * self.late


class Lazy(Trainer):
    """A model whose shapes its first batch decides."""

    def setup(self) -> None:
        normed = nn.utils.parametrizations.weight_norm(nn.Linear(5, 1))
        self.model = nn.Sequential(Recurrent(), nn.LazyLinear(5), nn.LazyBatchNorm1d(), nn.Dropout(0.1), normed)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.02)

    def step(self, batch: Tensor) -> dict[str, Any]:
        loss = (self.model(batch) - batch**2).square().mean()
        self.minimize(loss)
        return {"loss": loss}

    def validation_step(self, batch: Tensor) -> dict[str, Any]:
        return {"loss": (self.model(batch) - batch**2).square().mean()}


def lazy_modules(workers: int, **where: Any) -> Trainer:
    settings = {"batch_size": 16, "max_epochs": 4, "validate_every": "5 steps"} | SHORT
    return Lazy(data=POINTS, validation_data=POINTS[::7], **settings, **where)


class Counted:
    """A stream that goes on from its own state."""

    def __init__(self, count: int) -> None:
        self.count, self.at = count, 0

    def __iter__(self) -> Iterator[Tensor]:
        while self.at < self.count:
            self.at += 1
            yield torch.tensor([self.at / self.count]) + 0.1 * torch.randn(1)
        self.at = 0

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


def noise(epoch: int) -> Iterator[Tensor]:
    return (torch.rand(1) for _ in range(17))


def stream_validation(workers: int, **where: Any) -> Trainer:
    class Streaming(Lazy):
        def setup(self) -> None:
            self.model = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.1), nn.Linear(4, 1))
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.02)

    feeds = StreamFeed(noise, 4), StreamFeed(Counted(13), 4)
    return Streaming(
        data=feeds[0], validation_data=feeds[1], max_epochs=5, validate_every="3 steps", patience=40, **SHORT, **where
    )
