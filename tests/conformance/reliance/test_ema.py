"""EMA: averaged weights, when they move, who sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from relied_on import DATA, At, Fit, X, after, asserted_by, end, fit, resumes_exactly, trained
from torch import nn

from treadle import EMA, UsageError
from treadle.hooks import load_best


class Averaged(Fit):
    """With an average of its model."""

    decay = 0.9
    options: dict[str, Any] = {}

    def setup(self) -> None:
        super().setup()
        self.ema = EMA(self.model, decay=self.decay, **self.options)


def shadow(trainer: Any) -> float:
    return float(trainer.ema.shadow_of(trainer.model.weight))


def weight(trainer: Any) -> float:
    return float(trainer.model.weight.detach())


@asserted_by("Ignite test_ema_final_weight_cpu", "torchtnt test_averaged_model_exponential", "Keras test_ema")
def test_it_is_the_formula() -> None:
    """After each update the average is `decay * average + (1 - decay) * weight`, begun at the first weights."""
    trainer = fit(Averaged)
    expected = weight(trainer)
    for step in range(1, 5):
        after(step, trainer)
        expected = 0.9 * expected + 0.1 * weight(trainer)
        assert shadow(trainer) == pytest.approx(expected, abs=1e-6)


@asserted_by("Ignite test_ema_warmup_func")
def test_a_warm_up_forgets_the_first_weights_soon() -> None:
    """With `warm_up` the decay grows from 2/11 towards its value."""
    kind = type("Warm", (Averaged,), {"options": {"warm_up": True}})
    trainer = fit(kind)
    first = weight(trainer)
    after(1, trainer)
    assert shadow(trainer) == pytest.approx(first * 2 / 11 + weight(trainer) * 9 / 11, abs=1e-6)


@asserted_by("Lightning test_ema_weight_averaging", "Keras test_swap_ema_weights_on_epoch")
def test_validation_sees_the_average_and_training_the_weights() -> None:
    """Validation and `test()` compute with the average; afterwards the weights are back, to the last bit."""
    seen: list[float] = []

    class Looks(Averaged):
        def validation_step(self, batch: Any) -> Any:
            seen.append(weight(self))
            return super().validation_step(batch)

    trainer = after(2, fit(Looks, validation_data=DATA))
    before, average = weight(trainer), shadow(trainer)
    trainer.validate()
    assert set(seen) == {average} and weight(trainer) == before != average


@asserted_by("Keras test_swap_ema_weights")
def test_it_may_be_kept_out_of_validation() -> None:
    """`evaluate=False` leaves validation to the plain weights."""
    kind = type("Apart", (Averaged,), {"options": {"evaluate": False}})
    apart, plain = trained(kind, validation_data=DATA), trained(validation_data=DATA)
    assert apart.validation_metrics == plain.validation_metrics


@asserted_by("Lightning test_ema_weight_averaging_checkpoint_save_load")
def test_the_best_model_is_the_average_that_was_validated() -> None:
    """The best model holds the averaged weights, with which it was the best."""
    trainer = trained(Averaged, validation_data=DATA)
    average = shadow(trainer)
    assert trainer.best["step"] == 6 and weight(trainer) != average
    load_best(trainer)
    assert weight(trainer) == average


@asserted_by("Ignite test_ema_load_state_dict", "Lightning test_ema_resume")
def test_it_goes_on_after_a_kill(tmp_path: Path) -> None:
    """A killed run goes on with its average and that one's count of updates, to the same digest."""
    assert resumes_exactly(4, tmp_path, type("Warm", (Averaged,), {"options": {"warm_up": True}})).ema.updates == 6


@asserted_by("Ignite test_ema_invalid_momentum")
def test_refuses_a_decay_outside_of_0_to_1() -> None:
    """A decay that is not between 0 and 1 is refused when the average is made."""
    with pytest.raises(UsageError, match=r"EMA decay is 1\.5: expected a number between 0 and 1"):
        EMA(nn.Linear(1, 1), decay=1.5)


@asserted_by("Lightning test_ema_weight_averaging_step_frequency")
def test_it_moves_with_updates_and_not_with_micro_batches() -> None:
    """Under accumulation the average moves once an update."""
    assert trained(Averaged, accumulate=3).ema.updates == 2


