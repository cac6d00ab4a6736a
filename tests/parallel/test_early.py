"""Messages that leave while the backward pass goes on: the same bits as without, whatever a process has or lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.parallel.test_group import Net, some_data
from tests.parallel.together import together
from treadle import Trainer
from treadle.engine import buckets
from treadle.engine.together import GradientSum


class Rare(Net):
    """What only some samples use, in whichever process has them, and what none uses: in front, so that others need not
    wait for it."""

    def setup(self) -> None:
        super().setup()
        parts = [self.never, self.rare, self.model]
        self.optimizer = torch.optim.Adam([p for part in parts for p in part.parameters()], lr=1e-2)


class Again(Net):
    """A layer that is used in two checkpoints within the graph, each of which adds to its gradient."""

    def setup(self) -> None:
        self.first, self.twice, self.last = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 1)
        parts = [self.first, self.last, self.twice]  # in front of what is complete before it
        self.optimizer = torch.optim.Adam([p for part in parts for p in part.parameters()], lr=1e-2)

    def step(self, batch: Any) -> dict[str, Any]:
        hidden = self.first(batch[0])
        for _ in range(2):
            hidden = checkpoint(self.twice, hidden, use_reentrant=True).tanh()
        loss = nn.functional.mse_loss(self.last(hidden), batch[1])
        self.minimize(loss)
        return {"loss": loss}


class Growing(Net):
    """Its rows grow, so that autograd counts for them anew."""

    def setup(self) -> None:
        super().setup()
        self.rows = nn.Parameter(torch.ones(20, 4))
        self.optimizer.add_param_group({"params": [self.rows]})

    def step(self, batch: Any) -> dict[str, Any]:
        x, y = batch
        loss = nn.functional.mse_loss(self.model(x) + (x @ self.rows.t()).tanh().sum(1, keepdim=True), y)
        self.minimize(loss)
        return {"loss": loss}

    def post_step(self, batch: Any, outputs: Any) -> None:
        super().post_step(batch, outputs)
        with self.edit_rows([self.rows]) as edit:
            edit.append([self.rows[:1].detach()])


def train(kind: type[Trainer], settings: dict[str, Any], how: str) -> Any:
    """Digest and weights, and how many messages left while a backward pass went on."""
    before = buckets.LEAST, buckets.MOST, GradientSum.listen, GradientSum.add_up
    _, _, listen, add_up = before
    trainer = kind(data=some_data(), seed=3, batch_size=8, max_steps=9, **settings)
    begin = trainer.loop.world.beside()
    inside, left = False, 0

    def counting(tensor: torch.Tensor) -> Any:
        nonlocal left
        left += inside
        return begin(tensor)

    def listening(self: GradientSum, parameters: Any) -> None:
        nonlocal inside
        if how == "early":
            inside = True
            listen(self, parameters)

    def adding(self: GradientSum, *arguments: Any) -> Any:
        nonlocal inside
        inside = False
        return add_up(self, *arguments)

    trainer.loop.world.beside = lambda: counting  # type: ignore[method-assign]
    try:
        buckets.LEAST, buckets.MOST = 64, 100
        GradientSum.listen, GradientSum.add_up = listening, adding  # type: ignore[method-assign]
        trainer.train()
    finally:
        buckets.LEAST, buckets.MOST, GradientSum.listen, GradientSum.add_up = before  # type: ignore[method-assign]
    weights = {name: p.detach().flatten().tolist() for name, p in trainer.parts.all_parameters().items()}
    return [trainer.digest(), weights, left]


@pytest.mark.parametrize(
    ("kind", "settings"), [(Rare, {"accumulate": 2, "clip_norm": 0.5}), (Again, {}), (Growing, {})]
)
def test_messages_that_leave_early_change_no_bit(tmp_path: Path, kind: Any, settings: dict[str, Any]) -> None:
    early = together(3, tmp_path, train, kind, settings, "early")
    late = together(3, tmp_path, train, kind, settings, "late")
    assert [one[:2] for one in early] == [early[0][:2]] * 3 == [one[:2] for one in late]
    assert min(one[2] for one in early) > 3 and {one[2] for one in late} == {0}
    (alone,) = together(1, tmp_path, train, kind, settings, "late")
    for name, values in alone[1].items():
        assert values == pytest.approx(early[0][1][name], abs=5e-6), name
