"""minimize: accumulation, clipping, the finite check, precision, averages, several optimizers."""

from __future__ import annotations

import math

import pytest
import torch

from treadle import EMA, Objective, Trainer, UsageError
from treadle.engine.bad_steps import NonFiniteError
from treadle.engine.minimize import Updater
from treadle.engine.settings import TrainerConfig


def weights(trainer):
    return torch.cat([p.detach().flatten().clone() for p in trainer.model.parameters()])


class Sgd(Trainer):
    """Plain SGD, so that equal gradients mean equal weights."""

    def setup(self):
        self.model = torch.nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def step(self, batch):
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.model(x), y)
        self.minimize(loss)
        return loss


def test_it_is_the_hand_written_loop(line_data):
    trainer = Sgd(data=line_data, batch_size=50, shuffle=False, max_epochs=5)
    model = torch.nn.Linear(1, 1)
    model.load_state_dict(trainer.model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    for _ in range(5):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(line_data[0]), line_data[1]).backward()
        optimizer.step()
    trainer.train()
    assert torch.equal(trainer.model.weight, model.weight)
    assert trainer.updates() == 5


def test_accumulation_is_weighted_by_elements(line_data):
    """Micro-batches of 20, 20 and 10 make the same update as the whole 50, the window closing with the epoch."""
    whole = Sgd(data=line_data, batch_size=50, shuffle=False, max_epochs=3)
    parts = Sgd(data=line_data, batch_size=20, accumulate=4, shuffle=False, max_epochs=3)
    whole.train(), parts.train()
    assert torch.allclose(weights(whole), weights(parts), atol=1e-6)
    assert parts.updates() == 3


def test_accumulation_updates_when_its_window_is_full(line_data):
    trainer = Sgd(data=line_data, batch_size=10, accumulate=2, max_epochs=1)
    trainer.train()
    assert trainer.updates() == 3  # 2 + 2 + 1 micro-batches


def test_clipping_reports_the_norm_before_and_after(line_data):
    trainer = Sgd(data=line_data, batch_size=50, max_epochs=1, clip_norm=0.5, log_every="1 step")
    trainer.train()
    assert trainer.metrics["grad_norm"] > 0.5
    assert trainer.metrics["grad_norm_clipped"] == pytest.approx(0.5, rel=1e-4)
    trainer = Sgd(data=line_data, batch_size=50, max_epochs=1, clip_value=0.1, log_every="1 step")
    trainer.train()
    assert trainer.metrics["grad_norm_clipped"] == pytest.approx(0.1 * math.sqrt(2), rel=1e-4)