@asserted_by("Composer test_ema")
def test_the_weights_may_be_exchanged_for_a_while() -> None:
    """`with ema.applied()` gives the module the average, and the weights back, also after an error in the block."""
    trainer = after(3, fit(Averaged))
    before, average = weight(trainer), shadow(trainer)
    with pytest.raises(ZeroDivisionError), trainer.ema.applied():
        assert weight(trainer) == average
        1 / 0  # noqa: B018
    assert (weight(trainer), shadow(trainer)) == (before, average)


@asserted_by("torchtnt test_averaged_model_all_devices", "torchtnt test_lit_ema")
def test_it_works_in_any_loop() -> None:
    """An `EMA` works in a loop of one's own: `update()` after each step, a `state_dict` that another takes over."""
    model = nn.Linear(1, 1)
    ema = EMA(model, decay=0.5)
    with torch.no_grad():
        model.weight += 1
    ema.update()
    other = EMA(nn.Linear(1, 1), decay=0.5)
    other.load_state_dict(ema.state_dict())
    assert other.updates == 1
    assert torch.equal(other.shadow_of(other.module.weight), model.weight.detach() - 0.5)


@asserted_by("Ignite test_ema_two_handlers")
def test_two_averages_of_one_model_do_not_disturb_each_other() -> None:
    """A model may have a fast and a slow average, one of them for validation."""

    class TwoAverages(Averaged):
        def setup(self) -> None:
            super().setup()
            self.slow = EMA(self.model, decay=0.999, evaluate=False)

    trainer, single = trained(TwoAverages), trained(Averaged)
    assert shadow(trainer) == shadow(single) != float(trainer.slow.shadow_of(trainer.model.weight))


def test_a_part_of_a_model_may_be_averaged() -> None:
    """An average of a submodule leaves the rest of the model as it is in validation."""

    class Part(Fit):
        def setup(self) -> None:
            self.model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)
            self.ema = EMA(self.model[1], decay=0.9)

    trainer = after(4, fit(Part))
    head, body = trainer.model[1].weight.item(), trainer.model[0].weight.item()
    with trainer.evaluating():
        assert trainer.model[1].weight.item() != head and trainer.model[0].weight.item() == body


@asserted_by("Lightning test_ema_weight_averaging_starting_step")
def test_one_made_when_training_begins_or_later_acts_too() -> None:
    """An average that is made in `pre_training`, or after some epochs, is updated and validated with from there on."""

    class Late(Fit):
        def post_epoch(self) -> None:
            if self.epoch == 1:
                self.ema = EMA(self.model, decay=0.5)

    trainer = trained(Late, max_epochs=3, validation_data=DATA)
    assert trainer.ema.updates == 6 and shadow(trainer) != weight(trainer)


def test_it_follows_rows_that_come_and_go() -> None:
    """Rows that are added to or removed from a parameter are so in its average too."""

    class Rows(Fit):
        def setup(self) -> None:
            self.model = nn.Embedding(3, 1)
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)
            self.ema = EMA(self.model, decay=0.9)

        def loss(self, batch: Any) -> Any:
            return (self.model.weight - 1).square().mean()

    trainer = after(2, fit(Rows))
    kept = trainer.ema.shadow_of(trainer.model.weight)[1].clone()
    with trainer.edit_rows([trainer.model.weight]) as edit:
        edit.keep([1, 2])
        edit.append([torch.zeros(3, 1)])
    average = trainer.ema.shadow_of(trainer.model.weight)
    assert average.shape == (5, 1) and torch.equal(average[0], kept) and not average[2:].any()
    assert trainer.train().status == "finished"


def test_it_moves_with_every_optimizer_that_holds_a_part() -> None:
    """With two optimizers for parts of one model, each update of either moves the average."""

    class Parts(Fit):
        def setup(self) -> None:
            self.model = nn.Linear(1, 1)
            self.first = torch.optim.SGD([self.model.weight], lr=0.1)
            self.second = torch.optim.SGD([self.model.bias], lr=0.1)
            self.ema = EMA(self.model, decay=0.9)

        def step(self, batch: Any) -> Any:
            self.minimize(self.loss(batch), self.first)
            self.minimize(self.loss(batch), self.second)
            return {}

    assert trained(Parts, max_epochs=1).ema.updates == 6


