"""What eight curves of a million values cost the studio: to read, to keep, to look at, to send.

    python benchmarks/studio_curves.py              the table, and whether Treadle keeps its promises (exit 1 where not)
    python benchmarks/studio_curves.py --quick      a hundredth of it, no promise about time; for the tests

How it is measured. A log of lines with eight values each, as a run writes it, is read by what the studio reads runs
with, in a process that has done nothing else. Times are those of the processor, in this process: of many questions the
median, over ranges drawn at random. "memory" is what the curves take by their own account; "process" by how much the
resident memory of the process has grown, the program's own code included. "through the studio" is the time from a
request of `StudioClient` to its answer, over a real socket on this machine, by the clock on the wall.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _report import Gate, machine, table

from treadle.studio import protocol
from treadle.studio.client import StudioClient
from treadle.studio.curves.lines import Follower
from treadle.studio.curves.series import RunSeries
from treadle.studio.hook import Studio
from treadle.testing import Line, line_data

CURVES = 8
NAMES = [f"value{number}" for number in range(CURVES)]


def write_log(run: Path, count: int) -> None:
    """A log of `count` lines."""
    values = np.random.default_rng(0).normal(size=(count, CURVES))
    with open(run / "metrics.jsonl", "w") as log:
        for step, row in enumerate(values.tolist(), 1):
            named = ", ".join(f'"{name}": {value!r}' for name, value in zip(NAMES, row, strict=True))
            head = f'{{"split": "train", "step": {step}, "epoch": {step // 1000}, "time": {1e9 + step * 0.01:.6f}'
            log.write(f'{head}, "values": {{{named}}}}}\n')


def resident() -> float:
    """Resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def cpu(function: Callable[[], Any]) -> float:
    """Milliseconds of the processor for one call."""
    start = time.process_time()
    function()
    return (time.process_time() - start) * 1e3


def ranges(count: int, number: int) -> list[tuple[float, float]]:
    """Ranges of steps, from all of them down to a ten thousandth."""
    draw = np.random.default_rng(1)
    widths = count * 10.0 ** -draw.uniform(0, 4, number)
    starts = draw.uniform(0, 1, number) * (count - widths)
    return [(float(start), float(start + width)) for start, width in zip(starts, widths, strict=True)]


def questions(series: RunSeries, count: int, number: int) -> list[tuple[str, list[float], int]]:
    """What each kind of question takes: milliseconds, and the most points of an answer."""
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("steps, 1,000 points", {}),
        ("steps, 4,000 points", {"most": 4000}),
        ("epochs", {"x": "epoch"}),
        ("seconds", {"x": "time"}),
        ("steps, logarithmic", {"log_x": True}),
        ("steps, smoothed by 0.99", {"smoothing": 0.99}),
    ]
    found = []
    for label, asked in kinds:
        scale = {"epoch": 1e-3, "time": 1e-2}.get(asked.get("x", "step"), 1.0)
        most = 0
        took: list[float] = []
        for name in NAMES:
            series.draw(f"train/{name}", **asked)  # levels and averages are there; their making is the first row
        for low, high in ranges(count, number):
            name = NAMES[len(took) % CURVES]
            start = time.process_time()
            drawn = series.draw(f"train/{name}", low=low * scale, high=high * scale, **asked)
            took.append((time.process_time() - start) * 1e3)
            most = max(most, len(drawn.x))
        found.append((label, took, most))
    return found


def through_the_studio(run: Path, count: int, number: int) -> tuple[list[float], int]:
    """Milliseconds from request to answer, over a socket, and the most bytes of an answer."""
    trainer = Line(data=line_data(), batch_size=20, max_steps=1, run_dir=run.parent / "v999")
    with Studio(trainer, quiet=True, open_browser=False) as studio, StudioClient(studio.url) as client:
        name = f"{run.parent.name}/{run.name}"
        client.request(protocol.Curves(id=0, key=f"train/{NAMES[0]}", run=name))
        took, most = [], 0
        for low, high in ranges(count, number):
            start = time.perf_counter()
            asked = protocol.Curves(id=0, key=f"train/{NAMES[0]}", run=name, low=low, high=high, points=4000)
            _, data = client.request(asked)
            took.append((time.perf_counter() - start) * 1e3)
            most = max(most, len(data))
    trainer.close()
    return took, most


def ninety_five(values: list[float]) -> float:
    """The time within which 95 of 100 are answered."""
    return sorted(values)[int(0.95 * (len(values) - 1))]


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and say whether all promises hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a hundredth of it, no promise about time")
    options = parser.parse_args(arguments)
    count, number = (10_000, 20) if options.quick else (1_000_000, 200)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "curves" / "v001"
        run.mkdir(parents=True)
        (run / "environment.json").write_text("{}")
        write_log(run, count)
        size = (run / "metrics.jsonl").stat().st_size / 1e6
        before = resident()
        series = RunSeries(spill=True)
        follower = Follower(run, series)
        reading = cpu(follower.read)
        again = statistics.median(cpu(follower.read) for _ in range(20))
        building = statistics.median(cpu(partial(series.draw, f"train/{name}")) for name in NAMES)
        kept, grown = series.nbytes / 1e6, resident() - before
        found = questions(series, count, number)
        kept_smoothed, grown_smoothed = series.nbytes / 1e6, resident() - before
        wire, sent = through_the_studio(run, count, number)
    load = os.getloadavg()[0]
    print(f"# Curves in the studio: {CURVES} of {count:,} values\n")
    print((__doc__ or "").split("tests\n\n")[1].strip() + "\n")
    print(machine(["msgspec", "starlette", "uvicorn", "websockets"]) + f" Load while it ran: {load:.1f}.\n")
    print(f"The log has {size:.0f} MB.\n")
    rows = [
        ["reading the log, once", f"{reading:,.0f} ms"],
        ["reading it again, where nothing is new", f"{again:.3f} ms"],
        ["building the levels of a curve, once", f"{building:.1f} ms"],
        ["memory of all curves", f"{kept:.1f} MB"],
        ["the same with all of them smoothed", f"{kept_smoothed:.1f} MB"],
        ["process, grown by", f"{grown:.1f} MB"],
        ["process, with all of them smoothed", f"{grown_smoothed:.1f} MB"],
    ]
    print(table(["", "measured"], rows) + "\n")
    head = ["question", "median ms", "95 of 100 ms", "most points"]
    rows = [
        [label, f"{statistics.median(took):.3f}", f"{ninety_five(took):.3f}", str(most)] for label, took, most in found
    ]
    rows.append(
        [
            "4,000 points through the studio",
            f"{statistics.median(wire):.3f}",
            f"{ninety_five(wire):.3f}",
            f"{sent // 32}",
        ]
    )
    print(table(head, rows) + "\n")
    gates = [
        Gate("most points of a curve", max(most for _, _, most in found), 4000),
        Gate("most points through the studio", sent / 32, 4000),
    ]
    if not options.quick:
        gates += [
            Gate("building the levels of a curve, ms", building, 41),
            Gate("a question of 1,000 points, ms", statistics.median(found[0][1]), 0.1),
            Gate("any question, 95 of 100, ms", max(ninety_five(took) for _, took, _ in found), 50),
            Gate("zoom answered through the studio, 95 of 100, ms", ninety_five(wire), 50),
            Gate("memory of all curves, all of them smoothed, MB", kept_smoothed, 64),
            Gate("process grown by, all of them smoothed, MB", grown_smoothed, 64),
        ]
    print(table(Gate.HEAD, [gate.row() for gate in gates]))
    return 0 if all(gate.held for gate in gates) else 1


if __name__ == "__main__":
    sys.exit(main())
