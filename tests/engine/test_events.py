"""Hooks: order, who is called, what happens to the ones that raise, and their time."""

from __future__ import annotations

import pytest
import torch

from treadle import Hook, Order, UsageError
from treadle.engine import dispatch
from treadle.engine.dispatch import FAILURES_ALLOWED
from treadle.engine.events import EVENTS, Events


def test_hooks_run_after_the_trainer_in_their_declared_order(line, line_class):
    seen = []

    class Own(line_class):
        def post_epoch(self):
            seen.append("trainer")

    def hook(name, place):
        kind = type(name, (Hook,), {"order": place, "post_epoch": lambda self, trainer: seen.append(name)})
        return kind()

    hooks = [hook("last", Order.LAST), hook("b", Order.NORMAL), hook("first", Order.FIRST), hook("c", Order.NORMAL)]
    line(Own, hooks=hooks, max_epochs=1).train()
    assert seen == ["trainer", "first", "b", "c", "last"]


def test_only_overridden_events_are_called(line):
    class One(Hook):
        def post_step(self, trainer, batch, outputs):
            pass

    trainer = line(hooks=[One()])
    assert "post_step" in {event for event in EVENTS if trainer.loop.events.listens(event)}
    bare = line()
    heard = [{event for event in EVENTS if t.loop.events.listens(event)} for t in (trainer, bare)]
    assert heard[0] - heard[1] == {"post_step"}


def test_every_event_is_declared_on_hook_and_trainer_and_fired(line, line_data, tmp_path):
    """No event that is declared and never fired: run everything once and compare with the declared list."""
    fired = set()

    def listen(event):
        return lambda self, trainer, *_: fired.add(event)

    everything = type("Everything", (Hook,), {event: listen(event) for event in EVENTS})
    trainer = line(hooks=[everything()], validation_data=line_data, run_dir=tmp_path / "line")
    trainer.commands.change_setting("clip_norm", 1.0)
    trainer.train()

    from treadle.testing import capture, restore

    restore(trainer, capture(trainer))
    failing = line(hooks=[everything()])
    failing.replace("step", lambda trainer, batch: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        failing.train()
    assert fired == set(EVENTS)
    for event in EVENTS:
        assert getattr(Hook, event).__doc__ and getattr(Events, event).__doc__


def test_a_critical_hook_fails_the_run_and_is_named(line):
    class Broken(Hook):
        def post_step(self, trainer, batch, outputs):
            raise OSError("no space")

    with pytest.raises(OSError, match="no space") as caught:
        line(hooks=[Broken()]).train()
    assert caught.value.__notes__[0] == "in post_step of Broken, after step 1"


def test_an_observer_is_reported_counted_retried_and_switched_off(line, monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(dispatch, "perf_counter", lambda: clock[0])

    class Watcher(Hook):
        observer = True
        calls = []

        def post_step(self, trainer, batch, outputs):
            clock[0] += 0.5
            if trainer.progress.step % 2 == 0:
                pass
            self.calls.append(trainer.progress.step)
            raise RuntimeError("viewer is gone")

        def pre_step(self, trainer, batch):
            clock[0] += 0.25

    class Clock(Hook):
        def pre_step(self, trainer, batch):
            clock[0] += 0.25

    trainer = line(hooks=[Clock(), Watcher()], max_epochs=100)
    assert trainer.train().status == "finished"
    assert len(Watcher.calls) == FAILURES_ALLOWED
    gaps = [after - before for before, after in zip(Watcher.calls, Watcher.calls[1:], strict=False)]
    assert gaps == sorted(gaps) and gaps[-1] > gaps[0], "each retry waits longer"
    notes = [entry for entry in trainer.journal if entry["event"] == "observer failed"]
    assert len(notes) == FAILURES_ALLOWED
    errors = capsys.readouterr().err
    assert "viewer is gone" in errors and "switched off" in errors


def test_a_failing_observer_of_the_journal_does_not_recurse(line, capsys):
    class Journalist(Hook):
        observer = True

        def on_journal(self, trainer, entry):
            raise RuntimeError("pen is dry")

    trainer = line(hooks=[Journalist()])
    trainer.commands.lr_multiplier(0.5)
    assert trainer.train().status == "finished"


def test_interrupts_in_an_observer_are_not_swallowed(line):
    class Watcher(Hook):
        observer = True

        def post_step(self, trainer, batch, outputs):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        line(hooks=[Watcher()]).train()


def test_a_hook_is_called_with_the_kinds_of_records_it_hears(line):
    class Listening(Hook):
        def __init__(self):
            self.kinds = []

        def on_log(self, trainer, record):
            self.kinds.append(record.kind)

    class Reader(Listening):
        hears = ("text",)

    class Watcher(Listening):
        hears = ("image", "text")
        observer = True

    everything, texts, pictures = Listening(), Reader(), Watcher()
    trainer = line(hooks=[everything, texts, pictures])
    trainer.iterate()
    for hook in (everything, texts, pictures):
        hook.kinds.clear()
    trainer.log_image("noise", torch.rand(2, 2))
    trainer.log_text("note", "here")
    trainer.loop.logbook.scalars("test", {"loss": 1.0})
    assert everything.kinds == ["image", "text", "scalars"]
    assert texts.kinds == ["text"]
    assert pictures.kinds == ["image", "text"]


def test_the_time_of_each_hook_is_accounted(line, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(dispatch, "perf_counter", lambda: now[0])

    class Slow(Hook):
        def post_epoch(self, trainer):
            now[0] += 20.0

    class Quick(Hook):
        def post_epoch(self, trainer):
            now[0] += 0.5

    trainer = line(hooks=[Slow(), Quick(), Quick()])
    trainer.train()
    assert trainer.hook_seconds["Slow"] == 40.0 and trainer.hook_seconds["Quick"] == 2.0


def test_a_hook_that_is_an_attribute_is_called_too(line, line_class):
    class Counting(Hook):
        epochs = 0

        def post_epoch(self, trainer):
            self.epochs += 1

    class Own(line_class):
        def setup(self):
            super().setup()
            self.counter = Counting()

    trainer = line(Own, max_epochs=3)
    trainer.train()
    assert trainer.counter.epochs == 3


def test_a_misspelt_event_is_refused(line, line_class):
    class Misspelt(Hook):
        def post_setp(self, trainer, batch, outputs):
            pass

    class Own(line_class):
        def pre_epochs(self):
            pass

    with pytest.raises(UsageError, match=r"Misspelt\.post_setp is no event .* did you mean 'post_step'"):
        line(hooks=[Misspelt()]).train()
    with pytest.raises(UsageError, match=r"Own\.pre_epochs is no event"):
        line(Own).train()


def test_an_epoch_without_any_update_is_said(line, capsys):
    trainer = line()
    trainer.replace("step", lambda trainer, batch: {"loss": 0.0})
    trainer.train()
    assert "does step call minimize?" in capsys.readouterr().err
    assert [entry["event"] for entry in trainer.journal].count("no update") == 1
