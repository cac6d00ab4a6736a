"""Hash grid: forward, backward and update of 65,536 points, against its kernels as they were, and against torch.

    python benchmarks/hashgrid.py            table and gates on the terminal; exit code 1 where a gate does not hold
    python benchmarks/hashgrid.py --quick    few rounds, without torch.compile
    python benchmarks/hashgrid.py --write    also writes benchmarks/results/hashgrid.md

16 levels of 2 features, decoder 32-64-64-3, mean squared error, fused Adam. "Before" are the kernels of version 0.1.0,
frozen in `_hashgrid_before.py`: the gates are against them. Contestants take turns in one process, on the same points,
with freed memory kept as a trainer keeps it; ours has threads and Adam as in its trainers. A turn is four steps, the
first of them not counted: threads of whoever came before may still be spinning. Times are medians over rounds of a
turn's median, ratios medians of the ratio within a round. Before that they prove equal work: from equal weights, a few
steps lead to equal weights, as far as the rounding of their sums allows ("difference": the largest relative difference
of how far a parameter moved).
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from _hashgrid_before import Before
from _report import machine, table
from torch import Tensor, nn
from torch.nn import functional

from treadle.engine.memory import keep_freed_memory
from treadle.fields.hash_field import HashEncoding, HashField
from treadle.kernels.adam import Adam
from treadle.kernels.hashgrid_reference import encode_reference
from treadle.kernels.layout import GridLayout
from treadle.kernels.threads import left_to_kernels

POINTS = 65536
TURN = 4
"""Steps of a turn, the first of which is not counted."""
CASES = {  # the old kernels know no other mapping than flat_border; to the loops it is another constant
    "2D, 2^14": GridLayout(2, log2_size=14, n_min=16, n_max=2048, flat_border=True),
    "2D, 2^19": GridLayout(2, log2_size=19, n_min=16, n_max=2048, flat_border=True),
    "3D, 2^17": GridLayout(3, log2_size=17, n_min=16, n_max=512, flat_border=True),
}
GATES = {"2D, 2^14": 1.8, "2D, 2^19": 1.5, "3D, 2^17": 1.5}
"""How many times faster than before it has to be."""
EAGER, COMPILED, BEFORE, OURS = "eager torch", "torch.compile", "treadle 0.1.0", "treadle"
RESULTS = Path(__file__).with_name("results") / "hashgrid.md"


class Eager(nn.Module):
    """The same field in plain torch: the reference encoding and a sequence of layers."""

    def __init__(self, layout: GridLayout, hidden: int = 64) -> None:
        super().__init__()
        self.layout = layout
        self.table = nn.Parameter(torch.zeros(layout.rows, layout.features))
        widths = (layout.width, hidden, hidden, 3)
        layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
        self.decoder = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])

    def forward(self, points: Tensor) -> Tensor:
        values: Tensor = self.decoder(encode_reference(points, self.table, self.layout))
        return values


@dataclass
class Contestant:
    """A model with its optimizer; `step` trains it on points once."""

    model: nn.Module
    call: Callable[[Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    kernels: bool = False
    """Whether torch's own operators leave the threads to compiled kernels, as in the steps of our trainers."""

    def step(self, points: Tensor, targets: Tensor) -> float:
        """Forward, backward, update; returns the milliseconds it took."""
        start = time.perf_counter()
        with left_to_kernels() if self.kernels else nullcontext():
            loss = functional.mse_loss(self.call(points), targets)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return 1e3 * (time.perf_counter() - start)

    def weights(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.model.parameters()]


def contestants(layout: GridLayout, names: list[str]) -> dict[str, Contestant]:
    """One of each name, all with the same weights."""
    torch.manual_seed(0)
    start = [parameter.detach().clone() for parameter in _field(layout).parameters()]
    made = {}
    for name in names:
        model: nn.Module = Eager(layout)
        if name in (BEFORE, OURS):
            model = Before(_field(layout)) if name == BEFORE else _field(layout)
        for parameter, value in zip(model.parameters(), start, strict=True):
            parameter.data.copy_(value)
        call = torch.compile(model) if name == COMPILED else model
        kind = Adam if name == OURS else partial(torch.optim.Adam, fused=True)
        made[name] = Contestant(model, call, kind(model.parameters(), lr=1e-3), name == OURS)
    return made


