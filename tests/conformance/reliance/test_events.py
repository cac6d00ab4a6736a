"""Events: what fires when, in which order, with what, and what becomes of errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from relied_on import DATA, At, Diary, Fit, after, asserted_by, end, fit, trained

from treadle import Hook, Order, Trainer, UsageError
from treadle.hooks import Periodic


@asserted_by(
    "Lightning test_trainer_model_hook_system_fit", "Composer test_event_calls", "torchtnt test_fit_with_callback"
)
def test_the_whole_order_of_a_run() -> None:
    """All events of a run with validation come in the documented order, each exactly as often as it says."""
    diary = Diary(
        *("pre_training", "pre_epoch", "pre_step", "pre_update", "post_step", "post_epoch"),
        *("pre_validation", "post_validation", "post_training", "teardown"),
    )
    trained(max_epochs=2, batch_size=6, validation_data=DATA, hooks=[diary])
    step = ["pre_step", "pre_update", "post_step"]
    epoch = ["pre_epoch", *step, *step, "post_epoch", "pre_validation", "post_validation"]
    assert diary.names == ["pre_training", *epoch, *epoch, "post_training", "teardown"]


@asserted_by("torchtnt test_callback_ordering", "Ignite test_add_event_handler")
def test_hooks_run_in_their_declared_order_then_as_given() -> None:
    """Hooks run by their declared order, and those of the same order as they were given."""
    heard: list[str] = []

    def hook(name: str, where: int) -> Hook:
        return type("Named", (At,), {"order": where})("post_epoch", lambda trainer: heard.append(name))

    hooks = [hook("last", Order.LAST), hook("a", Order.NORMAL), hook("first", Order.FIRST), hook("b", Order.NORMAL)]
    trained(max_epochs=1, hooks=hooks)
    assert heard == ["first", "a", "b", "last"]


@asserted_by("Lightning test_trainer_model_hook_system_fit")
def test_the_trainers_own_method_comes_before_all_hooks() -> None:
    """What the trainer itself does at an event is done before any hook hears of it."""
    heard: list[str] = []

    class Own(Fit):
        def post_epoch(self) -> None:
            heard.append("own")

    first = type("First", (At,), {"order": Order.FIRST})
    trained(Own, max_epochs=1, hooks=[first("post_epoch", lambda trainer: heard.append("hook"))])
    assert heard == ["own", "hook"]


@asserted_by("torchtnt test_fit_active_phase")
def test_the_run_begins_once_however_often_it_is_stopped() -> None:
    """`pre_training` fires once in a run's life, not again after a stop in the middle."""
    diary = Diary("pre_training", "pre_epoch")
    trainer = after(2, fit(hooks=[diary]))
    trainer.stop()
    trainer.train()
    assert trainer.train().status == "finished"
    assert diary.names == ["pre_training", "pre_epoch", "pre_epoch"]


@asserted_by("Lightning test_multiple_optimizers_manual")
def test_pre_update_is_told_which_optimizer() -> None:
    """`pre_update` fires once for each optimizer that updates, with that optimizer and its complete gradients."""
    seen: list[tuple[str, bool]] = []

    class Two(Fit):
        def setup(self) -> None:
            super().setup()
            self.other = torch.nn.Linear(1, 1)
            self.second = torch.optim.SGD(self.other.parameters(), lr=0.1)

        def step(self, batch: Any) -> Any:
            self.minimize(self.loss(batch), self.optimizer)
            self.minimize(self.other(batch[0]).square().mean(), self.second)
            return {}

        def pre_update(self, optimizer: Any) -> None:
            name = "first" if optimizer is self.optimizer else "second"
            seen.append((name, all(p.grad is not None for g in optimizer.param_groups for p in g["params"])))

    trained(Two, max_steps=2)
    assert seen == [("first", True), ("second", True)] * 2


@asserted_by("Lightning test_train_step_no_return", "Lightning test_training_step_no_return_when_even")
def test_post_step_is_given_what_step_returned() -> None:
    """`post_step` is given the batch and exactly what `step` returned for it."""
    seen: list[tuple[Any, float]] = []

    class Counts(Fit):
        def step(self, batch: Any) -> Any:
            self.minimize(self.loss(batch))
            return {"first": batch[0][0]}

    trained(Counts, max_steps=3, hooks=[At("post_step", lambda t, batch, out: seen.append((batch, out["first"])))])
    assert len(seen) == 3 and all(batch[0][0] is not None and batch[0][0] == first for batch, first in seen)


@asserted_by("Ignite test_alter_batch")
def test_a_batch_changed_in_pre_step_is_what_step_gets_and_the_data_stay() -> None:
    """A batch that `pre_step` changes in place is what `step` gets; the data it came from stay as they are."""
    before = DATA[1].clone()
    means: list[float] = []

    class Looks(Fit):
        def step(self, batch: Any) -> Any:
            means.append(float(batch[1].abs().sum()))
            return super().step(batch)

    trained(Looks, hooks=[At("pre_step", lambda trainer, batch: batch[1].zero_())])
    assert means == [0.0] * 6 and torch.equal(DATA[1], before)


