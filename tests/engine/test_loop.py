"""How far the loop goes: limits of epochs and sets, the least a run takes, and what is known of it beforehand."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from treadle import DatasetFeed, Hook, LearningRate, StreamFeed, TensorFeed, UsageError
from treadle.data.sampler import epoch_order
from treadle.runs.verify import verify_run
from treadle.testing import Line, check_resume, line_data

X, Y = line_data(40)
POINTS = list(zip(X, Y, strict=True))


class Places(Line):
    """A line that remembers which points it has seen, and validated."""

    def setup(self):
        super().setup()
        self.total = self.progress.total_steps
        self.seen = []
        self.validated = []

    def step(self, batch):
        self.seen.append([round(x, 3) for x in batch[0].flatten().tolist()])
        return super().step(batch)

    def validation_step(self, batch):
        self.validated.append((self.progress.step, len(batch[0])))
        return super().validation_step(batch)


class Reading:
    """A source without an end that remembers how far it was read."""

    def __init__(self):
        self.at = 0

    def __iter__(self):
        while True:
            self.at += 1
            yield POINTS[self.at % len(POINTS)]

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


FEEDS = {
    "tensors": lambda: (X, Y),
    "dataset": lambda: DatasetFeed(POINTS, 10),
    "workers": lambda: DatasetFeed(POINTS, 10, workers=1),
    "loader": lambda: DataLoader(TensorDataset(X, Y), 10, shuffle=True),
    "stream": lambda: StreamFeed(lambda epoch: iter(POINTS), 10),
    "stateful stream": lambda: StreamFeed(Reading(), 10),
    "ready": lambda: StreamFeed([(X[k::4], Y[k::4]) for k in range(4)], None),
}


# Batches of an epoch ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FEEDS)
def test_an_epoch_may_be_limited_and_resumes_exactly_so(tmp_path, kind):
    def build(**where):
        data = FEEDS[kind]()
        settings = {"limit_batches": 3, "accumulate": 2, "max_epochs": 3, "save_every": "1 step"}
        own = {"batch_size": 10} if kind == "tensors" else {}
        return Places(data=data, **settings, **own, **where)

    trainer = build()
    trainer.train()
    assert (trainer.epoch, trainer.progress.step) == (3, 9)
    assert trainer.updates() == 6, "an epoch's last window ends with its third batch"
    check_resume(build, tmp_path, stops=[4])


def test_a_limited_epoch_is_the_beginning_of_the_whole_one():
    trainer = Places(data=(X, Y), batch_size=10, limit_batches=2, max_epochs=2, seed=5)
    trainer.train()
    places = [[round(x, 3) for x in X[epoch_order(40, 5, epoch)[:20]].flatten().tolist()] for epoch in range(2)]
    assert [trainer.seen[0] + trainer.seen[1], trainer.seen[2] + trainer.seen[3]] == places


def test_a_limit_above_what_there_is_changes_nothing():
    digests = {Line(data=(X, Y), batch_size=10, max_epochs=2, limit_batches=k).train().step for k in (None, 4, 9)}
    assert digests == {8}


def test_nothing_beyond_the_limit_is_read():
    read = []

    def numbers(epoch):
        for point in POINTS:
            read.append(epoch)
            yield point

    Line(data=numbers, batch_size=10, limit_batches=2, max_epochs=2).train()
    assert read == [0] * 20 + [1] * 20


def test_limits_are_in_the_progress_and_its_schedules():
    class Scheduled(Places):
        def setup(self):
            super().setup()
            self.rate = LearningRate(self.optimizer, "linear 1 to 0")

    trainer = Scheduled(data=(X, Y), batch_size=10, limit_batches=2, max_epochs=4, validate_every="50%")
    assert (trainer.total, trainer.progress.total_steps, trainer.progress.batches_per_epoch) == (8, 8, 2)
    while trainer.progress.step < 4:
        trainer.iterate()
    assert trainer.minimizer.learning_rates()["lr"] == pytest.approx(1 - 3 / 8)


def test_another_limit_is_another_run(tmp_path):
    Line(data=(X, Y), max_epochs=1, limit_batches=1, run_dir=tmp_path / "r").train()
    with pytest.raises(UsageError, match=r"a resume cannot change limit_batches \(1 -> None\)"):
        Line(data=(X, Y), max_epochs=2, run_dir=tmp_path / "r" / "v001", resume=True)


def test_validation_and_test_have_limits_of_their_own():
    trainer = Places(
        data=(X, Y), validation_data=(X, Y), test_data=(X, Y), batch_size=10, max_epochs=1, limit_validation_batches=3
    )
    trainer.train()
    assert trainer.validated == [(4, 10)] * 3
    del trainer.validated[:]
    whole = trainer.test()
    assert len(trainer.validated) == 4
    few = Places(data=(X, Y), test_data=(X, Y), batch_size=10, max_epochs=1, limit_test_batches=1)
    few.train()
    assert few.test() != whole and len(few.validated) == 1
    assert few.test((X[:10], Y[:10])) == few.test()


def test_a_limited_validation_resumes_exactly(tmp_path):
    def build(**where):
        validation = StreamFeed(Reading(), 10)
        settings = {"limit_validation_batches": 2, "validate_every": "2 steps", "save_every": "1 step"}
        return Places(data=(X, Y), validation_data=validation, batch_size=10, max_epochs=2, **settings, **where)

    check_resume(build, tmp_path, stops=[2, 3])
    trainer = build()
    trainer.train()
    assert trainer.validate() == trainer.validation_metrics, "each validation begins the stream anew"


@pytest.mark.parametrize("name", ["limit_batches", "limit_validation_batches", "limit_test_batches"])
def test_limits_are_whole_numbers(name):
    with pytest.raises(UsageError, match=f"{name} is 0: expected at least 1, or null"):
        Line(data=(X, Y), max_epochs=1, **{name: 0})


# What is known in setup ---------------------------------------------------------------------------------------------


def test_the_length_of_the_run_is_known_in_setup():
    assert Places(data=(X, Y), batch_size=10, max_epochs=3).total == 12
    assert Places(data=DataLoader(TensorDataset(X, Y), 8), max_epochs=2).total == 10
    assert Places(data=(X, Y), batch_size=10, max_epochs=3, max_steps=7).total == 7
    assert Places(data=lambda epoch: POINTS, max_epochs=3).total is None
    assert Places(data=lambda epoch: POINTS, max_steps=3).total == 3


def test_so_it_is_where_setup_makes_the_feed():
    class Feeding(Line):
        def setup(self):
            super().setup()
            self.feed = TensorFeed((X, Y), 8)
            self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, 0.1, self.progress.total_steps)

    trainer = Feeding(max_epochs=2)
    assert trainer.schedule.total_steps == 10


# Validation within an epoch -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("every", "steps"), [("0.25 epochs", [1, 2, 3, 4, 5, 6, 7, 8]), ("0.75 epochs", [3, 6, 8])])
def test_validation_may_be_due_within_an_epoch(every, steps):
    trainer = Places(data=(X, Y), validation_data=(X[:4], Y[:4]), batch_size=10, max_epochs=2, validate_every=every)
    trainer.train()
    assert [step for step, _ in trainer.validated] == steps


def test_it_resumes_exactly_between_two_of_them(tmp_path):
    def build(**where):
        settings = {"validate_every": "0.5 epochs", "save_every": "1 step", "patience": 3}
        return Places(data=(X, Y), validation_data=(X, Y), batch_size=8, max_epochs=2, **settings, **where)

    check_resume(build, tmp_path, stops=[4, 6])


@pytest.mark.parametrize("name", ["validate_every", "save_every", "log_every", "snapshot_every"])
def test_a_part_of_an_epoch_of_unknown_length_is_refused_before_the_first_step(name):
    trainer = Line(data=lambda epoch: POINTS, validation_data=(X, Y), max_epochs=1, **{name: "0.5 epochs"})
    with pytest.raises(UsageError, match=rf"{name}: '0\.5 epochs' needs the length of an epoch"):
        trainer.train()
    assert trainer.progress.step == 0


# The least that a run takes -----------------------------------------------------------------------------------------


class Worse(Line):
    """Never improves until a step."""

    def validation_step(self, batch):
        return {"loss": 1.0 if self.progress.step != 5 else 0.5}


@pytest.mark.parametrize(("least", "ends"), [(None, 3), (2, 3), (4, 4), (6, 7), (9, 9)])
def test_patience_ends_no_run_before_min_steps(least, ends):
    settings = {"batch_size": 10, "max_steps": 12, "validate_every": "1 step", "patience": 2, "min_steps": least}
    trainer = Worse(data=(X, Y), validation_data=(X, Y), **settings)
    summary = trainer.train()
    assert summary.step == ends and summary.reason.startswith("early stopping")


def test_it_resumes_exactly_before_and_after_them(tmp_path):
    def build(**where):
        settings = {"validate_every": "1 step", "patience": 2, "min_steps": 6, "save_every": "1 step"}
        return Worse(data=(X, Y), validation_data=(X, Y), batch_size=10, max_steps=12, **settings, **where)

    check_resume(build, tmp_path, stops=[3, 5, 6])


def test_finish_waits_for_min_steps_also_over_a_resume(tmp_path):
    class Enough(Hook):
        def post_step(self, trainer, batch, outputs):
            if trainer.progress.step == 2:
                trainer.finish("enough")

    def build(**where):
        settings = {"batch_size": 10, "max_epochs": 3, "min_steps": 5, "save_every": "1 step"}
        return Line(data=(X, Y), hooks=[Enough()], **settings | where)

    summary = build().train()
    assert (summary.step, summary.status, summary.reason) == (5, "finished", "enough")
    check_resume(build, tmp_path, stops=[2, 3])
    trainer = build(run_dir=tmp_path / "kept", keep_checkpoints=9)
    trainer.train()
    trainer.close()
    assert verify_run(trainer.run.path, lambda where: build(run_dir=where.parent), 3).compared == [4, 5]


def test_a_time_limit_waits_for_min_steps():
    trainer = Line(data=(X, Y), batch_size=10, max_steps=8, max_time=1e-9, min_steps=5)
    summary = trainer.train()
    assert (summary.step, summary.status, summary.reason) == (5, "stopped", "time limit")


def test_a_person_may_stop_before_them():
    trainer = Line(data=(X, Y), batch_size=10, max_steps=8, min_steps=5)
    trainer.iterate()
    trainer.stop()
    assert trainer.train().step == 1


def test_more_steps_than_the_limits_allow_are_refused():
    trainer = Line(data=(X, Y), batch_size=10, max_epochs=1, min_steps=5)
    with pytest.raises(UsageError, match="min_steps is 5, but max_steps and max_epochs end the run after 4"):
        trainer.train()
