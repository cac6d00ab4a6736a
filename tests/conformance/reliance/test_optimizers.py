"""Optimizers: one or several, what they may hold, when they act, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from relied_on import DATA, Fit, X, after, asserted_by, end, fit, resumes_exactly, trained
from torch import nn

from treadle import UsageError, parameter_groups


def loop(make: Any, seed_of: Any) -> nn.Linear:
    """The same training as a plain torch loop, from the weights that `seed_of` begins with."""
    model = nn.Linear(1, 1)
    model.load_state_dict(seed_of.model.state_dict())
    optimizer = make(model.parameters())
    for x, y in list(zip(DATA[0].split(4), DATA[1].split(4), strict=True)) * 2:
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    return model


def with_optimizer(make: Any) -> Any:
    """A `Fit` with another optimizer."""

    class Other(Fit):
        def setup(self) -> None:
            super().setup()
            self.optimizer = make(self.model.parameters())

    return Other


def equals_the_loop(make: Any, **settings: Any) -> bool:
    trainer = fit(with_optimizer(make), shuffle=False, **settings)
    expected = loop(make, trainer)
    trainer.train()
    return torch.equal(trainer.model.weight, expected.weight) and torch.equal(trainer.model.bias, expected.bias)


@asserted_by("torchtnt test_train", "Ignite test_create_supervised_trainer", "Keras test_correctness_with_golden")
def test_training_is_the_plain_loop() -> None:
    """Training gives the weights of the plain loop (zero_grad, backward, step), to the last bit."""
    assert equals_the_loop(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01), fused=False)


def test_optimizers_with_moments_are_the_plain_loop() -> None:
    """AdamW with its moments and decoupled decay is the plain loop's, to the last bit."""
    assert equals_the_loop(lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True, maximize=False), fused=False)


def test_fused_kernels_are_the_plain_loop_with_fused_kernels() -> None:
    """The fused kernels that are used by default give what torch gives with `fused=True`, to the last bit."""
    trainer = fit(with_optimizer(lambda p: torch.optim.Adam(p, lr=0.1)), shuffle=False)
    expected = loop(lambda p: torch.optim.Adam(p, lr=0.1, fused=True), trainer)
    trainer.train()
    assert torch.equal(trainer.model.weight, expected.weight) and trainer.optimizer.param_groups[0]["fused"]


def test_an_authors_choice_of_kernel_stands() -> None:
    """An optimizer built with `foreach=True` or `fused=False` keeps to that."""
    for choice in ({"foreach": True}, {"fused": False}):
        trainer = trained(with_optimizer(lambda p, choice=choice: torch.optim.Adam(p, lr=0.1, **choice)))
        assert not trainer.optimizer.param_groups[0]["fused"]


def test_optimizers_that_maximize() -> None:
    """`maximize=True` climbs, as the optimizer says; nothing turns the loss around."""
    trainer = fit(with_optimizer(lambda p: torch.optim.SGD(p, lr=0.01, maximize=True)), log_every="1 step")
    losses = [trainer.metrics["loss"] for _ in iter(trainer.iterate, False)]
    assert losses[-1] > losses[0]


class Opponents(Fit):
    """Two models that train against each other, as in a GAN."""

    def setup(self) -> None:
        self.maker, self.judge = nn.Linear(1, 1), nn.Linear(1, 1)
        self.makers = torch.optim.Adam(self.maker.parameters(), lr=0.05)
        self.judges = torch.optim.Adam(self.judge.parameters(), lr=0.05)

    def step(self, batch: Any) -> Any:
        made = self.maker(batch[0])
        self.minimize(self.judge(made.detach()).mean() - self.judge(batch[1]).mean(), self.judges)
        self.minimize(-self.judge(made).mean(), self.makers)
        return {}


