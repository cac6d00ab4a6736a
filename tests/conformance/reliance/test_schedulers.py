"""Schedulers: which learning rate each step has, whose it is, and that it goes on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from relied_on import DATA, At, Fit, after, asserted_by, fit, killed, resumes_exactly, trained
from torch import nn

from treadle import LearningRate, StreamFeed, UsageError, parameter_groups


def scheduled(curve: Any, **options: Any) -> Any:
    """A `Fit` with a schedule of our own."""

    class Scheduled(Fit):
        def setup(self) -> None:
            super().setup()
            self.rate = LearningRate(self.optimizer, curve, **options)

    return Scheduled


def rates(kind: Any, **settings: Any) -> list[float]:
    """The learning rate that each step was taken with."""
    seen: list[float] = []
    note = At("pre_update", lambda trainer, optimizer: seen.append(float(optimizer.param_groups[0]["lr"])))
    trained(kind, **({"hooks": [note]} | settings))
    return seen


@asserted_by("Composer test_scheduler_trains", "Ignite test_cosine_annealing_scheduler")
def test_a_cosine_begins_at_its_first_value() -> None:
    """A cosine over the run has its first value in the first step, its middle in the middle."""
    expected = [0.1 * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]
    assert rates(scheduled("cosine 0.1 to 0")) == pytest.approx(expected)


@asserted_by("Ignite test_create_lr_scheduler_with_warmup", "Composer test_warmup_schedulers_fail_fast")
def test_a_warm_up_rises_and_then_the_rest_begins() -> None:
    """A warm-up rises over its span, never from zero, and what follows it begins at its own value."""
    seen = rates(scheduled("warm-up 2 steps then linear 0.4 to 0"))
    assert 0 < seen[0] < seen[1] <= seen[2] == 0.4 and seen[-1] == pytest.approx(0.1)


@asserted_by("Keras test_updates_learning_rate", "Lightning test_optimizer_with_scheduling")
def test_milestones_multiply() -> None:
    """Milestones multiply the rate once the share of the run they name is finished."""
    seen = rates(scheduled("milestones 0.1 x0.5 at 50%"), max_epochs=None, max_steps=6)
    assert seen == pytest.approx([0.1] * 3 + [0.05] * 3)


@asserted_by("torchtnt test_lr_scheduler_epoch", "Lightning test_lr_scheduler_epoch_step_frequency")
def test_a_value_for_each_epoch() -> None:
    """A list of values gives each epoch its own; the last one is held."""
    assert rates(scheduled("0.3 0.2 0.1"), max_epochs=4) == [0.3] * 3 + [0.2] * 3 + [0.1] * 6


@asserted_by("Keras test_callable_learning_rate", "Keras test_schedule_dependent_on_previous_learning_rate")
def test_any_function_of_the_progress_is_a_schedule() -> None:
    """Any function of the run's counters may give the rate."""
    assert rates(scheduled(lambda progress: 0.1 / (1 + progress.step)), max_epochs=1) == [0.1, 0.05, 0.1 / 3]


class Stepped(Fit):
    """With a scheduler of torch's, stepped by hand after each step."""

    def setup(self) -> None:
        super().setup()
        self.scheduler: Any = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, gamma=0.5)

    def post_step(self, batch: Any, outputs: Any) -> None:
        self.scheduler.step()


@asserted_by("torchtnt test_lr_scheduler_step", "Ignite test_lr_scheduler")
def test_torchs_schedulers_work_when_stepped(tmp_path: Path) -> None:
    """A torch scheduler as an attribute, stepped in `post_step`, acts as in a plain loop, and goes on after a kill."""
    assert rates(Stepped, max_epochs=1) == [0.1, 0.05, 0.025]
    resumes_exactly(2, tmp_path, Stepped)


@asserted_by(
    "torchtnt test_lr_scheduler_epoch", "Accelerate test_lambda_scheduler_not_step_with_optimizer_single_process"
)
def test_torchs_schedulers_may_be_stepped_by_epochs() -> None:
    """Stepped in `post_epoch` it changes with epochs."""

    class ByEpochs(Stepped):
        def post_step(self, batch: Any, outputs: Any) -> None: ...

        def post_epoch(self) -> None:
            self.scheduler.step()

    assert rates(ByEpochs) == [0.1] * 3 + [0.05] * 3


