"""Numbers that were wrong and nobody said so: for each way they came about in version 0.1.0, what must hold instead.

What 0.1.0 gave stands in each docstring. The oracles are runs that are left alone, plain torch, and dense gradients.
What data loaders and samplers did wrong is tested in tests/data/test_loader.py.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from treadle import EMA, Hook, LearningRate, Order, Trainer, UsageError
from treadle.data.random import program_streams
from treadle.engine.bad_steps import NonFiniteError
from treadle.hooks.early_stopping import EarlyStopping
from treadle.testing import capture, kill

LINE = torch.linspace(-1, 1, 48)[:, None], 3 * torch.linspace(-1, 1, 48)[:, None] + 1


class Small(Trainer):
    """Fits a line with plain SGD, and draws from every generator there is."""

    def setup(self) -> None:
        self.model = nn.Linear(1, 1)
        self.optimizer: Any = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.returned: list[bool] = []

    def loss(self, batch: Any) -> Tensor:
        noise = random.random() + np.random.randn() + float(torch.rand(()))
        return nn.functional.mse_loss(self.model(batch[0]) + 0.01 * noise, batch[1])

    def step(self, batch: Any) -> Any:
        loss = self.loss(batch)
        self.returned.append(self.minimize(loss))
        return {"loss": loss}

    def validation_step(self, batch: Any) -> Any:
        return {"loss": nn.functional.mse_loss(self.model(batch[0]), batch[1]), "bias": self.model.bias.sum()}


def small(kind: type[Small] = Small, **settings: Any) -> Any:
    """On 48 points in batches of 8: 6 steps an epoch."""
    return kind(**({"data": LINE, "batch_size": 8, "max_epochs": 2, "seed": 0} | settings))


def end(trainer: Any) -> str:
    """The digest that a run ends with."""
    trainer.train()
    return trainer.digest()


# A1: memory that is not row-major ----------------------------------------------------------------------------------


class Conv(Trainer):
    """Parameters, gradients, buffers, moments and averages whose memory is in another order than their dimensions."""

    optimizers: ClassVar[Mapping[str, Callable[..., torch.optim.Optimizer]]] = {
        "Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.02),
        "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.02),
        "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    }
    optimizer_name = "Adam"
    quiet = False

    def setup(self) -> None:
        net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 2))
        self.net = net.to(memory_format=torch.channels_last)
        self.net.register_buffer("seen", torch.zeros(1, 3, 6, 6).to(memory_format=torch.channels_last))
        self.turned = nn.Parameter(torch.randn(7, 4).t())
        self.ema = EMA(self.net, decay=0.8)
        self.optimizer = self.optimizers[self.optimizer_name]([*self.net.parameters(), self.turned])

    def step(self, batch: Any) -> Any:
        if self.progress.step == 8 and self.quiet:
            return {}
        x = batch.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            self.net.seen.mul_(0.9).add_(x.mean(0, keepdim=True))
        loss = (self.net(x).mean((2, 3)) @ self.turned).square().mean()
        if self.progress.step == 8 and self.config.on_bad_step == "rollback":
            loss = loss * float("nan")
        self.minimize(loss)
        return {"loss": loss}


def conv(name: str = "Adam", **settings: Any) -> Conv:
    kind = type(name, (Conv,), {"optimizer_name": name, "quiet": settings.pop("quiet", False)})
    pictures = torch.randn(24, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return kind(
        **(
            {"data": pictures, "batch_size": 4, "max_epochs": 3, "seed": 0, "accumulate": 2, "clip_norm": 1.0}
            | settings
        )
    )


def assert_same_tensors(first: Trainer, second: Trainer) -> None:
    """Parameters, buffers, moments, pending gradients and averages are equal to the last bit, and lie alike."""
    a, b = capture(first).tensors, capture(second).tensors
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
        assert a[name].stride() == b[name].stride(), name


@pytest.mark.parametrize("name", sorted(Conv.optimizers))
def test_a1_strides_survive_a_rewind(name: str) -> None:
    """0.1.0: another digest; moments row-major beside channels_last parameters, weights off by 0.12 (SGD: 0.02)."""
    whole, rewound = conv(name), conv(name, snapshot_every="3 steps")
    expected = end(whole)
    while rewound.progress.step < 11:
        rewound.iterate()
    rewound.rewind(9)  # in the middle of a window: gradients are pending
    assert rewound.net[0].weight.grad.is_contiguous(memory_format=torch.channels_last)
    assert end(rewound) == expected
    assert_same_tensors(whole, rewound)
    assert whole.optimizer.param_groups[0]["fused"], "or nothing was tested"


@pytest.mark.parametrize("name", sorted(Conv.optimizers))
@pytest.mark.parametrize("stop", [7, 10])
def test_a1_strides_survive_a_resume(name: str, stop: int, tmp_path: Path) -> None:
    """0.1.0: another digest and other weights."""
    whole = conv(name)
    expected = end(whole)
    killed = conv(name, run_dir=tmp_path / "run")
    while killed.progress.step < stop:
        killed.iterate()
    killed.save()
    kill(killed)
    resumed = conv(name, run_dir=killed.run.path, resume=True)
    assert end(resumed) == expected
    assert_same_tensors(whole, resumed)


@pytest.mark.parametrize("name", sorted(Conv.optimizers))
def test_a1_strides_survive_a_rollback(name: str) -> None:
    """0.1.0: other weights than those of a run whose step passes over the bad batch itself."""
    rolled_back = conv(name, on_bad_step="rollback", snapshot_every="1 step")
    passed_over = conv(name, quiet=True)
    rolled_back.train(), passed_over.train()
    assert [entry["event"] for entry in rolled_back.journal].count("rollback") == 1
    a, b = capture(rolled_back).tensors, capture(passed_over).tensors
    assert all(torch.equal(a[key], b[key]) and a[key].stride() == b[key].stride() for key in b)


class WideMoments(torch.optim.Optimizer):
    """Keeps its momentum in float32, whatever the parameters are kept in."""

    def __init__(self, params: Any, lr: float = 0.05) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                momentum = state.setdefault("momentum", torch.zeros_like(p, dtype=torch.float32))
                momentum.mul_(0.9).add_(p.grad.float())
                p.copy_(p.float() - group["lr"] * momentum)


class Bf16(Small):
    def setup(self) -> None:
        self.model = nn.Linear(1, 1, dtype=torch.bfloat16)
        self.optimizer = WideMoments(self.model.parameters())
        self.returned = []

    def loss(self, batch: Any) -> Tensor:
        return (self.model(batch[0].bfloat16()).float() - batch[1]).square().mean()


@pytest.mark.parametrize("way", ["rewind", "resume"])
def test_a1_moments_that_are_wider_than_their_weights_come_back_exactly(way: str, tmp_path: Path) -> None:
    """0.1.0: the moments come back as bfloat16, and the digest is another."""
    whole = small(Bf16)
    expected = end(whole)
    trainer = small(Bf16, snapshot_every="1 step", run_dir=tmp_path / "run")
    for _ in range(7):
        trainer.iterate()
    if way == "rewind":
        trainer.rewind(5)
    else:
        trainer.save()
        kill(trainer)
        trainer = small(Bf16, snapshot_every="1 step", run_dir=trainer.run.path, resume=True)
    assert trainer.optimizer.state[trainer.model.weight]["momentum"].dtype == torch.float32
    assert end(trainer) == expected


class Gaps(Small):
    """Its parameter is every second column of a tensor."""

    def setup(self) -> None:
        self.model = nn.Linear(1, 1)
        self.model.weight = nn.Parameter(torch.linspace(0, 1, 24).reshape(3, 8)[:, ::2])
        self.alone = nn.Parameter(torch.linspace(1, 2, 12).reshape(6, 2)[:, 0])
        self.optimizer = torch.optim.Adam([self.model.weight, self.alone], lr=0.1)
        self.returned = []

    def loss(self, batch: Any) -> Tensor:
        fit = (batch[0].mean() + self.model.weight * torch.arange(1.0, 5.0)).square().mean()
        return fit + (self.alone * torch.arange(6.0) - batch[0].mean()).square().mean()


def test_a1_a_parameter_with_gaps_gets_no_fused_kernel(tmp_path: Path) -> None:
    """0.1.0: Adam's fused kernel walks over the gaps; other weights than plain torch's."""
    trainer = small(Gaps, max_epochs=1, shuffle=False)
    weight = nn.Parameter(trainer.model.weight.detach().clone())
    optimizer = torch.optim.Adam([weight], lr=0.1)
    for batch in LINE[0].split(8):
        optimizer.zero_grad()
        (batch.mean() + weight * torch.arange(1.0, 5.0)).square().mean().backward()
        optimizer.step()
    expected = end(trainer)
    assert not trainer.optimizer.param_groups[0].get("fused")
    assert torch.allclose(trainer.model.weight, weight, atol=1e-6)
    killed = small(Gaps, max_epochs=1, shuffle=False, run_dir=tmp_path / "run")
    for _ in range(3):
        killed.iterate()
    killed.save()
    kill(killed)
    resumed = small(Gaps, max_epochs=1, shuffle=False, run_dir=killed.run.path, resume=True)
    assert resumed.alone.stride() == (2,) and resumed.model.weight.stride() == (8, 2)
    assert end(resumed) == expected


def test_a1_gradients_that_pre_update_lays_out_otherwise_are_those_of_their_parameters() -> None:
    """0.1.0: the fused kernel reads them in the order of the parameter's memory: other weights."""

    class Turned(Conv):
        def pre_update(self, optimizer: Any) -> None:
            for p in self.net.parameters():
                p.grad = p.grad.contiguous().clone(memory_format=torch.contiguous_format)

    plain, turned = conv(clip_norm=None), None
    pictures = torch.randn(24, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    turned = Turned(data=pictures, batch_size=4, max_epochs=3, seed=0, accumulate=2)
    plain.train(), turned.train()
    assert torch.equal(plain.net[0].weight, turned.net[0].weight)


@pytest.mark.parametrize("back", [0, 1])
def test_a1_a_rewind_goes_on_with_the_same_kernels(back: int) -> None:
    """Before 0.3: from before the first update on without the fused kernel, and so to other weights."""
    whole, rewound = (conv(max_steps=6, snapshot_every="1 step", on_bad_step="rollback") for _ in range(2))
    rewound.iterate(), rewound.iterate()
    rewound.rewind(back)
    assert end(whole) == end(rewound)
    assert rewound.optimizer.param_groups[0]["fused"]


class Joins(Small):
    """A layer that is part of the model all along, and of the optimizer from step 8 on."""

    def setup(self) -> None:
        self.model, self.late = nn.Linear(1, 1), nn.Linear(1, 1)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)

    def pre_step(self, batch: Any) -> None:
        if self.progress.step == 8:
            self.optimizer.add_param_group({"params": list(self.late.parameters())})

    def pre_update(self, optimizer: Any) -> None:
        assert torch.equal(self.late.weight.grad, self.fresh)

    def step(self, batch: Any) -> Any:
        loss = nn.functional.mse_loss(self.model(batch[0]) + self.late(batch[0]), batch[1])
        (self.fresh,) = torch.autograd.grad(loss, [self.late.weight], retain_graph=True)
        self.minimize(loss)
        return {"loss": loss}