@asserted_by("Lightning test_multiple_optimizers_manual", "Composer test_trains_multiple_calls")
def test_opponents_are_the_plain_loop() -> None:
    """Two optimizers in one step give what the plain GAN loop gives, with no model frozen by hand."""
    trainer = fit(Opponents, shuffle=False, fused=False)
    maker, judge = nn.Linear(1, 1), nn.Linear(1, 1)
    maker.load_state_dict(trainer.maker.state_dict()), judge.load_state_dict(trainer.judge.state_dict())
    makers, judges = (torch.optim.Adam(m.parameters(), lr=0.05) for m in (maker, judge))
    for x, y in list(zip(DATA[0].split(4), DATA[1].split(4), strict=True)) * 2:
        made = maker(x)
        judges.zero_grad()
        (judge(made.detach()).mean() - judge(y).mean()).backward()
        judges.step()
        makers.zero_grad()
        (-judge(made).mean()).backward()
        makers.step()
    trainer.train()
    assert torch.equal(trainer.maker.weight, maker.weight) and torch.equal(trainer.judge.weight, judge.weight)


@asserted_by("Lightning test_optimizer_toggle_model_context_manager")
def test_only_the_named_optimizers_parameters_receive_gradients() -> None:
    """A loss through another model leaves no gradient there: nothing has to be toggled or cleared."""
    seen: list[bool] = []

    class Looks(Opponents):
        def pre_update(self, optimizer: Any) -> None:
            if optimizer is self.makers:
                seen.append(all(p.grad is None for p in self.judge.parameters()))

    trained(Looks)
    assert seen == [True] * 6


@asserted_by("Lightning test_step_with_optimizer_closure_with_different_frequencies")
def test_one_may_be_trained_less_often() -> None:
    """One optimizer may act every third step only; each has a counter of its own."""

    class Slow(Opponents):
        def step(self, batch: Any) -> Any:
            self.minimize(self.judge(self.maker(batch[0]).detach()).mean(), self.judges)
            if self.progress.step % 3 == 0:
                self.minimize(-self.judge(self.maker(batch[0])).mean(), self.makers)
            return {}

    trainer = trained(Slow)
    assert (trainer.updates(trainer.judges), trainer.updates(trainer.makers)) == (6, 2)


def test_one_loss_may_serve_several_optimizers() -> None:
    """One backward pass may update several optimizers, such as a sparse and a dense one, together."""

    class Joint(Fit):
        def setup(self) -> None:
            super().setup()
            self.first = torch.optim.SGD([self.model.weight], lr=0.1)
            self.second = torch.optim.SGD([self.model.bias], lr=0.1)
            del self.optimizer

        def step(self, batch: Any) -> Any:
            loss = self.loss(batch)
            self.minimize(loss, [self.first, self.second])
            return {"loss": loss}

    joint, single = trained(Joint), trained()
    assert torch.equal(joint.model.weight, single.model.weight) and torch.equal(joint.model.bias, single.model.bias)


@asserted_by("Lightning test_multiple_optimizers_automatic_optimization_raises")
def test_refuses_to_guess_among_several() -> None:
    """With several optimizers `minimize(loss)` is refused at the first step, naming them."""

    class Vague(Opponents):
        def step(self, batch: Any) -> Any:
            self.minimize(self.maker(batch[0]).mean())

    with pytest.raises(UsageError, match=r"2 optimizers \(self.makers, self.judges\): say minimize\(loss, optimizer\)"):
        trained(Vague)


@asserted_by("Lightning test_invalid_optimizer_in_scheduler", "Composer test_no_param_model")
def test_refuses_an_optimizer_of_other_parameters() -> None:
    """An optimizer that updates nothing the trainer holds is refused when the trainer is made."""

    class Stray(Fit):
        def setup(self) -> None:
            super().setup()
            self.optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)

    with pytest.raises(UsageError, match=r"optimizer 'optimizer' updates no parameter of the trainer's modules"):
        fit(Stray)


@asserted_by("Composer test_no_param_model")
def test_refuses_a_model_without_parameters() -> None:
    """An optimizer over no parameters is refused when the trainer is made, in one line."""

    class Empty(Fit):
        def setup(self) -> None:
            self.model = nn.ReLU()
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    with pytest.raises(UsageError, match="setup builds an optimizer without parameters"):
        fit(Empty)


