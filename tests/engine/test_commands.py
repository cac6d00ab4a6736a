"""The command queue: typed, range-checked, obeyed between steps, journalled with the step."""

from __future__ import annotations

import random
import threading
import time

import numpy as np
import pytest
import torch

from treadle import EMA, Hook, LearningRate, Objective, RunError, UsageError
from treadle.engine.command_queue import MOST
from treadle.engine.commands import (
    Call,
    Continue,
    Extend,
    LearningRateMultiplier,
    LossWeight,
    Pause,
    Rewind,
    RunUntil,
    Save,
    Stop,
    Validate,
)
from treadle.engine.until import Until
from treadle.runs.run import read_journal
from treadle.runs.verify import verify_run
from treadle.testing import Line, line_data


def test_a_learning_rate_multiplier_holds_over_the_schedule_and_is_journalled(line, line_class):
    class Scheduled(line_class):
        def setup(self):
            super().setup()
            self.rate = LearningRate(self.optimizer, "linear 1.0 to 0.0")

    for kind, base in [(line_class, 0.1), (Scheduled, 1.0 - 2 / 6)]:
        trainer = line(kind)
        trainer.iterate(), trainer.iterate()
        done = trainer.commands.lr_multiplier(0.5)
        trainer.iterate()
        assert done.done()
        assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * base)
        trainer.commands.lr_multiplier(1.0)
        edits = [entry for entry in trainer.journal if entry["event"] == "edit"]
        assert [(e["what"], e["step"], e["before"], e["after"]) for e in edits] == [("lr_multiplier", 2, 1.0, 0.5)]


def test_a_loss_weight_is_replaced(line, line_class):
    class Weighted(line_class):
        def setup(self):
            super().setup()
            self.objective = Objective()
            self.objective.add("fit", weight=2.0)

        def step(self, batch):
            losses = self.objective(fit=torch.nn.functional.mse_loss(self.model(batch[0]), batch[1]))
            self.minimize(losses)
            return losses

    trainer = line(Weighted, log_every="1 step")
    trainer.iterate()
    assert trainer.metrics["fit.weight"] == 2.0
    trainer.commands.loss_weight("fit", 0.25)
    trainer.iterate()
    assert trainer.metrics["fit.weight"] == 0.25
    wrong = trainer.commands.loss_weight("fitt", 1.0)
    trainer.iterate()
    assert "did you mean 'fit'" in str(wrong.exception())


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), 1e9, "2", None, True])
def test_values_are_checked_in_the_callers_thread(line, value):
    with pytest.raises(UsageError, match="learning-rate multiplier"):
        line().commands.lr_multiplier(value)


def test_anything_else_is_no_command(line):
    with pytest.raises(UsageError, match="is no command"):
        line().commands.put("stop")


def test_pause_holds_train_until_continue(line):
    trainer = line(max_epochs=100)
    trainer.commands.pause()
    thread = threading.Thread(target=trainer.train)
    thread.start()
    deadline = time.monotonic() + 60
    while not trainer.overview().paused and time.monotonic() < deadline:
        time.sleep(0.005)
    assert trainer.overview().paused and trainer.overview().step == 0
    trainer.commands.resume()
    thread.join(timeout=60)
    assert trainer.overview().step == 300
    assert [entry["event"] for entry in trainer.journal][:2] == ["pause", "continue"]


def test_a_paused_iterate_takes_no_step(line):
    trainer = line()
    trainer.iterate()
    trainer.commands.pause()
    assert not trainer.iterate() and not trainer.iterate() and trainer.paused
    trainer.commands.resume()
    assert trainer.iterate() and trainer.progress.step == 2


def test_validate_and_stop_by_command(line, line_data):
    trainer = line(validation_data=line_data, validate_every=None)
    result = trainer.commands.validate()
    trainer.commands.stop("lunch")
    assert not trainer.iterate()
    assert result.result()["loss"] > 0
    assert (trainer.status, trainer.reason) == ("stopped", "lunch")


