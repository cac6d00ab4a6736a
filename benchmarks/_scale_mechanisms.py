"""What several processes do besides steps, each by itself and timed: the rest of the scale benchmark."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from _scale_work import BATCH, Size, trainer
from torch import Tensor, nn

from treadle import Trainer
from treadle.engine.means import Means, over
from treadle.parallel import this_world

CALLS = 1000
"""Of what takes less than a microsecond, to be timed at all."""
ROWS, ADDED = 50_000, 500
"""Gaussians of a row edit, of 14 numbers each, and how many of them split."""


class Rows(Trainer):
    """Rows with their moments, as splats have them."""

    def setup(self) -> None:
        """One tensor for all that a row has."""
        self.rows = nn.Parameter(torch.zeros(ROWS, 14))
        self.optimizer = torch.optim.Adam([self.rows], lr=1e-3)

    def step(self, batch: Tensor) -> dict[str, Any]:
        """Pull at all of them."""
        self.minimize(self.rows.square().sum() * batch.mean())
        return {}


def mechanisms(size: Size, run: Path, times: int, wait: Callable[[], None]) -> dict[str, list[float]]:
    """Seconds of one use of each, so many times; all processes begin each time together."""
    found: dict[str, list[float]] = {}
    for name, use in uses(size, run):
        use()
        found[name] = []
        for _ in range(times):
            wait()
            begin = time.perf_counter()
            use()
            found[name].append(time.perf_counter() - begin)
    found["commands"] = [idle(trainer(size)) for _ in range(times)]
    return found


def uses(size: Size, run: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each mechanism, by name, and what one use of it is."""
    world = this_world()
    metrics = Means()
    metrics.add({"loss": 0.5, "psnr": 20.0, "grad_norm": 1.0}, 1.0)
    yield "metrics", lambda: over(world, metrics)
    validated = trainer(size, validation_data=size.data(), hooks=[])
    validated.iterate()
    yield "validation", validated.validate
    saved = trainer(size, run_dir=str(run), save_every=None)
    saved.iterate()
    yield "save", saved.save
    saved.driver.abandon()
    edited = Rows(data=torch.ones(BATCH, 1), batch_size=BATCH, max_steps=10**9, log_every=None, device="cpu")
    edited.iterate()
    yield "edit", lambda: edit(edited)


def edit(rows: Rows) -> None:
    """Some rows split and as many die, with their moments: the count stays."""
    with rows.edit_rows([rows.rows]) as edit:
        edit.append([rows.rows[:ADDED].detach()])
        edit.keep(torch.arange(ADDED, ROWS + ADDED))


def idle(net: Trainer) -> float:
    """Seconds of CPU that a step spends to see that nobody asks for anything, here or in another process."""
    net.iterate()
    minimizer, several = net.loop.minimizer, net.loop.world.size > 1
    asks, take_asked = minimizer.asks, minimizer.take_asked
    begin = time.thread_time()
    for _ in range(CALLS):
        pass
    between = time.thread_time()
    if several:
        for _ in range(CALLS):
            float(asks())
            take_asked()
    end = time.thread_time()
    return max((end - between) - (between - begin), 0.0) / CALLS
