"""What a checkpoint costs: how long training stands still, how long the write takes, what it does to the steps beside.

    python benchmarks/checkpoint.py              the tables, and whether Treadle keeps its promises (exit 1 where not)
    python benchmarks/checkpoint.py --write      also stores them in benchmarks/results/checkpoint.md
    python benchmarks/checkpoint.py --quick      small and once, only what does not depend on time; for the tests

How it is measured. All ways to save write the same fp32 tensors (16 equal ones) to the same file system, in one
process, in turns, after a round that is not counted except as "first stall" (Treadle's writer has found its memory by
then, as it does after a run's first step). "Stall" is the wall time after which training may go on and change the
tensors, "CPU" the training thread's CPU time in it (noise from elsewhere only ever adds to wall time), "total" the
wall time until the save is complete. All have the threads that torch takes by itself, as a user's run has; what copies
on one of them is a row of its own. Ratios are medians over the rounds of the ratio to the other *in the same
round*. A plain copy is `Tensor.copy_` into memory that was written to before; Treadle's passes large tensors by the
caches and can be quicker. Steps beside a write are those of a small network (1 thread), in turns alone and while 1 GB
is written. The demo-like run has 1.05 million parameters and Adam's moments and saves every 100 steps; its cost is
that of 100 steps with a checkpoint in their middle over that of 100 without, in turns, wall time and the CPU time of
all threads, the writer's too. The digest is SHA-256 (`hashlib`: OpenSSL, with the processor's SHA instructions where
it has them), as seconds of CPU time per GB of state.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from _beside import Cost, Steps, cost_of_saving, steps_beside
from _report import Gate, machine, table
from _savers import Saver, Tensors, Times, compete, everyone, state

from treadle.checkpoint.store import list_checkpoints, read_checkpoint

RESULTS = Path(__file__).parent / "results" / "checkpoint.md"
COPY = "a plain copy"
MB, GB = 10**6, 10**9


class Copy(Saver):
    """What a snapshot would cost without more ado: a copy into memory that is there already."""

    name = COPY

    def __init__(self) -> None:
        self.memory: Tensors = {}

    def start(self, tensors: Tensors, path: Path) -> object:  # type: ignore[override]
        if not self.memory:
            self.memory = {name: torch.empty_like(tensor) for name, tensor in tensors.items()}
        for name, tensor in tensors.items():
            self.memory[name].copy_(tensor)
        return lambda: None


def some_tensors(size: int) -> Tensors:
    """16 tensors of fp32, together `size` bytes."""
    return {f"model/layers.{index}.weight": torch.randn(size // 64) for index in range(16)}


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median ratio of what was measured in the same round."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def rows(measured: dict[str, Times], savers: list[Saver]) -> list[list[str]]:
    """One row for each way to save; milliseconds."""
    durable = {saver.name: saver.durable for saver in savers}

    def milliseconds(values: Sequence[float]) -> list[str]:
        return [f"{statistics.median(values) * 1e3:.0f}", f"{min(values) * 1e3:.0f}"]

    return [
        [
            name,
            f"{times.first * 1e3:.0f}",
            *milliseconds(times.stall),
            f"{min(times.cpu) * 1e3:.0f}",
            *milliseconds(times.total),
            "yes" if durable[name] else "no",
        ]
        for name, times in measured.items()
    ]


HEAD = ["way to save", "first stall, ms", "stall, median", "min", "CPU, min", "total, median", "min", "synced"]


def digest_seconds(rounds: int, size: int) -> float:
    """Seconds of CPU time per GB for the digest of a state: the least."""
    tensors, best = some_tensors(size), float("inf")
    for step in range(rounds):
        made = state(tensors, step)
        begin = time.thread_time()
        assert len(made.digest) == 64
        best = min(best, (time.thread_time() - begin) / size * GB)
    return best


def stall_gates(measured: dict[str, Times], size: int, what: str) -> list[Gate]:
    """The promises about standing still; the one over DCP is about large states, where standing still hurts."""
    ours = measured["Treadle"]
    gates = [
        Gate(f"ms of CPU that {what} stalls, per GB", min(ours.cpu) * 1e3 * GB / size, 100),
        Gate(f"stall / a plain copy ({what})", paired(ours.stall, measured[COPY].stall), 1.5),
    ]
    if size >= GB:
        gates.append(
            Gate(f"stall / DCP async_save's ({what})", paired(ours.stall, measured["DCP async_save"].stall), 1 / 6)
        )
    return gates


def beside_gates(steps: Steps, cost: Cost) -> list[Gate]:
    """The promises about the training beside a write."""
    return [
        Gate("p99 step time during a write / without", steps.ratio(0.99), 3),
        Gate("a checkpoint every 100 steps of the demo, share of its time", cost.share, 0.03),
        Gate("the same, share of its CPU time, all threads", cost.cpu_share, 0.03),
    ]


def beside_rows(steps: Steps, cost: Cost) -> list[list[str]]:
    """The tables' rows, milliseconds."""
    found = []
    for name, quantile in (("median", 0.5), ("p99", 0.99)):
        without, during = steps.milliseconds(quantile)
        found.append([f"step of a small network, {name}", f"{without:.2f}", f"{during:.2f}"])
    for name, pair in (("wall", (cost.without, cost.within)), ("CPU", (cost.cpu_without, cost.cpu_within))):
        found.append([f"100 steps of the demo, {name}", *(f"{statistics.median(part) * 1e3:.0f}" for part in pair)])
    return found


