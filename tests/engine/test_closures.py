"""minimize(closure): optimizers that evaluate the loss themselves, LBFGS above all; the oracle is plain torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from treadle import EMA, LearningRate, Trainer, UsageError
from treadle.engine.bad_steps import LossSpike, NonFiniteError
from treadle.testing import kill

X = torch.linspace(-2, 2, 32)[:, None]
Y = torch.sin(X)
OPTIONS = {"lr": 0.5, "max_iter": 3, "history_size": 4}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))


def weights(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in net.parameters()])


class Fit(Trainer):
    """Fits a sine, all of it in each batch or a part, and draws from the run's stream at each evaluation."""

    options: ClassVar[dict[str, Any]] = OPTIONS
    noise: ClassVar[float] = 0.0
    bad: ClassVar[Callable[[int], float]] = lambda step: 1.0

    def setup(self) -> None:
        self.model = network()
        self.optimizer: Any = torch.optim.LBFGS(self.model.parameters(), **self.options)
        self.evaluated: list[int] = []

    def step(self, batch: Any) -> Any:
        losses: list[Tensor] = []

        def closure() -> Tensor:
            error = self.model(batch[0]) - batch[1] + self.noise * torch.randn(())
            losses.append(type(self).bad(self.progress.step) * error.square().mean())
            return losses[-1]

        assert self.minimize(closure)
        self.evaluated.append(len(losses))
        return {"loss": losses[0]}


def fit(kind: type[Fit] = Fit, **settings: Any) -> Any:
    given = {"data": (X, Y), "batch_size": 32, "shuffle": False, "max_steps": 6, "seed": 0, "max_epochs": None}
    return kind(**(given | settings))


def kind(**attributes: Any) -> type[Fit]:
    return type("Fit", (Fit,), attributes)


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_it_is_the_hand_written_loop(search: str | None) -> None:
    """With clipping, a schedule and an average, every evaluation treated as the hand-written closure does."""

    class Full(Fit):
        options: ClassVar = OPTIONS | {"line_search_fn": search}

        def setup(self) -> None:
            super().setup()
            self.rate = LearningRate(self.optimizer, lambda progress: 0.5 / (1 + progress.step))
            self.ema = EMA(self.model, decay=0.5)

    net = network()
    optimizer = torch.optim.LBFGS(net.parameters(), **Full.options)
    average = weights(net)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (net(X) - Y).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.3)
        return loss

    for step in range(6):
        optimizer.param_groups[0]["lr"] = 0.5 / (1 + step)
        optimizer.step(closure)
        average = torch.lerp(average, weights(net), 0.5)
    trainer = fit(Full, clip_norm=0.3, log_every="1 step")
    trainer.train()
    assert torch.equal(weights(trainer.model), weights(net))
    assert max(trainer.evaluated) >= 3 and trainer.updates() == 6
    shadows = torch.cat([shadow.flatten() for shadow in trainer.ema.state_dict()["shadows"].values()])
    assert torch.allclose(shadows, average, atol=1e-7) and trainer.ema.updates == 6
    assert trainer.metrics["grad_norm"] >= trainer.metrics["grad_norm_clipped"]


def test_it_resumes_and_rewinds_to_the_last_bit(tmp_path: Path) -> None:
    noisy = kind(noise=0.01, options=OPTIONS | {"line_search_fn": "strong_wolfe"})
    settings = {"batch_size": 16, "shuffle": True}
    whole = fit(noisy, **settings)
    whole.train()
    where = {"run_dir": tmp_path / "v001", "save_every": "1 step"}
    killed = fit(noisy, **settings, **where)
    for _ in range(3):
        killed.iterate()
    kill(killed)
    resumed = fit(noisy, **settings, **where, resume=True)
    rewound = fit(noisy, **settings, snapshot_every="1 step", keep_snapshots=9)
    for _ in range(5):
        rewound.iterate()
    for _ in range(2):  # twice, since going on from a state must not change it
        rewound.rewind(2)
        rewound.iterate()
    for trainer in (resumed, rewound):
        trainer.train()
        assert trainer.digest() == whole.digest()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_loss_stops_before_any_parameter_changes(bad: float) -> None:
    trainer = fit(kind(bad=lambda step: bad if step == 2 else 1.0))
    trainer.iterate(), trainer.iterate()
    before = weights(trainer.model)
    with pytest.raises(NonFiniteError, match=r"the loss is .* at step 3 .* no parameter was touched"):
        trainer.train()
    assert torch.equal(weights(trainer.model), before)


