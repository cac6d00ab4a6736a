"""What a training loop costs, beside a raw PyTorch loop: CPU time and Python calls per step, memory, import time.

    python benchmarks/loop.py              the tables, and whether Treadle keeps its promises (exit 1 where not)
    python benchmarks/loop.py --write      also stores them in benchmarks/results/loop.md
    python benchmarks/loop.py --quick      only raw torch and Treadle, only what does not depend on time; for the tests

How it is measured. Each framework trains in a fresh process of its own, on one thread, with the same batches from the
same gather; processes whose optimizer runs the same kernels must end with weights that are equal bit for bit. All of
them are alive at once and take turns, 100 steps each, so that what slows the machine slows all of them alike. CPU time
of the process is read inside the step function, after a warm-up, at the start of a step. "Over raw" is the median over
the rounds of the difference to the raw loop *of the same round*. Where a promise is judged, this is repeated with fresh
processes, and of the repetitions the least median counts: noise comes and goes, the cost of a loop stays. Python calls
are counted by `sys.setprofile` over 100 steps that hold two epoch borders and two log intervals.

Raw torch, Ignite, Fabric, Accelerate and Lightning are given the fused optimizer; Treadle chooses it by itself. Treadle
checks every loss and gradient for NaN and Inf, the others do not. That it comes close to the raw loop, or below it, is
because it neither calls `zero_grad` nor opens the profiler's record around `optimizer.step` while nobody profiles.

Peers come with `pip install 'treadle[bench]'`; those that are missing are left out.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import statistics
import sys
from pathlib import Path

from _report import Gate, machine, table
from _turns import Contestant, Figures, agreement, compete, import_seconds
from _workload import WORKLOADS

RESULTS = Path(__file__).parent / "results" / "loop.md"

TIERS = {"bare": "bare", "hooks": "5 hooks + metrics", "full": "+ files"}
NAMES = {
    "naive": "raw torch, default optimizer",
    "raw": "raw torch, fused optimizer",
    "treadle": "Treadle `train()`",
    "iterate": "Treadle `iterate()`",
    "ignite": "Ignite",
    "fabric": "Fabric",
    "accelerate": "Accelerate",
    "lightning": "Lightning",
}
PACKAGES = {"ignite": "pytorch-ignite", "fabric": "lightning", "accelerate": "accelerate", "lightning": "lightning"}

RAW, NAIVE = Contestant("raw", "bare"), Contestant("naive", "bare")
TRAIN, ITERATE = Contestant("treadle", "hooks"), Contestant("iterate", "hooks")
FILES = Contestant("treadle", "full")
JUDGED = [NAIVE, RAW, TRAIN, FILES, ITERATE]
OURS = [NAIVE, RAW, Contestant("treadle", "bare"), TRAIN, FILES, ITERATE]
MOST_ITERATE = {"mlp": 1.1, "linear": 1.2}
"""What a step from outside may cost over one of `train()`; changing random streams is dear beside a step of nothing."""
PEERS = [
    Contestant(framework, tier)
    for framework, tiers in {
        "ignite": ("bare", "hooks"),
        "fabric": ("bare", "hooks"),
        "accelerate": ("bare",),
        "lightning": ("bare", "hooks", "full"),
    }.items()
    for tier in tiers
]


def installed(framework: str) -> bool:
    """Whether what `framework` needs is there."""
    try:
        importlib.metadata.version(PACKAGES[framework])
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def over(figures: Figures, contestant: Contestant, base: Contestant = RAW) -> float:
    """Microseconds per step beyond `base`: the least, over the repetitions, of the median paired difference."""
    return min(
        statistics.median((ours - theirs) * 1e6 for ours, theirs in zip(mine, raws, strict=True))
        for mine, raws in zip(figures[contestant].seconds, figures[base].seconds, strict=False)
    )


def ratio(figures: Figures, contestant: Contestant, base: Contestant) -> float:
    """CPU time per step as a multiple of `base`: the least, over the repetitions, of the median paired ratio."""
    return min(
        statistics.median(ours / theirs for ours, theirs in zip(mine, bases, strict=True))
        for mine, bases in zip(figures[contestant].seconds, figures[base].seconds, strict=False)
    )


def calls(figures: Figures, contestant: Contestant) -> float:
    """Python calls per step beyond the raw loop."""
    return figures[contestant].calls - figures[RAW].calls


def memory(figures: Figures, contestant: Contestant) -> float:
    """Peak resident memory beyond the raw loop's, MB: the median over the repetitions."""
    return statistics.median(figures[contestant].memory) - statistics.median(figures[RAW].memory)