@asserted_by("torchtnt test_construct_tracked_optimizers_and_schedulers")
def test_refuses_an_optimizer_that_is_no_attribute() -> None:
    """An optimizer that is no attribute of the trainer could not be resumed: it is refused at the first step."""

    class Local(Fit):
        def step(self, batch: Any) -> Any:
            self.minimize(self.loss(batch), torch.optim.SGD(self.model.parameters(), lr=0.1))

    with pytest.raises(UsageError, match="an optimizer that is no attribute of the trainer: make it one"):
        trained(Local)


@asserted_by("Lightning test_none_optimizer")
def test_refuses_to_minimize_without_an_optimizer() -> None:
    """`minimize` in a trainer without any optimizer is refused at the first step, saying where to make one."""

    class Without(Fit):
        def setup(self) -> None:
            self.model = nn.Linear(1, 1)

    with pytest.raises(UsageError, match="the trainer has no optimizer: make one in setup"):
        trained(Without)


@asserted_by("Lightning test_closure_with_no_grad_optimizer")
def test_refuses_a_loss_without_gradients() -> None:
    """A loss that was detached is refused at the step, instead of training nothing."""

    class Detached(Fit):
        def loss(self, batch: Any) -> Any:
            return super().loss(batch).detach()

    with pytest.raises(UsageError, match="a loss without gradients: compute it from the model's parameters"):
        trained(Detached)


@asserted_by("Keras test_compute_loss_no_training_backwards_compatibility")
def test_refuses_a_loss_that_is_no_scalar() -> None:
    """A loss for each sample is refused at the step with its shape, and what to do about it."""

    class Many(Fit):
        def loss(self, batch: Any) -> Any:
            return (self.model(batch[0]) - batch[1]).square()

    with pytest.raises(UsageError, match=r"a loss of shape \(4, 1\): reduce it to one number"):
        trained(Many)


def test_refuses_a_loss_that_reaches_no_parameter_of_the_optimizer() -> None:
    """A loss that reaches none of the optimizer's parameters is refused at the step, by the optimizer's name."""

    class Crossed(Opponents):
        def step(self, batch: Any) -> Any:
            self.minimize(self.judge(batch[0]).mean(), self.makers)

    with pytest.raises(UsageError, match="the loss reaches no parameter of 'makers': compute it from"):
        trained(Crossed)


@asserted_by("Lightning test_train_step_no_return")
def test_a_step_without_minimize_trains_nothing_and_is_told_so(capsys: Any) -> None:
    """A `step` that forgets to minimize changes no weight, and a line on stderr says so after the first epoch."""

    class Forgets(Fit):
        def step(self, batch: Any) -> Any:
            return {"loss": self.loss(batch)}

    trainer = fit(Forgets)
    before = trainer.model.weight.detach().clone()
    trainer.train()
    assert torch.equal(trainer.model.weight, before) and "does step call minimize?" in capsys.readouterr().err


@asserted_by("Lightning test_lr_monitor_param_groups")
def test_groups_have_options_of_their_own() -> None:
    """Parameter groups by name patterns keep their own learning rate and weight decay through training."""

    class Groups(Fit):
        def setup(self) -> None:
            super().setup()
            groups = parameter_groups(self.model, {"bias": {"lr": 0.0}})
            self.optimizer = torch.optim.SGD(groups, lr=0.1)

    trainer = fit(Groups)
    before = trainer.model.weight.item(), trainer.model.bias.item()
    trainer.train()
    assert trainer.model.bias.item() == before[1] and trainer.model.weight.item() != before[0]


@asserted_by("Lightning test_freeze_unfreeze_function", "Lightning test_finetuning_callback")
def test_parameters_may_be_frozen_and_freed_in_the_middle(tmp_path: Path) -> None:
    """A layer that is frozen for the first epoch and then freed trains from there on, and so it does after a kill."""

    class Thaws(Fit):
        def setup(self) -> None:
            super().setup()
            self.model.bias.requires_grad_(False)

        def post_epoch(self) -> None:
            self.model.bias.requires_grad_(True)

    trainer = fit(Thaws)
    before = trainer.model.bias.item()
    assert after(3, trainer).model.bias.item() == before
    trainer.train()
    assert trainer.model.bias.item() != before
    resumes_exactly(4, tmp_path, Thaws)


