"""Fresh processes that take turns: the driver's side of the loop benchmark."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from _peers import train
from _workload import BATCHES, WORKLOADS, Clock

from treadle.data.sampler import epoch_order

WORKER = Path(__file__).with_name("_peers.py")


@dataclass(frozen=True)
class Contestant:
    """A framework, and what it is asked to do besides training: "bare", "hooks" or "full"."""

    framework: str
    tier: str


@dataclass
class Figure:
    """What was measured of one contestant; lists have one entry for each repetition."""

    seconds: list[list[float]] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    calls: float = 0.0
    digest: str = ""


Figures = dict[Contestant, Figure]


class Worker:
    """One process, training one workload with one framework."""

    def __init__(self, contestant: Contestant, workload: str, rounds: int, orders: Path, directory: Path) -> None:
        self.contestant = contestant
        name = f"{contestant.framework}-{contestant.tier}"
        self.weights = directory / f"{name}.npy"
        self.log = directory / f"{name}.log"
        command = [contestant.framework, contestant.tier, workload, str(rounds), str(orders), str(self.weights)]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(WORKER), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
            )

    def answer(self) -> str:
        """Wait for the next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.contestant} failed:\n{self.log.read_text()[-3000:]}")
        return line

    def go(self) -> None:
        """It is this process's turn."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")


def orders(workload: str, epochs: int) -> np.ndarray:
    """The order of each epoch, (epochs, rows), as Treadle's feed draws it with seed 0."""
    rows = BATCHES * WORKLOADS[workload].batch_size
    return np.stack([epoch_order(rows, 0, epoch) for epoch in range(epochs)])


def compete(
    workload: str, contestants: Sequence[Contestant], repeated: Sequence[Contestant], repetitions: int, rounds: int
) -> Figures:
    """Let contestants train `workload`, taking turns: all of them at first, then only those `repeated`.

    Each of the `repetitions` is made of fresh processes.
    """
    figures: Figures = {contestant: Figure() for contestant in contestants}
    for repetition in range(repetitions):
        present = contestants if repetition == 0 else repeated
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "orders.npy"
            np.save(path, orders(workload, Clock(rounds).epochs))
            workers: list[Worker] = []
            try:
                for contestant in present:
                    workers.append(Worker(contestant, workload, rounds, path, Path(directory)))
                    workers[-1].answer()  # started, warm, and waiting: one at a time
                _take_turns(workers, rounds, repetition, figures)
            finally:
                for worker in workers:
                    worker.process.kill()
                    worker.process.communicate()
    return figures


def _take_turns(workers: list[Worker], rounds: int, repetition: int, figures: Figures) -> None:
    for index in range(rounds):
        # Another one begins each round, and every other round goes backwards: nobody always follows the same one.
        start = (index + repetition) % len(workers)
        order = [*workers[start:], *workers[:start]]
        for worker in order if index % 2 == 0 else reversed(order):
            worker.go()
            if index < rounds - 1:
                worker.answer()
            else:
                result = json.loads(worker.answer())
                figure = figures[worker.contestant]
                figure.seconds.append(result["seconds"])
                figure.memory.append(result["memory"])
                figure.calls, figure.digest = result["calls"], result["digest"]


def agreement(workload: str) -> float:
    """How far the weights differ after an epoch with the fused and with the default optimizer.

    Their kernels round differently; over a long run training amplifies that without bound, over an epoch it stays tiny.
    """
    order = orders(workload, 1)
    ends = [train(framework, "bare", workload, Clock(0, epochs=1), order)["weights"] for framework in ("raw", "naive")]
    return float(np.abs(ends[0] - ends[1]).max())


def import_seconds(pairs: int) -> float:
    """CPU seconds that `import treadle; treadle.Trainer` adds to `import torch`: the difference of medians.

    Fresh processes, in turns. They may keep bytecode, as a package that was installed does: where the environment
    forbids it, what is measured is Python's compiler.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    code = "import time, torch{}; print(time.process_time())"
    times: dict[str, list[float]] = {"": [], ", treadle; treadle.Trainer": []}
    for _ in range(pairs + 1):
        for tail, seconds in times.items():
            command = [sys.executable, "-c", code.format(tail)]
            run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            seconds.append(float(run.stdout))
    plain, ours = (statistics.median(seconds[1:]) for seconds in times.values())  # the first ones fill disk caches
    return ours - plain
