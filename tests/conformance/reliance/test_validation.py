"""Validation: when it happens, what it sees, what it leaves behind, and what it tells."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from relied_on import DATA, At, Diary, Fit, X, after, asserted_by, end, fit, trained
from torch import nn

from treadle import StreamFeed, UsageError


def validated_after(**settings: Any) -> list[int]:
    """The steps after which a run validates."""
    diary = Diary("post_validation")
    trained(**({"validation_data": DATA, "hooks": [diary]} | settings))
    return [int(line.rpartition(".")[2]) for line in diary.lines]


@asserted_by("Lightning test_trainer_max_steps_and_epochs_validation", "Composer test_eval_at_fit_end")
def test_by_default_after_every_epoch() -> None:
    """Unless told otherwise, a run validates after every epoch."""
    assert validated_after(max_epochs=3) == [3, 6, 9]


@asserted_by("Lightning test_check_val_every_n_epoch", "torchtnt test_fit_evaluate_every_n_epochs")
def test_every_so_many_epochs_and_at_the_end() -> None:
    """`validate_every="2 epochs"` validates after every second epoch, and the final state in any case."""
    assert validated_after(max_epochs=5, validate_every="2 epochs") == [6, 12, 15]


@asserted_by("Lightning test_val_check_interval", "torchtnt test_fit_evaluate_every_n_steps")
def test_every_so_many_steps_counted_over_the_run() -> None:
    """`validate_every="4 steps"` counts the steps of the whole run, not anew in each epoch."""
    assert validated_after(max_epochs=3, validate_every="4 steps") == [4, 8, 9]


@asserted_by("Lightning test_validation_check_interval_exceed_data_length_correct")
def test_a_period_longer_than_an_epoch() -> None:
    """A period in steps may be longer than an epoch."""
    assert validated_after(max_epochs=4, validate_every="5 steps") == [5, 10, 12]


@asserted_by("Composer test_eval_dur_interval_token_max")
def test_every_part_of_the_run() -> None:
    """`validate_every="25%"` validates four times, with the last step as the fourth."""
    assert validated_after(max_epochs=None, max_steps=8, validate_every="25%") == [2, 4, 6, 8]


def test_never_but_at_the_end() -> None:
    """`validate_every=None` leaves the validation of the final state."""
    assert validated_after(validate_every=None) == [6]


@asserted_by("Lightning test_should_stop_triggers_validation_once")
def test_the_final_state_is_validated_once() -> None:
    """A final state that was just validated is not validated a second time, and one that was not is."""
    assert validated_after(max_epochs=None, max_steps=6) == [3, 6]
    assert validated_after(max_epochs=None, max_steps=5) == [3, 5]


@asserted_by("Lightning test_train_eval_mode_restored", "Lightning test_model_in_correct_mode_during_stages")
def test_every_submodule_gets_its_own_mode_back() -> None:
    """Validation is in eval mode; afterwards each submodule has the mode it had, also one that was kept in eval."""
    modes: list[list[bool]] = []

    class Modes(Fit):
        def setup(self) -> None:
            self.model = nn.Sequential(nn.Linear(1, 2), nn.Dropout(0.5), nn.BatchNorm1d(2), nn.Linear(2, 1))
            self.model[2].eval()
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

        def step(self, batch: Any) -> Any:
            modes.append([m.training for m in self.model])
            return super().step(batch)

        def validation_step(self, batch: Any) -> Any:
            modes.append([m.training for m in self.model])
            return super().validation_step(batch)

    trained(Modes, batch_size=12, validation_data=DATA)
    assert modes == [[True, True, False, True], [False] * 4] * 2


@asserted_by("Lightning test_eval_inference_mode", "Lightning test_no_grad_context")
def test_no_gradients_are_recorded() -> None:
    """In `validation_step` nothing records gradients; in the step after it everything does again."""
    recorded: list[bool] = []

    class Looks(Fit):
        def step(self, batch: Any) -> Any:
            recorded.append(self.loss(batch).requires_grad)
            return super().step(batch)

        def validation_step(self, batch: Any) -> Any:
            recorded.append(self.loss(batch).requires_grad)
            return {"loss": 0.0}

    trained(Looks, batch_size=12, validation_data=DATA)
    assert recorded == [True, False, True, False]


class Noisy(Fit):
    """Draws in training and in validation, which looks at BatchNorm too."""

    def setup(self) -> None:
        self.model = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def validation_step(self, batch: Any) -> Any:
        return {"loss": self.loss(batch) + torch.rand(())}


@asserted_by("Composer test_eval_batch_can_be_modified", "Lightning test_val_check_interval")
def test_training_is_the_same_with_and_without() -> None:
    """Weights do not depend on whether, how often or on how much data a run validates, even if that draws numbers."""
    plain = trained(Noisy)
    for settings in ({"validate_every": "1 step"}, {"validation_data": (X[:3], X[:3])}, {}):
        other = trained(Noisy, **({"validation_data": DATA} | settings))
        assert all(torch.equal(a, b) for a, b in zip(plain.model.parameters(), other.model.parameters(), strict=True))
        assert torch.equal(plain.model[1].running_mean, other.model[1].running_mean)


def test_what_it_draws_is_the_same_each_time() -> None:
    """Two validations of the same weights give the same numbers, also where they draw."""
    trainer = fit(Noisy, validation_data=DATA)
    assert trainer.validate() == trainer.validate()


@asserted_by("Composer test_eval_with_nondivisible_dataset", "Lightning test_eval_logging_auto_reduce")
def test_means_are_over_samples_and_not_over_batches() -> None:
    """The mean over a set that batches do not divide weights a short last batch by its samples."""

    class Mean(Fit):
        def validation_step(self, batch: Any) -> Any:
            return {"loss": batch[0].mean()}

    values = torch.arange(10.0)[:, None]
    trainer = fit(Mean, validation_data=(values, values))  # batches of 4, 4 and 2
    assert trainer.validate() == {"loss": pytest.approx(4.5)}


@asserted_by("Lightning test__validation_step__log")
def test_a_lone_tensor_is_the_loss() -> None:
    """`validation_step` may return a tensor alone: it is the metric "loss"."""

    class Alone(Fit):
        def validation_step(self, batch: Any) -> Any:
            return self.loss(batch)

    assert set(fit(Alone, validation_data=DATA).validate()) == {"loss"}


@asserted_by("Lightning test__eval_step__flow")
def test_refuses_a_validation_step_that_returns_nothing() -> None:
    """A `validation_step` that returns nothing is refused at the first validation, in one line."""

    class Nothing(Fit):
        def validation_step(self, batch: Any) -> Any:
            return None

    with pytest.raises(UsageError, match="validation_step returned NoneType: return the loss, or a dict of scalars"):
        fit(Nothing, validation_data=DATA).validate()


@asserted_by("Lightning test_no_val_module", "Lightning test_fit_val_loader_only")
def test_refuses_validation_data_without_a_validation_step() -> None:
    """Validation data without a `validation_step` is refused before the first step, not skipped."""

    class Without(Fit):
        validation_step = Fit.__mro__[1].validation_step  # as if it had none

    with pytest.raises(UsageError, match=r"validation data but no validation_step\(self, batch\): write one"):
        trained(Without, validation_data=DATA)


@asserted_by("Lightning test_disabled_validation")
def test_without_validation_data_nothing_is_validated() -> None:
    """A `validation_step` without validation data is never called."""
    diary = Diary("pre_validation", "post_validation")
    assert trained(hooks=[diary]).validation_metrics == {} and diary.lines == []


@asserted_by("Lightning test_log_works_in_val_callback")
def test_what_a_hook_adds_is_logged_and_can_be_monitored() -> None:
    """A metric that a hook adds in `post_validation` is one of the validation's, and can be monitored."""
    add = At("post_validation", lambda trainer, metrics: metrics.update(steps=float(trainer.progress.step)))
    trainer = trained(validation_data=DATA, hooks=[add], monitor="steps", monitor_mode="max")
    assert trainer.validation_metrics["steps"] == 6.0 and trainer.best["value"] == 6.0


