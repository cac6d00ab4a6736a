"""Jobs of `treadle slurm` on a real Slurm: requeued, preempted, out of time, cancelled; `make test-slurm`.

    python tests/slurm/check.py        # a table; exit code 1 where something does not hold

It starts a cluster of its own on this machine, with Debian's packages slurm-wlm and munge, and needs no rights. Where
they are not there it says so, and nothing is tested. It takes some minutes: Slurm's shortest time limit is one.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster import CPUS, Cluster, Unavailable, cluster, wait_for

from treadle.runs.run import read_journal, read_summary
from treadle.sweeps.plan import read_plan
from treadle.sweeps.trials import read_sweep, runs_of

TREADLE = (sys.executable, "-P", "-m", "treadle.cli")
PROGRAM = '''
import os
import time

import torch

from treadle.fields.image_trainer import ImageTrainer


class Slow(ImageTrainer):
    """The recipe `image`, with noise, and as slow as the environment says: its bits are the same."""

    def step(self, batch):
        time.sleep(float(os.environ.get("SLOW", "0")))
        torch.rand(1)
        return super().step(batch)
'''
STEPS = 240
SETTINGS = ("--set", f"max_steps={STEPS}", "save_every=20 steps", "log_every=20 steps")
SLOW = "0.25"
"""Seconds of a step: a job takes a minute, in which much can happen to it."""
TRAINER = ("--trainer", "slow.py:Slow")


class Room:
    """The directory that all jobs run in, and what the undisturbed run came to."""

    def __init__(self, path: Path, made: Cluster) -> None:
        self.path, self.cluster = path, made
        (path / "slow.py").write_text(PROGRAM)
        os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.treadle("train", *TRAINER, *SETTINGS, "--run", "undisturbed/v001")
        self.digest = self.read("undisturbed/v001")["digest"]
        self.treadle("train", *TRAINER, *SETTINGS, "--run", "pair/v001", "--processes", "2")
        self.of_two = self.read("pair/v001")["digest"]
        assert self.of_two != self.digest  # noise is each process's own
        os.environ["SLOW"] = SLOW  # which sbatch hands on

    def treadle(self, *arguments: str) -> str:
        """What a command says. Raises AssertionError, with all of it, where it fails."""
        done = subprocess.run([*TREADLE, *arguments], cwd=self.path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"treadle {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, run: str, *more: str) -> tuple[str, Path]:
        """Submit a job that trains below `run`; its number, and its run's directory."""
        said = self.treadle("slurm", *TRAINER, *SETTINGS, "--cpus", "1", "--run", run, *more, "--submit")
        (number,) = re.findall(r"^job: (\d+)$", said, re.M)
        return number, self.path / run / f"job-{number}" / "v001"

    def read(self, run: str | Path) -> dict[str, object]:
        """The summary of a run."""
        return read_summary(self.path / run)

    def output(self, run: str, number: str) -> str:
        """What a job has printed."""
        return (self.path / run / f"slurm-{number}.out").read_text()

    def wait_for_steps(self, run: Path) -> None:
        """Go on when a run has a checkpoint to go back to."""
        wait_for(lambda: any((run / "checkpoints").glob("step-*")), f"a checkpoint of {run}")

    def check_whole(self, run: Path, number: str, *, restarts: int, digest: object = None) -> None:
        """The job has ended well, after so many restarts at least, and its run is the undisturbed one."""
        job = self.cluster.wait_for_end(number)
        what = f"{job}\n{self.output(run.parents[1].name, number)}"
        assert job["JobState"] == "COMPLETED" and int(job["Restarts"]) >= restarts, what
        assert self.read(run)["digest"] == (digest or self.digest), f"another digest\n{what}"
        events = [entry["event"] for entry in read_journal(run)]
        assert events.count("resume") >= restarts, f"{events}\n{what}"


def requeued(room: Room) -> str:
    """`scontrol requeue`: it saves, and goes on with its own run."""
    number, run = room.submit("requeued", "--time", "1h")
    room.wait_for_steps(run)
    room.cluster.ask("scontrol", "requeue", number)
    room.check_whole(run, number, restarts=1)
    said = room.output("requeued", number)
    (step,) = re.findall(r"^stopped: interrupted by SIGTERM, at step (\d+)", said, re.M)
    assert f"after step {step}\n" in said, said  # nothing was lost
    return f"saved at step {step}, and went on from there"


