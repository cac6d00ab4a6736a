"""What every framework trains in the loop benchmark, and the clock that measures it from inside the step."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

BATCHES = 50
"""Batches per epoch. Logging is every 50 steps too, so any 100 steps hold two epoch borders and two log intervals."""
SEGMENT = 100
"""Steps between two readings of the clock."""
SETTLE = 10
"""Steps before each first reading: the process has slept, its caches are cold."""
WARM_UP = 100
"""Steps before anything is measured."""


@dataclass(frozen=True)
class Workload:
    """A model, its optimizer, and its data: everything else is the loop."""

    name: str
    title: str
    batch_size: int
    features: int
    outputs: int

    def model(self) -> nn.Module:
        """The model with its initial weights, the same in every process; no stream of random numbers is disturbed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if self.name == "linear":
                return nn.Linear(self.features, self.outputs)
            hidden = self.features
            return nn.Sequential(
                nn.Linear(self.features, hidden),
                nn.ReLU(),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Linear(hidden, self.outputs),
            )

    def optimizer(self, model: nn.Module, fused: bool | None) -> torch.optim.Optimizer:
        """Adam for the MLP, SGD for the linear layer; `fused=None` leaves the choice of kernels to torch."""
        if self.name == "linear":
            return torch.optim.SGD(model.parameters(), lr=1e-2, fused=fused)
        return torch.optim.Adam(model.parameters(), lr=1e-3, fused=fused)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Cross entropy for the MLP, squared error for the linear layer."""
        if self.name == "linear":
            return nn.functional.mse_loss(prediction, target)
        return nn.functional.cross_entropy(prediction, target)

    def data(self) -> tuple[Tensor, Tensor]:
        """One epoch of samples and targets."""
        generator = torch.Generator().manual_seed(1)
        rows = BATCHES * self.batch_size
        x = torch.randn(rows, self.features, generator=generator)
        if self.name == "linear":
            return x, torch.randn(rows, self.outputs, generator=generator)
        return x, torch.randint(self.outputs, (rows,), generator=generator)


WORKLOADS = {
    "mlp": Workload("mlp", "MLP 64-64-64-10, batch 128, Adam", 128, 64, 10),
    "linear": Workload("linear", "Linear(16, 16), batch 16, SGD", 16, 16, 16),
}


class Batches:
    """The same batches as Treadle's feed gives, in the same order and by the same gather; an epoch per iteration.

    Args:
        data: samples and targets.
        orders: (epochs, rows), int64: the order of each epoch.
        batch_size: rows of a batch.
    """

    def __init__(self, data: tuple[Tensor, Tensor], orders: np.ndarray[Any, Any], batch_size: int) -> None:
        self.x, self.y = data
        self.orders, self.batch_size = torch.from_numpy(orders), batch_size
        self.epoch = 0

    def __len__(self) -> int:
        return BATCHES

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self.orders[self.epoch]
        self.epoch += 1
        for index in torch.split(order, self.batch_size):
            yield self.x.index_select(0, index), self.y.index_select(0, index)


class Clock:
    """Reads the CPU time of the process inside the step function, and counts Python calls.

    `tick` is called first in every step. Between the timed segments the process may wait for its turn: sleeping costs
    no CPU time. After them comes a segment in which calls are counted, at the price of its time.

    Args:
        rounds: segments to time.
        turn: called with the index of each round before it begins.
        epochs: length of the run; None makes it long enough to time and count everything.
    """

    def __init__(self, rounds: int, turn: Callable[[int], None] = lambda _: None, epochs: int | None = None) -> None:
        self.rounds, self.turn = rounds, turn
        steps = WARM_UP + rounds * (SETTLE + SEGMENT) + SEGMENT + 1
        self.epochs = epochs or -(-steps // BATCHES)
        self.seconds: list[float] = []
        """CPU seconds per step, one entry for each round."""
        self.calls = 0.0
        """Python calls per step, the tick among them."""
        self._script = self._plan()
        self._left = 0

    def tick(self) -> None:
        """A step begins."""
        if not self._left:
            self._left = next(self._script)
        self._left -= 1

    def _plan(self) -> Iterator[int]:
        """What is done when; each value is the number of steps until the next thing."""
        yield WARM_UP
        for index in range(self.rounds):
            self.turn(index)
            yield SETTLE
            start = time.process_time()
            yield SEGMENT
            self.seconds.append((time.process_time() - start) / SEGMENT)
        self._count = 0
        sys.setprofile(self._on_event)
        yield SEGMENT
        sys.setprofile(None)
        self.calls = (self._count - 1) / SEGMENT  # less the call that resumed this generator
        yield sys.maxsize

    def _on_event(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            self._count += 1


def digest(model: nn.Module) -> str:
    """SHA-256 over a model's weights."""
    sha = hashlib.sha256()
    for parameter in model.parameters():
        sha.update(parameter.detach().numpy().tobytes())
    return sha.hexdigest()


def flat(model: nn.Module) -> np.ndarray[Any, Any]:
    """A model's weights in one array."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).numpy()


def peak_memory() -> float:
    """The peak resident memory of this process so far, in MB; NaN where the system does not tell (Linux does)."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))
