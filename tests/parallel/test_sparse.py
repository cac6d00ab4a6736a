"""Sparse gradients of several processes: added up entry by entry, to the weights of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.parallel.test_group import differ, train_net
from tests.parallel.together import together
from treadle import Trainer, UsageError
from treadle.parallel import this_world
from treadle.testing import capture, restore


def words(count: int = 53) -> tuple[torch.Tensor, torch.Tensor]:
    picked = torch.randint(0, 40, (count, 3), generator=torch.Generator().manual_seed(1))
    return picked, picked.float().mean(1, keepdim=True).sin()


class Words(Trainer):
    """A table that few rows of are used of, one that few samples use at all, and a layer whose gradients are dense."""

    def setup(self) -> None:
        self.table = nn.Embedding(40, 4, sparse=True)
        self.rare = nn.Embedding(40, 4, sparse=True)
        self.head = nn.Linear(4, 1)
        self.rows = torch.optim.SparseAdam([self.table.weight, self.rare.weight], lr=1e-2)
        self.optimizer = torch.optim.SGD([*self.head.parameters()], lr=1e-2)

    def loss(self, batch: Any) -> torch.Tensor:
        picked, y = batch
        seen = self.table(picked).sum(1)
        chosen = picked[:, 0] > 30
        if bool(chosen.any()):
            seen = seen.index_add(0, chosen.nonzero()[:, 0], self.rare(picked[chosen, 1]))
        return nn.functional.mse_loss(self.head(seen), y)

    def step(self, batch: Any) -> dict[str, Any]:
        loss = self.loss(batch)
        self.minimize(loss, [self.rows, self.optimizer])
        return {"loss": loss}

    def validation_step(self, batch: Any) -> dict[str, Any]:
        return {"loss": self.loss(batch)}


class Plain(Words):
    """One optimizer, torch's own SGD, has what is sparse and what is not."""

    def setup(self) -> None:
        super().setup()
        del self.rows
        self.optimizer = torch.optim.SGD(
            [*self.table.parameters(), *self.rare.parameters(), *self.head.parameters()], lr=0.1
        )

    def step(self, batch: Any) -> dict[str, Any]:
        loss = self.loss(batch)
        self.minimize(loss)
        return {"loss": loss}


class Mixed(Plain):
    """The table's gradient is dense where a batch has one of the last words, in one process or in both."""

    def loss(self, batch: Any) -> torch.Tensor:
        loss, last = super().loss(batch), (batch[0] > 37).any(1)
        return loss + self.table.weight.square().mean() * last.float().mean() if bool(last.any()) else loss


def train_words(kind: type[Trainer], settings: dict[str, Any]) -> dict[str, Any]:
    return train_net(kind, {"max_epochs": 3, "log_every": "3 steps", **settings}, words())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Words, {"batch_size": 8}),
        (Words, {"batch_size": 3, "accumulate": 3, "clip_norm": 0.5}),
        (Plain, {"batch_size": 26, "spike": 30.0}),  # the last batch has one sample
        (Mixed, {"batch_size": 8}),
    ],
)
def test_sparse_gradients_come_to_the_weights_of_one_process(
    tmp_path: Path, kind: Any, settings: dict[str, Any]
) -> None:
    (alone,) = together(1, tmp_path, train_words, kind, settings)
    for size in (2, 3):
        found = together(size, tmp_path, train_words, kind, settings)
        assert all(one["digest"] == found[0]["digest"] for one in found)
        assert found[0]["updates"] == alone["updates"]
        assert differ(alone, found[0]) < 5e-6


def go_on(at: int) -> list[Any]:
    settings: dict[str, Any] = {"batch_size": 6, "max_steps": 11, "seed": 5, "accumulate": 3}
    whole = Words(data=words(), **settings)
    while whole.progress.step < at:
        whole.iterate()
    state = capture(whole).copy()
    whole.train()
    other = Words(data=words(), **settings)
    restore(other, state)
    other.train()
    return [whole.digest(), other.digest()]


def test_what_is_accumulated_of_them_goes_on_bit_for_bit(tmp_path: Path) -> None:
    found = together(2, tmp_path, go_on, 5)
    assert found[0] == found[1] and found[0][0] == found[0][1]


def refuse() -> str:
    try:
        Words(data=words(), batch_size=8, max_steps=2, parts=2).train()
    except UsageError as error:
        return str(error)
    return f"none in {this_world().rank}"


def test_parts_refuse_them(tmp_path: Path) -> None:
    assert refuse().startswith("the parts of a batch cannot add up sparse gradients: make the embedding with sparse=")
