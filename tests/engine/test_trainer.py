"""The loop: its events, its two drivers, its ends. Several tests stand for a defect reproduced in other trainers."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
import torch

from treadle import Hook, Trainer, UsageError

EPOCH = [
    ("pre_epoch", 0, 0),
    ("pre_step", 0, 0),
    ("pre_update", 0, 0),
    ("post_step", 0, 1),
    ("pre_step", 0, 1),
    ("pre_update", 0, 1),
    ("post_step", 0, 2),
    ("pre_step", 0, 2),
    ("pre_update", 0, 2),
    ("post_step", 0, 3),
    ("post_epoch", 1, 3),
]


def weights(trainer):
    return torch.cat([p.detach().flatten().clone() for p in trainer.model.parameters()])


def test_the_lifecycle_is_the_documented_one(line, line_data, diary):
    line(hooks=[diary], max_epochs=1, validation_data=line_data).train()
    assert diary.lines == [
        ("pre_training", 0, 0),
        *EPOCH,
        ("pre_validation", 1, 3),
        ("post_validation", 1, 3),
        ("post_training", 1, 3),
        ("teardown", 1, 3),
    ]


def test_iterate_fires_the_same_events_and_ends_with_the_same_weights(line, line_data, diary):
    other = type(diary)()
    one = line(hooks=[diary], validation_data=line_data, validate_every="2 steps")
    two = line(hooks=[other], validation_data=line_data, validate_every="2 steps")
    one.train()
    taken = 0
    while two.iterate():
        taken += 1
    assert taken == two.progress.step == one.progress.step == 6
    assert diary.lines == other.lines
    assert torch.equal(weights(one), weights(two))
    assert one.digest() == two.digest()


def test_each_iterate_carries_all_that_leads_to_its_step_and_follows_from_it(line, line_data, diary):
    trainer = line(hooks=[diary], max_epochs=1, validation_data=line_data)
    assert trainer.iterate()
    assert diary.lines == [("pre_training", 0, 0), *EPOCH[:4]]
    assert trainer.iterate()
    del diary.lines[:]
    assert trainer.iterate()
    assert [name for name, *_ in diary.lines] == [
        *("pre_step", "pre_update", "post_step", "post_epoch"),
        *("pre_validation", "post_validation", "post_training", "teardown"),
    ]
    assert trainer.ended and not trainer.iterate()


def test_a_second_train_does_nothing_and_fires_nothing(line, diary):
    trainer = line(hooks=[diary])
    first = trainer.train()
    before = list(diary.lines)
    second = trainer.train()
    assert diary.lines == before
    assert (first.status, first.step, second.step) == ("finished", 6, 6)


@pytest.mark.parametrize("max_epochs", [1, 3])
def test_one_batch_per_epoch_takes_every_step(line, max_epochs):
    assert line(batch_size=50, max_epochs=max_epochs).train().step == max_epochs


def test_the_ragged_last_batch_is_kept_or_dropped_when_asked(line):
    assert line(max_epochs=1).train().step == 3
    assert line(max_epochs=1, drop_last=True).train().step == 2


def test_max_steps_ends_inside_an_epoch_without_a_post_epoch(line, diary):
    summary = line(hooks=[diary], max_epochs=None, max_steps=4).train()
    assert (summary.step, summary.epoch) == (4, 1)
    assert [name for name, *_ in diary.lines].count("post_epoch") == 1
    assert [name for name, *_ in diary.lines][-2:] == ["post_training", "teardown"]


def test_the_earlier_of_two_limits_counts(line):
    assert line(max_epochs=2, max_steps=100).train().step == 6
    assert line(max_epochs=100, max_steps=5).train().step == 5


def test_the_final_state_is_validated_once(line, line_data):
    class Counting(Hook):
        steps: list[int]

        def post_validation(self, trainer, metrics):
            self.steps.append(trainer.progress.step)

    for every, expected in [("2 steps", [2, 4, 6]), ("4 steps", [4, 6]), ("1 epoch", [3, 6]), (None, [6])]:
        hook = Counting()
        hook.steps = []
        line(hooks=[hook], validation_data=line_data, validate_every=every).train()
        assert hook.steps == expected, every


def test_stop_suspends_and_train_goes_on_where_it_was(line, diary):
    class StopAtTwo(Hook):
        def post_step(self, trainer, batch, outputs):
            if trainer.progress.step == 2:
                trainer.stop("enough")

    other = type(diary)()
    trainer = line(hooks=[diary, StopAtTwo()])
    summary = trainer.train()
    assert (summary.status, summary.reason, summary.step) == ("stopped", "enough", 2)
    assert not trainer.ended and diary.lines[-1] == ("post_step", 0, 2)
    assert trainer.train().status == "finished"
    whole = line(hooks=[other])
    whole.train()
    assert diary.lines == other.lines
    assert trainer.digest() == whole.digest()


def test_a_stop_makes_iterate_return_false_once(line):
    trainer = line()
    assert trainer.iterate()
    trainer.stop()
    assert not trainer.iterate()
    assert trainer.iterate() and trainer.progress.step == 2


def test_finish_ends_the_run_with_its_final_events(line, diary):
    class Enough(Hook):
        def post_step(self, trainer, batch, outputs):
            if trainer.progress.step == 2:
                trainer.finish("good enough")

    summary = line(hooks=[diary, Enough()]).train()
    assert (summary.status, summary.reason, summary.step) == ("finished", "good enough", 2)
    assert [name for name, *_ in diary.lines][-2:] == ["post_training", "teardown"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize("event", ["pre_training", "pre_step", "post_step", "post_epoch"])
def test_an_error_fires_on_exception_then_teardown_once_each(line, diary, error, event):
    class Broken(Hook):
        pass

    def fail(self, trainer, *_):
        raise error

    setattr(Broken, event, fail)
    trainer = line(hooks=[diary, Broken()])
    with pytest.raises(type(error)):
        trainer.train()
    names = [name for name, *_ in diary.lines]
    assert names[-2:] == ["on_exception", "teardown"]
    assert names.count("on_exception") == names.count("teardown") == 1
    assert trainer.status == ("failed" if isinstance(error, ValueError) else "stopped")
    assert trainer.ended and not trainer.iterate()
    trainer.close()
    assert [name for name, *_ in diary.lines] == names


@pytest.mark.parametrize(
    ("end", "status", "told"),
    [
        (
            ValueError("no"),
            "failed",
            r"the run failed after step 1 \(ValueError: no\) and takes no further step: rewind",
        ),
        (KeyboardInterrupt(), "stopped", r"the run was ended after step 1 \(interrupted\) and takes no further step"),
        (None, "stopped", r"the run was ended after step 1 \(closed\) and takes no further step"),
    ],
)
def test_a_run_that_was_ended_says_so_to_whoever_trains_it_further(line, end, status, told):
    class Breaking(Hook):
        broken = False

        def pre_step(self, trainer, batch):
            if trainer.progress.step == 1 and not self.broken and end is not None:
                self.broken = True
                raise end

    trainer = line(hooks=[Breaking()], snapshot_every="1 step")
    trainer.iterate()
    if end is None:
        trainer.close()
    else:
        with pytest.raises(type(end)):
            trainer.train()
    with pytest.raises(UsageError, match=told) as caught:
        trainer.train()
    assert "\n" not in str(caught.value)
    assert trainer.ended and not trainer.iterate() and trainer.summary().status == status
    trainer.rewind(1)
    assert not trainer.ended and trainer.train().status == "finished"
    assert trainer.train().step == 6, "after the end there is nothing to be said"


def test_close_fires_teardown_once_and_ends_the_run(line, diary):
    with line(hooks=[diary]) as trainer:
        trainer.iterate()
    trainer.close()
    assert diary.lines[-1] == ("teardown", 0, 1)
    assert [name for name, *_ in diary.lines].count("teardown") == 1
    assert "on_exception" not in [name for name, *_ in diary.lines]
    assert not trainer.iterate()
    assert trainer.summary().status == "stopped"


def test_an_error_in_step_says_where(line, line_class):
    class Bad(line_class):
        def step(self, batch):
            if self.progress.step == 4:
                raise ValueError("bad luck")
            return super().step(batch)

    with pytest.raises(ValueError) as caught:
        line(Bad).train()
    assert "step 5 (epoch 2, batch 2)" in "".join(caught.value.__notes__)


def test_a_step_that_returns_nothing_is_one_clear_line(line, line_class):
    class Silent(line_class):
        def step(self, batch):
            super().step(batch)

    with pytest.raises(UsageError, match="step returned NoneType: return the loss, or a dict"):
        line(Silent).train()


def test_two_trainers_side_by_side_draw_what_each_would_draw_alone(line, line_class):
    class Noisy(line_class):
        def step(self, batch):
            x, y = batch
            noise = torch.rand(()) + np.random.rand() + random.random()
            loss = torch.nn.functional.mse_loss(self.model(x), y + noise)
            self.minimize(loss)
            return loss

    alone = line(Noisy, seed=1)
    alone.train()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    expected = (torch.rand(1), np.random.rand(), random.random())
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    first, second = line(Noisy, seed=1), line(Noisy, seed=2)
    while first.iterate():
        second.iterate()
    assert (torch.rand(1), np.random.rand(), random.random()) == expected
    assert torch.equal(weights(first), weights(alone))
    assert not torch.equal(weights(first), weights(second))


def test_validation_does_not_change_training(line, line_class, line_data):
    class Noisy(line_class):
        def step(self, batch):
            x, y = batch
            loss = torch.nn.functional.mse_loss(self.model(x), y + torch.rand_like(y))
            self.minimize(loss)
            return loss

        def validation_step(self, batch):
            assert not self.model.training and not torch.is_grad_enabled()
            return {"loss": torch.rand(())}

    plain = line(Noisy)
    plain.train()
    often = line(Noisy, validation_data=line_data, validate_every="1 step")
    often.train()
    assert torch.equal(weights(plain), weights(often))
    assert often.model.training


def test_metrics_of_a_ragged_set_are_weighted_by_elements(line, line_class, line_data):
    class Count(line_class):
        def validation_step(self, batch):
            return {"first": batch[0].mean(), "loss": 0.0}

    x = torch.arange(50.0)[:, None]
    trainer = line(Count, validation_data=(x, x))
    trainer.train()
    assert trainer.validation_metrics["first"] == pytest.approx(24.5)


def test_training_metrics_are_means_over_the_log_interval_across_epochs(line, line_class):
    class Steps(line_class):
        def step(self, batch):
            super().step(batch)
            return {"n": float(self.progress.step)}

    class Lines(Hook):
        def __init__(self):
            self.records = []

        def on_log(self, trainer, record):
            self.records.append((record.name, record.step, record.value["n"]))

    lines = Lines()
    line(Steps, hooks=[lines], log_every="4 steps", batch_size=25, max_epochs=3).train()
    assert lines.records == [
        ("epoch", 2, 0.5),
        ("train", 4, 1.5),
        ("epoch", 4, 2.5),
        ("epoch", 6, 4.5),
        ("train", 6, 4.5),
    ]


def test_replacements_stand_for_the_inner_calls_with_their_own_arguments(line):
    calls = []

    def start(trainer, word):
        calls.append((word, trainer.epoch))

    def step(trainer, batch, scale=1.0):
        loss = scale * (trainer.model(batch[0]) - batch[1]).abs().mean()
        trainer.minimize(loss)
        return loss

    trainer = line()
    trainer.replace("pre_epoch", start, word="go")
    trainer.replace("step", step, scale=2.0)
    trainer.replace("post_epoch", lambda trainer: calls.append(("done", trainer.epoch)))
    trainer.train()
    assert calls == [("go", 0), ("done", 1), ("go", 1), ("done", 2)]
    plain = line()
    plain.train()
    assert not torch.equal(weights(plain), weights(trainer))


def test_replacements_are_checked_when_given(line):
    trainer = line()
    with pytest.raises(UsageError, match="did you mean 'step'"):
        trainer.replace("stepp", print)
    with pytest.raises(UsageError, match="cannot be called as function\\(trainer, batch"):
        trainer.replace("step", lambda trainer: None)
    with pytest.raises(UsageError, match="nonsense"):
        trainer.replace("pre_epoch", lambda trainer: None, nonsense=1)
    trainer.replace("step", lambda trainer, batch: 1 / 0)
    trainer.replace("step")
    assert trainer.train().status == "finished"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_epoch": 3}, "did you mean 'max_epochs'"),
        ({"max_epochs": 0}, "max_epochs is 0: expected at least 1"),
        ({"max_epochs": None}, "nothing says when to end"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"validate_every": "0 steps"}, "validate_every"),
        ({"log_every": "-5 steps"}, "log_every"),
        ({"save_every": "1 fortnight"}, "save_every"),
        ({"device": "gpu"}, "device is 'gpu'"),
        ({"precision": "fp8"}, "precision is 'fp8'"),
        ({"data": None}, "nothing to train on"),
        ({"hooks": [Hook]}, "expected Hook objects"),
    ],
)
def test_bad_settings_are_one_line_that_names_them(line, settings, message):
    with pytest.raises(UsageError, match=message) as caught:
        line(**settings).train()
    assert "\n" not in str(caught.value)


def test_a_model_without_parameters_and_a_stray_optimizer_are_refused(line_data):
    class Empty(Trainer):
        def setup(self):
            self.model = torch.nn.ReLU()
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    class Stray(Trainer):
        def setup(self):
            self.model = torch.nn.Linear(1, 1)
            self.optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.1)

    with pytest.raises(UsageError, match="has the model any to train"):
        Empty(data=line_data, max_epochs=1)
    with pytest.raises(UsageError, match="'optimizer' updates no parameter"):
        Stray(data=line_data, max_epochs=1)


def test_a_snapshot_may_be_taken_from_another_thread(line):
    trainer = line(max_epochs=200)
    snapshots, done = [], threading.Event()

    def watch():
        while not done.is_set():
            snapshots.append(trainer.overview())

    watcher = threading.Thread(target=watch)
    watcher.start()
    trainer.train()
    done.set()
    watcher.join()
    for snapshot in snapshots:
        assert snapshot.step == snapshot.epoch * 3 + snapshot.batch
    assert trainer.overview().step == 600 and trainer.overview().status == "finished"


def test_nothing_is_written_without_a_run_directory(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line().train()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="run_dir"):
        line().save()