def test_validate_without_data_and_save_without_a_run_are_refused_not_fatal(line):
    trainer = line()
    refused = [trainer.commands.validate(), trainer.commands.save()]
    assert trainer.iterate()
    assert all(isinstance(future.exception(), UsageError) for future in refused)
    assert [entry["event"] for entry in trainer.journal] == ["refused", "refused", "start"]


def test_save_writes_a_checkpoint_at_once(line, tmp_path):
    trainer = line(run_dir=tmp_path / "line")
    trainer.iterate()
    trainer.commands.save()
    trainer.iterate()
    assert (trainer.run.path / "checkpoints" / "step-00000001" / "manifest.json").is_file()
    trainer.close()


def test_commands_from_many_threads_are_all_obeyed(line):
    trainer = line(max_epochs=300)
    futures, lock = [], threading.Lock()

    def send():
        for _ in range(20):
            future = trainer.commands.lr_multiplier(0.9)
            with lock:
                futures.append(future)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    trainer.train()
    for thread in threads:
        thread.join()
    trainer.iterate()
    assert len(futures) == 80
    assert sum(entry["event"] == "edit" for entry in trainer.journal) == sum(f.done() for f in futures)


def test_an_empty_queue_costs_nothing_per_step(line):
    class Count(Hook):
        calls = 0

        def on_journal(self, trainer, entry):
            self.calls += 1

    hook = Count()
    line(hooks=[hook]).train()
    assert hook.calls == 2  # start and finish


def test_a_multiplier_keeps_what_others_do_to_the_rate_and_reaches_unscheduled_groups(line, line_class):
    class Grouped(line_class):
        def setup(self):
            super().setup()
            self.optimizer = torch.optim.SGD(
                [{"params": [self.model.weight], "name": "w"}, {"params": [self.model.bias], "name": "b"}], lr=0.4
            )
            self.rate = LearningRate(self.optimizer, 1.0, group="w")

    def rates(trainer):
        trainer.iterate()
        return [group["lr"] for group in trainer.optimizer.param_groups]

    trainer = line(Grouped, max_epochs=9)
    trainer.commands.lr_multiplier(0.5)
    assert rates(trainer) == [0.5, 0.2]
    trainer.optimizer.param_groups[1]["lr"] *= 0.5  # as a torch scheduler does
    trainer.commands.lr_multiplier(1.0)
    assert rates(trainer) == [1.0, 0.2]
    trainer.commands.lr_multiplier(0.0)
    assert rates(trainer) == [0.0, 0.0]
    trainer.commands.lr_multiplier(2.0)
    assert rates(trainer) == [2.0, 0.4]


# Going back, calling, running until --------------------------------------------------------------------------------


class Averaged:
    """What makes a `Line` one with an average and a draw in each step; mixed in."""

    def setup(self):
        super().setup()
        self.ema = EMA(self.model, decay=0.5)
        self.norm = torch.nn.BatchNorm1d(1)

    def step(self, batch):
        return super().step((self.norm(batch[0]) + 0.1 * torch.rand(()), batch[1]))


@pytest.fixture
def averaged(line, line_class):
    kind = type("AveragedLine", (Averaged, line_class), {})
    return lambda **settings: line(kind, **settings)


def test_a_rewind_by_command_happens_between_steps_and_is_journalled(line):
    expected = line()
    expected.train()
    trainer = line(snapshot_every="1 step", keep_snapshots=9)
    for _ in range(4):
        trainer.iterate()
    done = trainer.commands.rewind(1)
    assert trainer.iterate() and done.result(timeout=0) is None and trainer.progress.step == 2
    assert [(e["to"], e["restored"]) for e in trainer.journal if e["event"] == "rewind"] == [(1, 1)]
    trainer.train()
    assert trainer.digest() == expected.digest()


@pytest.mark.parametrize("step", [-1, 1.0, True, "2", None])
def test_steps_to_rewind_to_are_checked_in_the_callers_thread(line, step):
    with pytest.raises(UsageError, match="rewind: the step is"):
        line().commands.rewind(step)