@asserted_by("Lightning test_reducelronplateau_scheduling", "Keras test_reduces_lr_with_model_fit")
def test_reduce_on_plateau_is_given_the_validations_metric(tmp_path: Path) -> None:
    """`ReduceLROnPlateau`, stepped in `post_validation` with a metric, reduces the rate, and goes on after a kill."""

    class Plateau(Fit):
        def setup(self) -> None:
            super().setup()
            self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimizer, factor=0.1, patience=0)

        def validation_step(self, batch: Any) -> Any:
            return {"loss": 1.0}

        def post_validation(self, metrics: Any) -> None:
            self.scheduler.step(metrics["loss"])

    settings = {"validation_data": DATA, "max_epochs": 3}
    assert rates(Plateau, **settings) == pytest.approx([0.1] * 6 + [0.01] * 3)
    resumes_exactly(4, tmp_path, Plateau, **settings)


@asserted_by("Accelerate test_one_cycle_scheduler_steps_with_optimizer_single_process")
def test_one_cycle_knows_the_number_of_steps() -> None:
    """`OneCycleLR` can be built when training begins, with the run's number of steps from `progress`."""

    class OneCycle(Stepped):
        def setup(self) -> None:
            Fit.setup(self)

        def pre_training(self) -> None:
            total = self.progress.total_steps
            self.scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, max_lr=0.1, total_steps=total)

        def post_step(self, batch: Any, outputs: Any) -> None:
            if self.progress.step < self.progress.total_steps:
                self.scheduler.step()

    seen = rates(OneCycle)
    assert len(seen) == 6 and max(seen) == pytest.approx(0.1, rel=0.2) and seen[-1] < seen[0] < 0.01


@asserted_by("Lightning test_multi_optimizer_with_scheduling", "Ignite test_param_group_scheduler")
def test_each_optimizer_has_its_own_schedule() -> None:
    """Two optimizers follow two schedules, and are logged under their names."""

    class Two(Fit):
        def setup(self) -> None:
            self.model = nn.Linear(1, 1)
            self.first = torch.optim.SGD([self.model.weight], lr=1)
            self.second = torch.optim.SGD([self.model.bias], lr=1)
            self.rates = [LearningRate(self.first, "0.2"), LearningRate(self.second, "linear 0.6 to 0")]

        def step(self, batch: Any) -> Any:
            loss = self.loss(batch)
            self.minimize(loss, [self.first, self.second])
            return {"loss": loss}

    trainer = after(3, fit(Two, log_every="1 step"))
    assert trainer.metrics["first.lr"] == 0.2 and trainer.metrics["second.lr"] == pytest.approx(0.4)


@asserted_by("Ignite test_scheduler_with_param_groups", "Lightning test_lr_monitor_custom_pg_name")
def test_a_group_may_have_its_own_schedule() -> None:
    """A schedule may act on one named group; the others keep theirs."""

    class Groups(Fit):
        def setup(self) -> None:
            self.model = nn.Linear(1, 1)
            self.optimizer = torch.optim.SGD(parameter_groups(self.model, {"bias": {"name": "offset"}}), lr=0.1)
            self.rate = LearningRate(self.optimizer, "linear 0.6 to 0", group="offset")

    learning_rates = after(3, fit(Groups)).overview().learning_rates
    assert learning_rates == {"lr.offset": pytest.approx(0.4), "lr.rest": 0.1}


def test_a_group_may_scale_the_common_schedule() -> None:
    """A group's `lr_scale` multiplies what the common schedule says."""

    class Scaled(Fit):
        def setup(self) -> None:
            self.model = nn.Linear(1, 1)
            self.optimizer = torch.optim.SGD(parameter_groups(self.model, {"bias": {"lr_scale": 10}}), lr=0.1)
            self.rate = LearningRate(self.optimizer, "0.02")

    assert after(1, fit(Scaled)).overview().learning_rates == {"lr.bias": pytest.approx(0.2), "lr.rest": 0.02}