@asserted_by("torchtnt test_reassigning_attributes", "Lightning test_init_optimizers_resets_lightning_optimizers")
def test_a_reassigned_optimizer_takes_over() -> None:
    """An optimizer that is assigned anew in the middle of a run is the one that updates from there on."""

    class Switches(Fit):
        def post_epoch(self) -> None:
            if self.epoch == 1:
                self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.0)

    trainer = after(3, fit(Switches))
    before = trainer.model.weight.item()
    trainer.train()
    assert trainer.model.weight.item() == before and trainer.updates() == 3


@asserted_by("torchtnt test_tracked_optimizers")
def test_optimizers_in_a_list_belong_to_the_run(tmp_path: Path) -> None:
    """Optimizers in a list or dict attribute are found, used and saved like any other."""

    class Listed(Fit):
        def setup(self) -> None:
            self.model = nn.Linear(1, 1)
            self.optimizers = [torch.optim.Adam([p], lr=0.1) for p in self.model.parameters()]

        def step(self, batch: Any) -> Any:
            self.minimize(self.loss(batch), self.optimizers[0])
            self.minimize(self.loss(batch), self.optimizers[1])
            return {}

    resumes_exactly(3, tmp_path, Listed)


@asserted_by(
    "Accelerate test_accelerated_optimizer_pickling",
    "Lightning test_lightning_optimizer_automatic_optimization_optimizer_step",
)
def test_an_optimizer_of_ones_own_with_its_state(tmp_path: Path) -> None:
    """An `Optimizer` subclass of one's own is stepped as it is, and what it keeps in `state` is saved."""

    class Averages(torch.optim.Optimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, {"lr": 0.1})

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for group in self.param_groups:
                for p in group["params"]:
                    mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                    mean.lerp_(p.grad, 0.5)
                    p.sub_(group["lr"] * mean)

    trainer = resumes_exactly(4, tmp_path, with_optimizer(Averages))
    assert "mean" in trainer.optimizer.state[trainer.model.weight]


@asserted_by("Lightning test_lightning_optimizer_keeps_hooks")
def test_torchs_step_hooks_are_called() -> None:
    """Hooks that were registered on the optimizer itself are called with each update."""
    calls: list[str] = []
    trainer = fit()
    trainer.optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    trainer.optimizer.register_step_post_hook(lambda *_: calls.append("post"))
    after(2, trainer)
    assert calls == ["pre", "post"] * 2


@asserted_by(
    "Lightning test_on_before_zero_grad_called",
    "Lightning test_lightning_optimizer_automatic_optimization_optimizer_zero_grad",
)
def test_gradients_are_none_after_an_update() -> None:
    """After an update gradients are None: none is left for the next step, nor memory held."""
    assert all(p.grad is None for p in after(1, fit()).model.parameters())


@asserted_by("torchtnt test_save_restore_multi_optimizers", "Ignite test_checkpoint_load_objects")
def test_moments_of_all_optimizers_come_back(tmp_path: Path) -> None:
    """The moments and step counts of all optimizers are part of the state, to the last bit."""
    trainer = resumes_exactly(4, tmp_path, Opponents)
    assert [int(o.state[p]["step"]) for o, p in ((trainer.makers, trainer.maker.weight),)] == [6]


def test_sparse_and_dense_gradients_side_by_side() -> None:
    """An embedding with sparse gradients trains under SparseAdam beside a dense model under Adam."""

    class Sparse(Fit):
        def setup(self) -> None:
            self.table = nn.Embedding(12, 1, sparse=True)
            self.model = nn.Linear(1, 1)
            self.rows = torch.optim.SparseAdam(list(self.table.parameters()), lr=0.1)
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)

        def loss(self, batch: Any) -> Any:
            return (self.model(self.table(batch[0])) - batch[1]).square().mean()

        def step(self, batch: Any) -> Any:
            loss = self.loss(batch)
            self.minimize(loss, [self.rows, self.optimizer])
            return {"loss": loss}

    trainer = fit(Sparse, data=(torch.arange(4), X[:4]), max_epochs=2)
    before = trainer.table.weight.detach().clone()
    trainer.train()
    changed = (trainer.table.weight.detach() != before)[:, 0]
    assert changed[:4].all() and not changed[4:].any(), "rows that no batch had are left alone"


