"""Two processes whose every message takes longer: the same bits, commands obeyed by both after the same step.

    python tests/parallel/slow_link.py        # a table: messages of a step, and what each of them costs it

The link is slow because torch's collectives wait before they begin; they are counted, too. (`tc qdisc add ... netem`
delays packets themselves, where the kernel has it.)
"""

from __future__ import annotations

import functools
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.parallel.packs import CONFORMANCE
from tests.parallel.together import together
from treadle import Hook, Trainer
from treadle.parallel import this_world
from treadle.testing import Line, line_data

COLLECTIVES = ("all_reduce", "all_gather", "all_to_all_single", "broadcast")
STEPS = 30
DELAYS = (0, 5, 20)
"""Milliseconds."""


class Count(Hook):
    """How many messages there were at the end of each step, and when that was."""

    def __init__(self, count: list[int]) -> None:
        self.count = count
        self.seen: list[tuple[int, float]] = []

    def post_step(self, *_: Any) -> None:
        self.seen.append((self.count[0], time.perf_counter()))

    def of_a_step(self) -> tuple[int, float]:
        """Messages of a usual step, and the milliseconds of the quickest such: others use the machine, too."""
        pairs = list(zip(self.seen, self.seen[1:], strict=False))
        steps = [(after[0] - before[0], after[1] - before[1]) for before, after in pairs]
        usual = round(statistics.median(messages for messages, _ in steps))
        return usual, 1000 * min(seconds for messages, seconds in steps if messages == usual)


@contextmanager
def slow(seconds: float) -> Iterator[list[int]]:
    """Within, each message takes so much longer; gives how many there were."""
    count = [0]

    def later(collective: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(collective)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            count[0] += 1
            time.sleep(seconds)
            return collective(*arguments, **named)

        return wrapped

    before = {name: getattr(dist, name) for name in COLLECTIVES}
    for name, collective in before.items():
        setattr(dist, name, later(collective))
    try:
        yield count
    finally:
        for name, collective in before.items():
            setattr(dist, name, collective)


def build(kind: str, **settings: Any) -> Trainer:
    """The trainer of that kind: an MLP ("mlp", "mlp, parts"), or a GAN with its two optimizers ("gan")."""
    settings |= {"max_steps": STEPS, "seed": 3, "log_every": "10 steps", "save_every": "15 steps"}
    settings |= {"parts": 2} if kind.endswith("parts") else {}
    if kind.startswith("mlp"):
        return Line(data=line_data(), batch_size=8, **settings)
    if str(CONFORMANCE) not in sys.path:
        sys.path.insert(0, str(CONFORMANCE))
    import gauntlet_trainers

    ring = gauntlet_trainers.example("gan_2d")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        data = ring.CENTRES[torch.randint(ring.MODES, (600,))] + ring.SIGMA * torch.randn(600, 2)
    return ring.RingGAN(data=data, batch_size=128, **settings)  # type: ignore[no-any-return]


def train(kind: str, run: str, seconds: float, *, ask: bool = False) -> dict[str, Any]:
    """Train over a link that is slow; with `ask` the last process asks for a stop on the way, and a resume ends it."""
    with slow(seconds) as count:
        counted = Count(count)
        trainer = build(kind, run_dir=run, hooks=[counted])
        stopped = None
        if ask:
            if this_world().rank == this_world().size - 1:
                threading.Thread(target=stop_after, args=(trainer, 5), daemon=True).start()
            stopped = trainer.train().step
            trainer.save()
            trainer.close()
            trainer = build(kind, run_dir=run, resume=True, hooks=[Count(count)])
        trainer.train()
    messages, milliseconds = counted.of_a_step()
    return {"digest": trainer.digest(), "messages": messages, "milliseconds": milliseconds, "stopped": stopped}


def stop_after(trainer: Trainer, step: int) -> None:
    """Ask for a stop, from a thread, once so many steps are done."""
    while trainer.progress.step < step:
        time.sleep(0.001)
    trainer.stop("asked")


def main() -> int:
    """The table."""
    print("                messages  ms a step at a delay of 0, 5, 20 ms   ms for each ms   the same bits   stopped at")
    failed = 0
    for kind in ("mlp", "gan", "mlp, parts", "gan, parts"):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            found = {delay: together(2, place, train, kind, f"{folder}/{delay}", delay / 1000) for delay in DELAYS}
            asked = together(2, place, functools.partial(train, ask=True), kind, f"{folder}/asked", 0.02)
        same = len({one["digest"] for some in (*found.values(), asked) for one in some}) == 1
        times = [found[delay][0]["milliseconds"] for delay in found]
        stops = sorted({one["stopped"] for one in asked})
        failed += not (same and len(stops) == 1 and stops[0] < STEPS)
        text = "  ".join(f"{each:7.1f}" for each in times)
        slope = (times[2] - times[0]) / 20
        print(f"{kind:14} {found[0][0]['messages']:8}     {text} {slope:24.2f} {same!s:>15} {stops!s:>12}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    from tests.parallel import slow_link  # by the name under which other processes find its functions

    sys.exit(slow_link.main())
