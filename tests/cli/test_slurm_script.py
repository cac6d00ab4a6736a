"""The batch script: its text, and what it does when it is told something, with stand-ins for Slurm's commands."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle import UsageError
from treadle.cli.slurm_script import JOB_ID, Job, array_of, minutes_of, options, script, slurm_time

WORDS = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=12)


def job(*command: str, **given: Any) -> Job:
    return Job(command=command or ("train", "image"), name="image", directory=Path("/w"), output=Path("o.out"), **given)


def test_the_same_job_is_the_same_text() -> None:
    asked = {"nodes": 2, "gpus": 4, "processes": 4, "cpus": 8, "threads": 8, "minutes": 1501, "array": "1-4%2"}
    asked |= {"partition": "long", "account": "vision", "qos": "low", "memory": "32G", "notice": 300}
    text = script(job(**asked, more=["--constraint=a100"], before=["module load cuda"]))
    assert text == script(job(**asked, more=["--constraint=a100"], before=["module load cuda"]))
    assert re.findall(r"^#SBATCH (.*)$", text, re.M) == [
        "--job-name=image", "--chdir=/w", "--output=o.out", "--open-mode=append", "--partition=long",
        "--account=vision", "--qos=low", "--nodes=2", "--ntasks-per-node=4", "--cpus-per-task=8", "--gpus-per-node=4",
        "--mem=32G", "--time=1-01:01:00", "--array=1-4%2", "--signal=B:USR1@300", "--requeue", "--constraint=a100",
    ]  # fmt: skip
    head = text[: text.index("\nsrun ")]
    assert "\nmodule load cuda\n" in head and "OMP_NUM_THREADS=8" in head and "\nexport SRUN_CPUS_PER_TASK=8\n" in head
    assert text.index("#SBATCH") < text.index("module load")  # sbatch reads none after the first command


def test_names_that_sbatch_would_read_in_its_own_way_are_what_they_are() -> None:
    named = Job(command=("x",), name="it's \\ a", directory=Path("/a b"), output=Path("/100 %j 'x'/slurm-%j.out"))
    assert options(named)[:3] == [
        "--job-name='it'\"'\"'s \\\\ a'", "--chdir='/a b'", "--output='/100 %%j '\"'\"'x'\"'\"'/slurm-%j.out'"
    ]  # fmt: skip


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
@pytest.mark.parametrize("given", [{}, {"nodes": 2, "processes": 4, "cpus": 8, "threads": 8, "gpus": 4}])
def test_nobody_finds_fault_with_the_script(given: dict[str, int]) -> None:
    text = script(job("train", "it's", f"d/job-{JOB_ID}/v001", **given))
    done = subprocess.run(["shellcheck", "-"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_several_do_not_take_all_processors_each() -> None:
    assert "export OMP_NUM_THREADS=1 " in script(job(processes=4))
    assert "export OMP_NUM_THREADS=8 " in script(job(processes=4, threads=8))


def test_what_nobody_asks_for_is_left_to_the_cluster() -> None:
    text = script(job())
    assert options(job()) == [
        "--job-name=image", "--chdir=/w", "--output=o.out", "--open-mode=append", "--nodes=1", "--ntasks-per-node=1",
        "--signal=B:USR1@120", "--requeue",
    ]  # fmt: skip
    assert "THREADS" not in text and "MASTER_ADDR" not in text and "RANK" not in text
    # Alone, and not by srun: that would hand on, once more, the signal that Slurm sends to all of a job.
    assert "\ntrain image &\n" in text and "srun" not in text


@settings(max_examples=25, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=3), st.integers(1, 2))
def test_every_argument_arrives_as_it_was_written(words: list[str], processes: int) -> None:
    words = ["printf", "%s\\0", *words, f"d/job-{JOB_ID}/v001"]
    text = script(job(*words, processes=processes))
    assert subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=True).stderr == ""
    (line,) = (line for line in text.split("\n") if line.endswith(" &"))
    line = line.removeprefix("srun --kill-on-bad-exit=1 --cpu-bind=none ").removesuffix(" &")
    ranks = {"SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    environment = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "4711", **ranks}
    said = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, check=True).stdout
    assert said.decode().split("\0")[:-1] == [*words[2:-1], "d/job-4711/v001"]


def test_processes_are_told_what_torchrun_would_tell_them() -> None:
    text = script(job("env", nodes=2, processes=4))
    assert 'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)' in text
    (line,) = (line for line in text.split("\n") if line.startswith("srun "))
    command = shlex.split(line.removesuffix(" &"))[3:]
    ranks = {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4"}
    said = subprocess.run(command, env={**os.environ, **ranks}, capture_output=True, text=True, check=True).stdout
    assert {"RANK=5", "LOCAL_RANK=1", "WORLD_SIZE=8", "LOCAL_WORLD_SIZE=4"} <= set(said.splitlines())


STEP = """#!/bin/bash
trap 'exit 143' TERM
echo $BASHPID > step
[ -e fails ] && exit 7
for i in {1..6000}; do sleep 0.02; done
"""
STANDS_IN = """#!/bin/bash
# Stands in for Slurm's commands: notes how it is called, and behaves as the test wants.
echo "$(basename "$0") $*" >> calls
case "$(basename "$0") $1" in
  srun*) exec step ;;
  scancel*) kill -TERM "$(cat step)" ;;
  "scontrol show") cat state ;;
