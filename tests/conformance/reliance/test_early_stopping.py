"""Early stopping and the best model: when a run gives up, which weights are kept, and what bad steps do."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from relied_on import DATA, At, Fit, after, asserted_by, fit, killed, trained

from treadle import UsageError
from treadle.engine.bad_steps import LossSpike, NonFiniteError
from treadle.hooks import EarlyStopping, Patience, load_best


def validating(*values: float) -> Any:
    """A `Fit` whose validations give these values in turn, by their epoch; the last one is held."""

    class Scripted(Fit):
        def validation_step(self, batch: Any) -> Any:
            return {"loss": values[min(self.epoch - 1, len(values) - 1)]}

    return Scripted


def epochs(*values: float, **settings: Any) -> int:
    """After how many epochs a run with these validations ends."""
    settings = {"validation_data": DATA, "max_epochs": 9, "patience": 2} | settings
    return int(trained(validating(*values), **settings).progress.epoch)


@asserted_by(
    "Lightning test_early_stopping_patience", "Keras test_early_stopping_patience", "Composer test_early_stopper"
)
def test_it_gives_up_after_patience_validations() -> None:
    """A run ends, as finished, after `patience` validations in a row without improvement."""
    assert epochs(3, 2, 2, 2) == 4 and epochs(3, 2, 2, 2, patience=3) == 5


@asserted_by("Ignite test_simple_early_stopping", "torchtnt test_early_stop_patience")
def test_an_improvement_begins_the_wait_anew() -> None:
    """An improvement sets the wait back to its beginning."""
    assert epochs(3, 4, 2, 4, 1, 4, 4) == 7


@asserted_by("Keras test_min_delta", "torchtnt test_early_stop_min_delta", "Lightning test_early_stopping_thresholds")
def test_a_smaller_change_than_the_least_is_none() -> None:
    """Improvements of `min_improvement` or less do not count, but add up against the best that did."""
    assert epochs(3, 2.95, 2.9, min_improvement=0.2) == 3
    assert epochs(3, 2.9, 2.7, 2.6, 2.4, 2.4, 2.4, min_improvement=0.2) == 7


@asserted_by("Lightning test_early_stopping_mode_options", "torchtnt test_early_stop_max_mode")
def test_larger_may_be_better() -> None:
    """`monitor_mode="max"` waits for larger values."""
    assert epochs(1, 2, 3, 3, 3, monitor_mode="max") == 5
    assert epochs(3, 2, 1, monitor_mode="max") == 3


@asserted_by("torchtnt test_early_stop_invalid_mode")
def test_refuses_an_unknown_mode() -> None:
    """Keras's `mode="auto"` is refused when the hook is made: "min" or "max"."""
    with pytest.raises(UsageError, match="mode is 'auto': expected 'min' or 'max'"):
        EarlyStopping(3, mode="auto")  # type: ignore[arg-type]


@asserted_by("Lightning test_early_stopping_no_val_step", "torchtnt test_invalid_attr")
def test_refuses_a_metric_that_no_validation_gives() -> None:
    """A monitored metric that validation does not give is refused at the first validation, with the nearest name."""
    with pytest.raises(
        UsageError, match="monitor is 'losss', which validation_step does not return; did you mean 'loss'"
    ):
        trained(validation_data=DATA, monitor="losss")


@asserted_by("Keras test_early_stopping_with_start_from_epoch")
def test_a_warm_up_is_not_counted() -> None:
    """Validations within `patience_warm_up` cost no patience, while their best value is kept."""
    assert epochs(1, 2, 2, 2, 2, patience_warm_up="4 epochs") == 5


@asserted_by("Lightning test_early_stopping_on_non_finite_monitor", "torchtnt test_early_stop_check_finite")
def test_nan_is_no_improvement() -> None:
    """A metric that is NaN is no improvement; any number improves on a NaN that came first."""
    assert epochs(2, math.nan, math.nan) == 3 and epochs(math.nan, 2, 1, 1, 1) == 5


@asserted_by("Lightning test_resume_early_stopping_from_checkpoint", "torchtnt test_early_stop_state_dict")
def test_a_resumed_run_has_waited_as_long(tmp_path: Path) -> None:
    """The wait goes on after a kill where it was: patience is not granted anew."""
    kind, settings = validating(3, 2, 2, 2), {"validation_data": DATA, "max_epochs": 9, "patience": 2}
    path = killed(10, tmp_path, kind, **settings)  # after 3 epochs one validation has been waited
    trainer = fit(kind, run_dir=path, resume=True, **settings)
    assert trainer.train().epoch == 4 and trainer.best["epoch"] == 2


def test_patience_may_be_raised_at_a_resume(tmp_path: Path) -> None:
    """A run that ended for lack of improvement goes on when it is resumed with more patience."""
    kind, settings = validating(3, 2, 2, 2), {"validation_data": DATA, "max_epochs": 9}
    ended = trained(kind, patience=2, run_dir=tmp_path / "run", **settings)
    assert fit(kind, patience=4, run_dir=ended.run.path, resume=True, **settings).train().epoch == 6


