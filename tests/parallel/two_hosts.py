"""One run on two hosts, which are network namespaces of this machine: killed, cut off from one another, started again.

    python tests/parallel/two_hosts.py        # `make proof-hosts`: a table; exit code 1 where something does not hold

Each host has an address of its own and a torchrun; a link joins them, and nothing else. It needs rights to make
namespaces (`ip netns add`); where there are none it says so, and nothing is tested. All of it is removed in the end.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.parallel.launched import Launched, answers, program

NAME = "growing_gaussians"
"""What is trained; see tests/conformance/gauntlet_trainers.py."""
LINK = "link0"
PORT = 29400
SECONDS = 20
"""`TREADLE_TIMEOUT` where the link is cut."""
ADDRESSES = ("10.213.77.1", "10.213.77.2")
SHARED = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""What torchrun needs for `--max-restarts` on several machines."""


def ip(*words: str) -> str:
    """What `ip` says. Raises CalledProcessError where it fails."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=60).stdout


class Hosts:
    """Two namespaces that a link joins.

    Args:
        place: a directory that both can see.
    """

    def __init__(self, place: Path) -> None:
        self.place, self.count = place, 0
        self.names = [f"treadle-{os.getpid()}-{index}" for index in range(2)]

    def make(self) -> None:
        """Make them. Raises OSError or CalledProcessError where this machine does not let us."""
        for name in self.names:
            ip("netns", "add", name)
        ip("link", "add", LINK, "netns", self.names[0], "type", "veth", "peer", "name", LINK, "netns", self.names[1])
        for name, address in zip(self.names, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", LINK)
            ip("-n", name, "link", "set", "lo", "up")
        self.link("up")

    def link(self, state: str) -> None:
        """Cut the link ("down"), or mend it ("up")."""
        for name in self.names:
            ip("-n", name, "link", "set", LINK, state)

    def kill(self, *which: int) -> None:
        """Kill whatever runs on a host, at once."""
        for index in which:
            for number in ip("netns", "pids", self.names[index]).split():
                with suppress(ProcessLookupError):
                    os.kill(int(number), signal.SIGKILL)

    def remove(self) -> None:
        """Leave nothing behind."""
        for index, name in enumerate(self.names):
            if name in ip("netns", "list").split():
                self.kill(index)
                ip("netns", "delete", name)

    def start(self, form: str, task: dict[str, Any], restarts: int = 0, **environment: str) -> list[Launched]:
        """A torchrun on each host, started in that form: "c10d" (they meet) or "static" (each has its number)."""
        self.count += 1
        started = []
        for index, (name, address) in enumerate(zip(self.names, ADDRESSES, strict=True)):
            common = ["--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", str(restarts)]
            forms = {
                "static": ["--node-rank", str(index), "--master-addr", ADDRESSES[0], "--master-port", str(PORT)],
                "c10d": [
                    *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"{ADDRESSES[0]}:{PORT}", "--rdzv-id", "hosts"),
                    # On a host whose name leads to its address torchrun finds out both.
                    *("--rdzv-conf", f"is_host={int(index == 0)}", "--local-addr", address),
                ],
            }
            started.append(
                Launched(
                    [*common, *forms[form]],
                    program(json.dumps(task)),
                    self.place,
                    f"{form}-{self.count}-host-{index}",
                    ("ip", "netns", "exec", name),
                    {"GLOO_SOCKET_IFNAME": LINK, **environment},
                )
            )
        return started


class Proof:
    """What is tried, one after the other, with what came of it.

    Args:
        place: a directory of its own.
    """

    def __init__(self, place: Path, hosts: Hosts) -> None:
        self.place, self.hosts, self.failed = place, hosts, 0
        one = Launched(
            ["--standalone", "--nproc-per-node", "2"], program(json.dumps(self.task("one-host"))), place, "one"
        )
        one.wait()
        (_, _, self.whole), (_, _, other) = answers(one.said)
        assert self.whole == other

    def task(self, run: str, slow: float = 0.0, **more: Any) -> dict[str, Any]:
        """What the processes are to do: `member.py`."""
        return {
            "name": NAME,
            "run": str(self.place / run),
            "resume": "auto",
            "settings": {},
            "slow": slow,
            "struck": str(self.place / "struck"),
        } | more

    def show(self, what: str, holds: bool, note: str, launched: list[Launched]) -> None:
        """A line of the table; what the processes said where it does not hold."""
        print(f"{'holds' if holds else 'FAILS':6} {what:64} {note}", flush=True)
        if not holds:
            self.failed += 1
            for one in launched:
                print(f"--- {one.log.name}\n{one.said[-6000:]}", file=sys.stderr)

    def ends(self, what: str, run: str, launched: list[Launched]) -> None:
        """Both end well, and the run as on one host."""
        codes = [one.wait() for one in launched]
        found = sorted(answer for one in launched for answer in answers(one.said))
        same = [answer[1:] for answer in found] == [["finished", self.whole]] * 2
        versions = [path.name for path in (self.place / run).glob("v*")]
        self.show(what, same and codes == [0, 0] and versions == ["v001"], f"exit codes {codes}, {versions}", launched)

    def until(self, run: str, lines: int, launched: list[Launched]) -> None:
        """Wait until a run has so many metric lines."""
        path, end = self.place / run / "v001" / "metrics.jsonl", time.monotonic() + 200
        while time.monotonic() < end:
            if path.exists() and path.read_text().count("\n") >= lines:
                return
            time.sleep(0.05)
        raise TimeoutError("\n".join([f"{run} has not begun", *(one.said for one in launched)]))

    def goes_on(self, what: str, form: str, run: str) -> None:
        """Start both anew."""
        self.ends(what, run, self.hosts.start(form, self.task(run)))

    def killed(self, form: str, host: int) -> None:
        """A host goes down; the other's process ends, and both start anew."""
        run = f"killed-{form}-{host}"
        launched = self.hosts.start(form, self.task(run, 0.2))
        self.until(run, 8, launched)
        began = time.monotonic()
        self.hosts.kill(host)
        other = launched[1 - host]
        what = f"{form}: host {host} is killed: the other says so and ends"
        self.show(what, *self.ended(other, began), launched)
        self.hosts.kill(0, 1)
        self.goes_on(f"{form}: both start anew: the digest of one host", form, run)

    def cut(self, form: str) -> None:
        """The link goes down; both processes end, each naming the other; the link comes back, and both start anew."""
        run = f"cut-{form}"
        launched = self.hosts.start(form, self.task(run, 0.2), TREADLE_TIMEOUT=str(SECONDS))
        self.until(run, 8, launched)
        began = time.monotonic()
        self.hosts.link("down")
        for index, one in enumerate(launched):
            what = f"{form}: the link is cut: host {index} names the other, after TREADLE_TIMEOUT={SECONDS}"
            self.show(what, *self.ended(one, began), launched)
        self.hosts.kill(0, 1)
        self.hosts.link("up")
        self.goes_on(f"{form}: it is mended, both start anew: the digest of one host", form, run)

    def ended(self, one: Launched, began: float) -> tuple[bool, str]:
        """Whether the process of a host ends with a line that names another, and that line."""
        end, said = time.monotonic() + 120, ""
        while time.monotonic() < end:
            texts = [line.partition("Gone: ")[2] for line in one.said.splitlines() if "Gone: " in line]
            said = texts[-1] if texts else ""
            if said and not self.trains(one):
                return "process " in said, f"{time.monotonic() - began:.0f} s: {said}"
            time.sleep(0.2)
        return False, said

    def trains(self, one: Launched) -> bool:
        """Whether anything of a launch but torchrun itself is there."""
        return any(number != one.process.pid for number in one.alive())

    def restarted(self, rank: int, run: str) -> None:
        """A process is killed, and the torchruns of both hosts start both again."""
        plan = {"at": "step: counted", "nth": 9, "rank": rank, "victim": "itself"}
        task = self.task(run, plans=[plan], resume=False)
        launched = self.hosts.start("c10d", task, 2, **SHARED)
        self.ends(f"c10d: process {rank} is killed, --max-restarts: the same run goes on", run, launched)