BESIDE = ["ms", "without checkpoints", "with"]


def check_equal_work(directory: Path, tensors: Tensors) -> None:
    """What Treadle writes can be read, is whole, and is what was given."""
    saver = everyone()[-1]
    saver.start(tensors, directory / "check" / "0")()
    (path,) = list_checkpoints(directory / "check")
    read = read_checkpoint(path)
    assert read.digest == state(tensors, 1).digest
    assert all(torch.equal(read.tensors[name], tensor) for name, tensor in tensors.items())
    saver.close()


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small and once; no verdict on time")
    parser.add_argument("--write", action="store_true", help=f"store the tables in {RESULTS.name}")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds of each kind (default 5)")
    parser.add_argument("--dir", type=Path, help="where to write checkpoints (default: the system's temporary folder)")
    options = parser.parse_args()
    if options.write and options.quick:
        parser.error("--write needs the whole measurement: leave out --quick")
    rounds = 1 if options.quick else options.rounds
    sizes = {"1 MB": MB} if options.quick else {"100 MB": 100 * MB, "1 GB": GB}
    torch.manual_seed(0)

    text, judged = [], []
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        directory = Path(name)
        check_equal_work(directory, some_tensors(MB))
        for what, size in sizes.items():
            savers = [*everyone(), Copy()]
            measured = compete(some_tensors(size), rounds, directory, savers)
            text += [f"### {what} of tensors", "", table(HEAD, rows(measured, savers)), ""]
            print("\n".join(text[-4:]), flush=True)
            judged += stall_gates(measured, size, what)
        torch.set_num_threads(1)
        steps = steps_beside(
            some_tensors(max(sizes.values())), rounds, directory / "steps", 20 if options.quick else 300
        )
        cost = cost_of_saving(1 if options.quick else 4 * rounds, directory, 256 if options.quick else 4096)
        text += ["### Training beside a write", "", table(BESIDE, beside_rows(steps, cost)), ""]
        print("\n".join(text[-4:]), flush=True)
    judged += beside_gates(steps, cost)
    judged.append(Gate("s of CPU for the digest of 1 GB of state (SHA-256)", digest_seconds(3, max(sizes.values())), 1))
    if options.quick:
        return 0
    verdict = ["### Promises", "", table(Gate.HEAD, [gate.row() for gate in judged]), ""]
    print("\n".join(verdict))
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        how = __doc__.split("\n\n", 2)[2].replace("\n", " ").strip()
        RESULTS.write_text("\n".join(["# Checkpoints", "", machine(["safetensors"]), "", how, "", *text, *verdict]))
        print(f"written to {RESULTS}")
    return 0 if all(gate.held for gate in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