@asserted_by("Composer test_eval_call", "Lightning test_exception_when_lightning_module_is_not_set_on_trainer")
def test_validate_may_be_called_at_any_time() -> None:
    """`validate()` may be called before, during and after training; it changes nothing in the run."""
    trainer = fit(validation_data=DATA)
    first = trainer.validate()["loss"]
    after(4, trainer)
    middle = trainer.validate()["loss"]
    assert end(trainer) == end(fit(validation_data=DATA))
    assert first > middle > trainer.validate()["loss"] > 0


def test_refuses_to_validate_on_nothing() -> None:
    """`validate()` without validation data is refused in one line that says what to give."""
    with pytest.raises(UsageError, match="nothing to validate on: give the trainer validation_data"):
        fit().validate()


@asserted_by("Lightning test_fit_test_synchronization", "Composer test_eval")
def test_test_uses_its_own_step_and_leaves_the_run_alone() -> None:
    """`test()` evaluates the test data by `test_step`, logs under "test", and leaves the run as it was."""
    splits: list[str] = []

    class Tests(Fit):
        def test_step(self, batch: Any) -> Any:
            return {"error": (self.model(batch[0]) - batch[1]).abs().mean()}

    trainer = trained(Tests, test_data=DATA, hooks=[At("on_log", lambda trainer, record: splits.append(record.name))])
    digest = trainer.digest()
    assert set(trainer.test()) == {"error"} and splits[-1] == "test" and trainer.digest() == digest


