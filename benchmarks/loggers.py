"""What loggers cost a run: the training thread's CPU time for a step, and the memory that waits for a dead service.

    python benchmarks/loggers.py             the tables, and whether they keep the promises (exit 1 where not)
    python benchmarks/loggers.py --write     also stores them in benchmarks/results/loggers.md
    python benchmarks/loggers.py --quick     only what does not depend on time; for the tests

How it is measured. Each way of logging has a run of its own, on disk, of the same small network on the same batches,
logging six numbers; they take turns in one process, 200 steps each, so that what slows the machine slows all of them
alike. A turn counts the CPU time of the training thread alone. "For a record" is the median over the rounds of the
difference to the run without loggers *of the same round*, and "for a step" that over the 50 steps of the default log
interval; they log every 2 steps here, or the noise of other work would hide it. What other threads of the process do in
a run's turns is counted apart. Python calls are counted in the training thread by `sys.setprofile`. All runs must end
in the same state, bit for bit.

"8 services" are told everything and do nothing with it; "dead" ones cannot be opened, "hung" ones never answer. The
memory of 100,000 records for a dead service is what the process has grown by beyond one without loggers, and what the
outbox says that it holds.

SDKs are measured that are installed, or whose Python TREADLE_<NAME>_PYTHON names; all of them offline.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _report import Gate, machine, table

RESULTS = Path(__file__).parent / "results" / "loggers.md"
TURN = 200
QUICK = 40
"""Steps of a turn, and of a quick one."""
EVERY = 2
"""Steps between two records, here."""
DEFAULT = 50
"""Steps between two records of a run that says nothing else."""
MOST_US = 5.0
"""Of the training thread's CPU time for a step, for any number of loggers."""
MOST_CALLS = 20.0
"""Python calls for a step, for eight services."""
MOST_MEMORY = 64.0
"""MB that 100,000 records for a dead service may take."""
SERVICES = {"wandb": "W&B", "comet": "Comet", "mlflow": "MLflow", "trackio": "trackio", "rerun": "Rerun",
            "visdom": "Visdom"}  # fmt: skip
OFFLINE = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HF_HUB_OFFLINE": "1", "TREADLE_CLOSING_SECONDS": "1"}


@dataclass
class Way:
    """A way of logging, and what was measured of it.

    Attributes:
        name: for people.
        sinks: makes the sinks, given a directory for what they write.
        judged: whether the promise is about it.
        seconds: the training thread's CPU time for a step, by rounds.
        others: CPU seconds of other threads in its turns.
    """

    name: str
    sinks: Callable[[Path], list[Any]]
    judged: bool = False
    seconds: list[float] = field(default_factory=list)
    calls: float = 0.0
    others: float = 0.0
    steps: int = 0


def remote(kind: str, count: int = 1) -> Callable[[Path], list[Any]]:
    """Makes sinks of a service of `_services`."""

    def make(place: Path) -> list[Any]:
        from treadle.sinks.remote import RemoteSink

        class Beside(RemoteSink):
            name, title = "beside", kind
            service = f"_services:{kind}"

            def __init__(self, number: int) -> None:
                super().__init__(number=number)

        return [Beside(number) for number in range(count)]

    return make


def named(*names: str) -> Callable[[Path], list[Any]]:
    """Makes sinks of the table of sinks."""

    def make(place: Path) -> list[Any]:
        from treadle.sinks.table import make

        where = {"mlflow": f"sqlite:///{place}/mlflow.db"}
        return [make(name, where.get(name)) for name in names]

    return make


def installed() -> tuple[list[str], list[str]]:
    """The loggers of the table that can be measured here, and those that cannot."""
    from treadle.errors import UsageError
    from treadle.sinks.table import SINKS

    here, missing = [], []
    for name in SINKS:
        if name == "console":
            continue
        try:
            named(name)(Path("."))
            here.append(name)
        except UsageError:
            missing.append(name)
    return here, missing


