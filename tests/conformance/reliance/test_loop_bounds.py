"""Loop bounds: how many steps and epochs are taken, and what ends a run."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from relied_on import DATA, At, Diary, Fit, after, asserted_by, end, fit, trained

from treadle import RunError, StreamFeed, UsageError
from treadle.data import Steps


@asserted_by("Ignite test_stopping_criterion_is_max_epochs", "torchtnt test_train")
def test_max_epochs_takes_every_batch_of_every_epoch() -> None:
    """`max_epochs` takes every batch of every epoch, no more and no fewer."""
    trainer = trained(max_epochs=3)
    assert (trainer.progress.epoch, trainer.progress.step, trainer.progress.batch) == (3, 9, 0)


@asserted_by("torchtnt test_train_max_steps", "Ignite test_run_with_max_iters")
def test_max_steps_ends_in_the_middle_of_an_epoch() -> None:
    """`max_steps` ends a run in the middle of an epoch; the epoch does not count as finished."""
    trainer = trained(max_epochs=None, max_steps=5)
    assert (trainer.progress.epoch, trainer.progress.step, trainer.progress.batch) == (1, 5, 2)


@asserted_by("Lightning test_trainer_max_steps_and_epochs")
def test_the_earlier_of_two_limits_ends_the_run() -> None:
    """Of `max_steps` and `max_epochs` the one that is reached first ends the run."""
    assert trained(max_epochs=1, max_steps=5).progress.step == 3
    assert trained(max_epochs=9, max_steps=5).progress.step == 5


@asserted_by("Ignite test_run_with_max_iters_greater_than_epoch_length")
def test_max_steps_goes_over_as_many_epochs_as_it_needs() -> None:
    """`max_steps` alone begins new epochs until the steps are taken."""
    diary = Diary("pre_epoch", "post_epoch")
    trained(max_epochs=None, max_steps=7, hooks=[diary])
    assert diary.lines == ["pre_epoch 0.0", "post_epoch 1.3", "pre_epoch 1.3", "post_epoch 2.6", "pre_epoch 2.6"]


@asserted_by("Ignite test_epoch_events_fired_max_iters")
def test_max_steps_at_an_epochs_end_finishes_that_epoch() -> None:
    """A `max_steps` that falls on an epoch's last batch still finishes the epoch, and begins no other."""
    diary = Diary("pre_epoch", "post_epoch")
    trainer = trained(max_epochs=None, max_steps=6, hooks=[diary])
    assert diary.names == ["pre_epoch", "post_epoch"] * 2 and trainer.progress.epoch == 2


@asserted_by("Lightning test_max_epochs_not_set_warning")
def test_refuses_a_run_without_an_end() -> None:
    """A run that nothing ends is refused before its first step, instead of a default number of epochs."""
    with pytest.raises(UsageError, match="nothing says when to end: give max_epochs, max_steps or max_time"):
        trained(max_epochs=None)


@asserted_by("Lightning test_disabled_training")
def test_refuses_zero_epochs() -> None:
    """`max_epochs=0` does not mean "only evaluate": it is refused when the trainer is made."""
    with pytest.raises(UsageError, match=r"max_epochs is 0.*at least 1"):
        fit(max_epochs=0)


@asserted_by("Lightning test_min_max_steps_epochs")
def test_refuses_minus_one_for_no_limit() -> None:
    """`max_steps=-1` does not mean "no limit": it is refused when the trainer is made; None means it."""
    with pytest.raises(UsageError, match=r"max_steps is -1"):
        fit(max_steps=-1)


@asserted_by("Ignite test_run_with_invalid_max_iters_and_max_epoch")
def test_refuses_a_limit_that_is_no_whole_number() -> None:
    """A limit in fractions (`max_epochs=1.5`) is refused by name when the trainer is made."""
    with pytest.raises(UsageError, match=r"max_epochs is 1.5: expected a whole number"):
        fit(max_epochs=1.5)