@asserted_by("Lightning test_lr_monitor_duplicate_custom_pg_names", "Ignite test_param_group_scheduler_asserts")
def test_refuses_an_unknown_group() -> None:
    """A schedule for a group that the optimizer has not is refused when it is made."""
    with pytest.raises(UsageError, match="the optimizer has no parameter group named 'head'"):
        fit(scheduled("0.1", group="head"))


@asserted_by("Lightning test_unknown_configure_optimizers_raises", "Composer test_scheduler_init")
def test_refuses_a_schedule_that_it_does_not_understand() -> None:
    """A misspelt schedule is refused when it is made, with what could be meant."""
    with pytest.raises(
        UsageError, match="starts with 'cosin', neither a number nor a kind of curve; did you mean 'cosine'"
    ):
        fit(scheduled("cosin 0.1 to 0"))


@asserted_by("Lightning test_lr_scheduler_with_unknown_interval_raises")
def test_refuses_a_span_without_a_unit() -> None:
    """A warm-up of "500", of nobody knows what, is refused when it is made: steps, epochs or percent."""
    with pytest.raises(
        UsageError, match=r"'warm-up 500 then linear 0.1 to 0' is not understood; write it like 'warm-up 500 steps"
    ):
        fit(scheduled("warm-up 500 then linear 0.1 to 0"))


@asserted_by("Keras test_throws_when_optimizer_has_schedule")
def test_refuses_a_rate_that_is_negative_or_nan() -> None:
    """A schedule that gives a rate below 0 or NaN is refused at that step, naming step and schedule."""
    with pytest.raises(UsageError, match=r"learning rate -0\.5 at step 1 from .*must be finite and >= 0"):
        trained(scheduled(lambda progress: 0.5 - progress.step))


def test_refuses_a_schedule_over_a_run_of_unknown_length() -> None:
    """A schedule over the whole of a run whose length nothing tells is refused at the first step, with the remedy."""
    with pytest.raises(UsageError, match=r"'cosine 0.1 to 0' needs the length of the run; set max_steps"):
        trained(scheduled("cosine 0.1 to 0"), data=StreamFeed(lambda epoch: iter([DATA]), None))


@asserted_by(
    "torchtnt test_construct_tracked_optimizers_and_schedulers", "Lightning test_invalid_optimizer_in_scheduler"
)
def test_refuses_a_schedule_for_somebody_elses_optimizer() -> None:
    """A schedule for an optimizer that is no attribute of the trainer is refused when the trainer is made."""

    class Stray(Fit):
        def setup(self) -> None:
            super().setup()
            self.rate = LearningRate(torch.optim.SGD(self.model.parameters(), lr=0.1), "0.1")

    with pytest.raises(UsageError, match="a LearningRate's optimizer is no attribute of the trainer"):
        fit(Stray)


@asserted_by("Lightning test_lr_scheduler_state_updated_before_saving", "Accelerate test_with_scheduler")
def test_a_resumed_run_has_the_right_rate_in_its_first_step(tmp_path: Path) -> None:
    """A schedule goes on after a kill with the rate of the very step, not with the first, nor one step late."""
    whole = rates(scheduled("linear 0.6 to 0"))
    seen: list[float] = []
    path = killed(4, tmp_path, scheduled("linear 0.6 to 0"))
    note = At("pre_update", lambda trainer, optimizer: seen.append(optimizer.param_groups[0]["lr"]))
    fit(scheduled("linear 0.6 to 0"), run_dir=path, resume=True, hooks=[note]).train()
    assert seen == whole[4:]


@asserted_by("Lightning test_lr_monitor_single_lr", "torchtnt test_learning_rate_monitor_step")
def test_the_rate_that_is_logged_is_the_one_applied() -> None:
    """The learning rate among the metrics is the one that the step was taken with, not the coming one."""
    trainer, logged = fit(scheduled("linear 0.6 to 0"), log_every="1 step"), []
    while trainer.iterate():
        logged.append(trainer.metrics["lr"])
    assert logged == pytest.approx([0.6, 0.5, 0.4, 0.3, 0.2, 0.1])