def out_of_time(room: Room) -> str:
    """Its time is over: it is told before, saves, and requeues itself."""
    number, run = room.submit("time", "--time", "2m", "--notice", "40", "--before", "export SLOW=0.5")
    room.check_whole(run, number, restarts=1)
    said = room.output("time", number)
    assert "stopped: interrupted by SIGTERM" in said and "DUE TO TIME LIMIT" not in said, said
    return f"saved and requeued {room.cluster.job(number)['Restarts']} times before its time was over"


def preempted(room: Room) -> str:
    """Jobs of more importance take the node, at once and after a time of grace."""
    plain, grace = room.submit("plain", "--time", "1h"), room.submit("grace", "--time", "1h", "--partition", "grace")
    for _, run in (plain, grace):
        room.wait_for_steps(run)
    room.cluster.ask("sbatch", "-p", "high", "-n", str(CPUS), "-o", "/dev/null", "--wrap", "sleep 1")
    for number, run in (plain, grace):
        room.check_whole(run, number, restarts=1)
        said = room.output(run.parents[1].name, number)
        assert "stopped: interrupted by SIGTERM" in said, said
    return "without and with a time of grace: saved and requeued"


def cancelled(room: Room) -> str:
    """`scancel`: it saves, and is not requeued; another job goes on with its run."""
    number, run = room.submit("cancelled", "--time", "1h")
    room.wait_for_steps(run)
    room.cluster.ask("scancel", number)
    job = room.cluster.wait_for_end(number)
    wait_for(lambda: room.read(run).get("status") == "stopped", "the summary of what was cancelled")
    time.sleep(10)  # in which it would be requeued
    assert room.cluster.state(number) == "CANCELLED" and job["Restarts"] == "0", job
    said = room.treadle("slurm", str(run), *TRAINER, "--time", "1h", "--cpus", "1", "--submit")
    (number,) = re.findall(r"^job: (\d+)$", said, re.M)
    room.cluster.wait_for_end(number)
    assert room.read(run)["digest"] == room.digest
    return "stayed cancelled; a job that goes on with its run came to the same digest"