def test_a_plain_step_of_the_optimizer_still_works(tmp_path: Path) -> None:
    """A `step` that calls `backward()` and `optimizer.step()` itself trains, and resumes, as it would by `minimize`."""

    class Plain(Fit):
        def step(self, batch: Any) -> Any:
            loss = self.loss(batch)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            return {"loss": loss}

    assert torch.equal(trained(Plain).model.weight, trained().model.weight)
    assert resumes_exactly(2, tmp_path, Plain).status == "finished"


def test_tied_parameters_are_updated_once() -> None:
    """A parameter that two modules share is updated once a step, by the sum of its gradients."""

    class Tied(Fit):
        def setup(self) -> None:
            self.model, self.twin = nn.Linear(1, 1), nn.Linear(1, 1)
            self.twin.weight = self.model.weight
            self.optimizer = torch.optim.SGD({*self.model.parameters(), *self.twin.parameters()}, lr=0.1)

        def loss(self, batch: Any) -> Any:
            return self.model(batch[0]).mean() + self.twin(batch[0]).mean()

    trainer = fit(Tied, data=(torch.ones(4, 1), torch.ones(4, 1)), max_epochs=1)
    before = trainer.model.weight.item()
    trainer.train()
    assert trainer.model.weight.item() == pytest.approx(before - 0.2, abs=1e-6)
    assert trainer.twin.weight is trainer.model.weight


def test_equal_seeds_give_equal_weights_whatever_the_program_drew() -> None:
    """First weights and everything after follow from `seed`, whatever the program drew or seeded before."""
    torch.manual_seed(5)
    first = end(fit())
    torch.manual_seed(6)
    torch.rand(7)
    assert end(fit()) == first != end(fit(seed=1))


class Closed(Fit):
    """With an optimizer that evaluates the loss itself, several times a step."""

    def setup(self) -> None:
        super().setup()
        self.optimizer = torch.optim.LBFGS(self.model.parameters(), lr=0.5, max_iter=3)

    def step(self, batch: Any) -> Any:
        self.minimize(lambda: self.loss(batch))
        return {"loss": self.loss(batch)}


@asserted_by("Lightning test_step_with_optimizer_closure", "Lightning test_backward_count_with_closure")
def test_lbfgs_is_given_a_closure(tmp_path: Path) -> None:
    """LBFGS trains by `minimize(lambda: loss)`, counts one update a step, and resumes with its history."""
    trainer = resumes_exactly(2, tmp_path, Closed, max_steps=4)
    model = nn.Linear(1, 1)
    model.load_state_dict(fit().model.state_dict())
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=3)
    x, y = DATA

    def closure() -> Any:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert trainer.updates() == 4
    assert torch.allclose(after(1, fit(Closed, batch_size=12)).model.weight, model.weight, atol=1e-6)


@asserted_by(
    "Lightning test_optimizer_step_no_closure_raises",
    "Lightning test_lightning_optimizer_automatic_optimization_lbfgs_zero_grad",
)
def test_refuses_lbfgs_without_a_closure() -> None:
    """A loss where the optimizer needs a function that computes it is refused at the first step, with an example."""

    class Plain(Closed):
        def step(self, batch: Any) -> Any:
            self.minimize(self.loss(batch))

    with pytest.raises(
        UsageError, match="evaluates the loss several times an update: give minimize a function that computes it"
    ):
        trained(Plain)


def test_refuses_accumulation_with_a_closure() -> None:
    """A closure under `accumulate`, which would evaluate one micro-batch for all, is refused by name."""
    with pytest.raises(UsageError, match="accumulate is 2, but a closure evaluates the loss of one batch"):
        trained(Closed, accumulate=2)