def test_a6_a_layer_that_joins_an_optimizer_brings_one_gradient(tmp_path: Path) -> None:
    """Before 0.3: the sum of all gradients since the run began, or since it was resumed."""
    whole = small(Joins)
    expected = end(whole)
    killed = small(Joins, run_dir=tmp_path / "v001", save_every="1 step")
    for _ in range(7):
        killed.iterate()
    kill(killed)
    resumed = small(Joins, run_dir=tmp_path / "v001", save_every="1 step", resume=True)
    assert end(resumed) == expected
    assert [group["fused"] for group in resumed.optimizer.param_groups] == [True, True]


# A2: several calls of minimize in a step, under accumulation -------------------------------------------------------


class Calls(Small):
    """Makes `calls` micro-batches of its batch, and may miss steps."""

    calls = 4
    absent: ClassVar[frozenset[int]] = frozenset()

    def step(self, batch: Any) -> Any:
        taken = []
        for x, y in zip(batch[0].chunk(self.calls), batch[1].chunk(self.calls), strict=True):
            if self.progress.step not in self.absent:
                taken.append(self.minimize(self.loss((x, y))))
        self.pattern = [*self.pattern, taken]
        return {}

    def setup(self) -> None:
        super().setup()
        self.pattern: list[list[bool]] = []


