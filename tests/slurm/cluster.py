"""A cluster of two nodes on this machine: Slurm's own daemons, with a configuration, keys and ports of their own.

Whoever runs it is the only user that it knows, so nothing of it needs another user's rights, and a Slurm that the
machine has anyway is not touched. CPUs are only counted: each node says that it has `CPUS`. Nodes go by names of this
machine, so that what runs on one finds the other; only the partition "both" has the second one.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")
CPUS = 16
PATIENCE = 900.0
"""Seconds that anything is waited for: it takes a few, on a machine that does nothing else."""

CONFIGURATION = """\
ClusterName=treadle
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# A requeued job begins again once its credential has run out: after two minutes, where nobody says otherwise.
AuthInfo=socket={home}/munge/socket,cred_expire=5
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool-%n
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd-%n.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=60
MinJobAge=3600
NodeName={host} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus} State=UNKNOWN
NodeName={other} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus} State=UNKNOWN
PartitionName=low Nodes={host} Default=YES State=UP PriorityTier=1
PartitionName=grace Nodes={host} State=UP PriorityTier=1 GraceTime=15
PartitionName=high Nodes={host} State=UP PriorityTier=2 PreemptMode=OFF
PartitionName=both Nodes=ALL State=UP PriorityTier=1 PreemptMode=OFF
"""
OTHER = "localhost"
"""The second node's name."""


class Unavailable(Exception):
    """There can be no Slurm here, and why."""


class Cluster:
    """A cluster that runs; its commands find it by the environment."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def ask(self, *command: str) -> str:
        """What a command says. Raises CalledProcessError where it fails."""
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """What `scontrol` knows of a job, by name."""
        words = self.ask("scontrol", "show", "job", "--oneliner", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def state(self, number: str) -> str:
        """The state of a job: PENDING, RUNNING, COMPLETED, ..."""
        return self.job(number)["JobState"]

    def wait_for_end(self, number: str) -> dict[str, str]:
        """What is known of a job once it has ended and will not begin again."""
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
        wait_for(lambda: self.state(number) in ended, f"the end of job {number}", 2 * PATIENCE)
        return self.job(number)


def wait_for(what: Callable[[], Any], name: str, seconds: float = PATIENCE) -> Any:
    """What `what` gives once that is something. Raises AssertionError, naming it, where it does not come."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, f"{name} did not come within {seconds:g} s"
        time.sleep(0.2)
    return found


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster as long as the block lasts; nothing of it is left afterwards. Raises Unavailable where it cannot be."""
    os.environ["PATH"] += ":/usr/sbin:/usr/local/sbin"  # where the daemons are, and few people look
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise Unavailable(f"no {missing[0]} (Debian: apt-get install slurm-wlm munge)")
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="treadle-slurm-")))
        home.chmod(0o755)
        host, user = socket.gethostname().partition(".")[0], pwd.getpwuid(os.getuid()).pw_name
        if host == OTHER:
            raise Unavailable(f"this machine has no name but {OTHER} (hostname NAME)")
        for name in ("munge", "state", f"spool-{host}", f"spool-{OTHER}"):
            (home / name).mkdir(mode=0o755)
        text = CONFIGURATION.format(host=host, other=OTHER, home=home, user=user, ports=_free_ports(3), cpus=CPUS)
        (home / "slurm.conf").write_text(text)
        os.environ["SLURM_CONF"] = str(home / "slurm.conf")
        key = home / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        munge = [f"--{name}-file={home}/munge/{name}" for name in ("key", "pid", "log", "seed")]
        _daemon(stack, home, "munged", "--foreground", "--force", f"--socket={home}/munge/socket", *munge)
        made = Cluster(home)
        wait_for((home / "munge" / "socket").exists, "munged", 60)
        _daemon(stack, home, "slurmctld", "-D", "-c", "-f", f"{home}/slurm.conf")
        for name in (host, OTHER):
            _daemon(stack, home, "slurmd", "-D", "-N", name, "-f", f"{home}/slurm.conf")
        try:
            wait_for(lambda: _answers(made), "two nodes that are idle", 120)
        except AssertionError as error:
            said = "\n".join(path.read_text()[-2000:] for path in sorted(home.glob("*.out")))
            raise Unavailable(f"the daemons do not start: {error}\n{said}") from None
        try:
            yield made
        finally:
            _cancel_all(made)


def _answers(made: Cluster) -> bool:
    command = ["sinfo", "--noheader", "--partition", "both", "-o", "%D %t"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.split() == ["2", "idle"]


def _cancel_all(made: Cluster) -> None:
    """Let no process of a job outlive the cluster."""
    for number in made.ask("squeue", "--noheader", "-o", "%A").split():
        made.ask("scancel", "--signal=KILL", "--full", number)
        made.ask("scancel", number)
    wait_for(lambda: not made.ask("squeue", "--noheader"), "the end of all jobs")


def _daemon(stack: ExitStack, home: Path, *command: str) -> None:
    """Start a daemon that is ended with the stack."""
    with open(home / f"{command[0]}.out", "a") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)

    def end() -> None:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(end)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
