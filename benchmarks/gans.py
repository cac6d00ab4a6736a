"""One iteration of pix2pix, discriminator and generator: the plain recipe, a fast loop by hand, Lightning, Treadle.

    python benchmarks/gans.py              the tables, and whether Treadle keeps its promises (exit 1 where not)
    python benchmarks/gans.py --write      also stores them in benchmarks/results/gans.md
    python benchmarks/gans.py --quick      tiny networks, no promises about time; for the tests

How it is measured. All loops train the same networks from the same weights on the same pictures in the same order, at
batch 1 with instance norm. The plain recipe and Lightning have torch's own layers, Treadle and the fast loop those of
`treadle.gans` (convolutions on a few pixels as matrix products). Each runs in a fresh process of its own, on two
threads; all of them are alive at once (12 GB at 256 px) and take turns of a few steps, so that what slows the machine
slows all of them alike. The wall clock is read inside the step function, after a warm-up, at the start of a step. "Of
plain" is the median over the rounds of the ratio to the plain recipe *in the same round*.

The plain recipe is what every tutorial writes: float32, Adam as torch builds it by default, and the generator's loss
goes back through the discriminator's weights too. The fast loop is what one can do by hand: bf16 autocast, fused
Adam, no gradients of the discriminator's weights in the generator's turn. Treadle does these by itself; it also
checks every loss and gradient for NaN and Inf, and averages its loss terms. "On disk" it writes all that a run does;
no checkpoint falls into what is timed (checkpoint.py measures those). Lightning is driven by manual optimization with
everything else switched off: with the plain step, and with the fast one.

Equal work: Treadle must end with the weights of the fast loop bit for bit, with its moving average too, and Lightning
with those of the plain recipe. Lightning's bf16 rounds differently, as it casts the weights anew at every use; where
rounding differs, the generators must be equally good after as many steps.

What Treadle adds to the fast loop is too little for the wall clock. For this, both take single steps in turns in one
process on one thread, who goes first alternates, and its CPU time is read. What counts is the median of the paired
differences, the least of three fresh processes. This is also done with the same layers of one feature each, which
leaves next to nothing but overhead.

Meant for two idle cores that multiply in bf16; some six minutes. Lightning comes with `pip install 'treadle[bench]'`,
and is left out where it is missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from _gan_peers import LOOPS
from _gan_workload import THIN, TINY, WORKLOADS, Workload
from _report import Gate, machine, table
from _turns import Worker

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "gans.md"

NAMES = {
    "plain": "plain recipe",
    "fast": "fast loop by hand",
    "fast+ema": "fast loop by hand, moving average",
    "treadle": "Treadle",
    "treadle+ema": "Treadle, moving average",
    "treadle+ema on disk": "Treadle, moving average, on disk",
    "lightning plain": "Lightning, plain recipe",
    "lightning fast": "Lightning, bf16, fused, toggled",
}
QUICK = ["plain", "fast", "treadle"]
EQUAL = {
    "treadle": "fast",
    "treadle+ema": "fast+ema",
    "treadle+ema on disk": "fast+ema",
    "lightning plain": "plain",
}
"""Who must end with whose weights."""

ALIKE = 0.1
"""How far, as a share, the final errors of two generators may differ whose loops round differently."""


@dataclass
class Figure:
    """What was measured of one loop."""

    seconds: list[float] = field(default_factory=list)
    """Per step, one entry for each round."""
    digest: str = ""
    l1: float = float("nan")
    """What is left of the generator's error at the end."""


class Player(Worker):
    """A process that trains one workload with one loop."""

    def __init__(self, loop: str, workload: str, threads: int, directory: Path) -> None:
        self.contestant, self.log = loop, directory / f"{loop}.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "_gan_peers.py"), loop, workload, str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
            )


def compete(name: str, loops: Sequence[str], rounds: int, threads: int) -> dict[str, Figure]:
    """Let `loops` train workload `name`, taking turns."""
    figures = {}
    with tempfile.TemporaryDirectory() as directory:
        players: list[Player] = []
        try:
            for loop in loops:
                players.append(Player(loop, name, threads, Path(directory)))
                players[-1].answer()  # started, warm, and waiting: one at a time
            for index in range(rounds):
                # Another one begins each round, and every other round goes backwards: nobody always follows the same.
                start = index % len(players)
                order = [*players[start:], *players[:start]]
                for player in order if index % 2 == 0 else reversed(order):
                    player.go()
                    answer = player.answer()
                    if index == rounds - 1:
                        figures[player.contestant] = Figure(**json.loads(answer))
        finally:
            for player in players:
                player.process.kill()
                player.process.communicate()
    return {loop: figures[loop] for loop in loops}


def check_work(figures: dict[str, Figure]) -> None:
    """Raise SystemExit unless all have done the same work."""
    for loop, other in EQUAL.items():
        if loop in figures and figures[loop].digest != figures[other].digest:
            raise SystemExit(f"{NAMES[loop]} did not end with the weights of {NAMES[other]}: the work is not equal")
    for loop, figure in figures.items():
        if not abs(figure.l1 / figures["plain"].l1 - 1) <= ALIKE:
            raise SystemExit(f"{NAMES[loop]} ended at an L1 of {figure.l1:.4f}, plain at {figures['plain'].l1:.4f}")


