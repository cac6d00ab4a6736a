"""What Treadle's trainer adds to the hand-written fast loop: both in one process, taking single steps in turns.

Started by gans.py as `_gan_overhead.py WORKLOAD PAIRS`; prints one line of JSON. Who goes first alternates. CPU time of
the process on one thread: what else the machine does takes caches and clock rate from both alike.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any

import torch
from _gan_peers import Timed, fast_step
from _gan_workload import THIN, TINY, WORKLOADS, Players, Workload, streams

WARM_UP = 4
COUNTED = 4
"""Steps over which Python calls are counted."""


class ByHand:
    """The hand-written fast loop, one step at a time; `iterate` gives it its random streams back, as Treadle's does."""

    def __init__(self, workload: Workload) -> None:
        self.streams = streams()
        with self.streams:
            self.players = Players.of(workload, fused=True)
        self.batches = iter(workload.batches())

    def iterate(self) -> None:
        """Take a step."""
        with self.streams:
            fast_step(self.players, *next(self.batches))


def calls(function: Callable[[], Any]) -> int:
    """How many Python functions a call of `function` calls."""
    count = 0

    def on_event(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(on_event)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def seconds(function: Callable[[], Any]) -> float:
    """CPU seconds of a call of `function`."""
    start = time.process_time()
    function()
    return time.process_time() - start


def compare(workload: Workload, pairs: int) -> dict[str, list[float]]:
    """CPU seconds of every step of both, "hand" and "treadle", and the Python calls of some, "hand calls" and so on.

    Raises SystemExit where both do not end with the same weights.
    """
    workload = replace(workload, warm_up=WARM_UP + pairs + COUNTED)
    hand = ByHand(workload)
    trainer = Timed(workload.config, data=workload.data())
    trainer.tick = lambda: None
    both: dict[str, Callable[[], Any]] = {"hand": hand.iterate, "treadle": trainer.iterate}
    result: dict[str, list[float]] = {name: [] for name in both} | {f"{name} calls": [] for name in both}
    for index in range(WARM_UP + pairs):
        for name in both if index % 2 else reversed(both):
            spent = seconds(both[name])
            if index >= WARM_UP:
                result[name].append(spent)
    for _ in range(COUNTED):
        for name, iterate in both.items():
            result[f"{name} calls"].append(calls(iterate))
    if hand.players.digest() != trainer.players().digest():
        raise SystemExit("Treadle did not end with the weights of the hand-written fast loop: the work is not equal")
    trainer.close()
    return result


def main() -> None:
    """A worker process: see the top of this file."""
    name, pairs = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    print(json.dumps(compare({"thin": THIN, "tiny": TINY, **WORKLOADS}[name], pairs)))


if __name__ == "__main__":
    main()
