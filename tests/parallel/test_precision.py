"""Half precision in several processes: sums do not overflow, and an overflow in one process skips the update in all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from tests.parallel.test_group import Net, differ, train_net
from tests.parallel.together import together
from treadle.parallel import this_world


class Half(Net):
    """Under autocast; in fp16 its gradients would not bear to be weighed by as many elements as there are."""

    many = 1000.0

    def elements(self, batch: Any) -> float:
        return self.many * len(batch[0])

    def loss(self, batch: Any) -> Any:
        x, y = batch
        return nn.functional.mse_loss(self.model(x).float(), y) / 10

    def step(self, batch: Any) -> dict[str, Any]:
        loss = self.loss(batch)
        self.minimize(loss)
        return {"loss": loss}


class Few(Half):
    many = 1 / 8


class Overflowing(Half):
    """The gradient, and not the loss, is too large for fp16 in the last process, at the third step."""

    many = 1.0

    def loss(self, batch: Any) -> Any:
        loss, bias = super().loss(batch), self.model[0].bias.sum()
        if self.progress.step == 2 and this_world().rank == this_world().size - 1:
            loss = loss + 1e36 * (bias - bias.detach())
        return loss


def train_half(kind: type[Net], settings: dict[str, Any]) -> dict[str, Any]:
    return train_net(kind, {"precision": "fp16", "max_epochs": 3, "batch_size": 8, **settings})


@pytest.mark.parametrize(
    ("settings", "size"), [({}, 3), ({"accumulate": 3, "clip_norm": 0.5}, 2), ({"parts": 2, "accumulate": 2}, 2)]
)
def test_what_samples_weigh_overflows_nothing(tmp_path: Path, settings: dict[str, Any], size: int) -> None:
    (alone,) = together(1, tmp_path, train_half, Few, settings)
    found = together(size, tmp_path, train_half, Half, settings)
    assert found[0]["updates"] == alone["updates"] and found[0]["scales"] == alone["scales"]
    assert all(one["digest"] == found[0]["digest"] for one in found)
    assert differ(alone, found[0]) < 1e-3  # what a step of fp16 is, some times


def test_an_overflow_in_one_process_skips_the_update_in_all(tmp_path: Path) -> None:
    (alone,) = together(1, tmp_path, train_half, Overflowing, {})
    found = together(2, tmp_path, train_half, Overflowing, {})
    assert alone["updates"] == found[0]["updates"] == [20]
    assert [one["scales"] for one in found] == [alone["scales"]] * 2
    assert found[0]["digest"] == found[1]["digest"]
    assert differ(alone, found[0]) < 1e-3