esac
"""


class Started:
    """A batch script that runs, with commands that stand in for Slurm's."""

    def __init__(self, place: Path, state: str, processes: int, *, fails: bool = False) -> None:
        self.place = place
        (place / "bin").mkdir()
        for name in ("srun", "scancel", "scontrol", "step"):
            (place / "bin" / name).write_text(STEP if name == "step" else STANDS_IN)
            (place / "bin" / name).chmod(0o755)
        (place / "state").write_text(state)
        if fails:
            (place / "fails").touch()
        (place / "script").write_text(script(job("step", processes=processes)))
        environment = {**os.environ, "PATH": f"{place}/bin:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
        self.process = subprocess.Popen(["bash", "script"], cwd=place, env=environment)
        self.step()

    def step(self) -> int:
        """The process of the step, once it has begun."""
        until = time.monotonic() + 60
        while not (text := (self.place / "step").read_text() if (self.place / "step").exists() else ""):
            assert time.monotonic() < until
            time.sleep(0.01)
        return int(text)

    def end(self) -> tuple[int, list[str]]:
        """Its exit code, and the calls of what is not about where processes meet, once it has ended."""
        code, calls = self.process.wait(60), self.place / "calls"
        said = calls.read_text().splitlines() if calls.exists() else []
        return code, [line for line in said if not line.startswith(("srun", "scontrol show hostnames"))]


RUNNING = "JobId=7 JobState=RUNNING Requeue=1 PreemptEligibleTime=2026-11-22T16:38:09 PreemptTime=None"
TOLD, ASKED = "scancel --signal=TERM 7", "scontrol show job --oneliner 7"


def tell_script(started: Started, number: int) -> None:
    started.process.send_signal(number)


def tell_step(started: Started, number: int) -> None:
    os.kill(started.step(), number)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("state", "whom", "number", "calls"),
    [
        # Its time is nearly over: the step is told, and it is requeued.
        (RUNNING, tell_script, signal.SIGUSR1, [TOLD, ASKED, "scontrol requeue 7"]),
        # And cancelled meanwhile.
        (RUNNING.replace("RUNNING", "CANCELLED"), tell_script, signal.SIGUSR1, [TOLD, ASKED]),
        # In the grace time of a preemption Slurm tells the step alone.
        (RUNNING.replace("=None", "=2026-11-22T16:38:11"), tell_step, signal.SIGTERM, [ASKED, "scontrol requeue 7"]),
        # Somebody else has told the step to stop.
        (RUNNING, tell_step, signal.SIGTERM, [ASKED]),
    ],
)
def test_what_is_stopped_for_the_clusters_sake_is_requeued(
    tmp_path: Path, state: str, whom: Callable[[Started, int], None], number: int, calls: list[str], processes: int
) -> None:
    started = Started(tmp_path, state, processes)
    whom(started, number)
    assert started.end() == (143, [call for call in calls if processes > 1 or call != TOLD])


@pytest.mark.parametrize("processes", [1, 2])
def test_told_by_slurm_itself_it_waits_for_the_step_to_save(tmp_path: Path, processes: int) -> None:
    started = Started(tmp_path, RUNNING.replace("RUNNING", "PENDING"), processes)
    tell_script(started, signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        started.process.wait(0.5)
    tell_step(started, signal.SIGTERM)
    assert started.end() == (143, [ASKED])


def test_a_failure_is_its_own(tmp_path: Path) -> None:
    assert Started(tmp_path, RUNNING, 1, fails=True).end() == (7, [])


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("4h", 240), ("90m", 90), ("90 min", 90), ("1d12h", 2160), ("1.5h", 90), ("0.5m", 1), ("4:00:00", 240),
     ("0:00:30", 1), ("1-12:30:00", 2190), ("2-00:00", 2880), ("1D 2H", 1560)],
)  # fmt: skip
def test_a_time_limit_is_read(text: str, minutes: int) -> None:
    assert minutes_of(text) == minutes


@pytest.mark.parametrize("text", ["", "4", "4x", "h", "-4h", "0h", "4:00", "0:00:00", "4h junk", "4h;rm", "1e3h"])
def test_what_is_no_time_limit_is_said(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--time is {text!r}: expected a time above 0")):
        minutes_of(text)


@given(st.integers(1, 10**6))
def test_a_time_limit_is_written_as_slurm_reads_it(minutes: int) -> None:
    assert minutes_of(slurm_time(minutes)) == minutes


def test_an_array_is_counted_from_1() -> None:
    assert (array_of("4"), array_of("8%2")) == ("1-4", "1-8%2")
    for text in ("0", "1-4", "x", "", "4%", "%2", "4%0"):
        with pytest.raises(UsageError, match="--array is"):
            array_of(text)
