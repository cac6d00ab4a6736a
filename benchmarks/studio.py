"""What a studio costs a run that is looked at and driven, and that looking changes nothing.

    python benchmarks/studio.py              the tables, and whether the promises hold (exit 1 where not); 4 minutes
    python benchmarks/studio.py --write      also stores them in benchmarks/results/studio.md
    python benchmarks/studio.py --quick      small and once, only what does not depend on time; for the tests

How it is measured. A real studio on loopback and a real client, in the process of the run: they share its interpreter's
lock, so what is measured is the worst case. "Share" is of the wall clock over ten seconds: what the studio says went
into drawing, and what the frames that came say of themselves. Digests are those of a run's end, without a studio and
under clients that take 0 (a hidden tab), 1, 10 and as many frames a second as come. A pause is the time from asking
until the answer that no further step is taken, over 200 tries at random moments, less the median step. Fast steps are
those of a bare trainer, with a client that hears all events and without a studio, in turns. Memory is the resident
memory of a process that trains a picture, with a studio of which a client elsewhere sees a view, and then the curves of
a long run, less that of one that trains it alone: the median of some pairs.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from timeit import repeat
from typing import Any

import numpy as np
import psutil
from _report import Gate, machine, table
from studio_curves import NAMES, write_log

from treadle.engine.trainer import Trainer
from treadle.fields.image_trainer import ImageTrainer
from treadle.images.picture import Picture
from treadle.studio.client import StudioClient
from treadle.studio.hook import Studio
from treadle.studio.protocol import Curves, Frame, Share, Watch
from treadle.testing import Line, capture, line_data

SETTLING = 6.0
"""Seconds until a process has what it needs for what it does."""
RESULTS = Path(__file__).parent / "results" / "studio.md"
SHARES = (0.05, 0.2, 0.5, 0.8)
RATES: tuple[float | None, ...] = (None, 0.0, 1.0, 10.0, -1.0)
"""Frames a second: None is no studio, 0 a hidden tab, -1 no bar."""


def photograph(side: int) -> Picture:
    """Something to fit: waves of many lengths."""
    y, x = np.mgrid[:side, :side] / side
    waves = [np.sin(2 * np.pi * (f * x + g * y) + f) for f, g in ((2, 3), (11, 5), (40, 17))]
    return Picture((0.5 + 0.5 * np.stack(waves, 2)).astype(np.float32), False, "waves")


def make(steps: int, side: int = 512) -> ImageTrainer:
    """The image recipe's trainer, of a picture as large as its own."""
    return ImageTrainer(data=photograph(side), max_steps=steps, examples_every=None, validate_every=None, monitor=None)


def looked_at(
    trainer: Trainer, rate: float, share: float, act: Callable[[StudioClient], None], size: int = 512
) -> list[Frame]:
    """Train with a studio and a client that watches, and acts meanwhile; returns the frames that came."""
    frames: list[Frame] = []
    over = threading.Event()
    with Studio(trainer, quiet=True, paused=True, open_browser=False) as studio:
        thread = threading.Thread(target=trainer.train)
        thread.start()

        def draw(header: Frame, _: Any) -> None:
            frames.append(header)
            if rate == 0:
                over.wait()  # a hidden tab acknowledges nothing

        with StudioClient(studio.url, on_frame=draw) as client:
            client.request(Share(id=0, share=share, frames=max(rate, 0.0)))
            client.request(Watch(id=0, view="fit", width=size, height=size))
            client.play()
            act(client)
            trainer.commands.stop()
            thread.join()
            over.set()
    return frames


