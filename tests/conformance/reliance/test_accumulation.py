"""Accumulation: several micro-batches that make one update."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from relied_on import DATA, At, Diary, Fit, X, after, asserted_by, end, fit, resumes_exactly, trained
from torch import nn

from treadle import LearningRate, UsageError


@asserted_by("Lightning test_manual_optimization_and_accumulated_gradient", "Accelerate test_gradient_sync_cpu_noop")
def test_one_update_for_every_k_micro_batches() -> None:
    """`accumulate=k` makes one update out of k micro-batches; steps count micro-batches, `updates()` updates."""
    trainer = trained(batch_size=2, accumulate=3, max_epochs=1)
    assert (trainer.progress.step, trainer.updates()) == (6, 2)


@asserted_by("Composer test_microbatch", "Accelerate test_gradient_sync_cpu_noop")
def test_the_weights_are_those_of_the_large_batch() -> None:
    """Micro-batches give the weights that one batch of their size together gives."""
    large = trained(batch_size=12, shuffle=False, max_epochs=4)
    small = trained(batch_size=4, accumulate=3, shuffle=False, max_epochs=4)
    assert torch.allclose(large.model.weight, small.model.weight, atol=1e-6)


@asserted_by("Composer test_microbatch_size")
def test_ragged_micro_batches_weigh_by_their_samples() -> None:
    """A short micro-batch counts by its samples: 5, 5 and 2 give the mean over 12, not the mean of three means."""
    large = trained(batch_size=12, shuffle=False, max_epochs=1)
    ragged = trained(batch_size=5, accumulate=3, shuffle=False, max_epochs=1)
    assert torch.allclose(large.model.weight, ragged.model.weight, atol=1e-7)


@asserted_by("Lightning test_gradient_accumulation_scheduling_last_batch", "torchtnt test_is_last_batch")
def test_an_epochs_last_window_is_applied_though_it_is_short() -> None:
    """What an epoch's end leaves of a window is applied there, and not carried into the next epoch."""
    trainer = fit(batch_size=3, accumulate=3, max_epochs=2)
    updates = [trainer.updates() for _ in iter(trainer.iterate, False)]
    assert updates == [0, 0, 1, 2, 2, 2, 3, 4]


@asserted_by("Lightning test_trainer_max_steps_accumulate_batches")
def test_the_runs_last_window_is_applied_though_it_is_short() -> None:
    """What `max_steps` leaves of a window is applied with the last step; no gradient is lost."""
    trainer = trained(batch_size=2, accumulate=4, max_epochs=None, max_steps=5)
    assert trainer.updates() == 2 and trainer.model.weight.grad is None


@asserted_by("Accelerate test_accelerated_optimizer_step_was_skipped")
def test_minimize_says_whether_it_updated() -> None:
    """`minimize` returns whether this call updated, so that a program can act on updates alone."""
    told: list[bool] = []

    class Tells(Fit):
        def step(self, batch: Any) -> Any:
            told.append(self.minimize(self.loss(batch)))
            return {}

    trained(Tells, batch_size=2, accumulate=3, max_epochs=1)
    assert told == [False, False, True] * 2


@asserted_by("Lightning test_on_before_zero_grad_called")
def test_gradients_wait_between_steps_and_are_gone_after_the_update() -> None:
    """Between the steps of a window gradients stay in `.grad`; after the update they are None."""
    trainer = fit(batch_size=2, accumulate=3, max_epochs=1)
    waits = [trainer.model.weight.grad is not None for _ in iter(trainer.iterate, False)]
    assert waits == [True, True, False] * 2


@asserted_by("Accelerate test_accumulation")
def test_schedules_count_micro_batches() -> None:
    """A learning rate's schedule counts steps, that is micro-batches, whatever `accumulate` is."""

    class Scheduled(Fit):
        def setup(self) -> None:
            super().setup()
            self.rate = LearningRate(self.optimizer, "linear 0.6 to 0")

    rates: list[float] = []
    note = (
        At("pre_step", lambda t, b: None),
        At("post_step", lambda t, *_: rates.append(t.optimizer.param_groups[0]["lr"])),
    )
    trained(Scheduled, batch_size=2, accumulate=3, max_epochs=1, hooks=note)
    assert rates == pytest.approx([0.6, 0.5, 0.4, 0.3, 0.2, 0.1])


@asserted_by("Lightning test_invalid_values_for_grad_accum_scheduler")
def test_refuses_windows_of_no_batches() -> None:
    """`accumulate=0` is refused by name when the trainer is made."""
    with pytest.raises(UsageError, match=r"accumulate is 0.*at least 1"):
        fit(accumulate=0)


@asserted_by("Lightning test_trainer_accumulate_grad_batches_with_callback")
def test_refuses_a_window_for_each_epoch() -> None:
    """`accumulate={0: 1, 4: 8}`, a window that changes with the epoch, is refused when the trainer is made."""
    with pytest.raises(UsageError, match=r"accumulate is .*: expected a whole number"):
        fit(accumulate={0: 1, 4: 8})


@asserted_by("Lightning test_trainer_accumulate_grad_batches_zero_grad")
def test_refuses_another_window_in_the_middle_of_a_run() -> None:
    """`config.accumulate` set in a running program is refused, instead of weighing the window under way wrongly."""
    trainer = after(1, fit(accumulate=2))
    with pytest.raises(UsageError, match="accumulate cannot be assigned, the run has been set up"):
        trainer.config.accumulate = 3


@asserted_by("Ignite test_gradients_on_resume_cpu", "Composer test_resumption")
def test_a_window_goes_on_after_a_kill(tmp_path: Path) -> None:
    """A run killed within a window goes on with the gradients that it had, to the same digest."""
    trainer = resumes_exactly(2, tmp_path, batch_size=2, accumulate=3)
    assert trainer.updates() == 4