def test_a_call_runs_as_a_validation_does_and_changes_nothing(averaged):
    expected, trainer = averaged(), averaged()
    expected.train()
    seen = []

    def render():
        seen.append((trainer.norm.training, torch.is_grad_enabled(), trainer.model.weight.item()))
        trainer.norm(torch.rand(8, 1)), random.random(), np.random.rand()
        return trainer.model(torch.ones(1, 1)).item()

    weights = []
    while not trainer.ended:
        answer = trainer.commands.call(render)
        trainer.iterate()
        weights.append(trainer.model.weight.item())
        assert isinstance(answer.result(timeout=0), float)
    assert [mode for mode, *_ in seen] == [False] * 6 and not any(grad for _, grad, _ in seen)
    assert not {weight for *_, weight in seen[2:]} & set(weights), "it sees averaged weights"
    assert trainer.digest() == expected.digest()
    assert [entry["event"] for entry in trainer.journal] == [entry["event"] for entry in expected.journal]


def test_a_call_that_edits_is_called_as_the_run_is_journalled_and_cannot_be_verified(line, tmp_path):
    settings = {"save_every": "1 step", "keep_checkpoints": 9}
    trainer = line(run_dir=tmp_path / "run", **settings)
    trainer.iterate(), trainer.iterate()

    def nudge():
        assert trainer.model.training and torch.is_grad_enabled()
        trainer.model.weight.data += 1.0

    trainer.commands.call(nudge, edits="weights nudged")
    trainer.train()
    (entry,) = (entry for entry in trainer.journal if entry["event"] == "edit")
    assert (entry["what"], entry["step"]) == ("call: weights nudged", 2)

    def build(path):
        return line(run_dir=path, **settings)

    with pytest.raises(RunError, match=r"edited at step 2 \(call: weights nudged\), which cannot be made again"):
        verify_run(trainer.run.path, build, 0)
    assert verify_run(trainer.run.path, build, 3).holds, "what came after it can be verified"


def test_a_call_that_fails_is_its_senders_to_know(line):
    trainer = line()
    wrong = trainer.commands.call(lambda: 1 / 0)
    assert trainer.iterate()
    assert isinstance(wrong.exception(timeout=0), ZeroDivisionError)
    assert [e["command"] for e in trainer.journal if e["event"] == "refused"] == ["Call"]
    with pytest.raises(UsageError, match="call: got a int, expected a function"):
        trainer.commands.call(3)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_must_end_the_run_from_inside_a_call_is_answered_too(line, error):
    def leave():
        raise error

    trainer = line()
    answer, other = trainer.commands.call(leave), trainer.commands.save()
    with pytest.raises(error):
        trainer.train()
    assert isinstance(answer.exception(timeout=0), error) and trainer.ended
    assert isinstance(other.exception(timeout=0), RunError)


def test_what_a_call_asks_for_waits_for_its_end(averaged):
    expected, trainer = averaged(), averaged(snapshot_every="1 step", keep_snapshots=9)
    expected.train()
    for _ in range(4):
        trainer.iterate()
    answer = trainer.commands.call(lambda: (trainer.rewind(2), trainer.progress.step)[1])
    nested = trainer.commands.call(trainer.train)
    trainer.iterate()
    assert answer.result(timeout=0) == 4 and trainer.progress.step <= 5
    assert "train() was called from inside" in str(nested.exception(timeout=0))
    trainer.train()
    assert [e["to"] for e in trainer.journal if e["event"] == "rewind"] == [2]
    assert trainer.digest() == expected.digest()


@pytest.mark.parametrize(
    ("until", "step"),
    [
        *(("step 4", 4), ("step 9", 9), ("epoch", 3), ("epoch 2", 6), ("epoch 3", 9)),
        *(("loss < 3", None), ("loss > 0", 1), ("train/mark >= 5", 5), ("validation/loss < 100", 3), ("nan", 7)),
        *(("event validate", None), ("validation/epochs >= 2", 6), ("event half", 5)),
    ],
)
def test_it_runs_until_something_is_so_and_pauses_there(line, line_class, line_data, until, step):
    class Marked(line_class):
        def step(self, batch):
            outputs = super().step(batch)
            if self.progress.step == 4:
                self.note("half")
            bad = float("nan") if self.progress.step == 6 else 0.0
            return outputs | {"mark": self.progress.step + 1, "other": bad}

        def validation_step(self, batch):
            return super().validation_step(batch) | {"epochs": float(self.epoch)}

    make = {"max_epochs": 3, "validation_data": line_data, "log_every": "1 step"}
    expected, trainer = line(Marked, **make), line(Marked, **make)
    expected.train()
    answer = trainer.commands.run_until(until)
    while trainer.iterate():
        pass
    if until.startswith("event validate"):
        assert trainer.ended and answer.result(timeout=0) == {"reached": False, "step": 9}
        return
    answer = answer.result(timeout=0)
    assert answer["reached"] and (step is None or answer["step"] == step)
    if answer["step"] == 9:
        assert trainer.ended, "the last step: the run is over"
    else:
        assert trainer.paused and trainer.progress.step == answer["step"] and trainer.reason == f"reached {until}"
        trainer.commands.resume()
        trainer.train()
    assert trainer.digest() == expected.digest()