def shares(seconds: float) -> tuple[str, list[Gate]]:
    """How well the chosen share of time is kept."""
    rows, gates = [], []
    for share in SHARES:
        trainer = make(10**9)
        found: dict[str, float] = {}

        def act(client: StudioClient, found: dict[str, float] = found, trainer: Trainer = trainer) -> None:
            time.sleep(2.0)
            found["step"], began = trainer.progress.step, time.perf_counter()
            time.sleep(seconds)
            found["took"] = time.perf_counter() - began
            found["end"] = trainer.progress.step
            found["account"] = 0.0 if client.state is None else client.state.drawing

        frames = looked_at(trainer, -1.0, share, act)
        seen = [frame for frame in frames if found["step"] <= frame.step < found["end"]]
        drawn = sum(frame.seconds for frame in seen) / found["took"]
        steps = (found["end"] - found["step"]) / found["took"]
        rows.append([f"{share:.2f}", f"{found['account']:.3f}", f"{drawn:.3f}", f"{len(seen) / found['took']:.1f}",
                     f"{steps:.0f}"])  # fmt: skip
        gates.append(Gate(f"share {share:g}: apart from what was chosen", abs(found["account"] - share), 0.05))
    return table(["chosen", "the studio's account", "the frames' seconds", "frames/s", "steps/s"], rows), gates


def digests(steps: int, side: int) -> tuple[str, list[Gate]]:
    """The final digests, looked at or not."""
    rows, seen = [], set()
    for rate in RATES:
        trainer, frames = make(steps, side), []
        if rate is None:
            trainer.train()
        else:
            frames = looked_at(trainer, rate, 0.5, lambda _, trainer=trainer: wait_for_end(trainer), side)  # type: ignore[misc]
        seen.add(digest := capture(trainer).digest)
        name = {None: "no studio", 0.0: "hidden", -1.0: "unlimited"}.get(rate, str(rate))
        rows.append([name, digest[:16], str(len(frames))])
    return table(["frames a second", "digest", "frames"], rows), [Gate("different digests", len(seen), 1)]


def wait_for_end(trainer: Trainer) -> None:
    """Wait until all steps are taken."""
    while not trainer.ended:
        time.sleep(0.02)


def pauses(tries: int) -> tuple[str, list[Gate]]:
    """How long after it is asked for a pause holds, while views are drawn."""
    trainer = make(10**9)
    waited: list[float] = []
    steps: list[float] = []
    rng = np.random.default_rng(0)

    def act(client: StudioClient) -> None:
        for _ in range(tries):
            first, began = trainer.progress.step, time.perf_counter()
            time.sleep(rng.uniform(0.02, 0.1))
            now = time.perf_counter()
            taken = trainer.progress.step - first
            steps.append((now - began) / max(1, taken))
            client.pause()
            waited.append(time.perf_counter() - now)
            client.play()

    looked_at(trainer, 10.0, 0.2, act)
    step = statistics.median(steps)
    ordered = sorted(waited)
    p95, worst = ordered[int(0.95 * len(ordered))], ordered[-1]
    rows = [
        ["step, with what is drawn between", f"{step * 1e3:.1f}"],
        ["pause, median", f"{statistics.median(waited) * 1e3:.1f}"],
        ["pause, 95 of 100", f"{p95 * 1e3:.1f}"],
        ["pause, the longest", f"{worst * 1e3:.1f}"],
    ]
    gate = Gate("ms by which 95 of 100 pauses take longer than a step", (p95 - step) * 1e3, 50)
    return table([f"{tries} tries", "ms"], rows), [gate]


def bare(steps: int) -> Line:
    """A trainer whose steps are as short as they come."""
    return Line(data=line_data(12_800), batch_size=64, max_steps=steps, seed=0, log_every="200 steps")


def fast_steps(steps: int, rounds: int) -> tuple[str, list[Gate]]:
    """What a connected client costs steps that are very short, and an idle studio its loop."""
    taken: dict[str, list[float]] = {"no studio": [], "a studio": [], "a client": []}
    for _ in range(rounds):
        for name, times in taken.items():
            trainer = bare(steps)
            studio = None if name == "no studio" else Studio(trainer, quiet=True, open_browser=False)
            client = StudioClient(studio.url) if studio is not None and name == "a client" else None
            began = time.thread_time()
            trainer.train()
            times.append((time.thread_time() - began) / steps)
            if client is not None:
                client.close()
            if studio is not None:
                studio.close()
            trainer.close()
    ratios = {name: statistics.median(a / b for a, b in zip(times, taken["no studio"], strict=True))
              for name, times in taken.items()}  # fmt: skip
    rows = [[name, f"{min(times) * 1e6:.1f}", f"{ratios[name]:.3f}"] for name, times in taken.items()]
    with Studio(trainer := bare(10), quiet=True, open_browser=False) as idle:
        trainer.iterate()
        tick = min(repeat(idle.tick, number=100_000, repeat=5)) / 100_000
    rows.append(["`tick()` alone", f"{tick * 1e6:.2f}", ""])
    gates = [Gate("us of `tick()` without a client", tick * 1e6, 1)]
    return table(["bare steps with", "us of CPU", "times without"], rows), gates


