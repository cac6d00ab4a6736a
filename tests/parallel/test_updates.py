"""What updates are made of, in several processes beside one: precision, several optimizers, bad steps, few samples."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.parallel.test_group import Net, differ, train_net
from tests.parallel.together import together
from treadle import Trainer, UsageError
from treadle.engine.events import Hook
from treadle.parallel import this_world


class Opponents(Trainer):
    """Two optimizers, of which the second goes through what the first has updated."""

    def setup(self) -> None:
        self.model, self.critic = nn.Linear(4, 1), nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        self.first = torch.optim.Adam(self.critic.parameters(), lr=1e-2)
        self.second = torch.optim.AdamW(self.model.parameters(), lr=1e-2)

    def step(self, batch: Any) -> dict[str, Any]:
        x, y = batch
        out = self.model(x)
        self.minimize((self.critic(y) - self.critic(out.detach())).square().mean(), self.first)
        loss = nn.functional.mse_loss(out, y) + self.critic(out).square().mean()
        self.minimize(loss, self.second)
        return {"loss": loss}

    def validation_step(self, batch: Any) -> dict[str, Any]:
        return {"loss": nn.functional.mse_loss(self.model(batch[0]), batch[1])}


class Spiked(Net):
    """The loss of one process is far too large, or NaN, in one step."""

    value = 1e6

    def step(self, batch: Any) -> dict[str, Any]:
        x, y = batch
        loss = nn.functional.mse_loss(self.model(x), y)
        if self.progress.step == 30 and this_world().rank == this_world().size - 1:
            loss = loss * self.value
        self.minimize(loss)
        return {"loss": loss}


class Poisoned(Spiked):
    value = math.nan


class PoisonedGradient(Net):
    """Not the loss is bad, but a gradient of one process."""

    def step(self, batch: Any) -> dict[str, Any]:
        x, y = batch
        out = self.model(x)
        if self.progress.step == 5 and this_world().rank == this_world().size - 1:
            out.register_hook(lambda gradient: gradient * math.nan)
        loss = nn.functional.mse_loss(out, y)
        self.minimize(loss)
        return {"loss": loss}


SKIP: dict[str, Any] = {"on_bad_step": "skip"}
BACK: dict[str, Any] = {"on_bad_step": "rollback", "snapshot_every": "10 steps"}


@pytest.mark.parametrize(
    ("kind", "settings", "sizes", "most"),
    [
        (Net, {"precision": "bf16", "batch_size": 8, "clip_norm": 0.5}, (2,), 3e-2),
        (Net, {"batch_size": 8, "clip_norm": 0.1, "clip_value": 0.05}, (2, 8), 5e-6),
        (Opponents, {"batch_size": 7, "accumulate": 3, "clip_norm": {"first": 0.5}}, (2, 4), 5e-6),
        (Net, {"batch_size": 2, "max_epochs": 1}, (3, 4, 8), 5e-6),  # fewer samples than processes; the last has one
        (Spiked, {"batch_size": 8, "spike": 8.0, **SKIP, "max_epochs": 6}, (2,), 5e-6),
        (Spiked, {"batch_size": 8, "spike": 8.0, **BACK, "max_epochs": 6}, (2,), 5e-6),
        (Poisoned, {"batch_size": 8, **BACK, "max_epochs": 5}, (3,), 5e-6),
        (PoisonedGradient, {"batch_size": 8, **SKIP}, (2,), 5e-6),
        (PoisonedGradient, {"batch_size": 8, **BACK}, (2,), 5e-6),
    ],
)
def test_they_come_to_the_weights_of_one(
    tmp_path: Path, kind: Any, settings: dict[str, Any], sizes: tuple[int, ...], most: float
) -> None:
    (alone,) = together(1, tmp_path, train_net, kind, {"max_epochs": 3} | settings)
    for size in sizes:
        found = together(size, tmp_path, train_net, kind, {"max_epochs": 3} | settings)
        assert all(one["digest"] == found[0]["digest"] for one in found)
        assert all(found[0][name] == alone[name] for name in ("step", "updates", "recoveries"))
        assert found[0]["recoveries"] == ("on_bad_step" in settings)
        assert differ(alone, found[0]) < most


def test_a_spike_is_one_beside_the_losses_of_whole_batches(tmp_path: Path) -> None:
    settings = {"batch_size": 10, "max_epochs": 2, "spike": 50.0}  # of 53 samples: the last batch has three
    (alone,) = together(1, tmp_path, train_net, Net, settings)
    for one in together(2, tmp_path, train_net, Net, settings):
        assert len(one["losses"]) == 1 and one["losses"][0] == pytest.approx(alone["losses"][0], rel=1e-5)


class Searching(Net):
    def setup(self) -> None:
        super().setup()
        self.optimizer = torch.optim.LBFGS(self.model.parameters())  # type: ignore[assignment]

    def step(self, batch: Any) -> dict[str, Any]:
        self.minimize(lambda: nn.functional.mse_loss(self.model(batch[0]), batch[1]))
        return {}


def search() -> str:
    try:
        train_net(Searching, {"batch_size": 8, "max_epochs": 1})
    except UsageError as error:
        return str(error)
    return "none"


def test_closures_are_refused(tmp_path: Path) -> None:
    said = "an optimizer that evaluates the loss itself (a closure, LBFGS) does so on whole batches: train it in one"
    assert all(one.startswith(said) for one in together(2, tmp_path, search))


class Noisy(torch.optim.SGD):
    """Its updates have noise in them."""

    def step(self, closure: Any = None) -> Any:
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                p.grad.add_(torch.rand_like(p) * 0.01)
        return super().step(closure)


class Decides(Hook):
    """A hook that changes the training, and draws for it: it is in all processes, and what it draws is alike."""

    def pre_update(self, trainer: Any, optimizer: Any) -> None:
        for p in trainer.model.parameters():
            p.grad.add_(p.detach() * 0.1 + torch.rand(()) * 0.01)

    def post_step(self, trainer: Any, batch: Any, outputs: Any) -> None:
        for group in trainer.optimizer.param_groups:
            group["lr"] *= 0.9 + float(torch.rand(())) / 10


class Watches(Hook):
    """An observer: it is in one process, and cannot do so even where it tries."""

    observer = True

    def post_step(self, trainer: Any, batch: Any, outputs: Any) -> None:
        torch.rand(3)
        try:
            trainer.finish("an observer says so")
        except UsageError:
            trainer.refused.append(this_world().rank)


class Hooked(Net):
    transient = ("refused",)

    def setup(self) -> None:
        super().setup()
        self.add_hook(Decides())
        self.add_hook(Watches())
        self.refused: list[int] = []


class HookedNoise(Net):
    def setup(self) -> None:
        super().setup()
        self.optimizer = Noisy(self.model.parameters(), lr=0.1)  # type: ignore[assignment]

    def step(self, batch: Any) -> dict[str, Any]:
        loss = nn.functional.mse_loss(self.model(batch[0]) + torch.rand(()), batch[1])
        self.minimize(loss)
        return {"loss": loss}


@pytest.mark.parametrize("kind", [Hooked, HookedNoise])
def test_what_changes_the_training_beside_a_step_is_alike_in_all(tmp_path: Path, kind: Any) -> None:
    found = together(2, tmp_path, train_net, kind, {"batch_size": 8, "max_epochs": 2})
    assert found[0]["weights"] == found[1]["weights"]
    if kind is Hooked:
        (alone,) = together(1, tmp_path, train_net, kind, {"batch_size": 8, "max_epochs": 2})
        assert found[0]["digest"] == found[1]["digest"]
        assert found[0]["step"] == alone["step"] == 14
        assert differ(alone, found[0]) < 5e-6
