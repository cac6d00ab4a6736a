"""Streamlines: reading a volume along them, and their feed lazily and in memory.

    python benchmarks/tracts_data.py            tables and gates on the terminal; exit code 1 where a gate does not hold
    python benchmarks/tracts_data.py --quick    few rounds, little data; no gates
    python benchmarks/tracts_data.py --write    also writes benchmarks/results/tracts_data.md

Interpolation: a volume of 80 x 80 x 40 voxels, 100,000 points, on two threads: along 2,000 lines of 50 points a quarter
of a voxel apart, as a batch has them, and at random. Numba is a loop as one would write it down, NumPy eight gathers,
torch `grid_sample` (`_plain_trilinear.py`). All give the same to 1e-4, and take turns; Numba is handed what it writes
into, the others make it. A turn is three calls, the first of them not counted. Times are medians over rounds of a
turn's median, ratios medians of the ratio within a round.

The feed: subjects with a volume of 80 x 80 x 40 x 28 and lines of 20 to 60 points, in an HDF5 file as `treadle tracts
prepare` writes it; batches of 100 lines, all of an epoch, one thread, in fresh processes. "few subjects" has batches of
one subject each, ten in a row, and a cache of two volumes. Memory is what the process takes at its peak, beyond what it
takes with everything imported. Lazily and in memory give the same bits (asserted).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _plain_trilinear import by_torch, in_numba, in_numpy
from _report import Gate, machine, table

from treadle.engine.memory import keep_freed_memory
from treadle.kernels.trilinear import interpolate
from treadle.tracts.feeds.settings import LinesSettings
from treadle.tracts.feeds.tract_feed import TractFeed
from treadle.tracts.space import Space
from treadle.tracts.streamlines import Streamlines
from treadle.tracts.subject import MemorySubject, TractData

SHAPE = (80, 80, 40)
POINTS = {6: 5e7, 28: 1.5e7}
"""Points per second that there have to be, by features."""
SHARES = {6: 1.1, 28: 0.9}
"""The share of the time of Numba, as one writes it down, that ours may take; with few features it is as good."""
NUMPY, TORCH, NUMBA, OURS = "NumPy", "torch grid_sample", "Numba, as written down", "treadle"
MODES = {
    "in memory": {},
    "lazily": {"lazy": True, "cache_mb": 4096},
    "lazily, few subjects": {"lazy": True, "cache_mb": 60, "subjects_per_batch": 1, "cycles": 10},
    "in memory, few subjects": {"subjects_per_batch": 1, "cycles": 10},
}
RESULTS = Path(__file__).with_name("results") / "tracts_data.md"


def along_lines(count: int, rng: np.random.Generator) -> np.ndarray:
    """(50 * count, 3) float32: straight lines inside the volume."""
    start = rng.uniform(13, np.array(SHAPE) - 13, (count, 1, 3))
    along = rng.normal(size=(count, 1, 3))
    steps = 0.25 * np.arange(50)[None, :, None]
    return (start + along / np.linalg.norm(along, axis=2, keepdims=True) * steps).reshape(-1, 3).astype(np.float32)


def contestants(volume: np.ndarray, points: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    """What each makes of the points (n, 3): (n, features)."""
    out = np.empty((len(points), volume.shape[3]), np.float32)
    whole, places = torch.from_numpy(volume), torch.from_numpy(points)
    first = whole.movedim(3, 0).contiguous()

    def numba_loop() -> np.ndarray:
        in_numba(volume, points, out)
        return out

    return {
        NUMPY: lambda: in_numpy(volume, points),
        TORCH: lambda: by_torch(first, places).numpy(),
        NUMBA: numba_loop,
        OURS: lambda: interpolate(whole, places).numpy(),
    }


def measure(features: int, points: np.ndarray, rounds: int) -> dict[str, list[float]]:
    """Nanoseconds per point of each round, by contestant."""
    volume = np.random.default_rng(features).normal(size=(*SHAPE, features)).astype(np.float32)
    field = contestants(volume, points)
    wanted = field[NUMPY]()
    for name, call in field.items():
        if not np.abs(call() - wanted).max() < 1e-4:
            sys.exit(f"{name} does not read what NumPy does")
    times: dict[str, list[float]] = {name: [] for name in field}
    for index in range(rounds):
        for name in list(field) if index % 2 else reversed(list(field)):
            turn = []
            for _ in range(3):
                start = time.perf_counter()
                field[name]()
                turn.append(1e9 * (time.perf_counter() - start) / len(points))
            times[name].append(statistics.median(turn[1:]))
    return times


def interpolation(quick: bool) -> tuple[str, list[Gate]]:
    """The table, and the gates."""
    torch.set_num_threads(2)
    rng = np.random.default_rng(0)
    count = 400 if quick else 2000
    places = {
        "lines": along_lines(count, rng),
        "random": (rng.random((50 * count, 3)) * SHAPE).astype(np.float32),
    }
    rows, gates = [], []
    for features in (6, 28, 65):
        for kind, points in places.items():
            print(f"{features} features, {kind} ...", file=sys.stderr, flush=True)
            times = measure(features, points, 3 if quick else 15)
            for name, found in times.items():
                ratio = statistics.median(a / b for a, b in zip(times[NUMBA], found, strict=True))
                rate = 1e3 / statistics.median(found)
                rows.append([str(features), kind, name, f"{rate:.1f}", f"{ratio:.2f}"])
            if features in POINTS and kind == "lines":
                most = 1e9 / POINTS[features]
                gates.append(Gate(f"{features} features: ns per point", statistics.median(times[OURS]), most))
                share = statistics.median(a / b for a, b in zip(times[OURS], times[NUMBA], strict=True))
                gates.append(
                    Gate(f"{features} features: share of the time of Numba as written down", share, SHARES[features])
                )
    return table(["features", "points", "", "M points/s", "times Numba"], rows), gates


# The feed ---------------------------------------------------------------------------------------------------------


def write_data(path: Path, subjects: int, lines: int) -> None:
    """A prepared file."""
    from treadle.tracts.prepared_writer import write_prepared

    made = []
    for number in range(subjects):
        rng = np.random.default_rng(number)
        volume = rng.normal(size=(*SHAPE, 28)).astype(np.float32)
        whole = along_lines(lines, rng).reshape(lines, 50, 3)
        packed = Streamlines.of([line[: rng.integers(20, 51)] for line in whole])
        space = Space(np.diag([2.0, 2.0, 2.0, 1.0]), SHAPE)
        made.append(MemorySubject(f"sub-{number}", space, {"fodf": (volume, "sh")}, {"lines": packed}))
    write_prepared(path, TractData(tuple(made)))


def run_feed(path: Path, mode: str, epochs: int) -> None:
    """In a process of its own: say, as JSON, seconds per epoch, peak megabytes, hits and a digest of the batches."""
    from treadle.tracts.prepared import open_prepared

    torch.set_num_threads(1)
    keep_freed_memory()
    interpolate(torch.zeros(2, 2, 2, 28), torch.zeros(1, 3))
    before = peak_megabytes()
    feed = TractFeed(open_prepared(path).training, LinesSettings(**MODES[mode]), training=True, ends=False)
    digest, seconds = hashlib.sha256(), []
    for epoch in range(epochs):
        start = time.perf_counter()
        for position, batch in enumerate(feed.iterate(epoch)):
            if epoch == 0 and position < 5:
                digest.update(batch.features.numpy().tobytes())
        seconds.append(time.perf_counter() - start)
    taken = peak_megabytes() - before
    feed.close()
    told = {"seconds": seconds, "megabytes": taken, "hits": feed.hits, "digest": digest.hexdigest()}
    print(json.dumps(told))


def peak_megabytes() -> float:
    """The most memory this process ever had. What `getrusage` tells may be that of the process it came from."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def feeds(quick: bool) -> tuple[str, list[Gate]]:
    """The table, and the gates."""
    subjects, lines, epochs, rounds = (2, 300, 2, 1) if quick else (8, 2500, 4, 3)
    found: dict[str, list[dict]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "lines.h5"
        write_data(path, subjects, lines)
        for _ in range(rounds):
            for mode in MODES:
                print(f"the feed {mode} ...", file=sys.stderr, flush=True)
                command = [sys.executable, __file__, "--feed", str(path), mode, str(epochs)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found[mode].append(json.loads(done.stdout))
    for end in ("", ", few subjects"):
        if found[f"in memory{end}"][0]["digest"] != found[f"lazily{end}"][0]["digest"]:
            sys.exit(f"the batches made lazily{end} are others than those in memory")

    def middle(mode: str, what: Callable[[dict], float]) -> float:
        return statistics.median(what(each) for each in found[mode])

    rows = []
    for mode in MODES:
        first, later = middle(mode, lambda e: e["seconds"][0]), middle(mode, lambda e: min(e["seconds"][1:]))
        hits = found[mode][0]["hits"]
        told = "-" if hits is None else f"{100 * hits:.0f} %"
        rows.append([mode, f"{first:.2f}", f"{later:.2f}", f"{middle(mode, lambda e: e['megabytes']):.0f}", told])
    share = middle("lazily, few subjects", lambda e: e["megabytes"]) / middle("in memory", lambda e: e["megabytes"])
    gates = [Gate("lazily, few subjects: share of the memory of in memory", share, 0.6)]
    head = ["", "first epoch, s", "a later one, s", "peak, MB", "hits"]
    return f"{subjects} subjects of {lines} lines.\n\n{table(head, rows)}", gates


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, little data; no gates")
    parser.add_argument("--write", action="store_true", help="also write benchmarks/results/tracts_data.md")
    parser.add_argument("--feed", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.feed:
        run_feed(Path(options.feed[0]), options.feed[1], int(options.feed[2]))
        return 0
    keep_freed_memory()
    parts = [interpolation(options.quick), feeds(options.quick)]
    gates = [] if options.quick else [gate for _, found in parts for gate in found]
    texts = [text for text, _ in parts]
    if gates:
        texts.append(table(Gate.HEAD, [gate.row() for gate in gates]))
    text = "\n\n".join([*texts, machine(["numba", "h5py"])])
    print(text)
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        method = (__doc__ or "").split("\n\n", 2)[-1].strip()
        RESULTS.write_text(f"# Streamlines: interpolation and feeds\n\n{method}\n\n{text}\n", encoding="utf-8")
    return 0 if all(gate.held for gate in gates) else 1


if __name__ == "__main__":
    sys.exit(main())
