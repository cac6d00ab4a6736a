"""What checkpoints cost the training beside them: steps during a write, and a run that writes every 100 steps."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from _savers import Tensors, state
from torch import Tensor, nn

from treadle import Trainer
from treadle.checkpoint.store import Retention
from treadle.checkpoint.writer import CheckpointWriter


@dataclass
class Steps:
    """Seconds per step of the same training, without a write and during one; one pair of lists for each round."""

    without: list[list[float]] = field(default_factory=list)
    during: list[list[float]] = field(default_factory=list)

    def ratio(self, quantile: float) -> float:
        """Step time during a write as a multiple of that without, at `quantile`: the median over the rounds."""
        pairs = zip(self.during, self.without, strict=True)
        return statistics.median(at(quantile, a) / at(quantile, b) for a, b in pairs)

    def milliseconds(self, quantile: float) -> tuple[float, float]:
        """Step time at `quantile`, without and during a write: medians over the rounds."""
        found = [statistics.median(at(quantile, steps) * 1e3 for steps in part) for part in (self.without, self.during)]
        return found[0], found[1]


def at(quantile: float, values: list[float]) -> float:
    """The value at `quantile` of `values`."""
    return sorted(values)[min(int(quantile * len(values)), len(values) - 1)]


def steps_beside(tensors: Tensors, rounds: int, directory: Path, least: int = 200) -> Steps:
    """Train a small network on one thread, in turns alone and while `tensors` are written, at least `least` steps.

    The wait for the copy itself is the stall, measured elsewhere, and is no part of a step here.
    """
    model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    x, y = torch.randn(256, 256), torch.randint(10, (256,))

    def step() -> float:
        begin = time.perf_counter()
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        return time.perf_counter() - begin

    done = []
    writer = CheckpointWriter(directory, lambda *_: done.append(True), 60.0)
    found = Steps()
    try:
        for index in range(rounds + 1):
            during: list[float] = []
            while len(during) < least:
                done.clear()
                writer.submit(state(tensors, index), Retention(last=1))
                while not done:
                    during.append(step())
                writer.wait()
            without = [step() for _ in range(len(during))]
            if index > 0:  # the first warms up
                found.during.append(during)
                found.without.append(without)
    finally:
        writer.close()
    return found


class Field(Trainer):
    """Sizes of the demo: a hash grid of 16 tables with 2^15 entries of 2 features, 4,096 points a step, a network.

    1.05 million parameters, 4.2 MB; with Adam's moments a checkpoint has 12.6 MB.
    """

    def setup(self) -> None:
        self.tables = nn.Parameter(torch.rand(16 * 2**15, 2) * 2e-4 - 1e-4)
        self.network = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
        self.optimizer = torch.optim.Adam([self.tables, *self.network.parameters()], lr=1e-2)

    def step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        where, colours = batch
        features = nn.functional.embedding(where, self.tables).reshape(len(where), 32)
        loss = (self.network(features) - colours).square().mean()
        self.minimize(loss)
        return loss


@dataclass
class Cost:
    """Seconds per 100 steps, without checkpoints and with one in their middle; one entry for each round."""

    without: list[float] = field(default_factory=list)
    within: list[float] = field(default_factory=list)
    cpu_without: list[float] = field(default_factory=list)
    cpu_within: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The checkpoint's share of the wall time: the median over the rounds, each against the one beside it."""
        return _share(self.within, self.without)

    @property
    def cpu_share(self) -> float:
        """The checkpoint's share of the process's CPU time, all threads."""
        return _share(self.cpu_within, self.cpu_without)


def _share(within: list[float], without: list[float]) -> float:
    return statistics.median((a - b) / b for a, b in zip(within, without, strict=True))


def cost_of_saving(rounds: int, directory: Path, batch_size: int = 4096) -> Cost:
    """Train two such trainers in turns, 100 steps each; one writes a checkpoint every 100 steps."""
    rows = 4 * batch_size
    generator = torch.Generator().manual_seed(0)
    where = torch.randint(2**15, (rows, 16), generator=generator) + torch.arange(16) * 2**15
    data = where, torch.rand(rows, 3, generator=generator)

    def make(name: str, save_every: str | None) -> Field:
        settings = {"max_steps": 10**9, "log_every": None, "save_every": save_every, "keep_checkpoints": 2}
        return Field(data=data, batch_size=batch_size, run_dir=directory / name, **settings)

    trainers = make("without", None), make("within", "100 steps")
    cost = Cost()
    try:
        for trainer in trainers:
            for _ in range(50):
                trainer.iterate()
        for index in range(rounds + 1):
            for which in (0, 1) if index % 2 else (1, 0):
                seconds, cpu = _hundred(trainers[which])
                if index > 0:
                    (cost.without, cost.within)[which].append(seconds)
                    (cost.cpu_without, cost.cpu_within)[which].append(cpu)
    finally:
        for trainer in trainers:
            trainer.close()
    return cost


def _hundred(trainer: Trainer) -> tuple[float, float]:
    begin, cpu = time.perf_counter(), time.process_time()
    for _ in range(100):
        trainer.iterate()
    return time.perf_counter() - begin, time.process_time() - cpu
