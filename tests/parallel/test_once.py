"""Once for a batch: what all parts have found comes together, and rows are edited within a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.parallel.test_fixed_parts import SETTINGS
from tests.parallel.test_group import some_data
from tests.parallel.together import together
from treadle import Trainer, UsageError
from treadle.testing import Line, line_data


class Busy(Trainer):
    """Rows that multiply within `step`, by what the samples of the whole batch say; a buffer that follows."""

    def setup(self) -> None:
        self.cells = nn.Module()
        self.cells.xy = nn.Parameter(torch.rand(6, 4))
        self.cells.register_buffer("use", torch.zeros(6))
        self.height = nn.Linear(1, 1)
        self.optimizer = torch.optim.Adam([*self.cells.parameters(), *self.height.parameters()], lr=1e-2)
        self.heard: list[Any] = []

    def step(self, batch: Any) -> dict[str, Any]:
        x, y = batch
        near = nn.functional.dropout((-(x[:, None] - self.cells.xy).square().sum(2)).exp(), 0.2)
        loss = nn.functional.mse_loss(self.height(near.sum(1, keepdim=True)), y)
        self.minimize(loss)
        rows = self.once(self.change, near, torch.tensor([x[0, 0]]))
        again = self.once(lambda: len(self.cells.xy))
        return {"loss": loss, "rows": rows, "as many": float(rows == again == len(self.cells.xy))}

    def change(self, near: list[torch.Tensor], firsts: list[torch.Tensor]) -> int:
        assert not torch.is_grad_enabled()
        self.heard.append([[len(some) for some in near], torch.cat(firsts).tolist()])
        self.cells.use += torch.cat(near).sum(0)
        if self.progress.step % 3 == 2:
            chosen = self.cells.use.argsort(descending=True)[:2]
            new = self.cells.xy[chosen] + torch.randn(2, 4) / 9
            with self.edit_rows({"xy": self.cells.xy, "use": self.cells.use}) as edit:
                edit.append({"xy": new, "use": torch.zeros(2)})
        return len(self.cells.xy)


def train(settings: dict[str, Any]) -> Any:
    trainer = Busy(data=some_data(53), **SETTINGS | settings)
    trainer.train()
    return [trainer.digest(), dict(trainer.metrics), trainer.heard]


@pytest.mark.parametrize("batch_size", [10, 25])  # of 53 samples: a last batch of 3, for 4 parts
def test_rows_edited_once_in_a_step_are_the_same_in_1_2_and_4_processes(tmp_path: Path, batch_size: int) -> None:
    (alone,) = together(1, tmp_path, train, {"batch_size": batch_size})
    for size in (2, 4):
        assert together(size, tmp_path, train, {"batch_size": batch_size}) == [alone] * size
    assert alone[1]["as many"] == 1 and alone[1]["rows"] > 6
    assert alone[2][4 if batch_size == 25 else 5][0] == ([6, 6, 6, 7] if batch_size == 25 else [0, 1, 1, 1])


def test_without_parts_every_process_hears_of_all_and_draws_alike(tmp_path: Path) -> None:
    found = together(3, tmp_path, train, {"parts": None, "batch_size": 25})
    assert found[0] == found[1] == found[2]
    assert [lengths for lengths, _ in found[0][2]][:3] == [[8, 8, 9], [8, 8, 9], [1, 1, 1]]
    (alone,) = together(1, tmp_path, train, {"parts": None, "batch_size": 25})
    assert [lengths for lengths, _ in alone[2]][:3] == [[25], [25], [3]]


class Outside(Line):
    def post_step(self, batch: Any, outputs: Any) -> None:
        self.once(lambda: None)


def test_in_a_hook_there_is_nothing_to_wait_for() -> None:
    with pytest.raises(UsageError, match="with parts, once is called in step: hooks come once"):
        Outside(data=line_data(), max_steps=2, parts=2).train()
    Outside(data=line_data(), max_steps=2).train()


class Different(Line):
    def step(self, batch: Any) -> Any:
        if float(batch[0][0]) < 0:
            self.once(lambda: None)
        return super().step(batch)


def test_parts_that_do_not_all_come_there_are_told() -> None:
    with pytest.raises(UsageError, match="the parts of a batch call minimize for different optimizers"):
        Different(data=line_data(), max_steps=2, parts=2, shuffle=False, batch_size=50).train()