@asserted_by("Lightning test_early_stopping_no_val_step", "Lightning test_early_stopping_patience_train")
def test_refuses_patience_without_validation_data() -> None:
    """`patience` without validation data is refused before the first step, instead of having no effect."""
    with pytest.raises(UsageError, match="patience is 2, but nothing is validated: give validation_data"):
        trained(patience=2)


@asserted_by("Lightning test_multiple_early_stopping_callbacks")
def test_of_several_the_first_that_gives_up_ends_the_run() -> None:
    """Several early stops on several metrics work side by side: the first to give up ends the run, and is named."""

    class Two(Fit):
        def validation_step(self, batch: Any) -> Any:
            return {"loss": -float(self.epoch), "accuracy": 0.5}

    hooks = [EarlyStopping(4), EarlyStopping(2, monitor="accuracy", mode="max")]
    summary = fit(Two, validation_data=DATA, max_epochs=9, hooks=hooks).train()
    assert summary.epoch == 3 and summary.reason == "early stopping: accuracy has not improved in 2 validations"


@asserted_by("Lightning test_early_stopping_reasons")
def test_the_summary_says_that_it_stopped_early() -> None:
    """The summary says "finished", and why before its limit; a run that reached it gives no reason."""
    early = trained(validating(1.0), validation_data=DATA, max_epochs=9, patience=1).summary()
    assert early.status == "finished" and "early stopping: loss has not improved in 1 validations" in early.reason
    assert trained(validation_data=DATA, patience=5).summary().reason == ""


@asserted_by("Keras test_early_stopping_final_weights_when_restoring_model_weights")
def test_the_last_weights_stay_and_the_best_can_be_put_back() -> None:
    """After the run the trainer holds the last weights; `load_best` puts those of the best validation back."""
    seen: list[float] = []
    note = At("post_validation", lambda trainer, metrics: seen.append(trainer.model.weight.item()))
    trainer = trained(validating(3, 1, 2, 2), validation_data=DATA, max_epochs=9, patience=2, hooks=[note])
    assert trainer.model.weight.item() == seen[3] and trainer.best["epoch"] == 2
    load_best(trainer)
    assert trainer.model.weight.item() == seen[1]


@asserted_by("torchtnt test_interval")
def test_patience_counts_validations_and_not_epochs() -> None:
    """Patience is counted in validations, however far apart they are."""
    assert epochs(3, 2, 2, 2, 2, 2, 2, 2, validate_every="2 epochs", patience=2) == 6


@asserted_by("Lightning test_early_stopping_no_extraneous_invocations")
def test_a_validation_that_was_asked_for_costs_no_patience() -> None:
    """Validating the same step once more, by hand, costs no patience."""
    trainer = after(4, fit(validating(3, 2, 2, 2), validation_data=DATA, max_epochs=9, patience=2))
    for _ in range(3):
        trainer.validate()
    assert trainer.train().epoch == 4


@asserted_by("Ignite test_args_validation")
def test_refuses_a_patience_below_one() -> None:
    """`patience=0` is refused by name when the trainer is made."""
    with pytest.raises(UsageError, match=r"patience is 0.*at least 1"):
        fit(patience=0, validation_data=DATA)


@asserted_by("torchtnt test_early_stop_reset", "Ignite test_state_dict")
def test_the_rule_works_in_any_loop() -> None:
    """The rule alone, `Patience`, works in a loop of one's own, with a state that another takes over."""
    first = Patience(2)
    assert [first.give_up(value) for value in (1.0, 2.0)] == [False, False]
    second = Patience(2)
    second.load_state_dict(first.state_dict())
    assert second.give_up(2.0)


@asserted_by("Lightning test_model_checkpoint_score_and_ckpt", "Ignite test_checkpoint_with_score_function")
def test_the_best_is_known_with_step_epoch_and_all_metrics() -> None:
    """`trainer.best` says the best value, its step and epoch, and all metrics of that validation."""
    best = trained(validating(3, 1, 2), validation_data=DATA, max_epochs=3).best
    assert (best["value"], best["step"], best["epoch"], best["metrics"]) == (1.0, 6, 2, {"loss": 1.0})


@asserted_by("Lightning test_current_score", "Keras test_monitor_op_logic")
def test_of_equal_values_the_first_is_the_best() -> None:
    """Of two validations with equal values the earlier is the best."""
    assert trained(validating(2, 1, 1), validation_data=DATA, max_epochs=3).best["epoch"] == 2


@asserted_by("Lightning test_early_stopping_patience_train", "torchtnt test_early_stop_stopping_threshold_min")
def test_a_rule_on_training_metrics_is_a_hook() -> None:
    """A run may end by any other rule, a threshold of a training metric say, with `finish` in a hook."""

    def enough(trainer: Any, *_: Any) -> None:
        if trainer.metrics and trainer.metrics["loss"] < 1.0:
            trainer.finish("good enough")

    trainer = trained(max_epochs=99, log_every="1 step", hooks=[At("post_epoch", enough)])
    assert trainer.reason == "good enough" and 1 < trainer.progress.epoch < 99


