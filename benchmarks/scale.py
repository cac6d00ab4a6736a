"""What several processes cost: whole steps beside DistributedDataParallel, and what else they say to one another.

    python benchmarks/scale.py              the tables, and whether Treadle keeps its promises (exit 1 where not)
    python benchmarks/scale.py --write      also stores them in benchmarks/results/scale.md (4 minutes)
    python benchmarks/scale.py --quick      few steps of 2 processes, no promise about time; for the tests

How it is measured. 1, 2 and 4 processes, one thread each, over gloo on the loopback. Every process has all contestants
and gives them turns of some steps, another one beginning each round, so that what slows the machine slows all alike.
A step is the whole of it: gather, forward, backward, messages, update. All see the same batches of 128, of which each
process has its part, and use the same fused SGD with momentum; at the end no weight may differ from DDP's by more than
1e-6. "/ DDP" is the median over the rounds of the ratio to DDP *in the same round*; where a promise is judged this is
repeated with fresh processes, and of the repetitions the least counts. Treadle's steps are those of `train`: it checks
each loss and gradient for NaN and Inf, keeps means of what is logged, and agrees on commands; the others do not.

"Alone" sends nothing (its weights come apart, they are not judged); with 1 process it is the reference. "A message for
each parameter" is what is often written by hand. Treadle's gradients are one message, after the backward pass. Messages
of 1 MB that leave while it goes on (hooks on accumulated gradients, fixed buckets, the same bits) were built and
measured in the same way: at 1.6M parameters a step took .97 of one with a single message at 2 processes, and 1.2 at 4,
so they were not kept. Fixed parts (`parts`) have V passes, so a step of theirs is dearer by itself.

The mechanisms are timed one by one, all processes beginning together; the least of the times is given. The agreement on
commands while nobody asks has no message: it is CPU time of the training thread. Metrics are those of a log interval
(3 of them); validation is 4096 samples in batches of 128, dealt out; a save waits until the checkpoint is on the disk
and includes the comparison of digests over processes; a row edit lets 500 of 50,000 Gaussians of 14 numbers split, with
Adam's moments. 4 processes have 2 cores here: their figures say that it works, not what 4 cores would give.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from _report import Gate, machine, table
from _scale_ranks import Found, Task, measure

RESULTS = Path(__file__).parent / "results" / "scale.md"
NAMES = {
    "alone": "alone, no messages",
    "ddp": "DDP",
    "ddp, views": "DDP, gradients as views, static graph",
    "each": "a message for each parameter, by hand",
    "treadle": "Treadle",
    "parts 2": "Treadle, parts=2",
    "parts 4": "Treadle, parts=4",
}
MECHANISMS = {
    "commands": "agreement on commands, nobody asks (CPU)",
    "metrics": "metrics of a log interval",
    "validation": "validation of 4096 samples, dealt out",
    "save": "a save, digests compared",
    "edit": "a row edit of 50,000 Gaussians",
}
RANKS = (1, 2, 4)
TURNS = {"12k": {1: (10, 100), 2: (24, 40), 4: (15, 20)}, "1.6M": {1: (10, 5), 2: (24, 4), 4: (8, 3)}}
"""Rounds, and steps of a turn, by size and processes."""
APART = 1e-6


def paired(found: Found, ours: str, theirs: str) -> float:
    """The median over the rounds of the ratio of two contestants' steps."""
    return statistics.median(a / b for a, b in zip(found.seconds[ours], found.seconds[theirs], strict=True))


def least(repetitions: Sequence[Found], ours: str, theirs: str) -> float:
    """Of the repetitions, the one that noise has touched least."""
    return min(paired(found, ours, theirs) for found in repetitions)


def check_equal_work(found: Found, ranks: int) -> None:
    """All who agree on gradients end with DDP's weights."""
    for name, apart in found.apart.items():
        if apart > APART and not (name == "alone" and ranks > 1):
            raise SystemExit(f"{NAMES[name]} ended {apart:.1e} from the reference: the work is not equal")