@asserted_by("Lightning test_lr_monitor_single_lr_with_momentum", "Ignite test_param_scheduler_asserts")
def test_momentum_or_weight_decay_may_be_scheduled_by_a_hook(tmp_path: Path) -> None:
    """Any other option of a group may be set by a hook before each step; it is part of the optimizer's state."""

    class Momentum(Fit):
        def setup(self) -> None:
            super().setup()
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.5)

        def post_epoch(self) -> None:
            self.optimizer.param_groups[0]["momentum"] = 0.9

    trainer = resumes_exactly(4, tmp_path, Momentum)
    assert trainer.optimizer.param_groups[0]["momentum"] == 0.9


@asserted_by("Ignite test_concat_scheduler_state_dict", "Ignite test_concat_scheduler_two_schedulers")
def test_schedulers_of_schedulers_come_back(tmp_path: Path) -> None:
    """torch's `SequentialLR` goes on after a kill on both sides of its milestone."""

    class Sequence(Stepped):
        def setup(self) -> None:
            Fit.setup(self)
            up = torch.optim.lr_scheduler.LinearLR(self.optimizer, 0.1, total_iters=2)
            down = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.5)
            self.scheduler = torch.optim.lr_scheduler.SequentialLR(self.optimizer, [up, down], milestones=[3])

    resumes_exactly(2, tmp_path / "before", Sequence)
    resumes_exactly(4, tmp_path / "behind", Sequence)


@asserted_by("Accelerate test_lambda_scheduler_steps_with_optimizer_single_process", "Composer test_schedulers")
def test_lambda_schedulers_come_back_with_their_count(tmp_path: Path) -> None:
    """torch's `LambdaLR` goes on after a kill: its function comes from `setup`, its count from the state."""

    class Lambda(Stepped):
        def setup(self) -> None:
            Fit.setup(self)
            self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda count: 1 / (1 + count))

    resumes_exactly(2, tmp_path, Lambda)


def test_a_person_may_multiply_the_rate_of_a_running_program() -> None:
    """`commands.lr_multiplier` scales a schedule from the next step on, is journalled, and can be taken back."""
    trainer = after(1, fit(scheduled("0.1")))
    trainer.commands.lr_multiplier(0.5)
    assert after(2, trainer).optimizer.param_groups[0]["lr"] == 0.05
    trainer.commands.lr_multiplier(1.0)
    assert after(3, trainer).optimizer.param_groups[0]["lr"] == 0.1
    assert [entry["after"] for entry in trainer.journal if entry["event"] == "edit"] == [0.5, 1.0]


@asserted_by("Lightning test_no_val_on_train_epoch_loop_restart")
def test_a_schedule_does_not_move_in_validation() -> None:
    """A validation, however often, moves no schedule."""
    plain = rates(scheduled("linear 0.6 to 0"))
    assert rates(scheduled("linear 0.6 to 0"), validation_data=DATA, validate_every="1 step") == plain


def test_one_made_when_training_begins_acts() -> None:
    """A schedule that is made in `pre_training` sets the rate from the first step on."""

    class Late(Fit):
        def pre_training(self) -> None:
            self.rate = LearningRate(self.optimizer, "0.025")

    assert rates(Late) == [0.025] * 6


@asserted_by("Lightning test_num_stepping_batches_basic", "Lightning test_trainer_access_in_configure_optimizers")
def test_the_number_of_steps_is_known_in_setup() -> None:
    """A scheduler that needs the run's number of steps can be built in `setup`: `progress.total_steps` is known."""

    class OneCycle(Fit):
        def setup(self) -> None:
            super().setup()
            total = self.progress.total_steps
            self.scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, max_lr=0.1, total_steps=total + 1)

        def post_step(self, batch: Any, outputs: Any) -> None:
            self.scheduler.step()

    seen = rates(OneCycle)
    assert len(seen) == 6 and seen[0] < max(seen) > seen[-1]