class Breaks(Fit):
    """Its loss is NaN in the steps named, counted from 0."""

    bad = frozenset({2})
    value = math.nan

    def loss(self, batch: Any) -> Any:
        loss = super().loss(batch)
        return loss * self.value if self.progress.step in self.bad and torch.is_grad_enabled() else loss


@asserted_by("Keras test_TerminateOnNaN", "Ignite test_with_terminate_on_nan", "Composer test_nan_monitor")
def test_a_nan_loss_ends_the_run_before_it_reaches_a_weight() -> None:
    """A loss that is NaN fails the run by step and batch; the weights are those of the last good step."""
    trainer = fit(Breaks)
    with pytest.raises(NonFiniteError, match=r"the loss is nan, at step 3 \(epoch 1, batch 3\)"):
        trainer.train()
    assert trainer.status == "failed" and torch.equal(trainer.model.weight, after(2, fit()).model.weight)


@asserted_by("Ignite test_with_terminate_on_inf")
def test_an_infinite_loss_may_be_skipped() -> None:
    """With `on_bad_step="skip"` the batch of an infinite loss is left out, journalled, and the run goes on."""
    trainer = trained(type("Infinite", (Breaks,), {"value": math.inf}), on_bad_step="skip")
    assert trainer.status == "finished" and (trainer.progress.step, trainer.updates()) == (6, 5)
    assert [entry["step"] for entry in trainer.journal if entry["event"] == "bad step"] == [2]


@asserted_by("Lightning test_trainer_spike_detection_integration")
def test_a_spike_may_end_the_run() -> None:
    """A loss that is far above those before it (`spike=`, in standard deviations) is a bad step."""
    kind = type("Spikes", (Breaks,), {"value": 1e6, "bad": frozenset({25})})
    with pytest.raises(LossSpike, match=r"a spike over"):
        trained(kind, max_epochs=20, spike=8.0)


@asserted_by("Keras test_raise_error_terminate_preserves_backup")
def test_a_bad_step_may_be_rolled_back() -> None:
    """With `on_bad_step="rollback"` the run goes back to the last good state and passes over the batch."""
    trainer = trained(Breaks, on_bad_step="rollback", snapshot_every="1 step")
    events = [entry["event"] for entry in trainer.journal]
    assert trainer.status == "finished" and events.count("rollback") == 1 and trainer.updates() == 5


def test_bad_steps_are_bounded() -> None:
    """After `max_recoveries` bad steps the run ends all the same."""
    kind = type("Always", (Breaks,), {"bad": frozenset(range(99))})
    with pytest.raises(NonFiniteError, match=r"given up after 2 recoveries"):
        trained(kind, on_bad_step="skip", max_recoveries=2)


@asserted_by("Keras test_early_stopping_final_weights_when_restoring_model_weights", "torchtnt test_restore_from_best")
def test_the_best_weights_go_back_by_one_call() -> None:
    """`trainer.load_best()` puts the best weights back, and returns what was best and when."""
    trainer = trained(validating(3, 1, 2), validation_data=DATA, max_epochs=3)
    info = trainer.load_best()
    assert info["epoch"] == 2 and torch.equal(trainer.model.weight, after(6, fit()).model.weight)


@asserted_by("Lightning test_top_k", "torchtnt test_best_checkpoint_top_k", "Ignite test_best_k")
def test_the_k_best_are_kept_in_order() -> None:
    """`keep_best=2` keeps the two best models, which come back by their rank."""
    trainer = trained(validating(4, 1, 3, 2), validation_data=DATA, max_epochs=4, keep_best=2)
    assert trainer.load_best(1)["epoch"] == 2 and trainer.load_best(2)["epoch"] == 4
    assert torch.equal(trainer.model.weight, trained(max_epochs=4).model.weight)


@asserted_by("torchtnt test_best_checkpoint_no_top_k", "torchtnt test_restore_from_best_empty_dir")
def test_refuses_a_rank_that_was_not_kept() -> None:
    """The best weights of a rank that is not kept, or of a run that never validated, are refused in one line."""
    with pytest.raises(UsageError, match="no best model"):
        trained().load_best()


@asserted_by("Lightning test_invalid_top_k")
def test_refuses_to_keep_no_best_model() -> None:
    """`keep_best=0` is refused by name when the trainer is made."""
    with pytest.raises(UsageError, match=r"keep_best is 0.*at least 1"):
        fit(keep_best=0)


@asserted_by("torchtnt test_check_for_nan_or_inf", "Ignite test_terminate_on_nan_and_inf")
def test_a_skipped_step_leaves_no_trace_in_batch_statistics() -> None:
    """A batch that is skipped for its NaN leaves the running statistics of BatchNorm as they were before it."""

    class Normed(Fit):
        def setup(self) -> None:
            self.model = torch.nn.Sequential(torch.nn.BatchNorm1d(1), torch.nn.Linear(1, 1))
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    spoilt = DATA[0].clone()
    spoilt[5] = math.nan
    trainer = after(1, fit(Normed, data=(spoilt, DATA[1]), shuffle=False, on_bad_step="skip"))
    before = trainer.model[0].running_mean.clone()
    after(2, trainer)
    assert torch.equal(trainer.model[0].running_mean, before) and trainer.updates() == 1