def test_a_bad_step_that_is_skipped_leaves_the_optimizer_as_it_was() -> None:
    """The loss is finite, but the update it makes is not: steps 3 and 4 move the weights beyond all numbers."""

    class Wild(Fit):
        def setup(self) -> None:
            super().setup()
            self.rate = LearningRate(self.optimizer, lambda progress: 3e38 if progress.step in (2, 3) else 0.5)

    trainer = fit(Wild, on_bad_step="skip")
    calm = fit(max_steps=4)
    trainer.train(), calm.train()
    assert [entry["step"] for entry in trainer.journal if entry["event"] == "bad step"] == [2, 3]
    assert "made a parameter NaN or Inf" in next(e["what"] for e in trainer.journal if e["event"] == "bad step")
    assert torch.equal(weights(trainer.model), weights(calm.model))
    assert trainer.updates() == 4 and trainer.optimizer.state_dict()["state"][0]["func_evals"] == sum(calm.evaluated)


def test_rollback_goes_on_from_before() -> None:
    rolled = fit(
        kind(bad=lambda step: float("nan") if step == 3 else 1.0), on_bad_step="rollback", snapshot_every="2 steps"
    )
    calm = fit(max_steps=5)
    rolled.train(), calm.train()
    assert torch.equal(weights(rolled.model), weights(calm.model)) and rolled.updates() == 5


def test_a_bad_gradient_of_a_good_loss_stops_before_any_parameter_changes() -> None:
    class Root(Fit):
        def step(self, batch: Any) -> Any:
            self.minimize(lambda: (self.model[0].weight * 0).abs().sum().sqrt() + self.model(batch[0]).mean())
            return {}

    trainer = fit(Root)
    before = weights(trainer.model)
    with pytest.raises(NonFiniteError, match=r"the gradient of parameter 0 .* at step 1 "):
        trainer.train()
    assert torch.equal(weights(trainer.model), before)


def test_without_the_check_nan_passes() -> None:
    trainer = fit(kind(bad=lambda step: float("nan")), finite_check=False, max_steps=1)
    trainer.train()
    assert not torch.isfinite(weights(trainer.model)).all()


def test_a_spike_is_seen_at_the_first_evaluation() -> None:
    trainer = fit(kind(bad=lambda step: 1e6 if step == 25 else 1.0), max_steps=30, spike=8.0)
    with pytest.raises(LossSpike, match="at step 26"):
        trainer.train()


def test_pre_update_may_change_the_gradient_of_every_evaluation() -> None:
    class Frozen(Fit):
        calls = 0

        def pre_update(self, optimizer: Any) -> None:
            self.calls += 1
            self.model[0].weight.grad.zero_()
            self.model[2].bias.grad = None

    trainer = fit(Frozen)
    before = trainer.model[0].weight.detach().clone(), trainer.model[2].bias.detach().clone()
    trainer.train()
    assert torch.equal(trainer.model[0].weight, before[0]) and torch.equal(trainer.model[2].bias, before[1])
    assert not torch.equal(trainer.model[2].weight, network()[2].weight)
    assert trainer.calls == sum(trainer.evaluated) > 6


def test_reduced_precision_computes_each_evaluation_with_the_weights_of_then() -> None:
    """Autocast keeps its casts of weights until the step ends: they have to go between two evaluations."""

    class Seen(Fit):
        def step(self, batch: Any) -> Any:
            def closure() -> Tensor:
                out = self.model[0](batch[0])
                assert out.dtype == torch.bfloat16
                with torch.autocast("cpu", enabled=False):
                    w, b = self.model[0].weight.bfloat16(), self.model[0].bias.bfloat16()
                    assert torch.equal(out, nn.functional.linear(batch[0].bfloat16(), w, b))
                self.evaluated.append(1)
                return (self.model[2](out.tanh()).float() - batch[1]).square().mean()

            self.minimize(closure)
            return {}

    trainer = fit(Seen, precision="bf16", max_steps=2)
    trainer.train()
    assert len(trainer.evaluated) >= 4


