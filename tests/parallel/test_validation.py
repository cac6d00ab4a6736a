"""Validation dealt out over processes in whole batches: the same bits as in one, and each batch made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.parallel.together import together
from treadle import Trainer, UsageError
from treadle.data.named import NamedFeeds
from treadle.data.tensors import TensorFeed
from treadle.parallel import this_world
from treadle.testing import Line


class Noisy(Trainer):
    """Its validation draws, some batches have a metric of their own, and batch statistics differ between processes."""

    transient = ("seen",)

    def setup(self) -> None:
        self.model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.0)
        self.seen: list[int] = []
        self.sent: list[float] = []

    def step(self, batch: Any) -> Any:
        loss = self.model(batch).square().mean()
        self.minimize(loss)
        return {"loss": loss}

    def validation_step(self, batch: Any) -> dict[str, Any]:
        self.seen.append(int(batch[0, 0]))
        found = {"loss": (batch[:, :1] / 7 + torch.randn(len(batch), 1)).square().mean()}
        if int(batch[0, 0]) % 3 == 0:
            found["third"] = found["loss"].sqrt()
        return found

    def post_validation(self, metrics: dict[str, float]) -> None:
        super().post_validation(metrics)
        self.sent.append(float(torch.rand(())))


class Numbers:
    """Items in their order, made anew at each pass."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(torch.arange(2.0 * self.count).reshape(-1, 2))


def numbers(count: int) -> torch.Tensor:
    return torch.arange(2.0 * count).reshape(-1, 2)


def in_fours(count: int) -> TensorFeed:
    return TensorFeed(numbers(count), 4, shuffle=False)


def validate(kind: str) -> list[Any]:
    data: Any = {
        "tensor": numbers(23),
        "sets": NamedFeeds({"easy": in_fours(9), "hard": in_fours(14)}),
        "stream": Numbers(23),
        "few": numbers(3),
    }[kind]
    limit = 3 if kind == "sets" else None
    settings: dict[str, Any] = {"max_steps": 1, "monitor": None, "limit_validation_batches": limit}
    trainer = Noisy(data=numbers(8), validation_data=data, batch_size=4, **settings)
    first = trainer.validate()  # in which all of them see the first batch
    trainer.seen.clear()
    return [[first, trainer.validate()], trainer.seen, trainer.sent]


@pytest.mark.parametrize("kind", ["tensor", "sets", "stream", "few"])
def test_dealt_out_it_comes_to_the_same_bits(tmp_path: Path, kind: str) -> None:
    (alone,) = together(1, tmp_path, validate, kind)
    assert alone[0][0] == alone[0][1]
    for size in (2, 3):
        found = together(size, tmp_path, validate, kind)
        assert all(one[0] == alone[0] for one in found)
        assert all(one[2] == alone[2] for one in found), "what hooks draw afterwards is alike"
        assert sorted(index for one in found for index in one[1]) == sorted(alone[1]), "each batch was seen once"


def statistics() -> list[Any]:
    trainer = Statistics(data=numbers(40), validation_data=numbers(23), batch_size=10, max_steps=4)
    trainer.train()
    own = trainer.model[1].running_mean.tolist()
    return [dict(trainer.validation_metrics), own]


class Statistics(Noisy):
    def validation_step(self, batch: Any) -> dict[str, Any]:
        return {"loss": self.model(batch).square().mean()}

    def post_validation(self, metrics: dict[str, float]) -> None:
        if this_world().rank == 0:
            assert metrics["loss"] == pytest.approx(float(self.model(numbers(23)).square().mean()), rel=1e-5)


def test_every_process_validates_with_the_batch_statistics_of_the_main_one(tmp_path: Path) -> None:
    found = together(2, tmp_path, statistics)
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1], "and has its own again"


class Largest:
    """A metric object: the largest value that it has seen."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.value, self.count = -1.0, 0

    def update(self, values: torch.Tensor) -> None:
        self.value, self.count = max(self.value, float(values.max())), self.count + 1

    def compute(self) -> dict[str, float]:
        return {"value": self.value, "batches": float(self.count)}


class Measured(Line):
    largest = Largest()  # of the class: no attribute tells that it is there

    def validation_step(self, batch: Any) -> dict[str, Any]:
        self.largest.update(batch[0])
        return {"loss": batch[0].mean(), "largest": self.largest}


def measure() -> list[dict[str, float]]:
    x = numbers(11)[:, :1]
    trainer = Measured(data=(x, x), validation_data=(x, x), batch_size=4, max_steps=1)
    return [trainer.validate(), trainer.validate()]


def test_metric_objects_see_every_batch_in_every_process(tmp_path: Path) -> None:
    (alone,) = together(1, tmp_path, measure)
    assert alone[0]["largest/batches"] == 3
    assert together(2, tmp_path, measure) == [alone, alone]


class Collecting(Line):
    """Keeps something of each batch, in whatever way `how` says."""

    how = "list"

    def setup(self) -> None:
        super().setup()
        self.kept: list[float] = []
        self.count = 0
        self.total, self.sums = torch.zeros(()), {"all": 0.0}
        self.late: list[float] = []

    def validation_step(self, batch: Any) -> dict[str, Any]:
        value = float(batch[0].mean())
        if self.how == "list":
            self.kept.append(value)
        elif self.how == "count":
            self.count += 1
        elif self.how == "tensor":
            self.total += value
        elif self.how == "dict":
            self.sums["all"] += value
        elif value > 15:
            self.late.append(value)
        return {"loss": batch[0].mean()}


def collect(how: str) -> list[Any]:
    x = numbers(11)[:, :1]
    trainer = Collecting(data=(x, x), validation_data=(x, x), batch_size=4, max_steps=1)
    trainer.how = how
    try:
        found = [trainer.validate(), trainer.validate()]
    except UsageError as error:
        return [str(error)]
    return [*found, trainer.kept, trainer.count, float(trainer.total), trainer.sums, trainer.digest()]


@pytest.mark.parametrize("how", ["list", "count", "tensor", "dict"])
def test_what_collects_in_attributes_sees_every_batch_in_every_process(tmp_path: Path, how: str) -> None:
    (alone,) = together(1, tmp_path, collect, how)
    found = together(2, tmp_path, collect, how)
    assert found[0][:-1] == alone[:-1] and found[0] == found[1]


def test_what_collects_later_is_refused_in_every_process(tmp_path: Path) -> None:
    said = "validation_step has changed self.late, in each process for its batches alone: let it return that"
    found = together(2, tmp_path, collect, "late")
    assert all(one[0].startswith(said) for one in found)