@asserted_by("Composer test_ema_algorithm")
def test_training_is_the_same_with_it() -> None:
    """The weights do not depend on whether they are averaged."""
    with_it, without = trained(Averaged, validation_data=DATA), trained(validation_data=DATA)
    assert weight(with_it) == weight(without)


@asserted_by("Ignite test_ema_buffer")
def test_buffers_are_those_of_the_model() -> None:
    """By default buffers (batch statistics) are not averaged: validation sees the model's own."""
    means: list[float] = []

    class Normed(Fit):
        def setup(self) -> None:
            self.model = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
            self.ema = EMA(self.model, decay=0.9)

        def validation_step(self, batch: Any) -> Any:
            means.append(float(self.model[1].running_mean[0]))
            return super().validation_step(batch)

    trainer = after(3, fit(Normed, validation_data=(X[:4], X[:4]), validate_every="3 steps"))
    assert means == [float(trainer.model[1].running_mean[0])]


@asserted_by(
    "Lightning test_swa", "torchtnt test_stochastic_weight_averaging_basic", "torchtnt test_averaged_model_state_dict"
)
def test_torchs_averaged_model_works_as_an_attribute(tmp_path: Path) -> None:
    """torch's `AveragedModel` (SWA) as an attribute, updated in `post_epoch`, is saved and resumed like any module."""

    class Swa(Fit):
        def setup(self) -> None:
            super().setup()
            self.swa = torch.optim.swa_utils.AveragedModel(self.model)

        def post_epoch(self) -> None:
            self.swa.update_parameters(self.model)

    assert int(resumes_exactly(4, tmp_path, Swa).swa.n_averaged) == 2


@asserted_by("Lightning test_ema_weight_averaging_should_update")
def test_averages_are_no_parameters_and_never_trained() -> None:
    """Averages carry no gradients and are in no optimizer."""
    trainer = trained(Averaged)
    average = trainer.ema.shadow_of(trainer.model.weight)
    held = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert not average.requires_grad and average.grad is None and id(average) not in held


def test_equal_runs_have_equal_averages() -> None:
    """The average is part of the digest: equal runs have equal ones, and another decay is another run."""
    assert end(fit(Averaged)) == end(fit(Averaged)) != end(fit(type("Other", (Averaged,), {"decay": 0.5})))


@asserted_by("Lightning test_ema_weight_averaging_decay_values")
def test_frozen_weights_stay_what_they_are_in_the_average() -> None:
    """The average of a frozen parameter is the parameter."""

    class Frozen(Averaged):
        def setup(self) -> None:
            super().setup()
            self.model.bias.requires_grad_(False)

    trainer = trained(Frozen)
    assert torch.equal(trainer.ema.shadow_of(trainer.model.bias), trainer.model.bias)


def test_hooks_see_the_weights_and_not_the_average() -> None:
    """`post_step` and `post_epoch` see the weights that are trained, also right after a validation."""
    seen: list[float] = []
    note = At("post_epoch", lambda trainer: seen.append(weight(trainer)))
    trained(Averaged, validation_data=DATA, validate_every="3 steps", hooks=[note])
    trained(hooks=[note])
    assert seen[:2] == seen[2:]


@asserted_by("Ignite test_ema_buffer", "torchtnt test_averaged_model_exponential")
def test_buffers_may_be_averaged_too() -> None:
    """With `buffers=True` batch statistics are averaged like weights; whole numbers stay as they are."""

    class Normed(Fit):
        def setup(self) -> None:
            self.model = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
            self.ema = EMA(self.model, decay=0.5, buffers=True)

    trainer = fit(Normed)
    expected = trainer.model[1].running_mean.clone()
    for step in (1, 2, 3):
        after(step, trainer)
        expected = 0.5 * expected + 0.5 * trainer.model[1].running_mean
    with trainer.ema.applied():
        assert torch.allclose(trainer.model[1].running_mean, expected) and trainer.model[1].num_batches_tracked == 3


def test_refuses_to_average_a_model_without_shapes() -> None:
    """The average of a lazy module that has seen no batch is refused when it is made, with what to do first."""
    with pytest.raises(UsageError, match="EMA: 'weight' has no shape yet: let the lazy module see a batch"):
        EMA(nn.LazyLinear(1))
