"""Driving a run: what hooks may ask for inside a step, and what is refused there; ends, and ways back from them."""

from __future__ import annotations

import threading

import pytest
import torch

from treadle import EMA, Hook, RunError, UsageError
from treadle.runs.run import read_journal, read_summary
from treadle.testing import capture, kill


class At(Hook):
    """Does something in one event, at one step, once."""

    def __init__(self, event, step, action):
        self.event, self.step, self.action = event, step, action
        self.done = False
        self.heard = []

    def _maybe(self, event, trainer):
        self.heard.append((event, trainer.progress.step))
        if not self.done and event == self.event and trainer.progress.step == self.step:
            self.done = True
            self.action(trainer)


def _relay(event):
    return lambda self, trainer, *_: self._maybe(event, trainer)


EVENTS = (
    *("pre_training", "pre_epoch", "pre_step", "pre_update", "post_step", "post_epoch", "pre_validation"),
    *("post_validation", "post_training", "teardown", "on_exception", "on_save", "on_load", "on_log", "on_journal"),
)
for _event in EVENTS:
    setattr(At, _event, _relay(_event))


def counted(hook, event):
    return sum(name == event for name, _ in hook.heard)


# Inside a hook -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["train", "iterate", "save"])
@pytest.mark.parametrize(
    ("event", "step"),
    [
        *(("pre_training", 0), ("pre_epoch", 3), ("pre_step", 2), ("pre_update", 2), ("post_step", 2), ("on_log", 2)),
        *(("post_epoch", 3), ("pre_validation", 3), ("post_validation", 3), ("post_training", 6), ("on_save", 3)),
    ],
)
def test_training_on_or_saving_from_inside_a_hook_is_refused_in_one_line(line, line_data, tmp_path, what, event, step):
    hook = At(event, step, lambda trainer: getattr(trainer, what)())
    trainer = line(hooks=[hook], validation_data=line_data, run_dir=tmp_path / "run", log_every="1 step")
    with pytest.raises(UsageError, match=rf"^{what}\(\) was called from inside a step or a hook") as caught:
        trainer.train()
    assert "\n" not in str(caught.value)
    assert trainer.status == "failed" and counted(hook, "teardown") == 1


@pytest.mark.parametrize("what", ["train", "iterate"])
@pytest.mark.parametrize(
    ("event", "trigger"),
    [
        ("post_validation", lambda trainer: trainer.validate()),
        ("pre_validation", lambda trainer: (trainer.commands.validate(), trainer.iterate())[0].result()),
        ("on_save", lambda trainer: trainer.save()),
        ("on_save", lambda trainer: (trainer.commands.save(), trainer.iterate())[0].result()),
        ("on_load", lambda trainer: trainer.rewind(2)),
    ],
)
def test_so_it_is_where_a_hook_is_called_between_two_steps(line, line_data, tmp_path, what, event, trigger):
    """A hook of a validation that somebody asked for, say: it would train on averaged weights, in eval mode."""
    hook = At(event, 2, lambda trainer: getattr(trainer, what)())
    where = (
        {"run_dir": tmp_path / "run", "save_every": "2 steps"} if event == "on_save" else {"snapshot_every": "2 steps"}
    )
    trainer = line(hooks=[], validation_data=line_data, **where)
    trainer.iterate(), trainer.iterate()
    trainer.add_hook(hook)
    with pytest.raises(UsageError, match=rf"{what}\(\) was called from inside a step or a hook"):
        trigger(trainer)
    assert hook.done and trainer.progress.step <= 3 and torch.is_grad_enabled() and trainer.model.training


@pytest.mark.parametrize("driven", ["train", "iterate"])
@pytest.mark.parametrize(("event", "step"), [("pre_step", 4), ("pre_update", 4), ("post_step", 5), ("post_epoch", 6)])
def test_a_rewind_that_a_hook_asks_for_happens_once_the_step_is_over(line, driven, event, step):
    expected = line(max_epochs=3)
    expected.train()
    seen = []
    hook = At(event, step, lambda trainer: (trainer.rewind(2), seen.append(trainer.progress.step)))
    trainer = line(hooks=[hook], snapshot_every="1 step", keep_snapshots=9, max_epochs=3)
    drive(trainer, driven)
    assert seen == [step], "not at once"
    assert [(e["to"], e["step"]) for e in trainer.journal if e["event"] == "rewind"] == [(2, 2)]
    assert trainer.status == "finished" and trainer.digest() == expected.digest()
    assert counted(hook, "teardown") == 1


def drive(trainer, how):
    if how == "train":
        trainer.train()
    else:
        while trainer.iterate():
            pass