def memory(pairs: int, count: int) -> tuple[str, list[Gate]]:
    """What a run's process grows by for a studio in which all is looked at, against one that trains alone."""
    found: dict[str, list[float]] = {"a run alone": [], "a studio and a client": [], "a view": [], "curves": []}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "runs" / "curves" / "v001"
        log.mkdir(parents=True)
        (log / "environment.json").write_text("{}")
        write_log(log, count)
        for number in range(pairs):
            with started(Path(folder) / "runs" / f"alone{number}") as (process, _):
                time.sleep(SETTLING)
                found["a run alone"].append(resident_of(process))
            with started(Path(folder) / "runs" / f"looked{number}", "--studio") as (process, url):
                look_at_all(process, url, found)
    alone = statistics.median(found.pop("a run alone"))
    words = {"a view": "... and a view of 512 x 512", "curves": f"... and 8 curves of {count:,} values, all smoothed"}
    rows = [[words.get(name, name), f"{statistics.median(each) - alone:.1f}"] for name, each in found.items()]
    most = statistics.median(found["curves"]) - alone
    return table([f"{pairs} runs, against {pairs} alone of {alone:.0f} MB", "MB more"], rows), [
        Gate("MB more", most, 64)
    ]


def look_at_all(process: psutil.Process, url: str, found: dict[str, list[float]]) -> None:
    """See a view and all curves of a studio elsewhere, and note what its process has come to after each."""
    with StudioClient(url, timeout=120.0) as client:
        time.sleep(SETTLING)
        found["a studio and a client"].append(resident_of(process))
        client.request(Watch(id=0, view="fit", width=512, height=512))
        time.sleep(SETTLING)
        found["a view"].append(resident_of(process))
        for smoothing in (0.0, 0.99):
            for name in NAMES:
                asked = {"key": f"train/{name}", "run": "curves/v001", "points": 4000, "smoothing": smoothing}
                client.request(Curves(id=0, **asked))
        time.sleep(1.0)
        found["curves"].append(resident_of(process))


@contextmanager
def started(directory: Path, *more: str) -> Iterator[tuple[psutil.Process, str]]:
    """A process that trains a run there, within the block; and what it has said first."""
    command = [sys.executable, str(Path(__file__).with_name("_studio_memory.py")), str(directory), *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield psutil.Process(process.pid), process.stdout.readline().strip()
        finally:
            process.kill()


def resident_of(process: psutil.Process) -> float:
    """Resident memory in MB."""
    return float(process.memory_info().rss / 1e6)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and say whether all promises hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small and once, nothing about time")
    parser.add_argument("--write", action="store_true", help=f"store it in {RESULTS.name}")
    options = parser.parse_args(arguments)
    if options.quick:
        parts = {"Digests": digests(40, 48)}
    else:
        parts = {
            "Memory": memory(3, 1_000_000),
            "The share of time": shares(10.0),
            "Digests": digests(400, 512),
            "Pauses": pauses(200),
            "Fast steps": fast_steps(20_000, 5),
        }
    gates = [gate for _, found in parts.values() for gate in found]
    text = f"# The studio\n\n{(__doc__ or '').split('How it is measured. ')[1].strip()}\n\n"
    text += "\n\n".join(f"## {title}\n\n{page}" for title, (page, _) in parts.items())
    text += f"\n\n## Promises\n\n{table(Gate.HEAD, [gate.row() for gate in gates])}\n\n"
    text += machine(["starlette", "uvicorn", "websockets", "msgspec"]) + "\n"
    print(text)
    if options.write:
        RESULTS.write_text(text)
        print(f"written to {RESULTS}")
    return 0 if all(gate.held for gate in gates) else 1


if __name__ == "__main__":
    sys.exit(main())