def _field(layout: GridLayout) -> HashField:
    grid = HashEncoding(layout.dimensions, layout.levels, layout.features, layout.log2_size, layout.n_min, layout.n_max)
    grid.layout = layout
    return HashField(grid, 3, output="none")


def draw(layout: GridLayout, seed: int) -> tuple[Tensor, Tensor]:
    """Random points and targets."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(POINTS, layout.dimensions, generator=generator) * 2 - 1
    return points, torch.rand(POINTS, 3, generator=generator)


def prove_equal_work(field: dict[str, Contestant], layout: GridLayout, steps: int = 3) -> float:
    """Train all from equal weights; returns the largest relative difference of their movement, and fails above 1%."""
    start = field[OURS].weights()
    for seed in range(steps):
        for contestant in field.values():
            contestant.step(*draw(layout, seed))
    worst = 0.0
    ends = field[EAGER].weights()
    for name, contestant in field.items():
        for before, wanted, found in zip(start, ends, contestant.weights(), strict=True):
            difference = ((found - wanted).norm() / (wanted - before).norm()).item()
            worst = max(worst, difference)
            if not difference < 0.01:
                sys.exit(f"{name} does other work than eager torch: its weights moved {difference:.1%} differently")
    return worst


def measure(layout: GridLayout, names: list[str], rounds: int) -> tuple[dict[str, list[float]], float]:
    """Milliseconds of each round by contestant, and how far their work differs."""
    field = contestants(layout, names)
    difference = prove_equal_work(field, layout)
    times: dict[str, list[float]] = {name: [] for name in names}
    batch = draw(layout, 100)
    for index in range(rounds + 1):
        order = list(names) if index % 2 else list(reversed(names))
        for name in order:
            turn = [field[name].step(*batch) for _ in range(TURN)]
            if index:  # the first round warms up
                times[name].append(statistics.median(turn[1:]))
    return times, difference


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, without torch.compile")
    parser.add_argument("--write", action="store_true", help="also write benchmarks/results/hashgrid.md")
    options = parser.parse_args()
    keep_freed_memory()
    names = [EAGER, COMPILED, BEFORE, OURS]
    remark = ""
    if options.quick or not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
        names.remove(COMPILED)
        remark = f"{COMPILED}: left out ({'--quick' if options.quick else 'no C++ compiler on this machine'})."
    rounds = 4 if options.quick else 12
    rows, held = [], True
    for case, layout in CASES.items():
        print(f"{case}: {layout.rows} rows, {rounds} rounds ...", file=sys.stderr, flush=True)
        times, difference = measure(layout, names, rounds)
        for name in names:
            faster = [
                statistics.median(slow / fast for slow, fast in zip(times[other], times[name], strict=True))
                for other in (EAGER, BEFORE)
            ]
            verdict = "-"
            if name == OURS:
                verdict = f"{'held' if faster[1] >= GATES[case] else 'NOT HELD'} (>= {GATES[case]:g})"
                held &= faster[1] >= GATES[case]
            median = f"{statistics.median(times[name]):.1f}"
            rows.append([case, name, median, *(f"{ratio:.2f}" for ratio in faster), verdict, f"{difference:.0e}"])
    head = ["table", "contestant", "ms per step", "times eager", "times before", "gate", "difference"]
    facts = f"{machine(['numba'])} {torch.get_num_threads()} threads."
    text = "\n\n".join(filter(None, [table(head, rows), remark, facts]))
    print(text)
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        method = (__doc__ or "").split("\n\n")[-1].strip()
        RESULTS.write_text(f"# Hash grid\n\n{method}\n\n{text}\n", encoding="utf-8")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
