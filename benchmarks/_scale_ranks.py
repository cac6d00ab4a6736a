"""Processes that take steps together, contestant by contestant, in turns: both sides of the scale benchmark.

python _scale_ranks.py RANK RANKS PLACE TASK      one of the processes; the first writes PLACE/found.json
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SECONDS = 400
"""Processes that take longer hang, and are ended."""


@dataclass(frozen=True)
class Task:
    """What so many processes are to measure.

    Args:
        size: the MLP, of `_scale_work.SIZES`.
        rounds: turns of each contestant.
        steps: timed steps of a turn.
        mechanisms: how often each of the others is timed; 0 leaves them out.
    """

    size: str
    rounds: int
    steps: int
    mechanisms: int = 0


@dataclass
class Found:
    """What they have measured, in the main process.

    Attributes:
        seconds: of a step, by contestant, for each round.
        apart: the largest difference of any weight to DDP's (alone: the raw loop's), by contestant.
        mechanisms: seconds of one use, by name, for each time.
    """

    seconds: dict[str, list[float]]
    apart: dict[str, float]
    mechanisms: dict[str, list[float]]


def measure(task: Task, ranks: int) -> Found:
    """Start so many processes, one thread each, which meet at a file, and let them do the task."""
    with tempfile.TemporaryDirectory() as place:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        for name in ("RANK", "WORLD_SIZE"):
            environment.pop(name, None)
        members = []
        try:
            for rank in range(ranks):
                command = [sys.executable, __file__, str(rank), str(ranks), place, json.dumps(asdict(task))]
                with open(Path(place) / f"{rank}.log", "w") as log:
                    members.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            end = time.monotonic() + SECONDS
            for rank, member in enumerate(members):
                if member.wait(max(end - time.monotonic(), 1)):
                    raise RuntimeError(f"process {rank} failed:\n{(Path(place) / f'{rank}.log').read_text()[-3000:]}")
        finally:
            for member in members:
                member.kill()
                member.wait()
        return Found(**json.loads((Path(place) / "found.json").read_text()))


def take_turns(contestants: dict[str, Any], task: Task, wait: Callable[[], None]) -> dict[str, list[float]]:
    """Seconds of a step by contestant, for each round. Another one begins each round, every other goes backwards."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(task.rounds + 1):
        first = number % len(names)
        order = names[first:] + names[:first]
        for name in order if number % 2 else reversed(order):
            take = contestants[name].take
            wait()
            take(1)  # its caches are cold
            begin = time.perf_counter()
            take(task.steps)
            if number:  # in round 0 memory is found
                seconds[name].append((time.perf_counter() - begin) / task.steps)
    return seconds


def main(rank: int, ranks: int, place: Path, task: Task) -> None:
    """One of the processes."""
    import torch
    import torch.distributed as dist
    from _scale_mechanisms import mechanisms
    from _scale_work import SIZES, contestants

    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(str(place / "meet"), ranks), rank=rank, world_size=ranks)
    size = SIZES[task.size]
    everyone = contestants(size, rank, ranks)
    seconds = take_turns(everyone, task, dist.barrier)
    weights = {name: each.weights() for name, each in everyone.items()}
    reference = weights["ddp" if ranks > 1 else "alone"]
    apart = {name: float((some - reference).abs().max()) for name, some in weights.items()}
    times = mechanisms(size, place / "run", task.mechanisms, dist.barrier) if task.mechanisms else {}
    if rank == 0:
        (place / "found.json").write_text(json.dumps(asdict(Found(seconds, apart, times))))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Task(**json.loads(sys.argv[4])))
