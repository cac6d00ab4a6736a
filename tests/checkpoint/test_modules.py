"""Modules of every sort, through a state in memory and on disk: what they keep comes back, whoever keeps it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from treadle import EMA, StateError, Trainer
from treadle.checkpoint.modules import ModuleMemory, load_module, module_state
from treadle.checkpoint.packing import Packer, unpack
from treadle.testing import capture, check_resume, restore

X = torch.linspace(-1, 1, 24).reshape(12, 2)


class Keeping(nn.Module):
    """Keeps something in every place where `state_dict()` does not look, and computes with it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("count", torch.zeros(()), persistent=False)
        self.register_buffer("late", None)
        self.register_buffer("late_and_unsaved", None, persistent=False)
        self.mean = torch.zeros(2)
        self.calls, self.sizes, self.scale = 0, [], 1.0
        self.noise = torch.Generator().manual_seed(1)
        self.numpy_noise = np.random.default_rng(2)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.count += 1
        self.sizes.append(len(x))
        self.scale = 1.0 + float(np.float32(self.numpy_noise.random()))
        with torch.no_grad():
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
            self.memory = self.mean * 2
            for name in ("late", "late_and_unsaved"):
                kept = getattr(self, name)
                setattr(self, name, x[:1].clone() if kept is None else kept + x[:1])
            if not hasattr(self, "newest"):
                self.register_buffer("newest", torch.zeros(2))
                self.register_buffer("unsaved", torch.zeros(2), persistent=False)
            self.newest += self.count
            self.unsaved += self.count
        beside = self.late.sum() + self.late_and_unsaved.sum() + self.newest.sum() + self.unsaved.sum()
        y = self.linear(x - self.mean) * self.scale + 0.01 * torch.randn(x.shape, generator=self.noise)
        return y + 0.001 * (beside + self.memory.sum() + self.calls + len(self.sizes))


class Hidden(nn.Module):
    """Has a tensor that is an attribute of a module inside, as a metric has its sums."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Keeping()
        self.total: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        self.total = [*self.total[-2:], y.detach().mean()]
        return y + torch.stack(self.total).sum()


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv1d(3, 1), nn.LazyBatchNorm1d(), nn.Flatten(), nn.LazyLinear(2))


def parametrized() -> nn.Module:
    linear = nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2))
    return nn.Sequential(linear, nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))


def compiled() -> Any:
    return torch.compile(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.2), nn.BatchNorm1d(2)), backend="eager")


def compiled_in_place() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.2))
    model.compile(backend="eager")
    return model


SORTS: dict[str, Callable[[], Any]] = {
    "keeping": Keeping,
    "hidden": Hidden,
    "lazy": lazy,
    "parametrized": parametrized,
    "compiled": compiled,
    "compiled in place": compiled_in_place,
}


class Modular(Trainer):
    """Trains one of them."""

    def __init__(self, sort: str, **settings: Any) -> None:
        self.sort = sort
        super().__init__(**{"data": X, "batch_size": 5, "max_epochs": 2, "seed": 3} | settings)

    def setup(self) -> None:
        self.model = SORTS[self.sort]()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)

    def step(self, batch: Tensor) -> dict[str, Any]:
        batch = batch[:, :, None] if self.sort == "lazy" else batch
        loss = self.model(batch).square().mean()
        self.minimize(loss)
        return {"loss": loss}


@pytest.mark.parametrize("sort", SORTS)
def test_it_resumes_to_the_same_digest(sort: str, tmp_path: Any) -> None:
    stops = [4] if "compiled" in sort else [1, 4]  # to compile takes seconds
    check_resume(lambda **where: Modular(sort, **where), tmp_path, stops=stops)


@pytest.mark.parametrize("sort", SORTS)
def test_it_is_rewound_to_the_same_digest(sort: str) -> None:
    trainer = Modular(sort, snapshot_every="1 step", keep_snapshots=9)
    trainer.iterate()
    once = trainer.digest()
    trainer.train()
    end = trainer.digest()
    for _ in range(2):
        trainer.rewind(1)
        assert trainer.digest() == once != end
        trainer.train()
        assert trainer.digest() == end


@pytest.mark.parametrize("sort", ["keeping", "hidden"])
def test_each_thing_that_it_keeps_is_in_the_state(sort: str) -> None:
    trainer = Modular(sort)
    trainer.iterate()
    state = capture(trainer)
    kept = state.values["attributes"]["model"]
    path = "inner" if sort == "hidden" else ""
    assert set(kept["kept"][path]) == {"mean", "calls", "sizes", "scale", "memory", "noise", "numpy_noise"}
    below = "inner." if sort == "hidden" else ""
    assert set(kept["beside"]) == {f"{below}{name}" for name in ("count", "late_and_unsaved", "unsaved")}
    assert set(kept["late"]) == {f"{below}{name}" for name in ("late", "late_and_unsaved", "newest", "unsaved")}


def test_what_came_after_a_state_is_gone_when_it_is_restored() -> None:
    trainer = Modular("keeping")
    before = capture(trainer).copy()
    trainer.iterate(), trainer.iterate()
    restore(trainer, before)
    model = trainer.model
    assert not hasattr(model, "newest") and not hasattr(model, "unsaved") and not hasattr(model, "memory")
    assert model.late is None and model.late_and_unsaved is None and (model.calls, model.sizes) == (0, [])
    assert capture(trainer).digest == before.digest


def test_an_ordinary_module_keeps_nothing_beside() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.LSTM(4, 5), nn.TransformerEncoderLayer(4, 2))
    memory = ModuleMemory()
    memory.look(model)
    assert set(module_state(model, memory)) == {"state", "frozen", "eval"}


def test_a_module_that_was_not_seen_before_says_all_that_it_keeps() -> None:
    memory, model = ModuleMemory(), Keeping()
    model(X)
    packer = Packer()
    state = unpack(json.loads(json.dumps(packer.pack(module_state(model, memory), "m"))), packer.tensors)
    other = Keeping()
    memory.look(other)
    load_module(other, state | {"late": ["late", "late_and_unsaved", "newest", "unsaved"]}, memory)
    assert torch.equal(other(X), model(X))


def test_a_dtype_that_changed_in_mid_run_comes_back() -> None:
    trainer, other = Modular("keeping"), Modular("keeping")
    trainer.iterate()
    trainer.model.linear.bfloat16()
    restore(other, capture(trainer))
    assert other.model.linear.weight.dtype == torch.bfloat16 and other.digest() == trainer.digest()


def test_a_lazy_module_has_a_digest_before_its_first_step_and_no_way_back_there() -> None:
    trainer, other = Modular("lazy"), Modular("lazy")
    before = capture(trainer)
    assert before.digest == other.digest()
    restore(other, before)
    other.train(), trainer.train()
    assert other.digest() == trainer.digest()
    with pytest.raises(
        StateError, match=r"'model' does not .*'0.weight' had no shape then, and has one now: run a batch"
    ):
        restore(other, before)


def test_an_average_of_a_parametrized_module_follows(tmp_path: Any) -> None:
    class Averaged(Modular):
        def setup(self) -> None:
            super().setup()
            self.ema = EMA(self.model, 0.9)

    check_resume(lambda **where: Averaged("parametrized", **where), tmp_path, stops=[3])