def step_rows(found: Found) -> list[list[str]]:
    """One row for each contestant; milliseconds."""
    base = "ddp" if "ddp" in found.seconds else "alone"
    return [
        [
            NAMES[name],
            f"{statistics.median(seconds) * 1e3:.2f}",
            f"{min(seconds) * 1e3:.2f}",
            f"{paired(found, name, base):.2f}",
        ]
        for name, seconds in found.seconds.items()
    ]


def mechanism_rows(found: dict[int, Found]) -> list[list[str]]:
    """One row for each mechanism: the least of its times, microseconds, by the number of processes."""
    return [
        [text, *(f"{min(each.mechanisms[name]) * 1e6:,.{1 if name == 'commands' else 0}f}" for each in found.values())]
        for name, text in MECHANISMS.items()
    ]


def gates(small: Sequence[Found], large: Sequence[Found]) -> list[Gate]:
    """What must hold with 2 processes, by repetitions of either size."""
    idle = min(min(found.mechanisms["commands"]) for found in [*small, *large] if found.mechanisms)
    return [
        Gate("a step / DDP's, 12k parameters, 2 processes", least(small, "treadle", "ddp"), 1.0),
        Gate("a step / DDP's, 1.6M parameters, 2 processes", least(large, "treadle", "ddp"), 1.1),
        Gate("us of a step to agree on commands, nobody asks", idle * 1e6, 1.0),
    ]


def tables(measured: dict[tuple[str, int], Found], size: str) -> list[str]:
    """The tables of one size."""
    lines = []
    for ranks in sorted(ranks for name, ranks in measured if name == size):
        found = measured[size, ranks]
        head = ["step", "median, ms", "min, ms", "/ DDP" if "ddp" in found.seconds else "/ alone"]
        some = "1 process" if ranks == 1 else f"{ranks} processes"
        lines += [f"### {size} parameters, {some}", "", table(head, step_rows(found)), ""]
    others = {ranks: measured[size, ranks] for ranks in RANKS if (size, ranks) in measured}
    if all(found.mechanisms for found in others.values()):
        head = ["us", *(f"{ranks} processes" if ranks > 1 else "1 process" for ranks in others)]
        lines += [f"### Besides steps, {size} parameters", "", table(head, mechanism_rows(others)), ""]
    return lines


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few steps, no promise about time")
    parser.add_argument("--write", action="store_true", help=f"store the tables in {RESULTS.name}")
    parser.add_argument("--repetitions", type=int, default=3, help="sets of fresh processes where it is judged")
    options = parser.parse_args()
    if options.write and options.quick:
        parser.error("--write needs the whole measurement: leave out --quick")
    if options.quick:
        found = measure(Task("12k", rounds=1, steps=2, mechanisms=1), 2)
        check_equal_work(found, 2)
        print("\n".join(tables({("12k", 2): found}, "12k")))
        return 0
    text, judged = [], {}
    for size, turns in TURNS.items():
        measured = {}
        for ranks, (rounds, steps) in turns.items():
            found = measured[size, ranks] = measure(Task(size, rounds, steps, mechanisms=5), ranks)
            check_equal_work(found, ranks)
        some = tables(measured, size)
        print("\n".join(some), flush=True)
        text += some
        more = [measure(Task(size, *turns[2]), 2) for _ in range(options.repetitions - 1)]
        judged[size] = [measured[size, 2], *more]
    verdict = gates(judged["12k"], judged["1.6M"])
    promises = ["### Promises", "", table(Gate.HEAD, [gate.row() for gate in verdict]), ""]
    print("\n".join(promises))
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        how = __doc__.split("\n\n", 2)[2].strip()
        RESULTS.write_text("\n".join(["# What several processes cost", "", how, "", machine(), "", *text, *promises]))
        print(f"written to {RESULTS}")
    return 0 if all(gate.held for gate in verdict) else 1


if __name__ == "__main__":
    sys.exit(main())
