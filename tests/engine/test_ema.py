"""Averages of weights and buffers: what they come to, what validation sees, and that they come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from treadle import EMA, Trainer, UsageError
from treadle.errors import StateError
from treadle.hooks.best_model import load_best
from treadle.testing import kill

DATA = torch.randn(24, 3, generator=torch.Generator().manual_seed(0)) + 2


class Normed(Trainer):
    """A net whose BatchNorm has statistics; validation tells which it sees."""

    buffers = True

    def setup(self) -> None:
        self.model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.ema = EMA(self.model, decay=0.5, buffers=self.buffers)
        self.statistics: list[Tensor] = []

    def step(self, batch: Any) -> Any:
        loss = self.model(batch).square().mean()
        self.minimize(loss)
        self.statistics.append(self.model[0].running_mean.clone())
        return {"loss": loss}

    def validation_step(self, batch: Any) -> Any:
        return {"loss": self.model[0].running_mean.sum(), "count": self.model[0].num_batches_tracked.float()}


class Bare(Normed):
    buffers = False


def normed(kind: type[Normed] = Normed, **settings: Any) -> Any:
    return kind(**({"data": DATA, "batch_size": 4, "max_epochs": 2, "seed": 0} | settings))


def averaged(trainer: Normed) -> Tensor:
    """The average of the statistics that the steps left, by hand."""
    average = torch.zeros(3)
    for statistics in trainer.statistics:
        average = torch.lerp(average, statistics, 0.5)
    return average


def test_buffers_are_averaged_and_validation_sees_them() -> None:
    trainer = normed(validation_data=DATA)
    trainer.train()
    expected = averaged(trainer)
    assert torch.equal(trainer.ema.state_dict()["buffers"]["0.running_mean"], expected)
    assert trainer.validation_metrics["loss"] == pytest.approx(float(expected.sum()))
    assert trainer.validation_metrics["count"] == 12, "whole numbers are the module's own"
    assert torch.equal(trainer.model[0].running_mean, trainer.statistics[-1]), "and the module has its own again"
    load_best(trainer)
    assert torch.allclose(trainer.model[0].running_mean.sum(), torch.tensor(trainer.best["value"]))


def test_by_default_validation_sees_the_modules_own_buffers() -> None:
    trainer = normed(Bare, validation_data=DATA)
    trainer.train()
    assert "buffers" not in trainer.ema.state_dict()
    assert trainer.validation_metrics["loss"] == pytest.approx(float(trainer.statistics[-1].sum()))


def test_averaged_buffers_survive_resume_and_rewind(tmp_path: Path) -> None:
    whole = normed()
    whole.train()
    killed = normed(run_dir=tmp_path / "v001", save_every="1 step")
    for _ in range(7):
        killed.iterate()
    kill(killed)
    resumed = normed(run_dir=tmp_path / "v001", save_every="1 step", resume=True)
    rewound = normed(snapshot_every="1 step")
    for _ in range(9):
        rewound.iterate()
    rewound.rewind(7)
    for trainer in (resumed, rewound):
        trainer.train()
        assert trainer.digest() == whole.digest()


def test_a_checkpoint_without_averaged_buffers_is_refused_by_name(tmp_path: Path) -> None:
    normed(Bare, max_epochs=1, run_dir=tmp_path / "v001").train()
    with pytest.raises(StateError, match=r"has no buffers, this one 0.running_mean, 0.running_var: give EMA"):
        normed(run_dir=tmp_path / "v001", resume=True, max_epochs=1)


def test_a_buffer_that_grows_is_averaged_from_there_on() -> None:
    module = nn.Module()
    module.register_buffer("table", torch.zeros(2))
    ema = EMA(module, decay=0.5, buffers=True)
    module.table = torch.ones(3)  # type: ignore[assignment]
    ema.update()
    module.table += 2
    ema.update()
    assert torch.equal(ema.state_dict()["buffers"]["table"], torch.full((3,), 2.0))
    assert ema.shadow_of(module.table) is ema.state_dict()["buffers"]["table"]


def test_complex_weights_are_averaged() -> None:
    module = nn.Module()
    module.weight = nn.Parameter(torch.tensor([1 + 2j, 3j]))
    ema = EMA(module, decay=0.75)
    with torch.no_grad():
        module.weight.mul_(5)
    ema.update()
    assert torch.equal(ema.state_dict()["shadows"]["weight"], torch.tensor([2 + 4j, 6j]))
    with ema.applied():
        assert torch.equal(module.weight, torch.tensor([2 + 4j, 6j]))


def test_a_lazy_module_that_has_seen_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match=r"EMA: '0\.weight' has no shape yet: let the lazy module see a batch"):
        EMA(nn.Sequential(nn.LazyLinear(2)))


@pytest.mark.parametrize("form", ["parametrized", "compiled"])
def test_wrapped_modules_train_and_are_averaged_exactly(form: str, tmp_path: Path) -> None:
    class Wrapped(Normed):
        def setup(self) -> None:
            net = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2), nn.Linear(2, 1))
            if form == "parametrized":
                nn.utils.parametrizations.spectral_norm(net[1])
                nn.utils.parametrizations.weight_norm(net[2])
            else:
                net = torch.compile(net, backend="eager")  # type: ignore[assignment]
            self.model = net
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)
            self.ema = EMA(self.model, decay=0.5, buffers=True)

        def step(self, batch: Any) -> Any:
            loss = self.model(batch).square().mean()
            self.minimize(loss)
            return {"loss": loss}

        def validation_step(self, batch: Any) -> Any:
            return {"loss": self.model(batch).square().mean()}

    where = {"run_dir": tmp_path / "a" / "v001", "save_every": "1 step", "validation_data": DATA}
    whole = normed(Wrapped, **where)
    whole.train()
    assert whole.updates() == whole.ema.updates == 12
    names = {name.removeprefix("_orig_mod.") for name in whole.ema.state_dict()["shadows"]}
    assert names == {name.removeprefix("_orig_mod.") for name, _ in whole.model.named_parameters()}
    killed = normed(Wrapped, **where | {"run_dir": tmp_path / "b" / "v001"})
    for _ in range(7):
        killed.iterate()
    kill(killed)
    resumed = normed(Wrapped, **where | {"run_dir": tmp_path / "b" / "v001"}, resume=True)
    resumed.train()
    assert resumed.digest() == whole.digest()