def calls(number: int, accumulate: int, **settings: Any) -> Any:
    kind = type("Calls", (Calls,), {"calls": number} | settings.pop("attributes", {}))
    return small(kind, accumulate=accumulate, **settings)


NO, YES = False, True


@pytest.mark.parametrize("limit", [{"max_epochs": 2}, {"max_steps": 9, "max_epochs": None}])
@pytest.mark.parametrize("number", [2, 4])
def test_a2_the_last_step_of_an_epoch_updates_as_all_others_do(number: int, limit: dict[str, Any]) -> None:
    """0.1.0: [T, T, T, T] in the last step of every epoch and of the run: four updates from a micro-batch each."""
    trainer = calls(number, number, **limit)
    trainer.train()
    assert trainer.pattern == [[NO] * (number - 1) + [YES]] * trainer.progress.step
    assert trainer.updates() == trainer.progress.step


def test_a2_a_window_over_two_steps_ends_with_the_last_call_of_the_epoch() -> None:
    """0.1.0: in the last step of each epoch every call updates."""
    trainer = calls(4, 8)
    trainer.train()
    assert trainer.pattern == [[NO] * 4, [NO, NO, NO, YES]] * 6
    five = calls(4, 8, data=tuple(part[:40] for part in LINE))  # 5 steps an epoch: half a window is left
    five.train()
    assert five.pattern == ([[NO] * 4, [NO, NO, NO, YES]] * 2 + [[NO, NO, NO, YES]]) * 2
    assert five.updates() == 6


def test_a2_what_is_left_open_is_closed_by_the_loop_once() -> None:
    """0.1.0: gradients of an epoch whose last step calls nothing stay, and join those of the next epoch."""
    trainer = calls(2, 8, attributes={"absent": frozenset({5, 11})})
    updates = []
    while trainer.iterate():
        updates.append(trainer.updates())
    assert updates == [0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 4]
    assert trainer.model.weight.grad is None


def test_a2_the_mean_of_each_window_is_that_of_the_whole_batch() -> None:
    """0.1.0: the weights are others, by the updates too many."""
    whole, parts = small(Quiet), calls(4, 4, attributes={"loss": Quiet.loss})
    whole.train(), parts.train()
    assert torch.allclose(whole.model.weight, parts.model.weight, atol=1e-6)


class Quiet(Small):
    def loss(self, batch: Any) -> Tensor:
        return nn.functional.mse_loss(self.model(batch[0]), batch[1])


@pytest.mark.parametrize("accumulate", [4, 8, 3])
@pytest.mark.parametrize("stop", [4, 5, 6, 11])
def test_a2_killed_before_the_last_step_of_an_epoch_it_resumes_to_the_same_digest(
    accumulate: int, stop: int, tmp_path: Path
) -> None:
    """0.1.0: the digest is the same, and both are of too many updates; now a step's number of calls comes back too."""
    whole = calls(4, accumulate)
    expected = end(whole)
    killed = calls(4, accumulate, run_dir=tmp_path / "run")
    while killed.progress.step < stop:
        killed.iterate()
    killed.save()
    kill(killed)
    resumed = calls(4, accumulate, run_dir=killed.run.path, resume=True)
    assert end(resumed) == expected
    assert resumed.pattern == whole.pattern


class Pair(Calls):
    """Two opponents: one trained with two calls a step, the other every second step with one."""

    def setup(self) -> None:
        super().setup()
        self.other = nn.Linear(1, 1)
        self.second = torch.optim.SGD(self.other.parameters(), lr=0.1)
        self.others: list[bool] = []

    def step(self, batch: Any) -> Any:
        first = [self.minimize(self.loss(batch), self.optimizer) for _ in range(2)]
        self.pattern = [*self.pattern, first]
        if self.progress.step % 2 == 0:
            loss = nn.functional.mse_loss(self.other(batch[0]), batch[1])
            self.others = [*self.others, self.minimize(loss, self.second)]
        return {}


