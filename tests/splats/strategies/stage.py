"""A stage for strategies: splats, an optimizer that has moments of all of them, and counters."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from treadle.engine.progress import Progress
from treadle.engine.rows import RowEdit
from treadle.splats.cloud import Cloud
from treadle.splats.model import Splats


@dataclass
class Stage:
    """See `Scene`. Row number i has a mean of (i, 0, 0)."""

    model: Splats
    optimizer: torch.optim.Optimizer
    extent: float = 1.0
    step: int = 100
    steps: int = 1000

    @property
    def finished(self) -> Progress:
        return Progress(step=self.step, max_steps=self.steps)

    def edit(self) -> RowEdit:
        return RowEdit(self.model.rows, [self.optimizer])

    def generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(self.step + len(purpose))

    def moments(self, name: str) -> torch.Tensor:
        return self.optimizer.state[self.model.rows[name]]["exp_avg"]


def stage(logits: list[float], sizes: list[float], extra: dict[str, torch.Tensor] | None = None) -> Stage:
    count = len(logits)
    means = torch.zeros(count, 3)
    means[:, 0] = torch.arange(count)
    sizes_ = torch.tensor(sizes)[:, None] * torch.tensor([1.0, 0.5, 0.25])
    cloud = Cloud(means, torch.randn(count, 4, generator=torch.Generator().manual_seed(0)), sizes_.log(),
                  torch.tensor(logits), torch.rand(count, 3), torch.rand(count, 3, 3), extra or {})  # fmt: skip
    model = Splats(cloud)
    optimizer = torch.optim.Adam([{"params": [rows], "name": name} for name, rows in model.rows.items()], lr=1e-9)
    for rows in model.parameters():
        rows.grad = torch.ones_like(rows)
    optimizer.step()
    model.load_state_dict(Splats(cloud).state_dict())  # the step was for the moments alone
    return Stage(model, optimizer)