def trainer(place: Path, hooks: list[Any], every: int = EVERY) -> Any:
    """The run that is measured."""
    import torch

    from treadle import Trainer

    class Net(Trainer):
        """A small network."""

        def setup(self) -> None:
            """Build it."""
            self.model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
            self.optimizer = torch.optim.Adam(self.model.parameters())

        def step(self, batch: Any) -> dict[str, Any]:
            """Fit it, and give six numbers."""
            x, y = batch
            error = (self.model(x) - y).square()
            loss = error.mean()
            self.minimize(loss)
            return {"loss": loss, "a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, 8, generator=generator)
    return Net(data=(x, x.sum(1, keepdim=True)), batch_size=32, max_steps=10**9, seed=0, log_every=f"{every} steps",
               save_every=None, run_dir=place / "runs" / "net", hooks=hooks)  # fmt: skip


def turn(run: Any, way: Way, steps: int) -> None:
    """Let a run take its turn."""
    thread, process = time.thread_time(), time.process_time()
    for _ in range(steps):
        run.iterate()
    spent = time.thread_time() - thread
    way.seconds.append(spent / steps)
    way.others += time.process_time() - process - spent
    way.steps += steps


def count_calls(run: Any, steps: int) -> float:
    """Python calls of the training thread for a step."""
    count = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        for _ in range(steps):
            run.iterate()
    finally:
        sys.setprofile(None)
    return count / steps


@contextmanager
def offline() -> Iterator[Path]:
    """A directory for all that is written, and SDKs that reach for nothing."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        kept, here = dict(os.environ), Path.cwd()
        os.chdir(place)  # MLflow writes where it is
        os.environ |= OFFLINE | {"WANDB_DIR": folder, "TRACKIO_DIR": folder, "COMET_OFFLINE_DIRECTORY": folder,
                                 "HOME": folder}  # fmt: skip
        try:
            yield place
        finally:
            os.chdir(here)
            os.environ.clear()
            os.environ.update(kept)


def measure(ways: list[Way], rounds: int, steps: int = TURN) -> None:
    """Let all runs take turns."""
    from treadle.testing import capture

    with offline() as place:
        runs = []
        for number, way in enumerate(ways):
            folder = place / str(number)
            folder.mkdir()
            runs.append(trainer(folder, way.sinks(folder)))
        for way, run in zip(ways, runs, strict=True):
            turn(run, way, steps)  # a warm-up
            way.calls = count_calls(run, steps)
        time.sleep(3.0 if rounds else 0.0)  # SDKs are being imported
        for way in ways:
            way.seconds, way.others, way.steps = [], 0.0, 0
        for _ in range(rounds):
            for way, run in zip(ways, runs, strict=True):
                turn(run, way, steps)
        digests = {capture(run).digest for run in runs}
        for run in runs:
            run.close()
    if len(digests) != 1:
        raise SystemExit("the runs did not end in the same state: a logger changed one")


def over(way: Way, base: Way) -> float:
    """Microseconds for a record beyond `base`."""
    pairs = zip(way.seconds, base.seconds, strict=True)
    return statistics.median((mine - other) * 1e6 * EVERY for mine, other in pairs)


MEMORY = """
import sys
sys.path[:0] = {path!r}
import loggers
print(loggers.grown({kind!r}, {records}))
"""


def grown(kind: str, records: int) -> str:
    """The MB that a process has at most, and that an outbox holds, after so many records."""
    with offline() as place:
        hooks = remote(kind)(place) if kind else []
        run = trainer(place, hooks, every=1)
        most = 0
        for step in range(records):
            run.iterate()
            if hooks and step % 1000 == 0:
                most = max(most, hooks[0].held)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run.close()
    return f"{peak / 1024} {most / 2**20}"


def memory(records: int) -> tuple[float, float]:
    """MB that a process with a dead service has beyond one without loggers, and MB that the outbox holds."""
    found = []
    for kind in ("", "Missing"):
        code = MEMORY.format(path=[str(Path(__file__).parent), *sys.path], kind=kind, records=records)
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
        found.append([float(number) for number in done.stdout.split()])
    return found[1][0] - found[0][0], found[1][1]


def rows(ways: list[Way]) -> list[list[str]]:
    """One row for each way."""
    base = ways[0]
    found = []
    for way in ways:
        cost = over(way, base) if way.seconds else 0.0
        times = [f"{cost:+.1f}", f"{cost / DEFAULT:+.2f}", f"{way.others / max(1, way.steps) * EVERY * 1e6:.0f}"]
        found.append([way.name, *(times if way.seconds else [""] * 3), f"{calls(way, base):+.1f}"])
    return found


HEAD = ["loggers", "us for a record", "us for a step", "other threads, us for a record", "Python calls for a step"]


def calls(way: Way, base: Way) -> float:
    """Python calls for a step at the default log interval, beyond `base`."""
    return (way.calls - base.calls) * EVERY / DEFAULT


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="deterministic gates only, few records")
    parser.add_argument("--write", action="store_true", help=f"store the tables in {RESULTS.name}")
    parser.add_argument("--rounds", type=int, default=30, help=f"turns of {TURN} steps of each run (default 30)")
    parser.add_argument("--records", type=int, default=100_000, help="records for a dead service (default 100000)")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.path.insert(0, str(Path(__file__).parent))
    import torch

    torch.set_num_threads(1)
    eight = Way("8 services", remote("Quick", 8), judged=True)
    ways, missing = [Way("none", lambda place: []), eight], list[str]()
    here: list[str] = []
    if not options.quick:
        here, missing = installed()
        ways.insert(1, Way("1 service", remote("Quick"), judged=True))
        ways += [Way("a dead service", remote("Missing"), judged=True)]
        ways += [Way("a hung service", remote("Hung"), judged=True)]
        ways += [Way(SERVICES.get(name, name), named(name), judged=name in SERVICES) for name in here]
    if len(here) > 1:
        ways.append(Way(f"these {len(here)} at once", named(*here), judged=True))
    measure(ways, 0 if options.quick else options.rounds, QUICK if options.quick else TURN)
    text = [table(HEAD, rows(ways)), ""]
    if missing:
        text += [f"Not installed here: {', '.join(missing)}.", ""]
    print("\n".join(text), flush=True)
    gates = [Gate("Python calls for a step, 8 services", calls(eight, ways[0]), MOST_CALLS)]
    if not options.quick:
        gates += [Gate(f"us of the training thread for a step, {way.name}", over(way, ways[0]) / DEFAULT, MOST_US)
                  for way in ways if way.judged]  # fmt: skip
        more, held = memory(options.records)
        gates += [Gate(f"MB for {options.records:,} records and a dead service", more, MOST_MEMORY),
                  Gate("MB of them in its outbox", held, 32.0)]  # fmt: skip
    verdict = ["### Promises", "", table(Gate.HEAD, [gate.row() for gate in gates]), ""]
    print("\n".join(verdict))
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        how = __doc__.split("\n\n", 2)[2].strip()
        packages = ["tensorboard", *(name for name in here if name != "csv")]
        RESULTS.write_text("\n".join(["# What loggers cost", "", how, "", machine(packages), "", *text, *verdict]))
        print(f"written to {RESULTS}")
    return 0 if all(gate.held for gate in gates) else 1


if __name__ == "__main__":
    sys.exit(main())
