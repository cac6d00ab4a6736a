"""Samples per second of Treadle's feeds and torch's DataLoader, interleaved on the same tensors.

    python benchmarks/data.py [--quick]

Items are 32 floats and a label in memory, in batches of 64, shuffled. Every contender gives every sample once per pass
(asserted). Passes are interleaved and the best and median of each are shown; the gate is on the paired ratios of a
round, which noise of the machine touches little. Exits with 1 where a gate does not hold.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from treadle.data.dataset import DatasetFeed
from treadle.data.tensors import TensorFeed

BATCH = 64
GATES = {"DataLoader, 0 workers": 5.0, "DataLoader, 2 workers": 30.0}
"""TensorFeed must be at least this many times as fast as these."""
WORKER_GATE = 1.0
"""DatasetFeed with 2 workers must be at least this many times as fast as DataLoader with 2."""


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter passes")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    everyone = contenders(10 if quick else 50)
    for contender in everyone:
        order = torch.cat([labels for _, labels in contender.epoch(0)])
        assert torch.equal(order.sort().values, torch.arange(contender.samples)), contender.name
    rates: dict[str, list[float]] = {contender.name: [] for contender in everyone}
    for epoch in range(1, 4 if quick else 8):
        for contender in everyone:
            rates[contender.name].append(measure(contender, epoch))
    best = rates["TensorFeed"]
    print(f"{'':24}{'best':>14}{'median':>14}{'us/batch':>10}{'slower by':>11}")
    for name, found in rates.items():
        ratio = statistics.median(a / b for a, b in zip(best, found, strict=True))
        print(
            f"{name:24}{max(found):>10,.0f}/s {statistics.median(found):>11,.0f}/s "
            f"{BATCH / max(found) * 1e6:>9,.1f}{ratio:>10.1f}x"
        )
    checks = [("TensorFeed", name, gate) for name, gate in GATES.items()]
    checks.append(("DatasetFeed, 2 workers", "DataLoader, 2 workers", WORKER_GATE))
    failed = 0
    for fast, slow, gate in checks:
        ratio = statistics.median(a / b for a, b in zip(rates[fast], rates[slow], strict=True))
        failed += ratio < gate
        print(f"{'ok  ' if ratio >= gate else 'FAIL'} {fast} / {slow}: {ratio:.1f} (at least {gate:g})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