@asserted_by("Lightning test_on_exception_hook", "Ignite test_custom_exception_handler")
def test_an_error_is_told_once_and_then_torn_down() -> None:
    """An error in `step` reaches `on_exception` once, as itself, then `teardown`, and then the caller."""
    error, seen = RuntimeError("boom"), []

    class Fails(Fit):
        def step(self, batch: Any) -> Any:
            raise error

    diary = Diary("on_exception", "teardown", "post_training")
    trainer = fit(Fails, hooks=[At("on_exception", lambda trainer, told: seen.append(told)), diary])
    with pytest.raises(RuntimeError, match="boom") as caught:
        trainer.train()
    assert seen == [error] and caught.value is error and diary.names == ["on_exception", "teardown"]


@asserted_by("torchtnt test_error_message")
def test_an_error_says_in_which_hook_and_step_it_happened() -> None:
    """An error raised by a hook says in which event of which hook, and after how many steps."""
    trainer = fit(hooks=[At("post_step", lambda trainer, *_: 1 / 0 if trainer.progress.step == 2 else None)])
    with pytest.raises(ZeroDivisionError) as caught:
        trainer.train()
    assert any("post_step of At" in note and "step 2" in note for note in caught.value.__notes__)


@asserted_by("torchtnt test_get_implemented_callback_mapping")
def test_what_is_not_overridden_is_not_called() -> None:
    """An event that neither trainer nor hook overrides is not dispatched at all."""

    class OnlyEpochs(Hook):
        def post_epoch(self, trainer: Trainer) -> None: ...

    events = fit(hooks=[OnlyEpochs()]).loop.events
    assert events.listens("post_epoch") and not events.listens("pre_step") and not events.listens("post_step")


@asserted_by("Ignite test_on_decorator_raises_with_invalid_event", "Lightning test_fx_validator")
def test_refuses_a_misspelt_event() -> None:
    """A hook's method that is nearly an event's name is refused when the hook is given, not silently never called."""

    class Typo(Hook):
        def post_epochs(self, trainer: Trainer) -> None: ...

    with pytest.raises(UsageError, match="post_epochs is no event and is never called: did you mean 'post_epoch'"):
        fit(hooks=[Typo()])


@asserted_by("Ignite test_add_event_handler_raises_with_invalid_event")
def test_refuses_a_hooks_class_in_the_place_of_a_hook() -> None:
    """A hook's class, or any other object, in `hooks=` is refused when the trainer is made."""
    with pytest.raises(UsageError, match=r"expected Hook objects, made with \(\)"):
        fit(hooks=[Diary])


@asserted_by("Ignite test_adding_multiple_event_handlers")
def test_a_hook_may_join_in_the_middle() -> None:
    """A hook that is added in the middle hears all events from there on, and none of those before."""
    diary = Diary("pre_training", "pre_epoch", "post_step")
    trainer = after(4, fit())
    trainer.add_hook(diary)
    trainer.train()
    assert diary.lines == ["post_step 1.5", "post_step 1.6"]


@asserted_by("Ignite test_every_event_filter_with_engine")
def test_a_periodic_hook_acts_every_so_many_steps() -> None:
    """A hook may act every n steps of the run, counted across epochs."""
    acted: list[int] = []

    class Every(Periodic):
        def act(self, trainer: Trainer) -> None:
            acted.append(trainer.progress.step)

    trained(max_epochs=4, hooks=[Every("5 steps")])
    assert acted == [5, 10]


@asserted_by("Lightning test_lambda_call", "Keras test_lambda_callback")
def test_the_loops_inner_calls_can_be_replaced_by_functions() -> None:
    """A function with arguments of its own may stand for `step` in one trainer, without a subclass, and be undone."""

    def half(trainer: Any, batch: Any, factor: float) -> Any:
        loss = trainer.loss(batch) * factor
        trainer.minimize(loss)
        return {"half": loss}

    trainer = fit(log_every="1 step")
    trainer.replace("step", half, factor=0.5)
    after(1, trainer)
    assert set(trainer.metrics) == {"half", "lr"}
    trainer.replace("step")
    after(2, trainer)
    assert set(trainer.metrics) == {"loss", "lr"}


@asserted_by("Ignite test_add_event_handler_raises_with_invalid_signature", "Keras test_lambda_callback_with_kwargs")
def test_refuses_a_replacement_that_cannot_be_called() -> None:
    """A replacement whose arguments do not fit is refused when it is given, naming the argument."""
    with pytest.raises(UsageError, match="the replacement for 'step' takes no 'rate'"):
        fit().replace("step", lambda trainer, batch: {}, rate=1)


def test_refuses_to_replace_what_is_no_inner_call() -> None:
    """Replacing an event that is none of the loop's inner calls is refused with the nearest name."""
    with pytest.raises(UsageError, match="'post_epochs' cannot be replaced; did you mean 'post_epoch'"):
        fit().replace("post_epochs", lambda trainer: None)