def failed(room: Room) -> str:
    """What fails stays failed, and what cannot be submitted is one line."""
    number, _ = room.submit("failed", "--time", "1h", "--before", "export SLOW=never")
    job = room.cluster.wait_for_end(number)
    assert job["JobState"] == "FAILED" and job["ExitCode"] == "1:0" and job["Restarts"] == "0", job
    done = subprocess.run(
        [*TREADLE, "slurm", *TRAINER, "--partition", "nowhere", "--submit"],
        cwd=room.path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "invalid partition specified: nowhere" in done.stderr, done
    assert done.stderr.count("\n") == 1, done.stderr
    return "exit code 1, not requeued; sbatch's refusals are one line"


def swept(room: Room) -> str:
    """Two jobs of an array share a sweep; one of them is requeued."""
    search = ("--search", "learning_rate=log:1e-3..1e-1", "--sampler", "random", "--trials", "4")
    fewer = ("--set", f"max_steps={STEPS // 3}", "save_every=10 steps")
    del os.environ["SLOW"]
    room.treadle("sweep", *TRAINER, *fewer, *search, "--run", "alone")
    os.environ["SLOW"] = SLOW
    said = room.treadle("slurm", *TRAINER, *fewer, *search, "--run", "shared", "--array", "2", "--cpus", "1",
                        "--time", "1h", "--submit")  # fmt: skip
    (number,) = re.findall(r"^job: (\d+)$", said, re.M)
    for trial in ("trial-001", "trial-002"):
        room.wait_for_steps(room.path / "shared" / trial / "v001")
    room.cluster.ask("scontrol", "requeue", f"{number}_1")
    restarts = [room.cluster.wait_for_end(f"{number}_{element}")["Restarts"] for element in (1, 2)]
    assert restarts == ["1", "0"], restarts
    pairs = []
    for name in ("alone", "shared"):
        trials = read_sweep(read_plan(room.path / name).path).trials
        assert [trial.state for trial in trials] == ["finished"] * 4, trials
        pairs.append({trial.number: [room.read(run)["digest"] for run in runs_of(trial)] for trial in trials})
    assert pairs[0] == pairs[1], pairs
    return "4 trials, none twice, each with the digest that it has without a cluster"


def together(room: Room) -> str:
    """Two processes that srun has started train one run; requeued, and out of time, it goes on."""
    number, run = room.submit("together", "--time", "3m", "--notice", "40", "--processes", "2",
                              "--before", "export SLOW=0.8")  # fmt: skip
    room.wait_for_steps(run)
    room.cluster.ask("scontrol", "requeue", number)
    room.check_whole(run, number, restarts=2, digest=room.of_two)
    said = room.output("together", number)
    assert "DUE TO TIME LIMIT" not in said and said.count("stopped: interrupted by SIGTERM") >= 2, said
    return "two processes of srun, requeued and out of time: the digest of two that were left alone"


def apart(room: Room) -> str:
    """Two processes on two nodes."""
    number, run = room.submit("apart", "--time", "1h", "--nodes", "2", "--partition", "both")
    room.wait_for_steps(run)
    room.cluster.ask("scontrol", "requeue", number)
    room.check_whole(run, number, restarts=1, digest=room.of_two)
    assert room.cluster.job(number)["NumNodes"] == "2"
    return "a process on each of two nodes, requeued: the same digest"


def by_hand(room: Room) -> str:
    """A script of one's own, as the guide has it, whose one task starts two processes."""
    folder = room.path / "by hand"
    folder.mkdir()
    command = [*TREADLE, "train", *TRAINER, *SETTINGS, "--run", "by hand/v001", "--resume", "auto", "--processes", "2"]
    (folder / "job.sh").write_text(f"#!/bin/bash\nexec {shlex.join(command)}\n")
    asked = ["--requeue", "--open-mode=append", f"--output={folder}/slurm-%j.out", "--cpus-per-task=2"]
    number = room.cluster.ask("sbatch", "--parsable", *asked, f"--chdir={room.path}", str(folder / "job.sh"))
    run = folder / "v001"
    room.wait_for_steps(run)
    room.cluster.ask("scontrol", "requeue", number)
    job = room.cluster.wait_for_end(number)
    said = room.output("by hand", number)
    assert job["JobState"] == "COMPLETED" and job["Restarts"] == "1", f"{job}\n{said}"
    assert "stopped: interrupted by SIGTERM" in said and "resuming" in said, said
    assert room.read(run)["digest"] == room.of_two, said
    return "a script of one's own with --processes 2, requeued: the same digest"


AT_ONCE: tuple[Callable[[Room], str], ...] = (requeued, out_of_time, cancelled, failed, together, apart, by_hand)
"""None of these needs a whole node."""
ALONE: tuple[Callable[[Room], str], ...] = (swept, preempted)


def main() -> int:
    """Test all, and print a table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="only these (default: all)")
    names = parser.parse_args().names
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # nothing of it is left then, either
    try:
        with cluster() as made, tempfile.TemporaryDirectory(prefix="treadle-jobs-") as place:
            print(f"{made.ask('sinfo', '--version')}, {CPUS} CPUs by its own account", flush=True)
            room = Room(Path(place), made)
            pool = ThreadPoolExecutor(len(AT_ONCE))
            try:
                held = list(pool.map(lambda each: judge(each, room), wanted(AT_ONCE, names)))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
            held += [judge(each, room) for each in wanted(ALONE, names)]
    except Unavailable as error:
        print(f"skipped, nothing was tested: {error}")
        return 0
    return 0 if all(held) else 1


def wanted(all_of_them: tuple[Callable[[Room], str], ...], names: list[str]) -> list[Callable[[Room], str]]:
    """Those that are asked for."""
    return [each for each in all_of_them if not names or each.__name__ in names]


def judge(test: Callable[[Room], str], room: Room) -> bool:
    """Whether it holds; prints a line."""
    begin = time.monotonic()
    try:
        what, good = test(room), True
    except Exception as error:
        what, good = f"FAILED: {error}\n{traceback.format_exc()}", False
    print(f"{test.__name__:<12} {time.monotonic() - begin:5.0f} s  {what}", flush=True)
    return good


if __name__ == "__main__":
    sys.exit(main())