def test_a2_each_of_several_optimizers_has_its_own_windows() -> None:
    """0.1.0: the first updates twice in the last step; the second, which rests then, takes half a window along."""
    trainer = small(Pair, accumulate=2)
    trainer.train()
    assert trainer.pattern == [[NO, YES]] * 12
    assert trainer.others == [NO, YES, NO, NO, YES, NO], "three calls an epoch; the third is applied by the loop"
    assert trainer.updates(trainer.second) == 4


def test_a2_calls_of_a_step_that_was_skipped_do_not_count() -> None:
    """0.1.0: [T, T, T, T] in the last step, whatever came before."""

    class Poisoned(Calls):
        def loss(self, batch: Any) -> Tensor:
            bad = self.progress.step == 4 and not batch[0].requires_grad and len(self.pattern) == 4
            self.tried = getattr(self, "tried", 0) + bad
            return super().loss(batch) * (float("nan") if bad and self.tried == 3 else 1.0)

    trainer = small(Poisoned, accumulate=4, on_bad_step="skip", max_epochs=1)
    trainer.train()
    assert [entry["step"] for entry in trainer.journal if entry["event"] == "bad step"] == [4]
    assert trainer.pattern == [[NO, NO, NO, YES]] * 5


# A4: sparse gradients ----------------------------------------------------------------------------------------------

WORDS = torch.tensor([0, 1, 1, 2, 5, 5, 5, 7, 3, 3, 8, 1])


class Words(Small):
    """An embedding, with rows that come several times in a batch."""

    sparse = True
    dtype = torch.float32

    def setup(self) -> None:
        self.model = nn.Embedding(10, 3, sparse=self.sparse, dtype=self.dtype)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.returned = []

    def loss(self, batch: Any) -> Tensor:
        return 5 * (self.model(batch) - 1).square().mean()


@pytest.mark.parametrize(
    "settings",
    [
        {"accumulate": 2},
        {"accumulate": 4},
        {"clip_norm": 0.3},
        {"clip_value": 0.05},
        {"clip_norm": 0.1, "clip_value": 0.05, "accumulate": 2},
    ],
)
def test_a4_sparse_gradients_are_treated_as_dense_ones(settings: dict[str, Any]) -> None:
    """0.1.0: the sum is taken for the mean; clip_norm raises, clip_value clips each repeat of a row."""
    ends = []
    for sparse in (True, False):
        trainer = small(type("W", (Words,), {"sparse": sparse}), data=WORDS, batch_size=4, **settings)
        trainer.train()
        ends.append(trainer)
    first, second = ends
    assert torch.allclose(first.model.weight, second.model.weight, atol=1e-6)
    assert first.metrics.keys() == second.metrics.keys()
    for name in {"grad_norm", "grad_norm_clipped"} & first.metrics.keys():
        assert first.metrics[name] == pytest.approx(second.metrics[name], rel=1e-5)


def test_a4_an_inf_in_a_sparse_gradient_is_seen() -> None:
    """0.1.0: it is not seen, and the weights become infinite."""

    class Steep(Words):
        def loss(self, batch: Any) -> Tensor:
            return self.model(batch).sqrt().sum()

        def setup(self) -> None:
            super().setup()
            nn.init.zeros_(self.model.weight)

    trainer = small(Steep, data=WORDS, batch_size=4)
    with pytest.raises(NonFiniteError, match=r"gradient of parameter 0 .* is Inf"):
        trainer.train()
    assert torch.equal(trainer.model.weight, torch.zeros(10, 3))


def test_a4_the_mean_of_double_gradients_is_a_double() -> None:
    """0.1.0: its factor is rounded to float32: the weights are off by 1e-8, where the dtype promises 1e-16."""
    whole = small(type("W", (Words,), {"dtype": torch.float64, "sparse": False}), data=WORDS, batch_size=12)
    parts = small(
        type("W", (Words,), {"dtype": torch.float64, "sparse": False}), data=WORDS, batch_size=2, accumulate=6
    )
    whole.train(), parts.train()
    assert torch.allclose(whole.model.weight, parts.model.weight, rtol=0, atol=1e-14)


# A5: the finite check's place --------------------------------------------------------------------------------------


class Noisy(Small):
    """Makes NaN of a gradient in `pre_update`, at one step of the run."""

    at = 3

    def loss(self, batch: Any) -> Tensor:
        return 1e-3 * super().loss(batch)  # so that nothing overflows in fp16

    def pre_update(self, optimizer: Any) -> None:
        if self.progress.step == self.at:
            self.model.weight.grad.fill_(float("nan"))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("clip", [{}, {"clip_norm": 1.0}, {"clip_value": 1.0}])
@pytest.mark.parametrize("policy", ["stop", "skip", "rollback"])
def test_a5_a_nan_made_in_pre_update_reaches_no_parameter(policy: str, clip: dict[str, Any], precision: str) -> None:
    """0.1.0: it reaches the weights; the step after says that no parameter was touched, and a rollback fails."""
    trainer = small(Noisy, on_bad_step=policy, snapshot_every="1 step", precision=precision, **clip)
    if policy == "stop":
        with pytest.raises(NonFiniteError, match=r"gradient of parameter 0 .* is NaN, at step 4 "):
            trainer.train()
    else:
        assert trainer.train().status == "finished"
        assert trainer.updates() == 11
    assert torch.isfinite(trainer.model.weight).all()