def test_pre_update_sees_complete_gradients_and_may_change_them(line_data):
    class Frozen(Sgd):
        def pre_update(self, optimizer):
            assert optimizer is self.optimizer
            self.model.weight.grad.zero_()

    trainer = Frozen(data=line_data, max_epochs=1)
    before = trainer.model.weight.clone()
    trainer.train()
    assert torch.equal(trainer.model.weight, before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_loss_names_the_term_the_step_and_the_batch(line_data, bad):
    class Bad(Sgd):
        def setup(self):
            super().setup()
            self.objective = Objective()
            self.objective.add("fit")
            self.objective.add("extra", weight=0.5)

        def step(self, batch):
            x, y = batch
            fit = torch.nn.functional.mse_loss(self.model(x), y)
            extra = self.model.bias.sum() * (bad if self.progress.step == 3 else 1.0)
            losses = self.objective(fit=fit, extra=extra)
            self.minimize(losses)
            return losses

    trainer = Bad(data=line_data, batch_size=25, max_epochs=4)
    with pytest.raises(NonFiniteError, match=r"loss term 'extra' is .* at step 4 \(epoch 2, batch 2\)"):
        trainer.train()
    assert torch.isfinite(weights(trainer)).all()
    assert trainer.status == "failed"


def test_a_bad_gradient_is_found_before_it_reaches_a_parameter(line_data):
    class Bad(Sgd):
        def step(self, batch):
            # sqrt(0) has value 0 and gradient inf.
            loss = (self.model.bias * 0).abs().sum().sqrt() + self.model.weight.sum()
            self.minimize(loss)
            return loss

    trainer = Bad(data=line_data, max_epochs=1)
    before = weights(trainer)
    with pytest.raises(NonFiniteError, match=r"parameter 1 of group .* at step 1"):
        trainer.train()
    assert torch.equal(weights(trainer), before)
    unchecked = Bad(data=line_data, max_epochs=1, finite_check=False)
    unchecked.train()
    assert not torch.isfinite(weights(unchecked)).all()


def test_on_a_device_the_verdict_waits_until_it_is_read():
    """The path of a GPU, taken here on the CPU by telling the updater not to read the verdict."""
    p = torch.nn.Parameter(torch.ones(3))
    updater = Updater("optimizer", torch.optim.Adam([p], fused=True), torch.device("cpu"), TrainerConfig())
    updater.check_at_once = False
    for factor in (1.0, float("nan"), 1.0):
        updater.backward((p * factor).sum(), 1, None)
        updater.update(lambda: None)
    assert torch.isfinite(p).all(), "fused updates are skipped where the flag is set"
    with pytest.raises(NonFiniteError, match="'optimizer' is NaN or Inf at its update 1"):
        updater.check_device()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains_and_keeps_fp32_weights(line_data, precision):
    class Seen(Sgd):
        def step(self, batch):
            self.dtype = self.model(batch[0]).dtype
            return super().step(batch)

    trainer = Seen(data=line_data, max_epochs=60, precision=precision)
    summary = trainer.train()
    assert trainer.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert trainer.model.weight.dtype == torch.float32
    assert summary.metrics["loss"] < 0.05
    assert (trainer.minimizer.updaters["optimizer"].scaler is not None) == (precision == "fp16")


class Opponents(Trainer):
    def setup(self):
        self.a, self.b = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        self.model = self.a
        self.opt_a = torch.optim.Adam(self.a.parameters())
        self.opt_b = torch.optim.Adam(self.b.parameters())

    def step(self, batch):
        x, y = batch
        loss = (self.b(self.a(x)) - y).square().mean()
        self.minimize(loss, self.opt_a)
        assert all(p.grad is None for p in self.b.parameters()), "opponents receive no gradient"
        if self.progress.step % 2 == 0:
            self.minimize((self.b(self.a(x).detach()) - y).square().mean(), self.opt_b)
        return loss


def test_several_optimizers_each_count_their_updates(line_data):
    seen = []

    class Watch(Opponents):
        def pre_update(self, optimizer):
            seen.append(optimizer)

    trainer = Watch(data=line_data, batch_size=25, max_epochs=2)
    trainer.train()
    assert (trainer.updates(trainer.opt_a), trainer.updates(trainer.opt_b)) == (4, 2)
    assert seen.count(trainer.opt_a) == 4 and seen.count(trainer.opt_b) == 2
    assert {"opt_a.lr", "opt_b.lr"} <= set(trainer.metrics)


def test_one_backward_may_serve_several_optimizers(line_data):
    class Together(Opponents):
        def step(self, batch):
            loss = (self.b(self.a(batch[0])) - batch[1]).square().mean()
            self.minimize(loss, [self.opt_a, self.opt_b])
            return loss

    trainer = Together(data=line_data, max_epochs=1)
    before = trainer.a.weight.clone(), trainer.b.weight.clone()
    trainer.train()
    assert not torch.equal(trainer.a.weight, before[0]) and not torch.equal(trainer.b.weight, before[1])
    assert trainer.updates(trainer.opt_a) == trainer.updates(trainer.opt_b) == 2


def test_with_several_optimizers_one_must_be_named(line_data):
    class Vague(Opponents):
        def step(self, batch):
            self.minimize(self.a(batch[0]).mean())

    with pytest.raises(UsageError, match=r"2 optimizers \(self.opt_a, self.opt_b\): say minimize\(loss, optimizer\)"):
        Vague(data=line_data, max_epochs=1).train()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t, x: t.model(x), "loss of shape"),
        (lambda t, x: t.model(x).mean().detach(), "loss without gradients"),
        (lambda t, x: 3.0, "minimize got a float"),
        (lambda t, x: t.model(x).mean() * 1j, "minimize got a complex loss"),
        (lambda t, x: torch.ones((), requires_grad=True) * 2, "reaches no parameter of 'optimizer'"),
    ],
)
def test_unusable_losses_are_one_clear_line(line_data, make, message):
    class Bad(Sgd):
        def step(self, batch):
            self.minimize(make(self, batch[0]))
            return {}

    with pytest.raises(UsageError, match=message):
        Bad(data=line_data, max_epochs=1).train()