@asserted_by("Lightning test_dataloaders_passed_to_fn")
def test_test_takes_other_data_and_falls_back_to_validation_step() -> None:
    """`test(data)` evaluates any data; without a `test_step` by `validation_step`."""
    trainer = fit()
    assert trainer.test((X[:6], X[:6]))["loss"] != trainer.test((X[6:], X[6:]))["loss"]


def test_a_nan_metric_does_not_end_the_run_and_is_never_best() -> None:
    """A validation metric that is NaN ends no run, and is not taken for the best."""

    class Undefined(Fit):
        def validation_step(self, batch: Any) -> Any:
            return {"loss": math.nan if self.epoch != 2 else 1.0}

    trainer = trained(Undefined, validation_data=DATA, max_epochs=3)
    assert trainer.status == "finished" and trainer.best["step"] == 6


@asserted_by("Lightning test_fit_can_fail_during_validation")
def test_an_error_in_validation_gives_everything_back() -> None:
    """An error in `validation_step` fails the run, and leaves modules in training mode with gradients on."""

    class Fails(Fit):
        def validation_step(self, batch: Any) -> Any:
            raise RuntimeError("boom")

    trainer = fit(Fails, validation_data=DATA)
    with pytest.raises(RuntimeError, match="boom"):
        trainer.train()
    assert trainer.status == "failed" and trainer.model.training and torch.is_grad_enabled()


@asserted_by("Composer test_eval_batch_can_be_modified")
def test_a_validation_batch_may_be_changed_in_place() -> None:
    """`validation_step` may change its batch in place: the next validation sees the data as they were."""

    class Changes(Fit):
        def validation_step(self, batch: Any) -> Any:
            total = batch[0].abs().sum()
            batch[0].zero_()
            return {"loss": total}

    trainer = fit(Changes, validation_data=DATA)
    assert trainer.validate() == trainer.validate() != {"loss": 0.0}


@asserted_by("Lightning test_evaluation_loop_sampler_set_epoch_called")
def test_its_order_is_that_of_the_data() -> None:
    """Validation data come in their own order, every time, whatever `shuffle` says about the training data."""
    seen: list[float] = []

    class Looks(Fit):
        def validation_step(self, batch: Any) -> Any:
            seen.extend(batch[0][:, 0].tolist())
            return super().validation_step(batch)

    trained(Looks, validation_data=DATA, shuffle=True)
    assert seen == X[:, 0].tolist() * 2


@asserted_by("Lightning test_num_sanity_val_steps")
def test_a_check_before_training_leaves_no_trace() -> None:
    """A validation before the first step, to see whether it works, leaves no trace in what follows."""
    trainer = fit(Noisy, validation_data=DATA)
    trainer.validate()
    plain = trained(Noisy, validation_data=DATA)
    trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(plain.model.parameters(), trainer.model.parameters(), strict=True))


@asserted_by("Lightning test_val_check_interval", "Composer test_trainer_eval_timestamp")
def test_parts_of_an_epoch() -> None:
    """`validate_every="0.5 epochs"` validates twice an epoch, and counts on over epochs that it does not divide."""
    assert validated_after(batch_size=3, max_epochs=2, validate_every="0.5 epochs") == [2, 4, 6, 8]
    assert validated_after(batch_size=4, max_epochs=2, validate_every="0.5 epochs") == [2, 3, 5, 6]


@asserted_by("Lightning test_validation_check_interval_exceed_data_length_wrong")
def test_refuses_parts_of_an_epoch_of_unknown_length() -> None:
    """A part of an epoch whose length nothing tells is refused before the first step, naming the setting."""
    data = StreamFeed(lambda epoch: iter([DATA]), None)
    with pytest.raises(UsageError, match=r"validate_every: .*needs the length of an epoch"):
        trained(data=data, validation_data=DATA, validate_every="0.5 epochs")


