"""What a row edit costs at scale, over copying what is edited: time, and peak memory.

    python benchmarks/rows.py             the table, and whether Treadle keeps its promises (exit 1 where not)
    python benchmarks/rows.py --write     also stores it in benchmarks/results/rows.md
    python benchmarks/rows.py --quick     a thousandth of the rows, and no promise about time; for the tests

How it is measured. A cloud of a million Gaussians, 59 floats each in six parameters, with the moments of one fused
Adam: 708 MB. Each round clones all of it (`clone()` of parameters and moments), then prunes a twentieth of the rows and
adds as many, then replaces a twentieth with their moments zeroed, all in one process on two threads; the ratios are
those of neighbours, the median of the rounds counts. New rows are gathered before the clock starts: they are the
strategy's work. Peak memory is what the system counts (VmHWM, set back before), less what the process had besides the
cloud.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from _report import Gate, machine, table
from torch import Tensor, nn

from treadle import RowEdit

RESULTS = Path(__file__).parent / "results" / "rows.md"
SHAPES: dict[str, tuple[int, ...]] = {
    "means": (3,), "quaternions": (4,), "log_scales": (3,), "logits": (), "dc": (3,), "rest": (15, 3),
}  # fmt: skip
ROWS = 1_000_000
SHARE = 20
"""One row of so many is edited."""
ROUNDS = 5


class Cloud:
    """The parameters, and the optimizer that has taken a step."""

    def __init__(self, rows: int) -> None:
        self.rows = {name: nn.Parameter(torch.randn(rows, *shape)) for name, shape in SHAPES.items()}
        self.optimizer = torch.optim.Adam([{"params": [row]} for row in self.rows.values()], fused=True)
        for parameter in self.rows.values():
            parameter.grad = torch.randn_like(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def tensors(self) -> list[Tensor]:
        """Parameters and moments."""
        moments = [state[key] for state in self.optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")]
        return [*(parameter.detach() for parameter in self.rows.values()), *moments]

    def megabytes(self) -> float:
        """Of parameters and moments."""
        return sum(tensor.nbytes for tensor in self.tensors()) / 1e6


def seconds(action: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def resident(field: str) -> float:
    """VmRSS or VmHWM of this process, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(field))


def forget_peak() -> None:
    """Set VmHWM back to what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def measure(rows: int, rounds: int) -> tuple[dict[str, list[float]], float]:
    """Seconds of each operation by round, and the peak as a multiple of the cloud."""
    cloud, generator = Cloud(rows), torch.Generator().manual_seed(0)
    found: dict[str, list[float]] = {"clone": [], "prune and add": [], "replace": []}
    peak = 0.0
    for _ in range(rounds):
        found["clone"].append(seconds(lambda: [tensor.clone() for tensor in cloud.tensors()]))
        order = torch.randperm(rows, generator=generator)
        dead, parents = order[: rows // SHARE], order[rows // SHARE : 2 * (rows // SHARE)]
        keep = torch.ones(rows, dtype=torch.bool).index_fill(0, dead, False)
        new = {name: parameter.detach()[parents] for name, parameter in cloud.rows.items()}

        def prune_and_add(keep: Tensor = keep, new: dict[str, Tensor] = new) -> None:
            with RowEdit(cloud.rows, [cloud.optimizer]) as edit:
                edit.keep(keep)
                edit.append(new)

        def replace(dead: Tensor = dead, new: dict[str, Tensor] = new) -> None:
            with RowEdit(cloud.rows, [cloud.optimizer]) as edit:
                edit.replace(dead, new)

        besides = resident("VmRSS") - cloud.megabytes()
        forget_peak()
        found["prune and add"].append(seconds(prune_and_add))
        found["replace"].append(seconds(replace))
        peak = max(peak, (resident("VmHWM") - besides) / cloud.megabytes())
        assert all(len(tensor) == rows for tensor in cloud.tensors())
    return found, peak


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true", help="store the table in benchmarks/results/rows.md")
    parser.add_argument("--quick", action="store_true", help="few rows, no promise about time")
    options = parser.parse_args()
    rows, rounds = (ROWS // 1000, 2) if options.quick else (ROWS, ROUNDS)
    torch.set_num_threads(2)
    found, peak = measure(rows, rounds)

    def over_clone(name: str) -> float:
        return statistics.median(ours / clone for ours, clone in zip(found[name], found["clone"], strict=True))

    lines = [
        [name, f"{statistics.median(times) * 1e3:.0f}", f"{min(times) * 1e3:.0f}", f"{over_clone(name):.2f}"]
        for name, times in found.items()
    ]
    gates = [Gate(f"{name} / clone()", over_clone(name), 3) for name in ("prune and add", "replace")]
    gates.append(Gate("peak memory / parameters and moments", peak, 2.2))
    gates = [] if options.quick else gates
    text = f"{machine()}\n\n{rows:,} rows of 59 floats with Adam's moments, a twentieth of them edited.\n\n"
    text += table(["operation", "ms, median", "ms, least", "over clone()"], lines)
    if gates:
        text += "\n\n" + table(Gate.HEAD, [gate.row() for gate in gates])
    print(text)
    if options.write:
        RESULTS.write_text(f"# Row edits at scale\n\n{text}\n\n{(__doc__ or '').partition('How it is')[1]}"
                           f"{(__doc__ or '').partition('How it is')[2]}")  # fmt: skip
    return 0 if all(gate.held for gate in gates) else 1


if __name__ == "__main__":
    sys.exit(main())