def test_an_average_follows_its_optimizer_and_is_what_validation_sees(line_data):
    class Averaged(Sgd):
        def setup(self):
            super().setup()
            self.ema = EMA(self.model, decay=0.9)

        def validation_step(self, batch):
            self.at_validation = weights(self)
            return {"loss": torch.zeros(())}

    trainer = Averaged(data=line_data, batch_size=50, max_epochs=1, validation_data=line_data)
    expected = weights(trainer)
    trainer.train()
    expected = expected + 0.1 * (weights(trainer) - expected)
    assert torch.allclose(trainer.at_validation, expected, atol=1e-7)
    assert not torch.equal(weights(trainer), trainer.at_validation)


def test_plain_optimizers_become_fused_unless_told_otherwise(line_data):
    for fused in (True, False):
        trainer = Sgd(data=line_data, max_epochs=1, fused=fused)
        trainer.iterate()
        assert bool(trainer.optimizer.param_groups[0]["fused"]) == fused


def test_sparse_gradients_train():
    class Embedded(Trainer):
        def setup(self):
            self.model = torch.nn.Embedding(10, 2, sparse=True)
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

        def step(self, batch):
            loss = self.model(batch).square().mean()
            self.minimize(loss)
            return loss

    before = Embedded(data=torch.arange(10), max_epochs=1).model.weight.clone()
    trainer = Embedded(data=torch.arange(10), max_epochs=1)
    trainer.train()
    assert trainer.model.weight.abs().sum() < before.abs().sum()


def test_what_follows_an_update_in_the_same_step_computes_with_the_new_weights():
    class Twice(Trainer):
        """Under autocast, which casts each weight once and keeps the cast."""

        def setup(self):
            self.judge, self.maker = torch.nn.Linear(4, 1), torch.nn.Linear(4, 4)
            self.judge_optimizer = torch.optim.SGD(self.judge.parameters(), lr=1.0)
            self.maker_optimizer = torch.optim.SGD(self.maker.parameters(), lr=1.0)

        def step(self, batch):
            made = self.maker(batch)
            self.minimize(self.judge(made.detach()).sum(), self.judge_optimizer)
            verdict = self.judge(made)
            with torch.autocast("cpu", enabled=False):
                weight, bias = self.judge.weight.bfloat16(), self.judge.bias.bfloat16()
                assert torch.equal(verdict, torch.nn.functional.linear(made, weight, bias))
            self.minimize(verdict.square().sum(), self.maker_optimizer)
            return {}

    data = torch.linspace(-1, 1, 24).reshape(6, 4)
    trainer = Twice(data=data, batch_size=2, max_epochs=1, precision="bf16")
    trainer.train()
    assert trainer.updates(trainer.maker_optimizer) == 3