def rows(figures: Figures) -> list[list[str]]:
    """One row for each contestant."""
    lines = []
    for contestant, figure in figures.items():
        times = [seconds * 1e6 for repetition in figure.seconds for seconds in repetition]
        lines.append(
            [
                NAMES[contestant.framework],
                TIERS[contestant.tier],
                f"{statistics.median(times):.0f}",
                f"{min(times):.0f}",
                f"{over(figures, contestant):+.1f}",
                f"{calls(figures, contestant):+.1f}",
                f"{memory(figures, contestant):+.1f}",
            ]
        )
    return lines


HEAD = ["loop", "tier", "us/step, median", "min", "over raw, us", "Python calls over raw", "peak RSS over raw, MB"]


def gates(measured: dict[str, Figures], timed: bool) -> list[Gate]:
    """What must hold. Without `timed`, only what is the same on every machine."""
    result = []
    for name, figures in measured.items():
        result.append(Gate(f"Python calls per step over raw, 5 hooks + metrics ({name})", calls(figures, TRAIN), 60))
        if timed:
            result.append(Gate(f"us CPU per step over raw, 5 hooks + metrics ({name})", over(figures, TRAIN), 5))
            result.append(Gate(f"us CPU per step over raw, + files ({name})", over(figures, FILES), 10))
            result.append(Gate(f"MB of peak RSS over raw ({name})", memory(figures, TRAIN), 15))
            times = ratio(figures, ITERATE, TRAIN)
            result.append(Gate(f"iterate() / train(), CPU per step ({name})", times, MOST_ITERATE[name]))
    if timed and "mlp" in measured:
        figures = measured["mlp"]
        result.append(Gate("Treadle / naive raw loop, CPU per step (mlp)", ratio(figures, TRAIN, NAIVE), 1.0))
    return result


def check_weights(figures: Figures) -> None:
    """Equal work: all loops whose optimizer runs the same kernels end with the same bits."""
    for contestant, figure in figures.items():
        if contestant != NAIVE and figure.digest != figures[RAW].digest:
            raise SystemExit(f"{contestant} did not end with the weights of the raw loop: the work is not equal")


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="raw torch and Treadle, deterministic gates only")
    parser.add_argument("--write", action="store_true", help=f"store the tables in {RESULTS.name}")
    parser.add_argument("--repetitions", type=int, default=3, help="sets of fresh processes (default 3)")
    parser.add_argument("--rounds", type=int, default=25, help="timed segments of 100 steps in each process")
    parser.add_argument("--only", choices=WORKLOADS, help="one workload")
    options = parser.parse_args()
    contestants, repetitions, rounds = JUDGED, 1, 1
    if not options.quick:
        contestants = OURS + [peer for peer in PEERS if installed(peer.framework)]
        repetitions, rounds = options.repetitions, options.rounds
    os.environ["OMP_NUM_THREADS"] = "1"

    measured = {}
    text = []
    for name in [options.only] if options.only else list(WORKLOADS):
        if agreement(name) > 1e-5:
            raise SystemExit(
                "the fused and the default optimizer disagree by more than rounding: the work is not equal"
            )
        measured[name] = compete(name, contestants, JUDGED, repetitions, rounds)
        check_weights(measured[name])
        part = [f"### {WORKLOADS[name].title}", "", table(HEAD, rows(measured[name])), ""]
        text += part
        print("\n".join(part), flush=True)
    judged = gates(measured, timed=not options.quick)
    if not options.quick:
        judged.append(Gate("s that `import treadle; treadle.Trainer` adds to `import torch`", import_seconds(9), 0.1))
    verdict = ["### Promises", "", table(Gate.HEAD, [gate.row() for gate in judged]), ""]
    print("\n".join(verdict))
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        how = __doc__.split("\n\n", 2)[2].strip()
        RESULTS.write_text(
            "\n".join(["# What a training loop costs", "", how, "", machine(PACKAGES.values()), "", *text, *verdict])
        )
        print(f"written to {RESULTS}")
    return 0 if all(gate.held for gate in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