def test_a5_a_nan_that_pre_update_mends_is_none() -> None:
    """0.1.0: NonFiniteError, before the hook has its say."""

    class Mended(Small):
        def loss(self, batch: Any) -> Tensor:
            return super().loss(batch) + (self.model.bias * 0).sum().sqrt() * 0

        def pre_update(self, optimizer: Any) -> None:
            assert not torch.isfinite(self.model.bias.grad).all()
            self.model.bias.grad.nan_to_num_(0.0, 0.0, 0.0)

    trainer = small(Mended)
    assert trainer.train().status == "finished" and trainer.updates() == 12


@pytest.mark.parametrize("listened", [False, True])
def test_a5_an_inf_is_refused_whoever_listens_though_clipping_would_hide_it(listened: bool) -> None:
    """0.1.0 refuses it too; a check after clipping by value would find 0.1 in its place."""

    class Steep(Small):
        def loss(self, batch: Any) -> Tensor:
            return super().loss(batch) + (self.model.bias - self.model.bias.detach()).sum().sqrt()

    class Listens(Hook):
        observer = True

        def pre_update(self, trainer: Any, optimizer: Any) -> None:
            pass

    trainer = small(Steep, clip_value=0.1, hooks=[Listens()] if listened else [])
    with pytest.raises(NonFiniteError, match=r"parameter 1 of group 0, .* is Inf"):
        trainer.train()


@pytest.mark.parametrize("on_disk", [False, True])
def test_a5_a_rollback_passes_over_states_with_nan(on_disk: bool, tmp_path: Path) -> None:
    """0.1.0: back to the newest state, NaN and all; and `train` returns in the middle of the run."""

    class Broken(Small):
        broken = 0

        def post_step(self, batch: Any, outputs: Any) -> None:
            if self.progress.step == 5 and not type(self).broken:
                type(self).broken += 1
                self.model.weight.data.fill_(float("nan"))

    where = {"run_dir": tmp_path / "run", "save_every": "1 step"} if on_disk else {"snapshot_every": "1 step"}
    trainer = small(Broken, on_bad_step="rollback", keep_snapshots=8, keep_checkpoints=8, **where)
    assert trainer.train().status == "finished"
    back = [entry for entry in trainer.journal if entry["event"] == "rollback"]
    assert [(entry["from_step"], entry["restored"]) for entry in back] == [(5, 4)]
    assert torch.isfinite(trainer.model.weight).all()


def test_a5_a_skipped_step_leaves_batch_statistics_as_they_were() -> None:
    """0.1.0: the running mean is NaN from then on, and so is every validation."""

    class Normed(Small):
        def setup(self) -> None:
            super().setup()
            self.norm = nn.BatchNorm1d(1)

        def step(self, batch: Any) -> Any:
            bad = self.progress.step == 3
            self.before = self.norm.running_mean.clone() if bad else getattr(self, "before", None)
            self.counted = int(self.norm.num_batches_tracked) if bad else getattr(self, "counted", 0)
            return super().step((self.norm(batch[0] * (float("nan") if bad else 1.0)), batch[1]))

    trainer = small(Normed, on_bad_step="skip")
    for _ in range(4):
        trainer.iterate()
    assert torch.equal(trainer.norm.running_mean, trainer.before) and int(trainer.norm.num_batches_tracked) == 3
    trainer.train()
    assert torch.isfinite(trainer.norm.running_mean).all()


# A6: late objects --------------------------------------------------------------------------------------------------


def test_a6_a_schedule_and_an_average_made_in_pre_training_act() -> None:
    """0.1.0: the rate stays 0.1, the average is never updated, and validation sees the weights it was made with."""

    class Late(Small):
        def pre_training(self) -> None:
            self.rate = LearningRate(self.optimizer, "linear 0.05 to 0.0")
            self.ema = EMA(self.model, decay=0.5)

    class Early(Small):
        def setup(self) -> None:
            super().setup()
            self.rate = LearningRate(self.optimizer, "linear 0.05 to 0.0")
            self.ema = EMA(self.model, decay=0.5)

    late, early = (small(kind, validation_data=LINE, validate_every="2 steps") for kind in (Late, Early))
    late.train(), early.train()
    assert late.ema.updates == 12
    assert late.optimizer.param_groups[0]["lr"] == early.optimizer.param_groups[0]["lr"] < 0.01
    assert late.validation_metrics == early.validation_metrics
    assert late.best == early.best
    with late.evaluating():
        assert late.best["metrics"]["bias"] == pytest.approx(float(late.model.bias.detach()))


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("kind", ["attribute", "deleted", "list", "dict"])
def test_a6_an_optimizer_that_takes_anothers_place_is_the_one_that_updates(kind: str, named: bool) -> None:
    """0.1.0: `minimize(loss)` goes on with the first one, and counts its updates; named, it is right."""

    class Changing(Small):
        def setup(self) -> None:
            super().setup()
            if kind in ("list", "dict"):
                del self.optimizer
                self.held: Any = [self.make(0.1)] if kind == "list" else {"one": self.make(0.1)}

        def make(self, lr: float) -> Any:
            return torch.optim.SGD(self.model.parameters(), lr=lr)

        def current(self) -> Any:
            return self.optimizer if kind not in ("list", "dict") else self.held[0 if kind == "list" else "one"]

        def step(self, batch: Any) -> Any:
            if self.progress.step == 4:
                if kind == "deleted":
                    del self.optimizer
                if kind in ("list", "dict"):
                    self.held[0 if kind == "list" else "one"] = self.make(0.0)
                else:
                    self.optimizer = self.make(0.0)
            self.minimize(self.loss(batch), self.current() if named else None)
            return {}

    trainer = small(Changing, max_epochs=1)
    weights = []
    while trainer.iterate():
        weights.append(trainer.model.weight.item())
    assert weights[3] != weights[2] and weights[5] == weights[4] == weights[3], "the new one's rate is 0"
    assert trainer.updates() == trainer.updates(trainer.current()) == 2


