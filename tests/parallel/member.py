"""A process of those that torchrun starts: trains what the gauntlet trains, and strikes where its task says.

The task is JSON: {"name", "run", "resume", "settings", "plans", "struck", "slow"}. Of `plans` each start by the same
torchrun has its own, in order. What is struck down is written to the file `struck` first.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

VICTIMS = ("itself", "ranks", "agent", "all")
"""Who is killed: the process that comes there, all that torchrun has started, torchrun alone, or everything."""

training = False
"""Whether there is something to be saved, and somebody who hears SIGTERM."""


def strike(plan: dict[str, Any], struck: str) -> None:
    """Kill whom the plan names. A process whose launcher is killed stays where it is until it can have noticed."""
    agent, victim = os.getppid(), plan["victim"]
    others = siblings(agent)
    with open(struck, "a") as file:
        file.write(json.dumps({**plan, "training": training}) + "\n")
    if victim in ("agent", "all"):
        os.kill(agent, signal.SIGKILL)
    if victim in ("ranks", "all"):
        for other in others:
            with suppress(ProcessLookupError):
                os.kill(other, signal.SIGKILL)
    if victim == "agent":
        time.sleep(3)
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def siblings(parent: int) -> list[int]:
    """The other processes that this one's parent has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.parent.name))
    return [number for number in found if number != os.getpid()]


def main() -> None:
    """Carry out the task in the first argument."""
    task, rank = json.loads(sys.argv[1]), int(os.environ["RANK"])
    plans = task.get("plans", [])[int(os.environ["TORCHELASTIC_RESTART_COUNT"]) :]
    plan = plans[0] if plans and plans[0] is not None and plans[0]["rank"] == rank else None
    if plan is not None and plan["at"].startswith("start"):
        strike(plan, task["struck"])

    import torch

    torch.set_num_threads(1)  # sums depend on it
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.parallel.packs import CONFORMANCE, build
    from treadle import Hook, Interrupts

    sys.path.insert(0, str(CONFORMANCE))

    class Slow(Hook):
        """Has a step take longer."""

        def post_step(self, *_: Any) -> None:
            time.sleep(task.get("slow", 0.0))

    if plan is not None and not plan["at"].startswith("start"):
        act, deadly = partial(strike, plan, task["struck"]), plan["victim"] != "agent"
        importlib.import_module("gauntlet_child").plant(plan["at"], plan["nth"], act, deadly=deadly)
    trainer = build(task["name"], task["run"], {"resume": task["resume"], **task["settings"]})
    trainer.add_hook(Slow())
    global training
    with Interrupts(trainer):
        training = True
        summary = trainer.train()
        if summary.status == "stopped":
            trainer.save()
    trainer.close()
    sys.stdout.write(f"member: {rank} {summary.status} {trainer.digest()}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