@asserted_by("Lightning test_error_handling_all_stages")
def test_teardown_fires_also_when_the_first_event_fails() -> None:
    """`teardown` fires, once, even where `pre_training` itself raises."""
    diary = Diary("teardown", "pre_step")
    trainer = fit(hooks=[diary, At("pre_training", lambda trainer: 1 / 0)])
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    trainer.close()
    assert diary.names == ["teardown"]


def test_a_failing_observer_is_reported_and_the_run_is_the_same(capsys: Any) -> None:
    """A logger or viewer that raises is reported by name, and changes neither the run's end nor its digest."""

    class Viewer(At):
        observer = True

    trainer = fit(hooks=[Viewer("post_step", lambda *_: 1 / 0)])
    assert end(trainer) == end(fit()) and trainer.status == "finished"
    assert "Viewer.post_step failed (ZeroDivisionError" in capsys.readouterr().err


@asserted_by("Keras test_model_state_is_current_on_epoch_end")
def test_events_see_the_weights_of_their_moment() -> None:
    """`post_step` sees the weights after that step's update, and `post_epoch` those of the epoch's last."""
    seen: list[float] = []
    note = lambda trainer, *_: seen.append(trainer.model.weight.item())  # noqa: E731
    trained(max_epochs=1, hooks=[At("pre_step", note), At("post_step", note), At("post_epoch", note)])
    before, after_ = seen[:-1:2], seen[1::2]
    assert before[1:] == after_[:2] and seen[-1] == seen[-2] and len(set(after_)) == 3


@asserted_by("Lightning test_trainer_setup_call")
def test_setup_is_called_once_and_before_all_events() -> None:
    """`setup` is called once, when the trainer is made, with its settings, device and data in place."""
    seen: list[Any] = []

    class Sets(Fit):
        def setup(self) -> None:
            super().setup()
            seen.append((self.config.batch_size, self.device.type, self.feed.batches))

        def pre_training(self) -> None:
            seen.append("pre_training")

    trained(Sets, device="cpu")
    assert seen == [(4, "cpu", 3), "pre_training"]


def test_a_hook_that_is_an_attribute_takes_part() -> None:
    """A hook that is an attribute of the trainer hears everything, without being given as well."""

    class Holds(Fit):
        def setup(self) -> None:
            super().setup()
            self.diary = Diary("post_epoch")

    assert trained(Holds, max_epochs=2).diary.lines == ["post_epoch 1.3", "post_epoch 2.6"]


@asserted_by("Ignite test_remove_event_handler_on_callable_events")
def test_a_hook_may_act_once() -> None:
    """A hook that wants to act once keeps that in its own state; nothing else is called in its place."""
    diary = Diary("post_step")
    once: list[int] = []
    trained(hooks=[diary, At("post_step", lambda t, *_: once.append(t.progress.step) if t.progress.step == 3 else 0)])
    assert once == [3] and len(diary.lines) == 6


@asserted_by(
    "Lightning test_lambda_call", "Keras test_lambda_callback_with_batches", "torchtnt test_lambda_callback_train"
)
def test_a_function_may_be_set_as_an_event() -> None:
    """A function set as an event on a hook, or as one of the trainer's own in `setup` or later, is called."""
    heard: list[str] = []
    hook = Hook()
    hook.post_epoch = lambda trainer: heard.append("hook")  # type: ignore[method-assign]

    class Sets(Fit):
        def setup(self) -> None:
            super().setup()
            self.post_epoch = lambda: heard.append("trainer")  # type: ignore[method-assign]

    trainer = after(3, fit(Sets, hooks=[hook]))
    trainer.post_step = lambda batch, outputs: heard.append("step")
    after(4, trainer)
    del trainer.post_step
    trainer.train()
    assert heard == ["trainer", "hook", "step", "trainer", "hook"]


@asserted_by("Lightning test_hooks_with_different_argument_names", "Keras test_callback_methods_keys")
def test_refuses_another_trainers_event() -> None:
    """An event of Lightning's or Keras's (`on_train_epoch_end`) is refused with ours in its place, not never called."""

    class FromLightning(Hook):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None: ...

    with pytest.raises(
        UsageError, match="on_train_epoch_end is no event and is never called: did you mean 'post_epoch'"
    ):
        fit(hooks=[FromLightning()])


def test_a_hook_may_be_another_trainers_callback_too() -> None:
    """A class that is a callback of another trainer and a hook of ours keeps that one's events for itself."""

    class Callback:  # of another trainer
        def on_train_epoch_end(self, *_: Any) -> None: ...

    class Both(Hook, Callback):
        def on_train_epoch_end(self, *_: Any) -> None: ...

        def post_epoch(self, trainer: Any) -> None:
            heard.append(trainer.epoch)

    heard: list[int] = []
    trained(hooks=[Both()])
    assert heard == [1, 2]