@pytest.mark.parametrize("driven", ["train", "iterate"])
@pytest.mark.parametrize("event", ["pre_step", "post_step", "post_epoch", "post_training", "teardown"])
def test_so_it_is_in_the_last_step_and_after_it(line, driven, event):
    expected = line()
    expected.train()
    hook = At(event, 5 if event == "pre_step" else 6, lambda trainer: trainer.rewind(3))
    trainer = line(hooks=[hook], snapshot_every="1 step", keep_snapshots=9)
    drive(trainer, driven)
    assert hook.done and [e["to"] for e in trainer.journal if e["event"] == "rewind"] == [3]
    assert counted(hook, "post_step") == 9
    assert trainer.status == "finished" and trainer.digest() == expected.digest()
    assert counted(hook, "teardown") == (2 if event in ("post_training", "teardown") else 1)


@pytest.mark.parametrize("driven", ["train", "iterate"])
@pytest.mark.parametrize("step", [2, 6])
def test_a_hook_may_close_the_run_also_in_the_last_step(line, driven, step):
    hook = At("post_step", step, lambda trainer: trainer.close())
    trainer = line(hooks=[hook])
    drive(trainer, driven)
    assert trainer.ended and (trainer.status, trainer.progress.step) == ("stopped", step)
    assert counted(hook, "teardown") == 1 and counted(hook, "post_step") == step
    assert not trainer.iterate()


@pytest.mark.parametrize("driven", ["train", "iterate"])
def test_a_hook_may_stop_the_run_and_in_the_last_step_it_ends_anyway(line, driven):
    hook = At("post_step", 2, lambda trainer: trainer.stop("enough for now"))
    trainer = line(hooks=[hook])
    drive(trainer, driven)
    assert (trainer.status, trainer.reason, trainer.progress.step) == ("stopped", "enough for now", 2)
    assert not trainer.ended and counted(hook, "teardown") == 0
    drive(trainer, driven)
    assert trainer.status == "finished"
    last = line(hooks=[At("post_step", 6, lambda trainer: trainer.stop("too late"))])
    drive(last, driven)
    assert (last.status, last.progress.step) == ("finished", 6)


def test_finish_ends_the_run_as_finished_after_the_step(line):
    hook = At("post_step", 2, lambda trainer: trainer.finish("good enough"))
    trainer = line(hooks=[hook])
    summary = trainer.train()
    assert (summary.status, summary.reason, summary.step) == ("finished", "good enough", 2)
    assert counted(hook, "post_training") == counted(hook, "teardown") == 1


def test_a_rewind_to_where_it_was_finished_early_lets_it_go_on(line):
    trainer = line(hooks=[At("post_step", 2, lambda trainer: trainer.finish("enough"))], snapshot_every="1 step")
    trainer.train()
    assert (trainer.status, trainer.progress.step) == ("finished", 2)
    trainer.rewind(2)
    trainer.train()
    assert (trainer.status, trainer.reason, trainer.progress.step) == ("finished", "", 6)


# Evaluating and calling --------------------------------------------------------------------------------------------


def test_within_evaluating_nothing_can_change_the_run(line, line_class):
    class Averaged(line_class):
        def setup(self):
            super().setup()
            self.ema = EMA(self.model, decay=0.5)

    trainer = line(Averaged, snapshot_every="1 step", keep_snapshots=9)
    for _ in range(3):
        trainer.iterate()
    digests = {3: trainer.digest()}
    with trainer.evaluating():
        averaged = trainer.model.weight.item()
        trainer.rewind(1)
        for what in (trainer.train, trainer.iterate):
            with pytest.raises(UsageError, match="inside a step or a hook"):
                what()
        assert trainer.progress.step == 3 and trainer.model.weight.item() == averaged
    assert trainer.model.weight.item() != averaged and trainer.digest() == digests[3]
    trainer.iterate()  # carries out the rewind, and takes a step
    assert trainer.progress.step == 2
    whole = line(Averaged)
    whole.train(), trainer.train()
    assert whole.digest() == trainer.digest()


# Ends, and back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["method", "command"])
@pytest.mark.parametrize("end", ["finished", "stopped", "failed"])
def test_a_rewind_after_the_end_opens_the_run_again(line, tmp_path, end, way):
    expected = line(run_dir=tmp_path / "whole", save_every="1 step")
    expected.train()
    hook = At("pre_step", 4, lambda trainer: 1 / 0 if end == "failed" else None)
    trainer = line(hooks=[hook], run_dir=tmp_path / "run", save_every="1 step", log_every="1 step", keep_checkpoints=9)
    if end == "failed":
        with pytest.raises(ZeroDivisionError):
            trainer.train()
    else:
        while trainer.iterate() and (end == "finished" or trainer.progress.step < 5):
            pass
        trainer.close()
    assert trainer.status == end and trainer.ended
    assert read_summary(trainer.run.path)["status"] == end
    if way == "method":
        trainer.rewind(3)
    else:
        assert trainer.commands.rewind(3).result(timeout=0) is None
    assert not trainer.ended and trainer.status == "running" and trainer.progress.step == 3
    with pytest.raises(UsageError, match=r"another process|is being|already"):
        line(run_dir=trainer.run.path, resume=True, save_every="1 step", log_every="1 step", keep_checkpoints=9)
    trainer.train()
    assert trainer.status == "finished" and torch.equal(trainer.model.weight, expected.model.weight)
    assert counted(hook, "teardown") == 2
    events = [entry["event"] for entry in read_journal(trainer.run.path)]
    assert events.count("rewind") == 1 and events[-1] == "finish"
    assert read_summary(trainer.run.path)["status"] == "finished"


