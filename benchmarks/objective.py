"""What a call of an Objective costs over the weighted sum written by hand.

    python benchmarks/objective.py              the table, and whether Treadle keeps its promise (exit 1 where not)
    python benchmarks/objective.py --quick      few rounds, no promise about time; for the tests

How it is measured. Both sum the same raw values, scalars that require gradients, with the same weights, in one process
on one thread, 200 calls each in turns; "over" is the median of the differences between neighbours, and of several
repetitions the least: noise comes and goes, the cost of a call stays. By hand nothing is kept for the log, while the
objective checks each value, adds it to the running means and tells the weights that it applied.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from _report import Gate, machine, table
from torch import Tensor

from treadle import Objective

CALLS = 200
MOST = 5.0
WEIGHTS = {"gan": 0.5, "l1": 100.0, "sobel": 3.0, "laplacian": 2.0, "vgg": 10.0}
BY_HAND: dict[int, Callable[..., Tensor]] = {
    1: lambda gan: gan * 0.5,
    2: lambda gan, l1: gan * 0.5 + l1 * 100.0,
    3: lambda gan, l1, sobel: gan * 0.5 + l1 * 100.0 + sobel * 3.0,
    5: lambda gan, l1, sobel, laplacian, vgg: gan * 0.5 + l1 * 100.0 + sobel * 3.0 + laplacian * 2.0 + vgg * 10.0,
}
JUDGED = (2, 3)
"""Terms in a call, as the two games of image translation have."""


def pair(terms: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """The weighted sum of so many terms by hand, and by an objective; both give the same bits."""
    objective = Objective()
    for name in list(WEIGHTS)[:terms]:
        objective.add(name, weight=WEIGHTS[name])
    values = {name: torch.rand((), requires_grad=True) * 1 for name in objective.terms}
    in_order, total = tuple(values.values()), BY_HAND[terms]

    def by_hand() -> Tensor:
        return total(*in_order)

    def by_objective() -> Tensor:
        return objective(**values).total

    assert torch.equal(by_hand(), by_objective())
    return by_hand, by_objective


def microseconds(function: Callable[[], Tensor]) -> float:
    """CPU time of a call."""
    start = time.process_time()
    for _ in range(CALLS):
        function()
    return (time.process_time() - start) / CALLS * 1e6


def measure(terms: int, rounds: int, repetitions: int) -> tuple[float, float, float]:
    """The sum by hand, the call, and what the call costs over the sum."""
    by_hand, by_objective = pair(terms)
    found = []
    for _ in range(repetitions):
        pairs = [(microseconds(by_hand), microseconds(by_objective)) for _ in range(rounds)]
        hand, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
        found.append((statistics.median(b - a for a, b in pairs), hand, ours))
    over, hand, ours = min(found)
    return hand, ours, over


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, no promise about time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rounds, repetitions = (2, 1) if options.quick else (60, 7)
    found = {terms: measure(terms, rounds, repetitions) for terms in BY_HAND}
    print(machine(), "\n")
    print(
        table(
            ["terms", "by hand, us", "a call, us", "over, us"],
            [[str(terms), *(f"{value:.1f}" for value in values)] for terms, values in found.items()],
        )
    )
    if options.quick:
        return 0
    gates = [Gate(f"us CPU of a call over the sum by hand ({terms} terms)", found[terms][2], MOST) for terms in JUDGED]
    print("\n" + table(Gate.HEAD, [gate.row() for gate in gates]))
    return 0 if all(gate.held for gate in gates) else 1


if __name__ == "__main__":
    sys.exit(main())