def test_a6_an_optimizer_that_joins_an_empty_list_is_found_when_it_is_named() -> None:
    """As on 0.1.0."""

    class Joining(Small):
        def setup(self) -> None:
            super().setup()
            self.more: list[Any] = []

        def step(self, batch: Any) -> Any:
            if self.progress.step == 3:
                self.more.append(torch.optim.SGD(self.model.parameters(), lr=0.1))
            self.minimize(self.loss(batch), (self.more or [self.optimizer])[0])
            return {}

    trainer = small(Joining)
    trainer.train()
    assert (trainer.updates(trainer.optimizer), trainer.updates(trainer.more[0])) == (3, 9)


def test_a6_without_an_optimizer_there_is_none() -> None:
    """0.1.0: the deleted one goes on updating."""

    class Gone(Small):
        def step(self, batch: Any) -> Any:
            if self.progress.step == 2:
                del self.optimizer
            return super().step(batch)

    with pytest.raises(UsageError, match="the trainer has no optimizer"):
        small(Gone).train()


def test_a6_what_joins_a_list_in_mid_run_takes_part() -> None:
    """0.1.0: averages and schedules that join a list are never found."""

    class Joining(Small):
        def setup(self) -> None:
            super().setup()
            self.parts_of_it: list[Any] = [LearningRate(self.optimizer, 0.1)]

        def pre_epoch(self) -> None:
            if self.epoch == 1:
                self.parts_of_it.append(EMA(self.model))

    trainer = small(Joining)
    trainer.train()
    assert trainer.parts_of_it[1].updates == 6


def test_a6_a_hook_that_becomes_an_attribute_listens_from_then_on() -> None:
    """0.1.0: it hears nothing."""

    class Ear(Hook):
        def __init__(self) -> None:
            self.heard: list[str] = []

        def pre_epoch(self, trainer: Any) -> None:
            self.heard.append("pre_epoch")

        def post_step(self, trainer: Any, batch: Any, outputs: Any) -> None:
            self.heard.append("post_step")

    class Late(Small):
        def pre_training(self) -> None:
            self.ear = Ear()

        def post_epoch(self) -> None:
            if self.epoch == 1:
                del self.ear

    trainer = small(Late)
    for _ in range(6):
        trainer.iterate()
        ear = getattr(trainer, "ear", None) or ear  # noqa: F821
    trainer.train()
    assert ear.heard == ["pre_epoch", *["post_step"] * 6]


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("accumulate", 3, "fork the run|treadle fork RUN"),
        ("clip_norm", 0.1, "treadle fork RUN"),
        ("max_epochs", 9, "treadle resume RUN --set max_epochs="),
    ],
)
def test_a6_settings_cannot_be_assigned_in_mid_run(name: str, value: Any, remedy: str) -> None:
    """0.1.0: `accumulate` scales the next update by 3, the others are ignored."""
    trainer = small()
    trainer.iterate()
    with pytest.raises(UsageError, match=f"^{name} cannot be assigned, .*({remedy})"):
        setattr(trainer.config, name, value)
    assert end(trainer) == end(small())


# A7: late logs -----------------------------------------------------------------------------------------------------


class Listener(Hook):
    observer = True

    def __init__(self) -> None:
        self.train: list[tuple[int, dict[str, float]]] = []

    def on_log(self, trainer: Any, record: Any) -> None:
        if record.name == "train":
            self.train.append((record.step, dict(record.value)))


def test_a7_what_post_step_logs_belongs_to_its_step() -> None:
    """0.1.0: it is one record late."""

    class Logs(Small):
        def post_step(self, batch: Any, outputs: Any) -> None:
            self.log("number", float(self.progress.step))

    ear = Listener()
    trainer = small(Logs, log_every="1 step", hooks=[ear])
    trainer.train()
    assert [(step, value["number"]) for step, value in ear.train] == [(step, float(step)) for step in range(1, 13)]
    assert trainer.metrics["number"] == 12.0 and "loss" in trainer.metrics


def test_a7_at_the_end_nothing_takes_the_place_of_the_metrics() -> None:
    """0.1.0: what `post_step` of the last step logs stands alone in the summary."""

    class Logs(Small):
        def post_step(self, batch: Any, outputs: Any) -> None:
            self.log("late", 1.0)

        def post_epoch(self) -> None:
            self.log("later", 2.0)

    summary = small(Logs, log_every="1 step").train()
    assert {"loss", "lr", "late", "later"} <= set(summary.metrics)


class Doubles(Hook):
    """Adds a metric to those of a validation: one that gets worse, while the loss falls."""

    def post_validation(self, trainer: Any, metrics: dict[str, float]) -> None:
        metrics["steps"] = float(trainer.progress.step)


def test_a7_a_metric_that_a_hook_adds_can_be_monitored() -> None:
    """0.1.0: UsageError: monitor is 'steps', which validation_step does not return."""
    hooks = [Doubles(), EarlyStopping(3, monitor="steps")]
    trainer = small(validation_data=LINE, validate_every="1 step", monitor="steps", hooks=hooks)
    summary = trainer.train()
    assert trainer.best["step"] == 1 and trainer.best["value"] == 1.0
    assert summary.step == 4 and "steps has not improved in 3 validations" in summary.reason
    assert summary.validation_metrics["steps"] == 4.0