def test_run_until_goes_on_from_a_pause_and_a_new_one_takes_the_others_place(line):
    trainer = line(max_epochs=3)
    trainer.commands.pause()
    assert not trainer.iterate()
    first, second = trainer.commands.run_until("step 2"), trainer.commands.run_until("step 3")
    while trainer.iterate():
        pass
    assert first.result(timeout=0) == {"reached": False, "step": 0}
    assert second.result(timeout=0) == {"reached": True, "step": 3} and trainer.paused
    with pytest.raises(UsageError, match="is not understood"):
        trainer.commands.run_until("stepp 3")


def test_train_sits_a_run_until_out_and_goes_on_when_told(line):
    trainer = line(max_epochs=50)
    answer = trainer.commands.run_until("step 20")
    thread = threading.Thread(target=trainer.train)
    thread.start()
    assert answer.result(timeout=60) == {"reached": True, "step": 20}
    assert trainer.overview().step == 20 and trainer.overview().paused
    trainer.commands.resume()
    thread.join(timeout=60)
    assert trainer.status == "finished"


# The queue ---------------------------------------------------------------------------------------------------------


def test_the_queue_is_bounded_and_says_so(line):
    trainer = line()
    waiting = [trainer.commands.lr_multiplier(1.0) for _ in range(MOST)]
    assert len(trainer.commands) == MOST
    with pytest.raises(UsageError, match=f"{MOST} commands wait already: wait for the answers"):
        trainer.commands.save()
    trainer.iterate()
    assert all(future.done() for future in waiting) and not trainer.commands
    trainer.commands.save()


def test_senders_without_rest_do_not_keep_a_run_from_its_steps(line, tmp_path):
    trainer = line(run_dir=tmp_path / "run")
    senders, answers = [], []

    def send():
        try:
            while True:
                answers.append(trainer.commands.save().result(timeout=60))
        except RunError:
            pass  # the run has ended

    for _ in range(16):
        senders.append(threading.Thread(target=send, daemon=True))
        senders[-1].start()
    while len(trainer.commands) < 16:
        time.sleep(0.001)
    assert trainer.train().status == "finished"
    for sender in senders:
        sender.join(timeout=60)
    assert not any(sender.is_alive() for sender in senders) and len(answers) >= 16
    written = [entry for entry in trainer.journal if entry["event"] == "checkpoint"]
    assert len(written) <= len(answers) + 2


