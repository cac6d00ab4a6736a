"""The batch script of a Slurm job, as text: what it asks the cluster for, and what it does when its time is over."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from treadle.errors import UsageError

NOTICE = 120
"""Seconds before the end of its time in which a job saves, where nobody says how many."""

JOB_ID = "$SLURM_JOB_ID"
"""What stands in a command for the job's number: the same after it was requeued, another one for each submission."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a batch script is made of.

    Attributes:
        command: the program and its arguments; `JOB_ID` in one of them is the job's number.
        name: of the job.
        directory: where it runs.
        output: the file for what it prints; Slurm replaces %j, %A and %a in its name.
        nodes, gpus: how many nodes, and GPUs on each.
        processes: on each node; of more than one in all each is told its rank as torchrun would.
        cpus: processors for each process; None is the cluster's choice.
        threads: those that sums are computed with; None is what the process finds.
        minutes: the time limit; None is the partition's.
        notice: seconds before its end in which the command is told to stop.
        array: the elements of an array job, as `array_of` gives them; None for a job of one.
        partition, account, qos, memory: as sbatch's options of these names take them; None is the cluster's choice.
        more: other options of sbatch, as they stand after #SBATCH.
        before: lines of shell before the command, such as "module load cuda".
    """

    command: Sequence[str]
    name: str
    directory: Path
    output: Path
    nodes: int = 1
    gpus: int = 0
    processes: int = 1
    cpus: int | None = None
    threads: int | None = None
    minutes: int | None = None
    notice: int = NOTICE
    array: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    memory: str | None = None
    more: Sequence[str] = ()
    before: Sequence[str] = ()

    @property
    def world(self) -> int:
        """Processes on all nodes together."""
        return self.nodes * self.processes


def script(job: Job) -> str:
    """The batch script: whole, in the language of bash, the same text for the same job."""
    parts = ["#!/bin/bash", *(f"#SBATCH {option}" for option in options(job)), ""]
    if job.before:
        parts += [*job.before, ""]
    threads = job.threads
    if threads is None and job.world > 1:
        threads = 1  # as torchrun has it: each would take all processors of its node
    if threads is not None:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        parts += ["# As many threads wherever it goes on: the last bits of sums depend on them."]
        parts += [f"export {' '.join(f'{name}={threads}' for name in names)}", ""]
    command, tell = " ".join(map(_argument, job.command)), 'kill -TERM "$step"'
    if job.world > 1:
        if job.cpus is not None:
            parts += ["# srun does not take this from sbatch by itself.", f"export SRUN_CPUS_PER_TASK={job.cpus}"]
        parts += [_MEETING, ""]
        command = f"{_TOLD}\n{_SRUN} bash -c '{_RANK}' treadle {command}"
        tell = 'scancel --signal=TERM "$SLURM_JOB_ID"'
    return "\n".join([*parts, _BEFORE_THE_END % tell, "", f"{command} &", _AFTERWARDS])


def options(job: Job) -> list[str]:
    """What stands after each #SBATCH."""
    wanted: dict[str, object] = {
        "job-name": job.name,
        "chdir": job.directory,
        "output": _pattern(job.output),
        "open-mode": "append",
        "partition": job.partition,
        "account": job.account,
        "qos": job.qos,
        "nodes": job.nodes,
        "ntasks-per-node": job.processes,
        "cpus-per-task": job.cpus,
        "gpus-per-node": job.gpus or None,
        "mem": job.memory,
        "time": None if job.minutes is None else slurm_time(job.minutes),
        "array": job.array,
        "signal": f"B:USR1@{job.notice}",
    }
    given = [f"--{name}={_value(name, str(value))}" for name, value in wanted.items() if value is not None]
    return [*given, "--requeue", *job.more]


_MEETING = """\
# Where the processes meet.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 12000))"""
"""A port that no other job has soon, below those that Linux gives to whoever asks for any."""

_TOLD = """\
# Each process is told what torchrun would tell it, from variables of its own.
# shellcheck disable=SC2016"""

_SRUN = "srun --kill-on-bad-exit=1 --cpu-bind=none"

