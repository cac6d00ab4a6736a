"""Sweeps whose workers are killed: no trial twice, none lost, and all end as in a sweep that nobody disturbed.

The commands are a user's: `treadle sweep image ... --trials 8 --workers 2`. In each round both workers, or these and
the process that has started them, are killed (SIGKILL) twice, at random instants at which both are training; then the
same command goes on. Started by `make proof-sweep`; `python tests/sweeps/proof_killed.py --rounds 10`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil

from treadle.checkpoint.store import list_checkpoints
from treadle.runs.run import read_journal, read_summary
from treadle.sweeps.trials import read_sweep

TRIALS = 8
COMMAND = (
    *(sys.executable, "-m", "treadle", "sweep", "image", "--search", "learning_rate=log:1e-4..1e-1", "levels=8|12|16"),
    *("--sampler", "random", "--trials", str(TRIALS), "--set", "save_every=10 steps", "max_steps=200"),
    *("batch_size=2048", "validate_every=50 steps", "examples_every=null"),
)
PATIENCE = 600.0


def main() -> int:
    """Carry out the rounds; prints a line for each, and returns 0 where all held."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    held = True
    with tempfile.TemporaryDirectory() as folder:
        calm = Path(folder) / "calm"
        started(calm).wait()
        print("round  killed                kills  left  resumed  from steps         trials  twice  lost  differ")
        for number in range(1, options.rounds + 1):
            held &= play(Path(folder) / f"round-{number}", calm, number, random.Random(options.seed + number))
    print("held" if held else "did NOT hold")
    return 0 if held else 1


def play(path: Path, calm: Path, number: int, stream: random.Random) -> bool:
    """One round: kill twice, go on, compare; prints what came of it."""
    with_parent = number % 2 == 0
    process, kills, left = started(path), 0, set()
    for _ in range(2):
        ended = len(finished(path))
        wait_for(lambda process=process: len(under_way(path)) == 2 == len(workers(process)), process)
        time.sleep(stream.uniform(0, 1.0))
        victims = [*workers(process), *([psutil.Process(process.pid)] if with_parent else [])]
        for victim in victims:
            victim.suspend()  # both at one instant
        left |= set(under_way(path))
        for victim in victims:
            victim.kill()
            kills += victim.pid != process.pid
        if with_parent:
            process.wait()
            process = started(path)
        wait_for(lambda ended=ended: len(finished(path)) > ended, process)
    if process.wait() != 0:
        print(f"round {number}: exit code {process.returncode}")
        return False
    trials = read_sweep(path).trials
    numbers = Counter(trial.number for trial in trials)
    told = [json.loads(line) for line in (path / "optuna.journal").read_text().splitlines()]
    created = sum(entry["op_code"] == 4 for entry in told)  # as Optuna has it
    twice = sum(count - 1 for count in numbers.values()) + max(0, created - TRIALS)
    lost = TRIALS - sum(trial.state == "finished" for trial in trials)
    runs = [run for trial in trials for run in trial.path.glob("v*")]
    steps = [entry["step"] for run in runs for entry in read_journal(run) if entry["event"] == "resume"]
    same = [read_summary(run)["digest"] == read_summary(calm / run.relative_to(path))["digest"] for run in runs]
    who = "workers and parent" if with_parent else "workers"
    said = " ".join(map(str, sorted(steps)))
    print(
        f"{number:5}  {who:<20}  {kills:5}  {len(left):4}  {len(steps):7}  {said:<17}  {len(trials):6}  {twice:5}  "
        f"{lost:4}  {same.count(False):6}",
        flush=True,
    )
    return not twice and not lost and len(runs) == TRIALS and all(same) and bool(steps)


def started(path: Path) -> subprocess.Popen[bytes]:
    """The command, at work on the sweep in `path`."""
    command = [*COMMAND, "--run", str(path), "--workers", "2"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})


def workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes that a command has started."""
    return psutil.Process(process.pid).children()


def under_way(path: Path) -> list[str]:
    """The trials that somebody trains now, and that have a checkpoint to go back to."""
    trials = read_sweep(path).trials if (path / "sweep.yaml").exists() else []
    return [
        trial.path.name
        for trial in trials
        if trial.state == "running" and list_checkpoints(trial.path / "v001" / "checkpoints")
    ]


def finished(path: Path) -> list[int]:
    """The trials that have ended."""
    return [trial.number for trial in read_sweep(path).trials if trial.ended] if (path / "sweep.yaml").exists() else []


def wait_for(what: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Return once `what` holds; raises where the command has ended before, or it takes for ever."""
    until = time.monotonic() + PATIENCE
    while not what():
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"what was waited for never came (exit code {process.poll()})")
        time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(main())