def test_a_rewind_keeps_a_paused_run_paused(line):
    trainer = line(snapshot_every="1 step", keep_snapshots=9)
    for _ in range(4):
        trainer.iterate()
    trainer.commands.pause()
    trainer.commands.rewind(2)
    assert not trainer.iterate() and trainer.paused and trainer.progress.step == 2
    trainer.commands.resume()
    assert trainer.iterate() and trainer.progress.step == 3


def test_a_rewind_to_nowhere_is_refused_and_ends_no_run(line):
    trainer = line()
    trainer.iterate(), trainer.iterate()
    nowhere, future = trainer.commands.rewind(1), trainer.commands.rewind(5)
    assert trainer.iterate()
    assert isinstance(nowhere.exception(), RunError) and "set snapshot_every" in str(nowhere.exception())
    assert isinstance(future.exception(), UsageError)
    assert trainer.train().status == "finished"
    refused = [entry["command"] for entry in trainer.journal if entry["event"] == "refused"]
    assert refused == ["Rewind", "Rewind"]


def test_closing_is_for_good_also_where_a_rewind_waits(line):
    trainer = line(snapshot_every="1 step", keep_snapshots=9)
    for _ in range(4):
        trainer.iterate()
    waiting = trainer.commands.rewind(2)
    trainer.close()
    assert trainer.ended and trainer.progress.step == 4
    with pytest.raises(RunError, match=r"the run has ended \(stopped\): no command is obeyed any more"):
        waiting.result(timeout=0)
    trainer.rewind(2)
    assert not trainer.ended and trainer.progress.step == 2


def test_an_error_in_teardown_still_lets_the_run_go(line, tmp_path):
    trainer = line(hooks=[At("teardown", 6, lambda trainer: 1 / 0)], run_dir=tmp_path / "run")
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert trainer.ended
    line(run_dir=trainer.run.path, resume=True).close()


def test_an_abandoned_run_is_as_killed_and_can_be_resumed(line, tmp_path, diary):
    trainer = line(run_dir=tmp_path / "run", save_every="1 step", hooks=[diary])
    for _ in range(4):
        trainer.iterate()
    waiting = trainer.commands.save()
    kill(trainer)
    assert isinstance(waiting.exception(timeout=0), RunError)
    assert "teardown" not in [name for name, *_ in diary.lines] and not trainer.iterate()
    whole = line(run_dir=tmp_path / "whole", save_every="1 step")
    assert whole.train().digest == line(run_dir=trainer.run.path, resume=True, save_every="1 step").train().digest


def test_another_thread_may_close_rewind_and_stop_a_run_that_trains(line):
    trainer = line(max_epochs=10_000, snapshot_every="1 step", keep_snapshots=4)
    thread = threading.Thread(target=trainer.train)
    thread.start()
    try:
        while trainer.overview().step < 5:
            threading.Event().wait(0.002)
        before = trainer.overview().step
        trainer.commands.rewind(before).result(timeout=60)
        trainer.close()
    finally:
        thread.join(timeout=60)
    assert not thread.is_alive() and trainer.ended and trainer.status == "stopped"


# Bad steps at an epoch's border ------------------------------------------------------------------------------------


@pytest.mark.parametrize("driven", ["train", "iterate"])
@pytest.mark.parametrize("bad", [2, 5])
def test_a_rollback_over_the_last_batch_of_an_epoch_or_of_the_run_goes_on(line, line_class, driven, bad):
    class Poisoned(line_class):
        def step(self, batch):
            loss = torch.nn.functional.mse_loss(self.model(batch[0]), batch[1])
            self.minimize(loss * (float("nan") if self.progress.step == bad else 1.0))
            return loss

    trainer = line(Poisoned, on_bad_step="rollback", snapshot_every="1 step")
    drive(trainer, driven)
    assert trainer.status == "finished" and trainer.progress.step == 6 and trainer.updates() == 5
    assert capture(trainer).values["progress"] == {"epoch": 2, "step": 6, "batch": 0}


def test_a_run_that_was_stopped_before_its_first_step_can_be_saved(line, line_data, tmp_path):
    trainer = line(run_dir=tmp_path / "r", validation_data=line_data, patience=9)
    trainer.stop()
    assert trainer.train().step == 0
    assert trainer.train().status == "finished"
