"""Logging: what is averaged over what, where it goes, and what a broken logger may do."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from relied_on import DATA, At, Diary, Fit, after, asserted_by, end, fit, killed, trained

from treadle import Hook, Record, Trainer, UsageError
from treadle.sinks.base import Sink


class Lines(Sink):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, int, dict[str, float]]] = []
        self.others: list[tuple[str, Any]] = []
        self.closed = 0

    def scalars(self, step: int, values: Any, split: str) -> None:
        self.lines.append((split, step, dict(values)))

    def image(self, step: int, name: str, picture: Any) -> None:
        self.others.append((name, picture))

    def text(self, step: int, name: str, text: str) -> None:
        self.others.append((name, text))

    def close(self) -> None:
        self.closed += 1

    def of(self, split: str) -> list[tuple[int, dict[str, float]]]:
        return [(step, values) for kind, step, values in self.lines if kind == split]


class Ramp(Fit):
    """Returns its step's number as a metric, and changes no weight."""

    def step(self, batch: Any) -> Any:
        return {"number": float(self.progress.step)}


@asserted_by("Lightning test_log_every_n_steps", "Composer test_console_logger_interval")
def test_every_so_many_steps_over_epochs() -> None:
    """`log_every="4 steps"` logs after steps 4, 8 and 12, across epochs, and what is left at the end."""
    sink = Lines()
    trained(max_epochs=3, log_every="4 steps", hooks=[sink])
    assert [step for step, _ in sink.of("train")] == [4, 8, 9]


@asserted_by("Lightning test_metric_are_properly_reduced", "torchtnt test_log_step_metrics")
def test_values_are_means_over_the_interval() -> None:
    """What is logged is the mean over all steps since the last time, and not the last step's value."""
    sink = Lines()
    trained(Ramp, max_epochs=3, log_every="4 steps", hooks=[sink])
    assert [values["number"] for _, values in sink.of("train")] == [1.5, 5.5, 8.0]


@asserted_by("Lightning test_log_metrics_epoch_step_values", "torchtnt test_log_for_epoch")
def test_an_epochs_mean_is_logged_besides() -> None:
    """Each epoch's mean is logged as the split "epoch", whatever the interval."""
    sink = Lines()
    trained(Ramp, max_epochs=3, log_every="4 steps", hooks=[sink])
    assert sink.of("epoch") == [(3, {"number": 1.0}), (6, {"number": 4.0}), (9, {"number": 7.0})]


@asserted_by(
    "Lightning test_result_collection_batch_size_extraction", "Lightning test_different_batch_types_for_sizing"
)
def test_means_weigh_batches_by_their_samples() -> None:
    """A short batch weighs less in the logged mean, by its samples."""

    class Mean(Fit):
        def step(self, batch: Any) -> Any:
            return {"mean": batch[0].mean()}

    values = torch.arange(10.0)[:, None]
    trainer = trained(Mean, data=(values, values), shuffle=False, max_epochs=1, log_every="3 steps")
    assert trainer.metrics["mean"] == pytest.approx(4.5)


@asserted_by("Lightning test_log_works_in_train_callback", "Lightning test_logging_in_callbacks_with_log_function")
def test_hooks_may_log_too() -> None:
    """`trainer.log` in a hook adds to the metrics, averaged like what `step` returns."""
    note = At("post_step", lambda trainer, *_: trainer.log("twice", 2.0 * trainer.progress.step))
    trainer = trained(Ramp, max_epochs=1, log_every="3 steps", hooks=[note])
    assert trainer.metrics["twice"] == 4.0 and trainer.metrics["number"] == 1.0


def test_what_post_step_logs_belongs_to_its_step() -> None:
    """What `post_step` logs is in the record of that very step, and not in the next."""
    sink = Lines()
    note = At("post_step", lambda trainer, *_: trainer.log("at", float(trainer.progress.step)))
    trained(max_epochs=1, log_every="1 step", hooks=[sink, note])
    assert [(step, values["at"]) for step, values in sink.of("train")] == [(1, 1.0), (2, 2.0), (3, 3.0)]


@asserted_by("Lightning test_log_tensor_and_clone_no_torch_warning", "torchtnt test_scalar_to_float")
def test_tensors_become_plain_numbers() -> None:
    """Sinks get Python's floats: no tensor, no graph, no device."""
    sink = Lines()
    trained(max_epochs=1, log_every="1 step", hooks=[sink])
    assert {type(value) for _, _, values in sink.lines for value in values.values()} == {float}