# A8: skipped updates, and observers that draw or edit --------------------------------------------------------------


class Half(Small):
    """Under fp16; at one step (or all from there) the gradient, though not the loss, is too large for any scale."""

    at: ClassVar[Callable[[int], bool]] = lambda step: step == 2

    def setup(self) -> None:
        super().setup()
        self.ema = EMA(self.model, decay=0.5)

    def loss(self, batch: Any) -> Tensor:
        loss = 1e-3 * super().loss(batch)  # so that nothing else overflows
        if type(self).at(self.progress.step):
            loss = loss + (self.model.bias - self.model.bias.detach()).sum().sqrt()
        return loss


def test_a8_a_skipped_update_does_not_count() -> None:
    """0.1.0: `minimize` returns True, 12 updates are counted, and the average moves."""
    trainer = small(Half, precision="fp16")
    for _ in range(2):
        trainer.iterate()
    shadow = trainer.ema.state_dict()["shadows"]["weight"].clone()
    trainer.iterate()
    assert torch.equal(trainer.ema.state_dict()["shadows"]["weight"], shadow)
    trainer.train()
    assert trainer.returned == [YES, YES, NO, *[YES] * 9]
    assert trainer.updates() == trainer.ema.updates == 11
    assert torch.isfinite(trainer.model.weight).all()


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a8_gradients_that_no_scale_helps_end_the_run(policy: str) -> None:
    """0.1.0: the run ends as finished, and counts all 54 updates."""
    kind = type("Lost", (Half,), {"at": lambda step: step >= 3})
    trainer = small(kind, precision="fp16", max_epochs=9, on_bad_step=policy)
    with pytest.raises(NonFiniteError, match=r"NaN or Inf in fp16 at every loss scale down to 0\.5"):
        trainer.train()
    assert trainer.updates() == 3 and torch.isfinite(trainer.model.weight).all()


class Meddler(Hook):
    """Draws from every generator, and edits whatever it is given."""

    observer = True
    order = Order.FIRST

    def meddle(self, *given: Any) -> None:
        random.seed(3), np.random.seed(3), torch.manual_seed(3)
        random.random(), np.random.randn(), torch.rand(3)
        for thing in given:
            value = getattr(thing, "value", thing)
            if isinstance(value, dict):
                value["loss"] = -1.0
                value.pop("bias", None)
            elif isinstance(value, list):
                value[0] = torch.zeros_like(value[0])


for _event in ("pre_epoch", "post_epoch", "pre_validation", "post_training", "pre_training", "teardown"):
    setattr(Meddler, _event, lambda self, trainer: self.meddle())
for _event in ("pre_step", "pre_update", "on_log", "on_journal", "post_validation", "on_load"):
    setattr(Meddler, _event, lambda self, trainer, given: self.meddle(given))
Meddler.post_step = lambda self, trainer, *given: self.meddle(*given)  # type: ignore[method-assign]


class Remembers(Hook):
    """A critical hook that relies on what it put into the state."""

    def __init__(self) -> None:
        self.count = 0

    def post_step(self, trainer: Any, batch: Any, outputs: Any) -> None:
        self.count += 1
        assert outputs["loss"] >= 0

    def on_save(self, trainer: Any, state: dict[str, Any]) -> None:
        state["loss"] = self.count

    def on_load(self, trainer: Any, state: dict[str, Any]) -> None:
        self.count = state["loss"]


@pytest.mark.parametrize("as_list", [False, True])
def test_a8_observers_that_draw_and_edit_leave_the_digest_as_it_is(as_list: bool) -> None:
    """0.1.0: another digest from the first draw on; a best model by a loss of -1."""
    digests, metrics = [], []
    for hooks in ([Remembers()], [Meddler(), Remembers()]):
        data: Any = list(zip(*LINE, strict=True)) if as_list else {"x": LINE[0], "y": LINE[1]}
        trainer = Named(
            *(),
            data=data,
            batch_size=8,
            max_epochs=2,
            seed=0,
            hooks=hooks,
            validation_data=data,
            snapshot_every="5 steps",
        )
        for _ in range(7):
            trainer.iterate()
        trainer.rewind(6)
        digests.append(end(trainer))
        metrics.append((trainer.metrics, trainer.validation_metrics, trainer.best))
    assert digests[0] == digests[1]
    assert metrics[0] == metrics[1]


class Named(Small):
    """Its batches are dicts, or lists as torch's collate makes them."""

    def loss(self, batch: Any) -> Tensor:
        return super().loss((batch["x"], batch["y"]) if isinstance(batch, dict) else batch)

    def validation_step(self, batch: Any) -> Any:
        return super().validation_step((batch["x"], batch["y"]) if isinstance(batch, dict) else batch)


# A9: threads -------------------------------------------------------------------------------------------------------


