"""Clipping: what gradients are cut down to, what is told about it, and what it must not hide."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from relied_on import DATA, At, Fit, after, asserted_by, fit, killed, trained
from torch import nn

from treadle import UsageError
from treadle.engine.bad_steps import NonFiniteError


def by_hand(clip: Any, steps: int = 6) -> nn.Linear:
    """The same training as a plain loop, with a function that clips."""
    reference = fit(shuffle=False)
    model, optimizer = reference.model, torch.optim.SGD(reference.model.parameters(), lr=0.1)
    batches = list(zip(DATA[0].split(4), DATA[1].split(4), strict=True)) * 2
    for x, y in batches[:steps]:
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        clip(model.parameters())
        optimizer.step()
    return model


@asserted_by("Lightning test_gradient_clipping_by_norm", "Composer test_gradient_clipping_algorithm")
def test_by_norm_it_is_torchs_own() -> None:
    """`clip_norm` gives the weights that `torch.nn.utils.clip_grad_norm_` gives in a plain loop."""
    expected = by_hand(lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.5))
    assert torch.allclose(trained(shuffle=False, clip_norm=0.5).model.weight, expected.weight, atol=1e-7)


@asserted_by("Lightning test_gradient_clipping_by_value")
def test_by_value_it_is_torchs_own() -> None:
    """`clip_value` gives the weights that `torch.nn.utils.clip_grad_value_` gives in a plain loop."""
    expected = by_hand(lambda parameters: nn.utils.clip_grad_value_(parameters, 0.3))
    assert torch.equal(trained(shuffle=False, clip_value=0.3).model.weight, expected.weight)


def test_with_both_the_value_comes_first() -> None:
    """With both, entries are cut first and the norm of what is left after them."""

    def both(parameters: Any) -> None:
        kept = list(parameters)
        nn.utils.clip_grad_value_(kept, 0.3)
        nn.utils.clip_grad_norm_(kept, 0.35)

    trainer = trained(shuffle=False, clip_value=0.3, clip_norm=0.35)
    assert torch.allclose(trainer.model.weight, by_hand(both).weight, atol=1e-7)


@asserted_by("Composer test_gradient_clipping_functional")
def test_below_the_limit_no_bit_changes() -> None:
    """Gradients below the limit are left alone, to the last bit."""
    assert torch.equal(trained(clip_norm=1e6, clip_value=1e6).model.weight, trained().model.weight)


def test_the_norm_is_logged_before_and_after() -> None:
    """The norm before and after clipping is among the logged metrics."""
    trainer = after(1, fit(clip_norm=0.5, log_every="1 step"))
    assert trainer.metrics["grad_norm"] > 0.5
    assert trainer.metrics["grad_norm_clipped"] == pytest.approx(0.5, abs=1e-5)


@asserted_by("Lightning test_invalid_gradient_clip_value")
def test_refuses_a_limit_that_is_not_above_zero() -> None:
    """A limit of 0 or less is refused by name when the trainer is made; None switches clipping off."""
    with pytest.raises(UsageError, match="clip_norm is 0"):
        fit(clip_norm=0)


@asserted_by("Lightning test_invalid_gradient_clip_value")
def test_refuses_a_limit_that_is_no_number() -> None:
    """A limit that is text is refused by name when the trainer is made."""
    with pytest.raises(UsageError, match="clip_value is 'a lot': expected a number"):
        fit(clip_value="a lot")


@asserted_by("Lightning test_invalid_gradient_clip_algo")
def test_refuses_another_trainers_name_for_it() -> None:
    """Lightning's `gradient_clip_val=` is refused when the trainer is made, with what it is called here."""
    with pytest.raises(UsageError, match=r"'gradient_clip_val' is no setting of TrainerConfig; here it is clip_norm"):
        fit(gradient_clip_val=1.0)


class Two(Fit):
    """Two opponents with one optimizer each."""

    def setup(self) -> None:
        super().setup()
        self.other = nn.Linear(1, 1)
        self.second = torch.optim.SGD(self.other.parameters(), lr=0.1)

    def step(self, batch: Any) -> Any:
        self.minimize(100 * self.loss(batch), self.optimizer)
        self.minimize(1e-3 * self.other(batch[0]).square().mean(), self.second)
        return {}


@asserted_by("Lightning test_multiple_optimizers_manual")
def test_each_optimizer_is_clipped_by_itself() -> None:
    """With several optimizers the norm is that of each one's own parameters, and logged under its name."""
    metrics = after(1, fit(Two, clip_norm=0.5, log_every="1 step")).metrics
    assert metrics["optimizer.grad_norm_clipped"] == pytest.approx(0.5, abs=1e-5)
    assert metrics["second.grad_norm_clipped"] == metrics["second.grad_norm"] < 0.5


def test_the_norm_is_over_all_groups_of_an_optimizer() -> None:
    """Parameter groups of one optimizer are clipped by their joint norm, so that directions stay."""

    class Groups(Fit):
        def setup(self) -> None:
            super().setup()
            self.optimizer = torch.optim.SGD([{"params": [p]} for p in self.model.parameters()], lr=0.1)

    assert torch.equal(trained(Groups, clip_norm=0.5).model.weight, trained(clip_norm=0.5).model.weight)


def test_parameters_without_a_gradient_do_not_count() -> None:
    """Frozen parameters and those that the loss does not reach neither fail the clipping nor count in the norm."""

    class Partly(Fit):
        def setup(self) -> None:
            self.model = nn.Linear(1, 1)
            self.unused, self.frozen = nn.Linear(9, 9), nn.Linear(9, 9).requires_grad_(False)
            everything = [*self.model.parameters(), *self.unused.parameters(), *self.frozen.parameters()]
            self.optimizer = torch.optim.SGD(everything, lr=0.1)

    trainer = after(1, fit(Partly, clip_norm=0.5, log_every="1 step"))
    assert trainer.metrics["grad_norm_clipped"] == pytest.approx(0.5, abs=1e-5) and trainer.unused.weight.grad is None