@asserted_by("Lightning test_log_invalid_raises", "Lightning test_unsqueezed_tensor_logging")
def test_refuses_a_metric_that_is_no_number() -> None:
    """A metric with many entries is refused at the step that returned it, by name, with the remedy."""

    class Many(Fit):
        def step(self, batch: Any) -> Any:
            return {"errors": batch[0]}

    with pytest.raises(UsageError, match=r"metric 'errors' has shape \(4, 1\): return one number, e.g. its .mean\(\)"):
        trained(Many)


@asserted_by("Lightning test_log_invalid_raises")
def test_refuses_text_as_a_metric() -> None:
    """Text among the metrics is refused at the step that returned it, by name."""

    class Text(Fit):
        def step(self, batch: Any) -> Any:
            return {"mood": "good"}

    with pytest.raises(UsageError, match="metric 'mood' is a str: return a number or a scalar"):
        trained(Text)


@asserted_by("Lightning test__training_step__flow_scalar")
def test_refuses_a_step_that_returns_nothing() -> None:
    """A `step` without a `return` is refused at the first step in one line."""

    class Nothing(Fit):
        def step(self, batch: Any) -> Any:
            self.minimize(self.loss(batch))

    with pytest.raises(UsageError, match="step returned NoneType: return the loss, or a dict of scalars to log"):
        trained(Nothing)


@asserted_by("Lightning test__training_step__flow_scalar", "Composer test_nan_monitor")
def test_a_step_may_return_the_loss_alone() -> None:
    """A `step` may return its loss alone, which is logged as "loss"."""

    class Alone(Fit):
        def step(self, batch: Any) -> Any:
            loss = self.loss(batch)
            self.minimize(loss)
            return loss

    assert trained(Alone).metrics == trained().metrics


def test_a_step_may_log_some_metrics_only_now_and_then() -> None:
    """A metric that only some steps return is averaged over those steps."""

    class Sometimes(Fit):
        def step(self, batch: Any) -> Any:
            return {"even": 4.0} if self.progress.step % 2 == 0 else {"odd": 1.0}

    assert trained(Sometimes, max_epochs=1, log_every="3 steps").metrics == {"even": 4.0, "odd": 1.0, "lr": 0.1}


@asserted_by("Lightning test_multiple_optimizers_logging")
def test_validation_goes_to_its_own_split() -> None:
    """Validation metrics are logged as the split "validation", with the step they belong to."""
    sink = Lines()
    trained(validation_data=DATA, hooks=[sink])
    assert [step for step, _ in sink.of("validation")] == [3, 6]


@asserted_by("Accelerate test_log", "Composer test_in_memory_logger")
def test_metrics_are_at_hand_in_the_program() -> None:
    """The newest training and validation metrics are at hand in the program, without any logger."""
    trainer = trained(validation_data=DATA, log_every="2 steps")
    assert set(trainer.metrics) == {"loss", "lr"} and set(trainer.validation_metrics) == {"loss"}
    assert trainer.summary().metrics == trainer.metrics


@asserted_by("Lightning test_trainer_calls_logger_finalize_on_exception", "Composer test_close_on_failure")
def test_loggers_are_closed_after_an_error_too() -> None:
    """A logger is closed once, after an error as after the end."""
    sink = Lines()
    with pytest.raises(ZeroDivisionError):
        trained(hooks=[sink, At("post_epoch", lambda trainer: 1 / 0)])
    other = Lines()
    trained(hooks=[other])
    assert sink.closed == other.closed == 1


@asserted_by("Composer test_exceptions_are_printed")
def test_a_broken_logger_is_reported_and_left_alone(capsys: Any) -> None:
    """A logger that raises is reported a few times at most, and the run goes on to the same digest."""

    class Broken(Lines):
        def scalars(self, step: int, values: Any, split: str) -> None:
            raise ConnectionError("no route to host")

    assert end(fit(log_every="1 step", hooks=[Broken()])) == end(fit(log_every="1 step"))
    assert 1 <= capsys.readouterr().err.count("no route to host") <= 5


def test_what_a_logger_does_to_the_values_stays_with_it() -> None:
    """A logger that changes the metrics it is given, or draws random numbers, changes nothing in the run."""

    class Meddles(Hook):
        observer: ClassVar[bool] = True

        def post_validation(self, trainer: Trainer, metrics: Any) -> None:
            metrics.clear()
            torch.manual_seed(0), np.random.seed(0)

        def on_log(self, trainer: Trainer, record: Record) -> None:
            record.value.clear()

    settings = {"validation_data": DATA, "log_every": "1 step"}
    trainer = fit(hooks=[Meddles()], **settings)
    assert end(trainer) == end(fit(**settings)) and "loss" in trainer.validation_metrics and "loss" in trainer.metrics