def test_a_loss_may_say_what_it_is_a_mean_over() -> None:
    """`minimize(loss, elements=n)` weighs a micro-batch by what its loss is a mean over: tokens, points, pixels."""

    class Tokens(Fit):
        def step(self, batch: Any) -> Any:
            real = batch[1] > 0  # padding does not count
            errors = ((self.model(batch[0]) - batch[1]).square() * real).sum()
            self.minimize(errors / real.sum().clamp(min=1), elements=float(real.sum()))
            return {}

    large = trained(Tokens, batch_size=12, shuffle=False, max_epochs=2)
    small = trained(Tokens, batch_size=4, accumulate=3, shuffle=False, max_epochs=2)
    assert torch.allclose(large.model.weight, small.model.weight, atol=1e-6)


def test_a_trainer_may_say_what_a_batch_counts_for() -> None:
    """`elements(batch)` says once what batches count for, in accumulation and in logged means alike."""

    class Second(Fit):
        def elements(self, batch: Any) -> float:
            return float(batch[0].sum().abs())

    seen: list[Any] = []
    for kind in (Fit, Second):
        trainer = trained(kind, data=(X.abs(), DATA[1]), accumulate=3, shuffle=False, log_every="3 steps", max_epochs=1)
        seen.append((float(trainer.model.weight.detach()), trainer.metrics["loss"]))
    assert seen[0][0] != seen[1][0] and seen[0][1] != seen[1][1]


@asserted_by("Lightning test_backward_count_with_grad_accumulation")
def test_pre_update_sees_the_mean_over_the_window() -> None:
    """`pre_update` fires once a window, with gradients that are the mean over it."""
    seen: list[float] = []
    note = At("pre_update", lambda trainer, optimizer: seen.append(float(trainer.model.bias.grad)))
    trained(batch_size=4, accumulate=3, shuffle=False, max_epochs=1, hooks=[note])
    trained(batch_size=12, shuffle=False, max_epochs=1, hooks=[note])
    assert len(seen) == 2 and seen[0] == pytest.approx(seen[1], abs=1e-6)


@asserted_by("Lightning test_step_with_optimizer_closure_with_different_frequencies")
def test_each_optimizer_has_a_window_of_its_own() -> None:
    """With two optimizers, one of them trained every second step, each fills its own window."""

    class Two(Fit):
        def setup(self) -> None:
            super().setup()
            self.other = nn.Linear(1, 1)
            self.second = torch.optim.SGD(self.other.parameters(), lr=0.1)

        def step(self, batch: Any) -> Any:
            self.minimize(self.loss(batch), self.optimizer)
            if self.progress.step % 2 == 0:
                self.minimize(self.other(batch[0]).square().mean(), self.second)
            return {}

    trainer = trained(Two, batch_size=1, accumulate=3, max_epochs=1)  # 12 and 6 micro-batches
    assert (trainer.updates(trainer.optimizer), trainer.updates(trainer.second)) == (4, 2)


@asserted_by("Lightning test_validation_during_gradient_accumulation_window")
def test_a_validation_inside_a_window_leaves_it_alone() -> None:
    """A validation in the middle of a window neither drops nor changes the gradients under way."""
    plain = trained(batch_size=2, accumulate=3)
    other = trained(batch_size=2, accumulate=3, validation_data=DATA, validate_every="1 step")
    assert torch.equal(plain.model.weight, other.model.weight) and plain.updates() == other.updates()


@asserted_by("Lightning test_closure_result_apply_accumulation")
def test_the_logged_loss_is_not_divided() -> None:
    """The loss that is logged is the one that was computed, not one k-th of it."""
    plain = fit(shuffle=False, log_every="1 step")
    windowed = fit(shuffle=False, accumulate=3, log_every="1 step")
    assert after(1, plain).metrics["loss"] == after(1, windowed).metrics["loss"]


@asserted_by("Composer test_microbatch_size")
def test_a_window_longer_than_an_epoch_is_an_epoch() -> None:
    """A window that is longer than an epoch makes one update an epoch."""
    assert trained(accumulate=50, max_epochs=3).updates() == 3


def test_several_calls_in_a_step_fill_a_window_together() -> None:
    """Chunks of one batch, each minimized by itself, make one update a step with `accumulate` at their number."""

    class Chunks(Fit):
        def step(self, batch: Any) -> Any:
            for x, y in zip(batch[0].chunk(2), batch[1].chunk(2), strict=True):
                self.minimize(self.loss((x, y)))
            return {}

    chunks, whole = trained(Chunks, accumulate=2), trained()
    assert chunks.updates() == whole.updates() == 6
    assert torch.allclose(chunks.model.weight, whole.model.weight, atol=1e-6)


def test_a_stop_inside_a_window_loses_nothing() -> None:
    """A run that is stopped within a window, and goes on in the same program, ends as if it had not been."""
    stop = At("post_step", lambda trainer, *_: trainer.stop() if trainer.progress.step == 2 else None)
    trainer = fit(batch_size=2, accumulate=3, hooks=[stop])
    trainer.train()
    assert end(trainer) == end(fit(batch_size=2, accumulate=3))


def test_events_of_a_step_fire_for_every_micro_batch() -> None:
    """`pre_step` and `post_step` fire for every micro-batch, `pre_update` once a window, inside the last of them."""
    diary = Diary("pre_step", "pre_update", "post_step")
    trained(batch_size=6, accumulate=2, max_epochs=1, hooks=[diary])
    assert diary.names == ["pre_step", "post_step", "pre_step", "pre_update", "post_step"]