def test_saves_without_rest_leave_the_steps_half_of_the_time(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("treadle.engine.driver.perf_counter", lambda: clock[0])

    class Slow(Line):
        def step(self, batch):
            clock[0] += 0.01
            return super().step(batch)

    def make(steps):
        trainer = Slow(data=line_data(), batch_size=10, max_steps=steps, save_every=None, run_dir=tmp_path / "run")
        save = trainer.loop.save

        def slow(**how):
            clock[0] += 0.5
            return save(**how)

        monkeypatch.setattr(trainer.loop, "save", slow)
        return trainer

    trainer = make(300)
    asked, saved = trainer.commands.save(), []
    while trainer.iterate():
        if asked.done():
            saved.append(trainer.progress.step)
            asked = trainer.commands.save()
    assert saved[:3] == [1, 2, 3], "a second of saving in any case"
    assert saved[3] > 100 and set(np.diff(saved[3:])) <= {49, 50, 51}, "then half a second for each half a second"
    assert asked.done(), "the end waits for nobody"
    trainer = make(20)
    for _ in range(9):
        trainer.commands.save()
        trainer.commands.lr_multiplier(1.0)
        trainer.iterate()
        assert not trainer.commands, "nor does whoever asks for something else"
    trainer.close()


def test_saves_that_wait_one_behind_the_other_are_one(line, tmp_path):
    trainer = line(run_dir=tmp_path / "run", save_every=None)
    trainer.iterate()
    saves = [trainer.commands.save() for _ in range(50)]
    saves[7].cancel()
    trainer.commands.lr_multiplier(1.0)
    after = trainer.commands.save()
    trainer.iterate()
    assert [future.cancelled() for future in saves].count(True) == 1
    assert all(future.done() for future in [*saves, after])
    assert len([entry for entry in trainer.journal if entry["event"] == "checkpoint"]) == 2
    trainer.close()


def test_a_cancelled_command_is_not_carried_out(line):
    trainer = line()
    assert trainer.commands.lr_multiplier(0.5).cancel()
    trainer.iterate()
    assert not [entry for entry in trainer.journal if entry["event"] == "edit"]


ENDINGS = {
    "finished": lambda trainer: trainer.train(),
    "stopped": lambda trainer: (trainer.iterate(), trainer.close()),
    "failed": lambda trainer: trainer.train(),
}
SENDS = {
    "pause": lambda commands: commands.pause(),
    "resume": lambda commands: commands.resume(),
    "stop": lambda commands: commands.stop(),
    "save": lambda commands: commands.save(),
    "validate": lambda commands: commands.validate(),
    "lr_multiplier": lambda commands: commands.lr_multiplier(0.5),
    "loss_weight": lambda commands: commands.loss_weight("fit", 1.0),
    "run_until": lambda commands: commands.run_until("step 3"),
}


@pytest.mark.parametrize("ending", sorted(ENDINGS))
def test_every_command_is_answered_also_after_the_end(line, tmp_path, ending):
    trainer = line(run_dir=tmp_path / "run", save_every="1 step", keep_checkpoints=9)
    if ending == "failed":
        trainer.replace("step", lambda trainer, batch: 1 / 0)
    try:
        ENDINGS[ending](trainer)
    except ZeroDivisionError:
        trainer.replace("step", None)
    assert trainer.status == ending
    for name, send in SENDS.items():
        with pytest.raises(RunError, match=rf"the run has ended \({ending}\): no command is obeyed any more"):
            send(trainer.commands).result(timeout=0), name
    assert trainer.commands.call(lambda: trainer.model.training).result(timeout=0) is False
    assert trainer.commands.call(lambda: 7, edits="nothing").result(timeout=0) == 7
    assert isinstance(trainer.commands.call(lambda: 1 / 0).exception(timeout=0), ZeroDivisionError)
    again = trainer.commands.call(lambda: trainer.rewind(0)).exception(timeout=0)
    assert "rewind() was called from inside a hook or a call, and the run has ended" in str(again)
    if ending == "finished":
        longer = trainer.commands.call(lambda: trainer.extend(max_epochs=9)).exception(timeout=0)
        assert "extend() was called from inside a hook or a call, and the run has ended" in str(longer)
    assert isinstance(trainer.commands.rewind(99).exception(timeout=0), UsageError)
    if ending != "failed":
        assert trainer.commands.rewind(1).result(timeout=0) is None
        assert not trainer.ended and trainer.progress.step == 1
        saved = trainer.commands.save()
        assert not saved.done() and trainer.train().status == "finished" and saved.done()


def test_what_still_waits_at_the_end_is_carried_out_or_refused(line, line_class):
    class Late(line_class):
        def post_training(self):
            self.futures = [self.commands.call(lambda: 5), self.commands.save(), self.commands.stop()]

    Late.transient = ("futures",)
    trainer = line(Late)
    trainer.train()
    call, save, stop = trainer.futures
    assert call.result(timeout=0) == 5
    assert isinstance(save.exception(timeout=0), RunError) and isinstance(stop.exception(timeout=0), RunError)


def test_after_the_end_commands_of_several_threads_do_not_wait_for_one_another(line):
    trainer, other = line(), line()
    trainer.train()
    begun = threading.Event()

    def slow():
        begun.set()
        return other.commands.lr_multiplier(1.0) is not None and trainer.commands.save().exception(timeout=60)

    with other.driver.active:  # this thread has the turn: the call waits for it
        thread = threading.Thread(target=lambda: trainer.commands.call(slow))
        thread.start()
        time.sleep(0.05)
        assert isinstance(trainer.commands.save().exception(timeout=0), RunError), "and holds no lock meanwhile"
    thread.join(timeout=60)
    assert begun.is_set() and not thread.is_alive()


# Verified ----------------------------------------------------------------------------------------------------------


def test_what_commands_changed_is_made_again_by_verify(line, line_data, tmp_path):
    settings = {"validation_data": line_data, "save_every": "1 step", "keep_checkpoints": 9, "validate_every": None}
    trainer = line(run_dir=tmp_path / "run", **settings)
    while not trainer.ended:
        if trainer.progress.step == 2:
            trainer.commands.validate()
        if trainer.progress.step == 3:
            trainer.commands.lr_multiplier(0.5)
        if trainer.progress.step == 4:
            trainer.commands.validate(), trainer.commands.save()
        trainer.iterate()
    asked = [(e["event"], e["step"]) for e in trainer.journal if e["event"] in ("validate", "edit")]
    assert asked == [("validate", 2), ("edit", 3), ("validate", 4)]
    for start in (0, 1, 3, 4):
        verdict = verify_run(trainer.run.path, lambda path: line(run_dir=path, **settings), start)
        assert verdict.holds, verdict.differences
        assert verdict.compared == list(range(start + 1, 7))


# Who asked ---------------------------------------------------------------------------------------------------------


def test_the_journal_says_who_asked_whatever_for(line, line_data, tmp_path):
    trainer = line(
        run_dir=tmp_path / "run", validation_data=line_data, validate_every=None, save_every=None, max_epochs=9
    )
    trainer.iterate(), trainer.iterate()
    for command in (
        Pause(),
        Continue(),
        Save(),
        Validate(),
        LearningRateMultiplier(0.5),
        LossWeight("none", 1.0),
        Extend(max_epochs=10),
        Call(lambda: None, edits="nothing"),
        RunUntil(Until.parse("step 4")),
        Rewind(3),
        Stop("enough"),
    ):
        trainer.commands.put(command, client="Firefox on tower")
        trainer.iterate()
    trainer.commands.stop()
    trainer.train()
    trainer.train()
    said = {}
    for entry in read_journal(trainer.run.path):
        said.setdefault(entry["event"], []).append(entry.get("client"))
    tower = "Firefox on tower"
    assert said == {
        "start": [None],
        "pause": [tower, tower],
        "continue": [tower],
        "checkpoint": [tower, tower, None],  # the second is that before the first edit
        "validate": [tower],
        "edit": [tower, tower],
        "refused": [tower],
        "extend": [tower],
        "run until": [tower],
        "rewind": [tower],
        "stop": [tower, None],
        "finish": [None],
    }


@pytest.mark.parametrize("client", ["", "x" * 101, 3, b"me"])
def test_a_client_is_a_short_label(line, client):
    with pytest.raises(UsageError, match="expected a label of 1 to 100 characters, or None"):
        line().commands.put(Pause(), client=client)


def test_what_is_asked_for_inside_a_call_has_its_client_too(line):
    trainer = line(snapshot_every="1 step", keep_snapshots=9)
    for _ in range(3):
        trainer.iterate()
    trainer.commands.put(Call(lambda: trainer.rewind(1)), client="me")
    trainer.iterate(), trainer.iterate()
    assert [entry["client"] for entry in trainer.journal if entry["event"] == "rewind"] == ["me"]


def test_a_run_that_is_paused_or_stopped_before_its_first_step_can_be_saved(line, tmp_path):
    with line(run_dir=tmp_path / "runs", validate_every="2 steps", max_steps=4) as trainer:
        trainer.commands.pause()
        assert not trainer.iterate()
        saved = trainer.save()
        trainer.commands.stop()
        trainer.train()
        assert (trainer.status, trainer.save()) == ("stopped", saved)


def test_two_that_ask_at_once_after_the_end_are_told_apart(line):
    trainer = line()
    trainer.train()
    inside, told = threading.Event(), threading.Event()

    def slow():
        inside.set()
        assert told.wait(timeout=60)

    def ask(function, client):
        trainer.commands.put(Call(function, edits=client), client=client)

    first = threading.Thread(target=ask, args=(slow, "first"))
    first.start()
    assert inside.wait(timeout=60)
    second = threading.Thread(target=ask, args=(lambda: None, "second"))
    second.start()
    told.set()
    first.join(timeout=60), second.join(timeout=60)
    trainer.note("by itself")
    assert [(entry.get("what"), entry.get("client")) for entry in trainer.journal][-3:] == [
        ("call: first", "first"),
        ("call: second", "second"),
        (None, None),
    ]


# After a failure ---------------------------------------------------------------------------------------------------


def failing(line_class, step):
    class Fails(line_class):
        fails = True

        def step(self, batch):
            if type(self).fails and self.progress.step == step:
                raise ValueError("a bad batch")
            return super().step(batch)

    return Fails


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize("thread", [False, True])
def test_the_last_state_of_a_failed_run_can_be_looked_at_and_gone_back_from_by_command(
    line, line_class, tmp_path, where, thread
):
    expected = line(max_epochs=3)
    expected.train()
    kind = failing(line_class, 5)
    kept = {"run_dir": tmp_path / "run", "save_every": "2 steps"} if where == "disk" else {"snapshot_every": "2 steps"}
    trainer = line(kind, max_epochs=3, keep_snapshots=9, **kept)
    with pytest.raises(ValueError, match="a bad batch"):
        trainer.train()
    assert trainer.status == "failed"

    def ask(make):
        answers = []
        asking = threading.Thread(target=lambda: answers.append(make()))
        asking.start()
        asking.join(timeout=60)
        return answers[0]

    ask = ask if thread else lambda make: make()
    looked = ask(lambda: trainer.commands.call(lambda: (trainer.model.training, trainer.progress.step)))
    assert looked.result(timeout=0) == (False, 5)
    assert isinstance(ask(lambda: trainer.commands.freeze("model")).exception(timeout=0), RunError)
    refused = ask(lambda: trainer.commands.set_limit("max_epochs", 9)).exception(timeout=0)
    assert "the run cannot be edited, it is failed: rewind or resume it" in str(refused)
    kind.fails = False
    assert ask(lambda: trainer.commands.rewind(4)).result(timeout=0) is None
    assert not trainer.ended and trainer.progress.step == 4
    assert trainer.train().status == "finished"
    assert trainer.digest() == expected.digest()


def test_a_failed_run_keeps_what_it_has_saved_of_the_future_it_gives_up(line, line_class, tmp_path):
    kind = failing(line_class, 5)
    trainer = line(kind, max_epochs=3, run_dir=tmp_path / "run", save_every="2 steps")
    with pytest.raises(ValueError, match="a bad batch"):
        trainer.train()
    kind.fails = False
    kept = trainer.commands.rewind(2, keep=True).result(timeout=0)
    assert kept.name == "v002" and (kept / "checkpoints" / "step-00000004").is_dir()
    assert trainer.train().status == "finished"


def test_what_was_sent_before_a_failure_does_not_undo_it(line):
    """It was meant for a run that goes on; whoever sees the failure can send it again."""
    trainer, sent = line(max_epochs=3, snapshot_every="1 step", keep_snapshots=9), []
    for _ in range(3):
        trainer.iterate()

    def fail(trainer, batch):
        sent.append(trainer.commands.rewind(1))
        raise ValueError("a bad batch")

    trainer.replace("step", fail)
    with pytest.raises(ValueError, match="a bad batch"):
        trainer.iterate()
    assert isinstance(sent[0].exception(timeout=0), RunError) and trainer.status == "failed"
    trainer.replace("step", None)
    assert trainer.commands.rewind(1).result(timeout=0) is None and trainer.train().status == "finished"
