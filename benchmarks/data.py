"""What feeds cost: over the bare gather, and beside torch's DataLoader on the same tensors.

    python benchmarks/data.py [--quick]

Items are 32 floats and a label in memory, in batches of 64, shuffled. Over the gather: CPU time per batch of
`TensorFeed` beyond that of the two `index_select` calls, which are given the order and its cut for nothing; passes of
the two take turns, and of each the best counts. Beside the DataLoader: every contender gives every sample once per pass
(asserted), passes are interleaved, and promises are on the paired ratios of a round, which noise of the machine touches
little. Exits with 1 where a promise does not hold.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from _report import Gate, machine, table
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from treadle.data.dataset import DatasetFeed
from treadle.data.tensors import TensorFeed

BATCH = 64
OVERHEAD = 3.0
"""Microseconds of CPU time that TensorFeed may cost per batch over the bare gather."""
SHARES = {"DataLoader, 0 workers": 1 / 5, "DataLoader, 2 workers": 1 / 30}
"""TensorFeed may take at most this share of their time."""


@dataclass(frozen=True)
class Contender:
    """Something that gives batches; `samples` is what it is measured on, so that each pass takes about as long."""

    name: str
    samples: int
    epoch: Callable[[int], Iterable[tuple[Tensor, Tensor]]]


class Items(TensorDataset):
    """A dataset that might draw random numbers, as far as a feed can know: each sample is seeded."""


def contenders(scale: int) -> list[Contender]:
    """All of them; workers start at the first pass, which is not measured. One torch thread."""
    many, few = 4096 * scale, 512 * scale
    data = {n: (torch.randn(n, 32), torch.arange(n)) for n in {many, few}}
    tensors = TensorFeed(data[many], BATCH, seed=0)
    plain = DatasetFeed(TensorDataset(*data[few]), BATCH, seed=0)
    seeded = DatasetFeed(Items(*data[few]), BATCH, seed=0)
    pooled = DatasetFeed(TensorDataset(*data[few]), BATCH, seed=0, workers=2)
    settings = {"batch_size": BATCH, "shuffle": True}
    loader = DataLoader(TensorDataset(*data[few]), **settings)
    workers = {"num_workers": 2, "persistent_workers": True, "multiprocessing_context": "spawn"}
    parallel = DataLoader(TensorDataset(*data[few]), **settings, **workers)
    return [
        Contender("TensorFeed", many, tensors.iterate),
        Contender("DatasetFeed, 0 workers", few, plain.iterate),
        Contender("DatasetFeed, seeding", few, seeded.iterate),
        Contender("DatasetFeed, 2 workers", few, pooled.iterate),
        Contender("DataLoader, 0 workers", few, lambda _: loader),
        Contender("DataLoader, 2 workers", few, lambda _: parallel),
    ]


def measure(contender: Contender, epoch: int) -> float:
    """Samples per second over one pass."""
    seen, begin = 0, time.perf_counter()
    for _, labels in contender.epoch(epoch):
        seen += len(labels)
    seconds = time.perf_counter() - begin
    assert seen == contender.samples, (contender.name, seen)
    return seen / seconds


def over_the_gather(batches: int, epochs: int, rounds: int) -> tuple[float, float]:
    """CPU microseconds per batch of the bare gather, and of TensorFeed, over epochs of so many batches."""
    n = batches * BATCH
    x, y = torch.randn(n, 32), torch.arange(n)
    feed = TensorFeed((x, y), BATCH, seed=0)
    plan = [torch.cat(list(feed.plan(epoch))).split(BATCH) for epoch in range(epochs)]

    def bare() -> None:
        for order in plan:
            for index in order:
                _ = (x.index_select(0, index), y.index_select(0, index))

    def feeding() -> None:
        for epoch in range(epochs):
            for _ in feed.iterate(epoch):
                pass

    best = [float("inf")] * 2
    for _ in range(rounds):
        for which, function in enumerate((bare, feeding)):
            begin = time.process_time()
            function()
            best[which] = min(best[which], time.process_time() - begin)
    gather, whole = (seconds / batches / epochs * 1e6 for seconds in best)
    return gather, whole


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter passes, no promises about time")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    rows, gates = [], []
    for batches, epochs in ((500, 1), (8, 60)):
        gather, whole = over_the_gather(batches, epochs, 3 if quick else 60)
        rows.append([str(batches), f"{gather:.2f}", f"{whole:.2f}", f"{whole - gather:.2f}"])
        if not gates:
            gates.append(Gate("TensorFeed over the gather, us per batch", whole - gather, OVERHEAD))
    everyone = contenders(2 if quick else 50)
    for contender in everyone:
        order = torch.cat([labels for _, labels in contender.epoch(0)])
        assert torch.equal(order.sort().values, torch.arange(contender.samples)), contender.name
    rates: dict[str, list[float]] = {contender.name: [] for contender in everyone}
    for epoch in range(1, 2 if quick else 8):
        for contender in everyone:
            rates[contender.name].append(measure(contender, epoch))

    def share(fast: str, slow: str) -> float:
        return statistics.median(b / a for a, b in zip(rates[fast], rates[slow], strict=True))

    for name, most in SHARES.items():
        gates.append(Gate(f"TensorFeed: share of the time of {name}", share("TensorFeed", name), most))
    both = "DatasetFeed, 2 workers", "DataLoader, 2 workers"
    gates.append(Gate(f"{both[0]}: share of the time of {both[1]}", share(*both), 1))
    print(machine(), "\n")
    print(table(["batches per epoch", "gather, us", "TensorFeed, us", "over, us"], rows), "\n")
    print(
        table(
            ["", "best, samples/s", "median", "us/batch", "times TensorFeed"],
            [
                [
                    *(name, f"{max(found):,.0f}", f"{statistics.median(found):,.0f}"),
                    *(f"{BATCH / max(found) * 1e6:,.1f}", f"{1 / share('TensorFeed', name):.1f}"),
                ]
                for name, found in rates.items()
            ],
        )
    )
    if quick:
        return 0
    print("\n" + table(Gate.HEAD, [gate.row() for gate in gates]))
    return 0 if all(gate.held for gate in gates) else 1


if __name__ == "__main__":
    sys.exit(main())