class Drawn(torch.utils.data.Dataset[Any]):
    """Samples made with the global generators."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        noise = random.random() + np.random.randn() + torch.randn(()).item()
        return torch.tensor([index / 40 + 0.01 * noise]), torch.tensor([index / 13])


def threaded(*trainers: Any) -> None:
    threads = [threading.Thread(target=trainer.train) for trainer in trainers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("data", [LINE, Drawn()], ids=["tensors", "a dataset that draws"])
def test_a9_trainers_in_two_threads_draw_what_each_draws_alone(data: Any) -> None:
    """0.1.0: other digests, and others each time."""
    makes = [lambda seed=seed: small(data=data, max_epochs=12, seed=seed) for seed in (1, 2)]
    alone = [end(make()) for make in makes]
    before = random.getstate()[1], np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    together = [make() for make in makes]
    threaded(*together)
    assert [trainer.digest() for trainer in together] == alone
    after = random.getstate()[1], np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert before == after, "and the program's own streams are where they were"


def test_a9_one_may_pause_while_another_trains() -> None:
    """0.1.0: the one that pauses holds the global streams, and the other draws from them."""
    alone = [end(small(max_epochs=6, seed=seed)) for seed in (1, 2)]
    first, second = (small(max_epochs=6, seed=seed) for seed in (1, 2))
    first.commands.run_until("step 10")
    thread = threading.Thread(target=first.train)
    thread.start()
    try:
        while not first.paused:
            threading.Event().wait(0.002)
        assert end(second) == alone[1]
        assert first.progress.step == 10
    finally:
        first.commands.resume()
        thread.join(timeout=60)
    assert first.digest() == alone[0]


def test_a9_a_main_thread_that_draws_changes_no_run_in_another() -> None:
    """0.1.0: there is no `program_streams`; what the main thread draws is missing from the run's streams."""
    expected = end(small(max_epochs=12))
    trainer = small(max_epochs=12)
    thread = threading.Thread(target=trainer.train)
    with program_streams():
        torch.manual_seed(5)
        own = [torch.rand(()).item() for _ in range(200)]
        torch.manual_seed(5)
    thread.start()
    drawn = []
    for _ in range(200):
        with program_streams():
            drawn.append(torch.rand(()).item())
            random.random(), np.random.rand()
    thread.join(timeout=60)
    assert trainer.digest() == expected
    assert drawn == own


# C2: observers that fail in every way there is ---------------------------------------------------------------------


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


class Mute(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Own(BaseException):
    pass


FAILURES = [
    *(Unspeakable(), Mute(), SystemExit(1), GeneratorExit(), Own("own"), StopIteration(), AssertionError()),
    *(RecursionError(), MemoryError(), Exception("a lone surrogate \udcff\nand a second line")),
]


def failing(error: BaseException, *events: str) -> Hook:
    """An observer that raises `error` in these events."""

    def fail(self: Any, *_: Any) -> Any:
        raise error

    return type("Failing", (Hook,), {"observer": True} | dict.fromkeys(events, fail))()


@pytest.mark.parametrize("error", FAILURES, ids=[type(error).__name__ for error in FAILURES])
@pytest.mark.parametrize(
    "event",
    ["pre_training", "post_step", "post_validation", "on_save", "on_log", "on_journal", "teardown", "state_dict"],
)
def test_c2_no_observer_ends_a_run(event: str, error: BaseException, tmp_path: Path) -> None:
    """0.1.0: SystemExit, GeneratorExit, own BaseExceptions and `__str__` that raises pass; state_dict always does."""
    expected = end(small(validation_data=LINE, run_dir=tmp_path / "quiet", save_every="2 steps"))
    trainer = small(validation_data=LINE, hooks=[failing(error, event)], run_dir=tmp_path / "run", save_every="2 steps")
    assert trainer.train().status == "finished"
    assert trainer.digest() == expected
    failures = [entry for entry in trainer.journal if entry["event"] == "observer failed"]
    assert 1 <= len(failures) <= 5
    assert failures[0]["observer"] == "Failing" and failures[0]["event_name"] == event
    assert "\n" not in failures[0]["error"]


def test_c2_an_observers_state_that_cannot_be_saved_or_loaded_is_its_own_loss(tmp_path: Path) -> None:
    """0.1.0: StateError at the first checkpoint, or at the resume."""

    class Keeps(Hook):
        observer = True
        kept: Any = None
        loaded: Any = "nothing"

        def state_dict(self) -> Any:
            return {"kept": self.kept}

        def load_state_dict(self, state: Any) -> None:
            if state["kept"] == "poison":
                raise SystemExit("cannot")
            self.loaded = state["kept"]

        def on_save(self, trainer: Any, state: dict[str, Any]) -> None:
            state["gift"] = self.kept

    expected = end(small())
    for number, kept in enumerate([object(), torch.zeros(3), "poison", {"fine": [1, 2.5, None]}]):
        hook, path = Keeps(), tmp_path / str(number) / "v001"
        hook.kept = kept
        killed = small(hooks=[hook], run_dir=path, save_every="1 step")
        for _ in range(8):
            killed.iterate()
        kill(killed)
        resumed = small(hooks=[Keeps()], run_dir=path, resume=True, save_every="1 step")
        assert resumed.progress.step == 8
        assert resumed.hooks[0].loaded == (kept if isinstance(kept, dict) else "nothing")
        assert end(resumed) == expected


def test_c2_an_interrupt_passes() -> None:
    """As on 0.1.0: whoever presses Ctrl-C means the run."""
    trainer = small(hooks=[failing(KeyboardInterrupt(), "post_step")])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.ended


def test_c2_a_critical_hooks_error_that_cannot_be_shown_still_ends_the_run_in_order() -> None:
    """0.1.0: ValueError out of the error's own `__str__`, and `teardown` never fires."""
    heard: list[str] = []

    class Critical(Hook):
        def post_step(self, trainer: Any, batch: Any, outputs: Any) -> None:
            raise Unspeakable

        def teardown(self, trainer: Any) -> None:
            heard.append("teardown")

    trainer = small(hooks=[Critical()])
    with pytest.raises(Unspeakable):
        trainer.train()
    assert heard == ["teardown"] and trainer.status == "failed"
    assert trainer.reason == "Unspeakable: (its message cannot be shown)"