@asserted_by("Composer test_tensorboard_log_image", "Accelerate test_log_images")
def test_pictures_reach_every_sink() -> None:
    """`log_image` hands a picture, as an array, to every sink."""
    sink = Lines()
    trained(max_epochs=1, hooks=[sink, At("post_epoch", lambda trainer: trainer.log_image("grey", torch.zeros(2, 3)))])
    (name, picture), *more = sink.others
    assert name == "grey" and isinstance(picture, np.ndarray) and picture.shape == (2, 3) and not more


@asserted_by("torchtnt test_log_text")
def test_text_reaches_every_sink() -> None:
    """`log_text` hands text to every sink."""
    sink = Lines()
    trained(max_epochs=1, hooks=[sink, At("post_epoch", lambda trainer: trainer.log_text("note", "half way"))])
    assert sink.others == [("note", "half way")]


@asserted_by("torchtnt test_json_log", "Keras test_CSVLogger", "torchtnt test_csv_log")
def test_a_run_on_disk_has_a_line_of_json_for_each_record(tmp_path: Path) -> None:
    """A run on disk keeps each record as a line of JSON with split, step and epoch; NaN does not break a line."""

    class Nan(Fit):
        def validation_step(self, batch: Any) -> Any:
            return {"loss": math.nan}

    trainer = trained(Nan, validation_data=DATA, log_every="2 steps", run_dir=tmp_path / "run")
    lines = [json.loads(line) for line in (trainer.run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "train"] == [2, 4, 6]
    assert {line["split"] for line in lines} == {"train", "epoch", "validation"}


@asserted_by("Lightning test_barebones_disables_logging", "Lightning test_logger_after_fit_predict_test_calls")
def test_without_a_run_directory_nothing_is_written(tmp_path: Path, monkeypatch: Any) -> None:
    """Without `run_dir=` nothing is written anywhere."""
    monkeypatch.chdir(tmp_path)
    trained(validation_data=DATA)
    assert list(tmp_path.iterdir()) == []


def test_with_log_every_none_only_epochs_and_the_end_are_logged() -> None:
    """`log_every=None` leaves the epochs' means and what the run ends with."""
    sink = Lines()
    trained(max_epochs=2, log_every=None, hooks=[sink])
    assert [(split, step) for split, step, _ in sink.lines] == [("epoch", 3), ("epoch", 6), ("train", 6)]


@asserted_by("Accelerate test_store_init_configuration_does_not_mutate_input", "Composer test_extract_hparams_trainer")
def test_settings_are_recorded_with_the_run(tmp_path: Path) -> None:
    """A run on disk records all of its settings, those left at their defaults too, in its config and journal."""
    trainer = trained(run_dir=tmp_path / "run")
    start = next(entry for entry in trainer.journal if entry["event"] == "start")
    assert start["settings"]["batch_size"] == 4 and start["settings"]["clip_norm"] is None
    assert "batch_size: 4" in (trainer.run.path / "config.yaml").read_text()


@asserted_by("Composer test_mlflow_resume_run", "Accelerate test_init_trackers")
def test_a_logger_may_keep_its_runs_name_over_a_resume(tmp_path: Path) -> None:
    """What a logger keeps (its server's id of the run) comes back at a resume; a new logger may join there too."""

    class Named(Lines):
        name = "new"

        def state_dict(self) -> dict[str, str]:
            return {"name": self.name}

        def load_state_dict(self, state: dict[str, str]) -> None:
            self.name = state["name"]

    first, again = Named(), Named()
    first.name = "run-17"
    path = killed(4, tmp_path, hooks=[first])
    joined = Lines()
    fit(run_dir=path, resume=True, hooks=[again, joined], log_every="1 step").train()
    assert again.name == "run-17" and [step for step, _ in joined.of("train")] == [5, 6]


@asserted_by("torchtnt test_log_reason_epoch_completed", "Lightning test_fit_loop_done_log_messages")
def test_the_journal_says_what_happened_when() -> None:
    """The journal has what happened to the run, with step and time: its start, a stop, an edit, its finish."""
    trainer = after(2, fit())
    trainer.commands.lr_multiplier(0.5)
    trainer.note("look", what="me")
    trainer.train()
    told = [(entry["event"], entry["step"]) for entry in trainer.journal]
    assert told == [("start", 0), ("look", 2), ("edit", 2), ("finish", 6)]


@asserted_by("torchtnt test_fit_timing", "Ignite test_time_stored_in_state")
def test_the_time_of_each_hook_is_known() -> None:
    """The time spent in each hook is known by its name."""
    trainer = trained(hooks=[Diary()])
    assert trainer.hook_seconds["Diary"] > 0 and trainer.seconds > trainer.hook_seconds["Diary"]