@contextmanager
def two_hosts(place: Path) -> Iterator[Hosts]:
    """The hosts, which are gone after the block."""
    hosts = Hosts(place)
    try:
        hosts.make()
        yield hosts
    finally:
        hosts.remove()


def missing() -> str | None:
    """Why no hosts can be made here; None where they can."""
    if shutil.which("ip") is None:
        return "there is no `ip` (Debian's iproute2)"
    name = f"treadle-{os.getpid()}-try"
    try:
        ip("netns", "add", name)
        ip("-n", name, "link", "add", LINK, "type", "veth", "peer", "name", "link1")
    except (OSError, subprocess.CalledProcessError) as error:
        return str(getattr(error, "stderr", error)).strip().splitlines()[-1]
    finally:
        with suppress(OSError, subprocess.CalledProcessError):
            ip("netns", "delete", name)
    return None


def main() -> int:
    """The table."""
    why = missing()
    if why is not None:
        print(f"skipped: no network namespaces can be made here: {why}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the hosts are removed
    with tempfile.TemporaryDirectory() as folder, two_hosts(Path(folder)) as hosts:
        proof = Proof(Path(folder), hosts)
        steps: list[Callable[[], None]] = [
            *(
                lambda form=form: proof.goes_on(f"{form}: the digest of one host", form, form)
                for form in ("c10d", "static")
            ),
            *(lambda host=host: proof.killed("c10d", host) for host in (1, 0)),
            lambda: proof.cut("c10d"),
            lambda: proof.cut("static"),
            *(lambda rank=rank: proof.restarted(rank, f"restarted-{rank}") for rank in (1, 0)),
        ]
        wanted = [int(word) for word in sys.argv[1:]] or range(len(steps))
        for index in wanted:
            steps[index]()
        return 1 if proof.failed else 0


if __name__ == "__main__":
    sys.exit(main())
