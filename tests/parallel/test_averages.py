"""Averages (EMA) in several processes: of weights they are alike, of batch statistics each process has its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.parallel.test_disk import SETTINGS
from tests.parallel.test_group import Net, differ, some_data, train_net
from tests.parallel.together import together
from treadle import EMA
from treadle.runs.best import read_best


class Averaged(Net):
    """Its average has the batch statistics too, which are those of a process's own samples."""

    def setup(self) -> None:
        self.model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-2)
        self.ema = EMA(self.model, 0.8, buffers=True)
        self.seen: list[float] = []

    transient = ("seen",)

    def step(self, batch: Any) -> dict[str, Any]:
        x, y = batch
        loss = nn.functional.mse_loss(self.model(x), y)
        self.minimize(loss)
        return {"loss": loss}

    def post_validation(self, metrics: dict[str, float]) -> None:
        super().post_validation(metrics)
        self.seen += self.model[1].running_mean.tolist()


def train(path: str, resume: bool, until: int | None = None) -> dict[str, Any]:
    data = some_data(54)
    settings: dict[str, Any] = SETTINGS | {"validate_every": "7 steps"}
    trainer = Averaged(data=data, validation_data=data, run_dir=path, resume=resume, **settings)
    if until is not None:
        while trainer.progress.step < until:
            trainer.iterate()
        trainer.driver.abandon()
        return {}
    trainer.train()
    own = trainer.ema.shadow_of(trainer.model[1].running_mean)
    assert own is not None
    return {"digest": trainer.digest(), "own": own.tolist(), "seen": trainer.seen, "loss": trainer.validation_metrics}


def test_averaged_statistics_are_each_processs_own_and_go_on_bit_for_bit(tmp_path: Path) -> None:
    whole = together(2, tmp_path, train, str(tmp_path / "whole"), False)
    assert whole[0]["digest"] == whole[1]["digest"]
    assert whole[0]["own"] != whole[1]["own"]
    together(2, tmp_path, train, str(tmp_path / "killed"), False, 8)
    found = together(2, tmp_path, train, str(tmp_path / "killed" / "v001"), True)
    assert [one["digest"] for one in found] == [whole[0]["digest"]] * 2
    assert [one["own"] for one in found] == [one["own"] for one in whole]


def test_validation_and_the_best_model_have_those_of_the_main_process(tmp_path: Path) -> None:
    found = together(2, tmp_path, train, str(tmp_path / "run"), False)
    assert found[0]["seen"] == found[1]["seen"] and found[0]["loss"] == found[1]["loss"]
    assert found[0]["seen"][-8:] == found[0]["own"]
    best = read_best(tmp_path / "run" / "v001")
    assert best.info["step"] == 14, "the last validation is the best"
    assert best.of("model")["1.running_mean"].tolist() == found[0]["own"]


class Alike(Net):
    def setup(self) -> None:
        super().setup()
        self.ema = EMA(self.model, 0.9, warm_up=True)


def train_alike() -> dict[str, Any]:
    kept: list[Any] = []

    class Kept(Alike):
        def post_training(self) -> None:
            super().post_training()
            with self.ema.applied():
                kept.append(torch.cat([p.detach().flatten() for p in self.model.parameters()]).tolist())

    found = train_net(Kept, {"batch_size": 8, "max_epochs": 2, "accumulate": 2})
    return found | {"weights": found["weights"] | {"average": kept[0]}}


def test_averages_of_weights_are_those_of_one_process(tmp_path: Path) -> None:
    (alone,) = together(1, tmp_path, train_alike)
    found = together(2, tmp_path, train_alike)
    assert found[0]["digest"] == found[1]["digest"]
    assert differ(alone, found[0]) < 5e-6