@asserted_by("Lightning test_timer_stops_training", "torchtnt test_should_stop", "Ignite test_terminate_on_time_limit")
def test_a_time_limit_stops_after_the_step_under_way() -> None:
    """`max_time` stops the run after the step under way, resumable, and says why."""
    trainer = fit(max_epochs=None, max_time=1e-9)
    summary = trainer.train()
    assert (summary.status, summary.reason, summary.step) == ("stopped", "time limit", 1)
    assert trainer.train().step == 2, "each session has the whole time again"


@asserted_by("Lightning test_num_stepping_batches_basic")
def test_the_number_of_steps_is_known_in_advance() -> None:
    """The run's number of steps is known before the first one, from whichever limit is the earlier."""
    assert fit(max_epochs=4).progress.total_steps == 12
    assert fit(max_epochs=4, max_steps=10).progress.total_steps == 10
    assert fit(data=StreamFeed(lambda epoch: iter([DATA]), None), max_epochs=4).progress.total_steps is None


def test_one_batch_an_epoch_is_trained_on_every_time() -> None:
    """Data of a single batch is trained on once in every epoch, the only and the last one too."""
    assert trained(batch_size=12, max_epochs=1).updates() == 1
    assert trained(batch_size=12, max_epochs=4).updates() == 4


@asserted_by("Composer test_train_dataloader")
def test_a_short_last_batch_is_trained_on_unless_dropped() -> None:
    """The short last batch of an epoch is trained on; `drop_last` leaves it out."""
    sizes: list[int] = []
    note = At("pre_step", lambda trainer, batch: sizes.append(len(batch[0])))
    trained(batch_size=5, max_epochs=1, hooks=[note])
    trained(batch_size=5, max_epochs=1, hooks=[note], drop_last=True)
    assert sizes == [5, 5, 2, 5, 5]


@asserted_by("Composer test_empty_train_dataloader", "Lightning test_warning_on_zero_len_dataloader")
def test_refuses_data_without_a_batch() -> None:
    """Data that gives no batch is refused when the trainer is made, and not trained on for zero steps."""
    with pytest.raises(UsageError, match="data is empty: give it at least one sample"):
        fit(data=(torch.empty(0, 1), torch.empty(0, 1)))
    with pytest.raises(UsageError, match=r"drop_last"):
        fit(batch_size=50, drop_last=True)


@asserted_by("Ignite test_faq_fin_iterator_unknw_size")
def test_an_epoch_of_unknown_length_ends_where_its_data_ends() -> None:
    """Epochs of an iterable without a length end where it ends, and may be of different lengths."""
    diary = Diary("post_epoch")
    trained(data=StreamFeed(lambda epoch: iter([DATA] * (epoch + 1)), None), max_epochs=3, hooks=[diary])
    assert diary.lines == ["post_epoch 1.1", "post_epoch 2.3", "post_epoch 3.6"]


@asserted_by("Composer test_infinite_train_loader", "Ignite test_faq_inf_iterator_no_epoch_length")
def test_an_endless_stream_is_ended_by_max_steps() -> None:
    """Endless data is one long epoch, which `max_steps` ends; nothing is read behind the last step."""
    read: list[int] = []

    def endless(epoch: int) -> Any:
        for item in itertools.count():
            read.append(item)
            yield DATA

    trainer = trained(data=StreamFeed(endless, None), max_epochs=None, max_steps=4)
    assert trainer.progress.step == 4 and len(read) <= 5


@asserted_by("Ignite test_faq_inf_iterator_with_epoch_length")
def test_an_endless_stream_is_cut_into_epochs_by_a_length() -> None:
    """Endless data with a chosen length has epochs of that many items."""
    feed = StreamFeed(lambda epoch: itertools.repeat(DATA), None, length=2)
    trainer = trained(data=feed, max_epochs=3)
    assert (trainer.progress.epoch, trainer.progress.step) == (3, 6)


@asserted_by("Ignite test_engine_with_dataloader_no_auto_batching")
def test_refuses_an_epoch_shorter_than_it_says() -> None:
    """An epoch shorter than the length it announced fails the run by name, instead of a schedule that never ends."""
    with pytest.raises(RunError, match="data ended after 2 items in epoch 1, but its length is given as 3"):
        trained(data=StreamFeed(lambda epoch: iter([DATA] * 2), None, length=3))