@asserted_by("Composer test_apply_agc", "Lightning test_clip_gradients")
def test_a_rule_of_ones_own_goes_into_pre_update() -> None:
    """A clipping rule of one's own (adaptive, per layer) acts on the complete gradients in `pre_update`."""

    class Adaptive(Fit):
        def pre_update(self, optimizer: Any) -> None:
            for p in self.model.parameters():
                limit = 0.1 * p.detach().norm().clamp(min=1e-3)
                p.grad.mul_((limit / p.grad.norm()).clamp(max=1.0))

    trainer = fit(Adaptive)
    before = trainer.model.weight.detach().clone()
    after(1, trainer)
    assert float((trainer.model.weight.detach() - before).abs()) <= 0.1 * 0.1 * float(before.abs()) + 1e-7


class Poisoned(Fit):
    """Its loss is finite and one of its gradients is not."""

    poison = math.nan

    def setup(self) -> None:
        super().setup()
        self.model.bias.register_hook(lambda gradient: gradient * self.poison)


@asserted_by("Composer test_get_clipped_gradients_1D_with_zeros")
def test_it_does_not_hide_a_nan() -> None:
    """A gradient that is NaN stops the run by name; clipping neither spreads it over all weights nor hides it."""
    trainer = fit(Poisoned, clip_norm=1.0)
    before = trainer.model.weight.detach().clone()
    with pytest.raises(NonFiniteError, match=r"the gradient of parameter 1.*is NaN"):
        trainer.train()
    assert torch.equal(trainer.model.weight, before)


def test_it_does_not_make_nan_of_an_infinite_gradient() -> None:
    """An infinite gradient stops the run as what it is; cutting it by value does not let it pass."""
    kind = type("Infinite", (Poisoned,), {"poison": math.inf})
    with pytest.raises(NonFiniteError, match=r"is Inf"):
        trained(kind, clip_value=1.0)


def test_with_the_check_off_the_norm_still_tells() -> None:
    """With `finite_check=False` the run goes on, as torch would, and the logged norm is NaN."""
    trainer = after(1, fit(Poisoned, clip_norm=1.0, finite_check=False, log_every="1 step"))
    assert math.isnan(trainer.metrics["grad_norm"]) and trainer.model.weight.isnan().all()


def test_bf16_weights_are_clipped_too() -> None:
    """Gradients in bfloat16 are clipped like all others."""

    class Half(Fit):
        def setup(self) -> None:
            self.model = nn.Linear(1, 1, dtype=torch.bfloat16)
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

        def loss(self, batch: Any) -> Any:
            return (self.model(batch[0].bfloat16()).float() - batch[1]).square().mean()

    norms: list[float] = []

    def note(trainer: Any, *_: Any) -> None:
        norms.append(trainer.metrics["grad_norm_clipped"])

    trained(Half, clip_norm=0.5, log_every="1 step", max_steps=3, hooks=[At("post_epoch", note)])
    assert norms == [pytest.approx(0.5, rel=0.02)]


def test_refuses_another_limit_at_a_resume(tmp_path: Path) -> None:
    """A resume that changes `clip_norm` is refused before it starts, since the past was computed with the other."""
    path = killed(2, tmp_path, clip_norm=0.5)
    with pytest.raises(UsageError, match=r"a resume cannot change clip_norm \(0.5 -> 1.0\)"):
        fit(clip_norm=1.0, run_dir=path, resume=True)


def test_refuses_another_limit_in_the_middle_of_a_run() -> None:
    """`config.clip_norm` set in a running program is refused at once, instead of having no effect."""
    with pytest.raises(UsageError, match="clip_norm cannot be assigned, the run has been set up"):
        after(1, fit(clip_norm=0.5)).config.clip_norm = 1.0


@asserted_by("Lightning test_lightning_module_configure_gradient_clipping")
def test_each_optimizer_may_have_a_limit_of_its_own() -> None:
    """`clip_norm={"optimizer": 0.5}` clips that optimizer by its limit, and those that it does not name not at all."""
    metrics = after(1, fit(Two, clip_norm={"optimizer": 0.5}, log_every="1 step")).metrics
    assert metrics["optimizer.grad_norm_clipped"] == pytest.approx(0.5, abs=1e-5)
    assert (
        "second.grad_norm_clipped" not in metrics or metrics["second.grad_norm_clipped"] == metrics["second.grad_norm"]
    )


def test_refuses_a_limit_for_an_optimizer_that_is_not_there() -> None:
    """A limit for an optimizer that the trainer has not is refused when it is made, with the nearest name."""
    with pytest.raises(
        UsageError, match=r"clip_norm.secnd: the trainer has no optimizer 'secnd'; did you mean 'second'"
    ):
        fit(Two, clip_norm={"secnd": 1.0})


def test_sparse_gradients_are_clipped_by_their_true_norm() -> None:
    """A sparse gradient, in which a row may come twice, is clipped by the norm of its rows' sums."""

    class Sparse(Fit):
        def setup(self) -> None:
            self.table = nn.Embedding(4, 1, sparse=True)
            self.optimizer = torch.optim.SGD(self.table.parameters(), lr=0.1)

        def loss(self, batch: Any) -> Any:
            return self.table(batch).sum()

    trainer = after(1, fit(Sparse, data=torch.zeros(4, dtype=torch.long), clip_norm=1.0, log_every="1 step"))
    assert trainer.metrics["grad_norm"] == 4.0 and trainer.metrics["grad_norm_clipped"] == pytest.approx(1.0, abs=1e-5)
