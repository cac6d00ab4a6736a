"""Processes that were not started alike are told so before their first step, and what differs is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.parallel.together import together
from treadle import Trainer, UsageError
from treadle.parallel import this_world


class Line(Trainer):
    """A line of a width that each process is told."""

    width = 1

    def setup(self) -> None:
        self.model = nn.Linear(1, self.width)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def step(self, batch: Any) -> dict[str, Any]:
        x, y = batch
        loss = (self.model(x).mean(1, keepdim=True) - y).square().mean()
        self.minimize(loss)
        return {"loss": loss}


def start(*, width: int = 1, samples: int = 32, **settings: Any) -> str:
    x = torch.linspace(-1, 1, samples)[:, None]
    kind = type("Line", (Line,), {"width": width, "__module__": Line.__module__})
    trainer = kind(data=(x, 3 * x), batch_size=8, **{"max_steps": 3, **settings})
    try:
        return str(trainer.train().status)
    except UsageError as error:
        return str(error)


def start_otherwise() -> list[str]:
    second = this_world().rank == 1
    return [
        start(width=1 + second),
        start(max_steps=3 + second),
        start(samples=32 - second),
        start(seed=int(second)),
        start(workers=int(second)),  # each may have its own
    ]


def test_what_differs_between_processes_is_named(tmp_path: Path) -> None:
    main, second = together(2, tmp_path, start_otherwise)
    assert main == second
    assert [text.partition(" in process 0")[0] for text in main] == [
        "parameter model.weight is float32 (2, 1) in process 1 and float32 (1, 1)",
        "max_steps is 4 in process 1 and 3",
        "the number of samples in feed is 31 in process 1 and 32",
        "seed is 1 in process 1 and 0",
        "finished",
    ]
    assert main[0].endswith("all processes of a run are started with the same program, settings and data")