def ratio(figures: dict[str, Figure], loop: str, base: str = "plain") -> float:
    """Time per step as a share of that of `base`: the median over the rounds."""
    return statistics.median(
        ours / theirs for ours, theirs in zip(figures[loop].seconds, figures[base].seconds, strict=True)
    )


HEAD = ["loop", "ms/iteration, median", "min", "of plain", "L1 at the end"]


def rows(figures: dict[str, Figure]) -> list[list[str]]:
    """One row for each loop."""
    return [
        [
            NAMES[loop],
            f"{statistics.median(figure.seconds) * 1e3:.1f}",
            f"{min(figure.seconds) * 1e3:.1f}",
            f"{ratio(figures, loop):.3f}",
            f"{figure.l1:.4f}",
        ]
        for loop, figure in figures.items()
    ]


@dataclass(frozen=True)
class Overhead:
    """What Treadle adds to the fast loop, on one thread: CPU milliseconds and Python calls per step."""

    HEAD = ["networks", "by hand, ms", "Treadle adds, ms", "%", "Python calls by hand", "Treadle adds"]

    hand: float
    added: float
    hand_calls: float
    added_calls: float

    @property
    def percent(self) -> float:
        """The time that is added, of the time by hand."""
        return self.added / self.hand * 100

    def row(self, title: str) -> list[str]:
        """Its row in a table."""
        times = f"{self.hand:.2f}", f"{self.added:+.3f}", f"{self.percent:+.2f}"
        return [title, *times, f"{self.hand_calls:.0f}", f"{self.added_calls:+.0f}"]


def overhead(name: str, pairs: int, repetitions: int) -> Overhead:
    """Compare single steps in fresh processes; of the repetitions the least counts: noise comes and goes."""
    found = []
    for _ in range(repetitions):
        worker = subprocess.run(
            [sys.executable, str(HERE / "_gan_overhead.py"), name, str(pairs)], capture_output=True, text=True
        )
        if worker.returncode:
            raise SystemExit(f"comparing single steps failed:\n{worker.stderr[-3000:]}")
        steps = json.loads(worker.stdout)
        differences = [ours - theirs for ours, theirs in zip(steps["treadle"], steps["hand"], strict=True)]
        hand_calls, calls = (statistics.median(steps[f"{who} calls"]) for who in ("hand", "treadle"))
        hand, added = (statistics.median(times) * 1e3 for times in (steps["hand"], differences))
        found.append(Overhead(hand, added, hand_calls, calls - hand_calls))
    return min(found, key=lambda one: one.added)


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny networks, three loops, no promises about time")
    parser.add_argument("--write", action="store_true", help=f"store the tables in {RESULTS.name}")
    parser.add_argument("--only", choices=[*WORKLOADS, "overhead"], help="one part")
    options = parser.parse_args()
    began = time.perf_counter()
    workloads: dict[str, Workload] = {"tiny": TINY} if options.quick else WORKLOADS
    thin, pairs, repetitions, threads = ("tiny", 4, 1, 1) if options.quick else ("thin", 50, 3, 2)
    peers = importlib.util.find_spec("lightning") is not None
    loops = QUICK if options.quick else [loop for loop in LOOPS if peers or not loop.startswith("lightning")]

    text, gates = [], []
    for name, workload in workloads.items():
        if options.only in (None, name):
            figures = compete(name, loops, workload.rounds, threads)
            check_work(figures)
            part = [f"### {workload.title}", "", table(HEAD, rows(figures)), ""]
            print("\n".join(part), flush=True)
            text += part
            if name == "256":
                gates.append(
                    Gate("Treadle / plain recipe, time per iteration (256 px)", ratio(figures, "treadle"), 0.5)
                )
    if options.only in (None, "overhead"):
        os.environ["OMP_NUM_THREADS"] = "1"
        lean = overhead(thin, pairs, repetitions)
        lines = [lean.row((TINY if options.quick else THIN).title)]
        gates.append(Gate("Python calls per iteration over the fast loop by hand", lean.added_calls, 120))
        if not options.quick:
            recipe = overhead("recipe", pairs, repetitions)
            lines.insert(0, recipe.row(WORKLOADS["recipe"].title))
            gates.append(Gate("% of CPU time over the fast loop by hand (recipe)", recipe.percent, 1))
        part = ["### What the trainer adds", "", table(Overhead.HEAD, lines), ""]
        print("\n".join(part), flush=True)
        text += part
    verdict = ["### Promises", "", table(Gate.HEAD, [gate.row() for gate in gates]), ""] if gates else []
    print("\n".join(verdict))
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        how = __doc__.split("\n\n", 2)[2].strip()
        head = ["# What an iteration of pix2pix costs", "", how, "", machine(["lightning"]), ""]
        RESULTS.write_text("\n".join([*head, *text, *verdict]))
        print(f"written to {RESULTS}")
    print(f"{time.perf_counter() - began:.0f} s in all")
    return 0 if all(gate.held for gate in gates) else 1


if __name__ == "__main__":
    sys.exit(main())