_RANK = (
    "export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS "
    'LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE; exec "$@"'
)
"""What torchrun would set. There is none in between: it leaves with 1 where its processes say that they have saved."""

_BEFORE_THE_END = """\
# Before its time is over Slurm tells this script, and no other process: the training saves, and leaves with 143.
late=
trap 'late=yes; %s' USR1
# Requeued or cancelled, the training is told by Slurm itself: wait for what it saves.
trap : TERM"""

_AFTERWARDS = """\
step=$!
wait "$step"
code=$?
while kill -0 "$step" 2> /dev/null; do  # a signal has ended the waiting, and not the training
  wait "$step"
  code=$?
done

# Stopped by the end of its time, or in the grace time of a preemption, it goes on later. Slurm requeues by itself what
# it ends by itself, and nothing that has left: hence this. What was cancelled or has failed stays where it is.
if [ "$code" -eq 143 ] || [ "$code" -eq 138 ]; then
  state=$(scontrol show job --oneliner "$SLURM_JOB_ID")
  case "$late $state" in
    yes*JobState=RUNNING* | *JobState=RUNNING*PreemptTime=[0-9]*) scontrol requeue "$SLURM_JOB_ID" ;;
  esac
fi
exit "$code"
"""


def _value(name: str, text: str) -> str:
    """The value of an option as sbatch reads it, which takes a backslash within quotes for its own."""
    if not text.strip() or not text.isprintable():
        raise UsageError(
            f"--{name.removeprefix('job-')} is {text!r}: expected a line of text, for that is how sbatch reads it"
        )
    return quote(text).replace("\\", "\\\\")


def _pattern(output: Path) -> str:
    """The file for what a job prints, where only its name has anything to be replaced.

    Raises UsageError for a backslash, after which Slurm replaces nothing.
    """
    if "\\" in str(output):
        raise UsageError(f"{str(output.parent)!r} has a backslash: Slurm cannot write there what a job prints (--run)")
    return str(output.parent / "x").replace("%", "%%")[:-1] + output.name


def _argument(text: str) -> str:
    """An argument as the shell reads it, with the job's number where it says so."""
    return f'"{JOB_ID}"'.join(quote(part) if part else "" for part in text.split(JOB_ID)) or "''"


# What a person writes -------------------------------------------------------------------------------------------------

_UNITS = {"d": 24 * 60, "h": 60, "m": 1, "min": 1}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(d|h|min|m)\s*")
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?")


def minutes_of(text: str) -> int:
    """Minutes of a time limit: "4h", "90m", "1d12h", and in Slurm's own words "4:00:00", "1-12:00:00".

    Seconds are rounded up. Raises UsageError for any other text, and for nothing at all.
    """
    given, minutes = text.strip().lower(), 0.0
    clock = _CLOCK.fullmatch(given)
    if clock is not None and (clock[1] or clock[4]):
        days, hours, more, seconds = (int(part or 0) for part in clock.groups())
        minutes = days * 24 * 60 + hours * 60 + more + seconds / 60
    elif re.fullmatch(f"(?:{_SPAN.pattern})+", given):
        minutes = sum(float(number) * _UNITS[unit] for number, unit in _SPAN.findall(given))
    whole = int(minutes) + (minutes > int(minutes))
    if whole < 1:
        raise UsageError(f"--time is {text!r}: expected a time above 0, such as 4h, 90m, 1d12h or 4:00:00")
    return whole


def slurm_time(minutes: int) -> str:
    """A time limit as Slurm writes it: "04:00:00", "1-12:00:00"."""
    days, rest = divmod(minutes, 24 * 60)
    clock = f"{rest // 60:02d}:{rest % 60:02d}:00"
    return f"{days}-{clock}" if days else clock


def array_of(text: str) -> str:
    """The elements of an array job: "4" is 1-4, "8%2" are 8 of which 2 run at a time. Raises UsageError."""
    match = re.fullmatch(r"([1-9]\d*)(%[1-9]\d*)?", text)
    if match is None:
        raise UsageError(f"--array is {text!r}: expected how many jobs, such as 4, or 8%2 for 2 of 8 at a time")
    return f"1-{match[1]}{match[2] or ''}"