@asserted_by("Lightning test_fit_twice", "Composer test_multiple_calls_to_fit")
def test_training_again_after_the_end_takes_no_step() -> None:
    """`train()` on a finished run takes no step, fires no event, and returns the same summary."""
    diary = Diary()
    trainer = trained(hooks=[diary])
    lines, digest = list(diary.lines), trainer.digest()
    assert trainer.train().step == 6
    assert diary.lines == lines and trainer.digest() == digest


@asserted_by("torchtnt test_train_data_iter_step")
def test_a_program_may_take_the_steps_one_by_one() -> None:
    """A program of one's own may take the steps one by one: as many, with the same end to the last bit."""
    trainer, steps = fit(), 0
    while trainer.iterate():
        steps += 1
    assert steps == 6 and not trainer.iterate()
    assert trainer.digest() == end(fit())


@asserted_by("torchtnt test_progress_state_dict", "Ignite test_current_epoch_counter_increases_every_epoch")
def test_counters_count_what_is_finished() -> None:
    """Counters hold what is finished: 0 in the first epoch and step, never repeated, in every event."""
    diary = Diary("pre_step", "post_step", "post_epoch")
    trained(max_epochs=1, batch_size=6, hooks=[diary])
    assert diary.lines == ["pre_step 0.0", "post_step 0.1", "pre_step 0.1", "post_step 0.2", "post_epoch 1.2"]


@asserted_by("Ignite test_terminate_stops_run_mid_epoch", "Lightning test_should_stop_mid_epoch")
def test_a_hook_may_end_the_run_after_the_step_under_way() -> None:
    """A hook may end the run: the step under way is finished, `post_training` fires, the status is "finished"."""
    diary = Diary("post_step", "post_epoch", "post_training")
    stop = At("post_step", lambda trainer, *_: trainer.finish("enough") if trainer.progress.step == 2 else None)
    trainer = fit(hooks=[stop, diary])
    assert (trainer.train().status, trainer.reason) == ("finished", "enough")
    assert diary.lines == ["post_step 0.1", "post_step 0.2", "post_training 0.2"]


@asserted_by("Ignite test_terminate_at_end_of_epoch_stops_run")
def test_ended_at_an_epochs_end_no_other_begins() -> None:
    """A run that is ended in `post_epoch` begins no further epoch."""
    diary = Diary("pre_epoch", "post_epoch")
    trained(max_epochs=5, hooks=[diary, At("post_epoch", lambda trainer: trainer.finish("enough"))])
    assert diary.names == ["pre_epoch", "post_epoch"]


@asserted_by("Ignite test_engine_run_interrupt_resume", "torchtnt test_train_stop")
def test_a_stopped_run_goes_on_in_the_same_program() -> None:
    """`stop()` suspends: `train()` again goes on with the next batch of the same epoch, to the same digest."""
    trainer = fit(hooks=[At("post_step", lambda trainer, *_: trainer.stop() if trainer.progress.step == 2 else None)])
    assert trainer.train().status == "stopped" and trainer.progress.batch == 2
    assert end(trainer) == end(fit())


def test_a_leaked_stop_iteration_is_an_error_and_not_the_end() -> None:
    """A StopIteration that leaks out of `step` (an exhausted iterator of one's own) fails the run, not ends it."""

    class Leaks(Fit):
        def step(self, batch: Any) -> Any:
            next(iter(()))

    trainer = fit(Leaks)
    with pytest.raises(RuntimeError):
        trainer.train()
    assert trainer.status == "failed" and trainer.progress.step == 0


@asserted_by("Ignite test_engine_no_data_asserts")
def test_refuses_to_train_without_data() -> None:
    """A trainer without data is refused at its first step, by name of what is missing; it can still evaluate."""
    trainer = fit(data=None, test_data=DATA)
    assert trainer.test()["loss"] > 0
    with pytest.raises(UsageError, match="nothing to train on: give the trainer data="):
        trainer.train()