def test_of_opponents_only_its_own_parameters_receive_gradients() -> None:
    class Opponents(Fit):
        def setup(self) -> None:
            super().setup()
            self.judge = nn.Linear(1, 1)
            self.judge_optimizer = torch.optim.Adam(self.judge.parameters())

        def step(self, batch: Any) -> Any:
            self.minimize(lambda: self.judge(self.model(batch[0])).square().mean(), self.optimizer)
            assert all(p.grad is None for p in self.judge.parameters())
            self.minimize(lambda: {"loss": self.judge(self.model(batch[0])).mean()}, self.judge_optimizer)
            return {}

    trainer = fit(Opponents, max_steps=2)
    judge = [p.detach().clone() for p in trainer.judge.parameters()]
    trainer.train()
    assert trainer.updates(trainer.optimizer) == trainer.updates(trainer.judge_optimizer) == 2
    assert not any(torch.equal(p, before) for p, before in zip(trainer.judge.parameters(), judge, strict=True))


def test_channels_last_is_what_row_major_is() -> None:
    """torch's LBFGS looks at gradients by `view(-1)`, which such memory does not have."""

    class Conv(Trainer):
        form: ClassVar[torch.memory_format] = torch.channels_last

        def setup(self) -> None:
            torch.manual_seed(1)
            self.model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Tanh(), nn.Conv2d(4, 2, 2)).to(memory_format=self.form)
            self.optimizer = torch.optim.LBFGS(self.model.parameters(), lr=0.3, max_iter=3)

        def step(self, batch: Any) -> Any:
            self.minimize(lambda: self.model(batch.contiguous(memory_format=self.form)).square().mean())
            return {}

    data = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    first, second = (
        type("Conv", (Conv,), {"form": form})(data=data, batch_size=4, max_steps=3)
        for form in (torch.channels_last, torch.contiguous_format)
    )
    first.train(), second.train()
    assert first.model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(weights(first.model), weights(second.model), atol=1e-5)


def test_a_lazy_module_takes_its_shape_at_the_first_evaluation() -> None:
    class Lazy(Fit):
        def setup(self) -> None:
            super().setup()
            self.model = nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.LazyLinear(1))
            self.optimizer = torch.optim.LBFGS(self.model.parameters(), **OPTIONS)
            self.rate = LearningRate(self.optimizer, lambda progress: 0.5 if progress.step else 3e38)

    trainer = fit(Lazy, on_bad_step="skip")
    trainer.train()
    assert trainer.updates() == 5, "the first is taken back"
    assert torch.isfinite(weights(trainer.model)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accumulate": 2}, "accumulate is 2, but a closure evaluates the loss of one batch"),
        ({"precision": "fp16"}, "precision is fp16, .* set precision='bf16'"),
    ],
)
def test_what_it_cannot_be_combined_with_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit(**settings)  # at construction, where the optimizer needs a closure

    class Optional(Fit):
        def setup(self) -> None:
            super().setup()
            self.optimizer = torch.optim.Adam(self.model.parameters())

    trainer = fit(Optional, **settings)
    before = weights(trainer.model)
    with pytest.raises(UsageError, match=message):
        trainer.train()
    assert torch.equal(weights(trainer.model), before)


def test_a_loss_where_a_closure_is_needed_is_one_clear_line() -> None:
    class Plain(Fit):
        def step(self, batch: Any) -> Any:
            self.minimize((self.model(batch[0]) - batch[1]).square().mean())
            return {}

    with pytest.raises(
        UsageError, match=r"'optimizer' \(LBFGS\) evaluates the loss several times .* give minimize a fun"
    ):
        fit(Plain).train()


class Idle(torch.optim.SGD):
    """Does nothing."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        pass


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.minimize(lambda: t.model(X), t.optimizer), "loss of shape"),
        (lambda t: t.minimize(lambda: None, t.optimizer), "minimize got a NoneType"),
        (lambda t: t.minimize(lambda: t.head(X).sum(), t.optimizer), "reaches no parameter of 'optimizer'"),
        (lambda t: t.minimize(lambda: t.model(X).mean(), [t.optimizer, t.other]), "call minimize once for each"),
        (lambda t: t.minimize(lambda: t.model(X).mean(), t.other), r"'other' \(Idle\) never evaluated its closure"),
    ],
)
def test_unusable_closures_are_one_clear_line(call: Callable[[Any], Any], message: str) -> None:
    class Bad(Fit):
        def setup(self) -> None:
            super().setup()
            self.head = nn.Linear(1, 1)
            self.other = Idle(self.head.parameters(), lr=0.1)

        def step(self, batch: Any) -> Any:
            call(self)
            return {}

    with pytest.raises(UsageError, match=message):
        fit(Bad, max_steps=1).train()