@asserted_by("Lightning test_dataloaders_with_limit_val_batches", "Composer test_trainer_eval_subset_num_batches")
def test_a_quick_look_takes_the_first_batches() -> None:
    """`limit_validation_batches=1` evaluates the first batch alone; endless validation data come to an end so."""

    class Counts(Fit):
        def validation_step(self, batch: Any) -> Any:
            return {"loss": batch[0].mean()}

    assert fit(Counts, validation_data=DATA, limit_validation_batches=1).validate()["loss"] == pytest.approx(
        float(X[:4].mean())
    )
    endless = StreamFeed(lambda epoch: itertools.repeat(DATA), None)
    assert fit(validation_data=endless, limit_validation_batches=3).validate()["loss"] > 0


@asserted_by("Lightning test_multiple_val_dataloader", "Composer test_eval_call_with_trainer_evaluators")
def test_several_sets_have_metrics_of_their_own() -> None:
    """Several validation sets by name give "easy/loss" and "hard/loss"; either may be the one to monitor."""
    sets = {"easy": DATA, "hard": (3 * X, DATA[1])}
    trainer = trained(validation_data=sets, monitor="hard/loss")
    assert set(trainer.validation_metrics) == {"easy/loss", "hard/loss"} and trainer.best["monitor"] == "hard/loss"
    assert trainer.validation_metrics["easy/loss"] == trainer.test(DATA)["loss"]


@asserted_by("Lightning test_correct_dataloader_idx_in_hooks")
def test_validation_step_knows_which_set_it_is_at() -> None:
    """`evaluated_set` tells `validation_step` which of several sets its batch is from; elsewhere it is empty."""
    seen: list[str] = []

    class Looks(Fit):
        def validation_step(self, batch: Any) -> Any:
            seen.append(self.evaluated_set)
            return super().validation_step(batch)

    trainer = fit(Looks, validation_data={"a": DATA, "b": DATA}, batch_size=12, monitor="b/loss")
    trainer.validate()
    assert seen == ["a", "b"] and trainer.evaluated_set == ""


class Largest:
    """A metric that is no mean over batches, in the form of torchmetrics'."""

    def __init__(self) -> None:
        self.reset()

    def update(self, value: Any) -> None:
        self.value = max(self.value, float(value.max()))

    def compute(self) -> float:
        return self.value

    def reset(self) -> None:
        self.value = -math.inf

    def state_dict(self) -> dict[str, float]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.value = state["value"]


class Scored(Fit):
    """Returns a metric object from its validation."""

    def setup(self) -> None:
        super().setup()
        self.largest = Largest()

    def validation_step(self, batch: Any) -> Any:
        self.largest.update(batch[0])
        return {"loss": self.loss(batch), "largest": self.largest}


@asserted_by("Lightning test_result_metric_integration", "Composer test_eval_metrics", "Lightning test_metrics_reset")
def test_metric_objects_are_computed_once_over_the_whole_set() -> None:
    """An object with `update`, `compute` and `reset` that `validation_step` returns is computed over the whole set."""
    trainer = fit(Scored, validation_data=DATA)
    assert trainer.validate()["largest"] == 1.0 and trainer.largest.value == -math.inf, "and reset"
    assert trainer.validate()["largest"] == 1.0


@asserted_by("Lightning test_compute_not_a_tensor_raises")
def test_refuses_a_metric_object_that_is_new_each_time() -> None:
    """A metric object made anew for each batch is refused at the second, by name: it would be of one batch."""

    class Anew(Scored):
        def validation_step(self, batch: Any) -> Any:
            self.largest = Largest()
            return super().validation_step(batch)

    with pytest.raises(UsageError, match="metric 'largest' is another object for each batch: make it once, in setup"):
        fit(Anew, validation_data=DATA).validate()


@asserted_by(
    "torchtnt test_predict",
    "Keras test_predict_preserve_order",
    "Composer test_return_outputs",
    "Lightning test_predict_return_predictions_cpu",
)
def test_predict_gives_what_the_model_says_in_order() -> None:
    """`predict(x)` gives the model's output for each batch, in order, in eval mode and without gradients."""
    trainer = trained()
    digest = trainer.digest()
    outputs = trainer.predict(X)
    assert [len(batch) for batch in outputs] == [4, 4, 4] and not outputs[0].requires_grad
    assert torch.allclose(torch.cat(outputs), trainer.model(X)) and trainer.digest() == digest


@asserted_by("Lightning test_trainer_predict_no_return", "torchtnt test_predict_step")
def test_predict_step_may_say_what_is_returned() -> None:
    """A `predict_step` of one's own decides what `predict` returns for a batch."""

    class Classes(Fit):
        def predict_step(self, batch: Any) -> Any:
            return {"positive": (self.model(batch) > 0)[:, 0]}

    first = fit(Classes).predict(X)[0]
    assert set(first) == {"positive"} and first["positive"].dtype == torch.bool
