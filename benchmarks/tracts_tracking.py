"""Tracking: lines per second from 10,000 seeds, and many lines at once against one by one.

    python benchmarks/tracts_tracking.py             the tables, and whether the promises hold (exit 1 where not)
    python benchmarks/tracts_tracking.py --write     also stores them in benchmarks/results/tracts_tracking.md
    python benchmarks/tracts_tracking.py --quick     few seeds and no promise about time; for the tests

How it is measured. One thread; CPU time of the process. An LSTM 100-100 with fresh weights reads the 28 harmonics of a
phantom; steps of .5 mm, up to 25 mm in all, forward and then backward with the first half as its past: lines of about
50 points. Lines per second are the median of rounds over 10,000 seeds, seeds placed and short lines counted.

One by one is the same tracking written out in the obvious way: for each line a loop that reads the volume at one point,
advances the model by one row and looks at the mask. It is run on some of the 500 seeds, since it takes so long, and
compared per line, in turns with ours; its lines must be ours to 1e-3 voxels, or nothing is measured.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _report import Gate, machine, table

from treadle.tracts.getters.settings import GetterSettings
from treadle.tracts.models.direction_model import build_direction_model
from treadle.tracts.models.settings import ModelSettings
from treadle.tracts.phantom import make_phantom
from treadle.tracts.tracking.model_propagator import ModelPropagator
from treadle.tracts.tracking.seeds import place_seeds
from treadle.tracts.tracking.settings import TrackingSettings
from treadle.tracts.tracking.tracker import Tracked, track

RESULTS = Path(__file__).parent / "results" / "tracts_tracking.md"
SEEDS, AT_ONCE = 10_000, 500
LEAST, TIMES = 500.0, 10.0
"""Lines per second, and how many times as fast as one by one, that are promised."""
STEP, LONGEST = 0.5, 25.0


class Workload:
    """A phantom and a network."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        phantom = make_phantom(1)
        self.space, self.mask = phantom.space, phantom.tracking_mask
        volume = torch.from_numpy(phantom.subject().volume("input"))
        model = build_direction_model(ModelSettings(model="lstm", sizes=[100, 100]), GetterSettings(), volume.shape[3])
        self.propagator = ModelPropagator(model, volume)
        self.seeding = phantom.seeding_mask

    def seeds(self, count: int) -> np.ndarray:
        """Places in the bundles."""
        return place_seeds(self.seeding, seed=0, total=count)

    def track(self, seeds: np.ndarray, batch: int) -> Tracked:
        """As Treadle does it."""
        settings = TrackingSettings(step=STEP, longest=LONGEST, shortest=0, theta=180, batch=batch)
        return track(self.propagator, seeds, self.space, self.mask, settings, seed=0)

    @torch.inference_mode()
    def one_by_one(self, seeds: np.ndarray) -> list[np.ndarray]:
        """Line by line."""
        sizes, nothing = torch.from_numpy(self.space.voxel_sizes).float(), torch.zeros(1, 0)
        most = int(LONGEST / STEP) + 1
        found = []
        for seed in torch.from_numpy(seeds):
            points, first = [seed], None
            for way in ("forward", "backward"):
                state, previous, place = self.propagator.start(1), torch.zeros(1, 3), 0
                alone = len(points) == 1
                while True:
                    here = points[place][None]
                    direction, _, state = self.propagator.advance(state, here, previous, nothing)
                    if first is None:
                        first = direction
                    elif way == "backward" and alone and place == 0:
                        direction = -first
                    if place + 1 == len(points):
                        if float((direction * previous).sum()) < 0:
                            direction = -direction
                        new = (here + direction * STEP / sizes)[0]
                        voxel = new.floor().long().tolist()
                        inside = all(0 <= i < size for i, size in zip(voxel, self.space.shape, strict=True))
                        if len(points) >= most or not inside or not self.mask[tuple(voxel)]:
                            break
                        points.append(new)
                    previous = (points[place + 1][None] - here) * sizes
                    place += 1
                points = points[::-1] if way == "forward" else points
            found.append(torch.stack(points).numpy())
        return found


def cpu_seconds(action: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    action()
    return time.process_time() - start


def check(workload: Workload, seeds: np.ndarray) -> None:
    """Both ways of tracking give the same lines."""
    tracked = workload.track(seeds, len(seeds))
    lines = dict(zip(tracked.numbers.tolist(), range(len(tracked.lines)), strict=True))
    for number, line in enumerate(workload.one_by_one(seeds)):
        if len(line) > 1:
            ours = tracked.lines[lines[number]]
            assert ours.shape == line.shape and np.abs(ours - line).max() < 1e-3, "other lines"


def measure(quick: bool) -> tuple[list[list[str]], list[Gate]]:
    """The rows of the table, and the promises."""
    workload = Workload()
    many, few, alone, rounds = (300, 64, 3, 1) if quick else (SEEDS, AT_ONCE, 25, 7)
    seeds = workload.seeds(many)
    check(workload, seeds[:alone])
    points = float(workload.track(seeds[:few], few).lines.lengths.mean())
    whole = statistics.median(cpu_seconds(lambda: workload.track(seeds, 2000)) for _ in range(min(rounds, 3))) / many
    ours, theirs = [], []
    for turn in range(rounds):
        for side in (0, 1) if turn % 2 else (1, 0):
            if side:
                ours.append(cpu_seconds(lambda: workload.track(seeds[:few], few)) / few)
            else:
                part = seeds[turn * alone : (turn + 1) * alone]
                theirs.append(cpu_seconds(lambda part=part: workload.one_by_one(part)) / alone)  # type: ignore[misc]
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    spent = {
        f"{many:,} seeds": whole,
        f"{few} at once": statistics.median(ours),
        "one by one": statistics.median(theirs),
    }
    rows = [[name, f"{points:.0f}", f"{each * 1e3:.2f}", f"{1 / each:,.0f}"] for name, each in spent.items()]
    gates = [
        Gate(f"ms CPU a line, {many:,} seeds ({LEAST:g} lines/s)", whole * 1e3, 1e3 / LEAST),
        Gate(f"{few} at once over one by one ({TIMES:g} times as fast)", 1 / ratio, 1 / TIMES),
    ]
    return rows, gates


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few seeds, no promise about time")
    parser.add_argument("--write", action="store_true", help=f"store the tables in {RESULTS.name}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, gates = measure(options.quick)
    text = f"{machine(['numba'])}\n\n" + table(["tracking", "points", "ms CPU a line", "lines/s"], rows)
    if not options.quick:
        text += "\n\n" + table(Gate.HEAD, [gate.row() for gate in gates])
    print(text)
    if options.write:
        RESULTS.write_text(f"# Tracking\n\n{text}\n")
    return 0 if options.quick or all(gate.held for gate in gates) else 1


if __name__ == "__main__":
    sys.exit(main())