def test_steps_end_where_the_run_is_stepped_past_a_stop() -> None:
    """A stop asked for between two steps makes `iterate()` return False once; the next call takes the next step."""
    trainer = after(1, fit())
    trainer.stop()
    assert not trainer.iterate() and trainer.iterate() and trainer.progress.step == 2


@asserted_by("Lightning test_trainer_min_steps_and_epochs", "Lightning test_min_epochs_min_steps_global_step")
def test_min_steps_go_before_every_early_end() -> None:
    """Before `min_steps` neither `finish`, patience nor a time limit ends the run."""
    enough = At("post_step", lambda trainer, *_: trainer.finish("enough"))
    assert trained(max_epochs=9, min_steps=5, hooks=[enough]).progress.step == 5
    assert (
        trained(validation_data=DATA, max_epochs=9, min_steps=20, patience=1, min_improvement=9.0).progress.step == 21
    )


@asserted_by("Lightning test_trainer_min_steps_and_min_epochs_not_reached")
def test_refuses_a_minimum_above_the_limit() -> None:
    """`min_steps` above what the other limits allow is refused before the first step."""
    with pytest.raises(UsageError, match="min_steps is 9, but max_steps and max_epochs end the run after 6"):
        trained(min_steps=9)


@asserted_by(
    "Lightning test_dataloaders_with_limit_train_batches",
    "torchtnt test_train_max_steps_per_epoch",
    "Keras test_steps_per_epoch",
)
def test_an_epoch_may_be_limited_to_some_batches() -> None:
    """`limit_batches=2` ends each epoch after two batches; another epoch has other ones."""
    seen: list[int] = []
    look = At("pre_step", lambda trainer, batch: seen.append(round(float(batch[0].sum()) * 1000)))
    trainer = trained(limit_batches=2, max_epochs=3, hooks=[look])
    assert (trainer.progress.epoch, trainer.progress.step, trainer.progress.total_steps) == (3, 6, 6)
    assert seen[:2] != seen[2:4] != seen[4:]


@asserted_by(
    "Lightning test_num_dataloader_batches", "Lightning test_inf_dataloader_raise_error_with_partial_batch_limits"
)
def test_refuses_a_limit_in_parts_of_an_epoch() -> None:
    """Lightning's `limit_train_batches=0.1` is refused when the trainer is made: batches are counted."""
    with pytest.raises(UsageError, match=r"limit_batches is 0.1: expected a whole number"):
        fit(limit_batches=0.1)


@asserted_by("Lightning test_repeated_fit_calls_with_max_epochs_and_steps", "Composer test_training_duration_unit")
def test_a_finished_run_goes_on_in_the_same_program() -> None:
    """`extend(max_epochs=4)` lets a finished run go on, to the weights of a run that was planned so."""
    trainer = trained(max_epochs=2)
    trainer.extend(max_epochs=4)
    assert trainer.train().epoch == 4 and torch.equal(trainer.model.weight, trained(max_epochs=4).model.weight)


@asserted_by("Ignite test_run_check_triggered_events_list")
def test_refuses_to_extend_to_less() -> None:
    """`extend` to a limit that is no higher, or that the run has not, is refused, and changes nothing."""
    trainer = trained(max_epochs=2)
    with pytest.raises(UsageError, match="extend: max_epochs is 2 already, and 1 would be less"):
        trainer.extend(max_epochs=1)
    assert trainer.train().epoch == 2


@asserted_by("Keras test_steps_per_execution_steps_per_epoch")
def test_a_loop_without_data_has_epochs_of_steps() -> None:
    """`data=Steps(4)` gives a loop that makes its own data epochs of four steps, each with its number as the batch."""
    seen: list[int] = []

    class Makes(Fit):
        def step(self, number: int) -> Any:
            seen.append(number)
            x = torch.rand(8, 1)
            return super().step((x, 3 * x + 1))

    assert trained(Makes, data=Steps(4)).progress.step == 8 and seen == [0, 1, 2, 3] * 2