def test_a_graph_that_is_retained_can_be_gone_through_again(line_data):
    class Sums(Trainer):
        retain = True

        def setup(self):
            self.a, self.b = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
            self.opt_a, self.opt_b = (torch.optim.SGD([p], lr=0.1) for p in (self.a, self.b))

        def step(self, batch):
            loss = (self.a + self.b - batch[1]).square().mean()
            self.minimize(loss, self.opt_a, retain_graph=self.retain)
            self.minimize(3 * loss, self.opt_b)
            return {"loss": loss}

    trainer = Sums(data=line_data, batch_size=50, max_steps=1)
    trainer.train()
    gradient = -2 * line_data[1].mean()
    assert torch.allclose(trainer.a, -0.1 * gradient) and torch.allclose(trainer.b, -0.3 * gradient)
    freed = type("Freed", (Sums,), {"retain": False})(data=line_data, max_steps=1)
    with pytest.raises(RuntimeError, match="Specify retain_graph=True"):
        freed.train()


@pytest.mark.parametrize("closure", [False, True])
def test_a_retained_graph_gives_its_gradient_twice(line_data, closure):
    """With the engine's own way into autograd, and through torch's door (a closure has no such way)."""

    class Twice(Sgd):
        def step(self, batch):
            loss = torch.nn.functional.mse_loss(self.model(batch[0]), batch[1])
            self.minimize((lambda: loss) if closure else loss, retain_graph=True)
            loss.backward()
            self.gradient = [p.grad.clone() for p in self.model.parameters()]
            return loss

    trainer = Twice(data=line_data, batch_size=50, max_steps=1)
    before = weights(trainer)
    trainer.train()
    gradient = torch.cat([g.flatten() for g in trainer.gradient])
    assert torch.allclose(weights(trainer), before - 0.1 * gradient)


def test_each_optimizer_may_have_its_own_clip_norm(line_data):
    class Both(Opponents):
        def setup(self):
            super().setup()
            self.opt_a = torch.optim.SGD(self.a.parameters(), lr=0.1)
            self.opt_b = torch.optim.SGD(self.b.parameters(), lr=0.1)

        def pre_step(self, batch):
            self.before = {name: [p.detach().clone() for p in getattr(self, name).parameters()] for name in "ab"}

        def moved(self, name):
            pairs = zip(getattr(self, name).parameters(), self.before[name], strict=True)
            return float(torch.cat([(p.detach() - old).flatten() for p, old in pairs]).norm())

    trainer = Both(data=line_data, max_steps=1, clip_norm={"opt_b": 1e-3}, log_every="1 step")
    trainer.train()
    assert trainer.moved("b") == pytest.approx(1e-4, rel=1e-2) and trainer.moved("a") > 1e-3
    assert trainer.metrics["opt_b.grad_norm_clipped"] == pytest.approx(1e-3, rel=1e-2)
    assert "opt_a.grad_norm" not in trainer.metrics
    trainer = Both(data=line_data, max_steps=1, clip_norm={"opt_b": 1e-3, "opt_a": 2e-3}, log_every="1 step")
    trainer.train()
    assert trainer.moved("a") == pytest.approx(2e-4, rel=1e-2)
    with pytest.raises(UsageError, match=r"clip_norm\.opt_c: .* no optimizer 'opt_c'; did you mean 'opt_[ab]'\?"):
        Both(data=line_data, max_steps=1, clip_norm={"opt_c": 1.0})


def test_a_clip_norm_follows_the_name_of_its_optimizer(line_data):
    class Renamed(Opponents):
        def pre_step(self, batch):
            if self.progress.step == 1:
                self.opt_a, self.opt_b = self.opt_b, self.opt_a

    trainer = Renamed(data=line_data, max_steps=1, clip_norm={"opt_b": 1e-3})
    trainer.train()
    trainer = Renamed(data=line_data, batch_size=25, max_steps=2, clip_norm={"opt_b": 1e-3})
    first, second = trainer.opt_a, trainer.opt_b
    trainer.train()
    updaters = {id(updater.optimizer): updater for updater in trainer.minimizer.updaters.values()}
    assert updaters[id(first)].clip_norm == 1e-3 and updaters[id(second)].clip_norm is None
