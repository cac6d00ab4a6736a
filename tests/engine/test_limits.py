"""Going on after the end, in one program: `extend` raises the limits of a run that is there."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from treadle import EMA, Hook, LearningRate, StreamFeed, Trainer, UsageError
from treadle.runs.verify import verify_run
from treadle.testing import Line, capture, kill, line_data

X, Y = line_data(40)


class Rich(Trainer):
    """Momentum, dropout, an average: whatever is drawn or counted otherwise shows."""

    def setup(self):
        self.model = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.3), nn.BatchNorm1d(8), nn.Linear(8, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.rate = LearningRate(self.optimizer, "linear 1e-3 to 1e-2 over 4 steps")
        self.average = EMA(self.model, decay=0.8)

    def step(self, batch):
        loss = nn.functional.mse_loss(self.model(batch[0]), batch[1])
        self.minimize(loss)
        return {"loss": loss}

    def validation_step(self, batch):
        return {"loss": nn.functional.mse_loss(self.model(batch[0]), batch[1])}


class Scheduled(Rich):
    """Its learning rate ends with the run."""

    def setup(self):
        super().setup()
        self.rate = LearningRate(self.optimizer, "linear 1e-2 to 0")


def rich(kind=Rich, **settings):
    return kind(**{"data": (X, Y), "validation_data": (X, Y), "batch_size": 10, "seed": 4} | settings)


def tensors(trainer):
    return capture(trainer).tensors


def equal(one, other):
    mine, theirs = tensors(one), tensors(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"max_epochs": 2}, {"max_epochs": 4}),
        ({"max_steps": 6}, {"max_steps": 13}),
        ({"max_steps": 6, "max_epochs": 3}, {"max_steps": 20}),
        ({"max_epochs": 2, "accumulate": 3}, {"max_epochs": 4}),
        ({"max_steps": 6, "accumulate": 2}, {"max_steps": 11}),
        ({"max_epochs": 2, "batch_size": 16, "drop_last": True, "limit_batches": 2}, {"max_epochs": 3}),
    ],
    ids=["epochs", "steps", "both", "accumulated epochs", "accumulated steps", "limited"],
)
@pytest.mark.parametrize("driven", ["train", "iterate"])
def test_it_goes_on_as_if_it_had_been_planned_so(first, then, driven):
    planned = rich(**first | then)
    planned.train()
    extended = rich(**first)
    extended.train()
    former = extended.progress.step
    extended.extend(**then)
    assert (extended.status, extended.ended) == ("running", False) and extended.progress.step == former
    if driven == "train":
        summary = extended.train()
    else:
        while extended.iterate():
            pass
        summary = extended.summary()
    assert (summary.status, summary.step) == ("finished", planned.progress.step)
    assert equal(extended, planned)
    assert {name: getattr(extended.config, name) for name in then} == then
    entry = next(entry for entry in extended.journal if entry["event"] == "extend")
    assert entry["step"] == former and entry["changed"] == {name: [first[name], then[name]] for name in then}


def test_a_stream_goes_on_too():
    def stream():
        return StreamFeed(lambda epoch: zip(X, Y, strict=True), 10)

    planned = rich(data=stream(), max_steps=11)
    planned.train()
    extended = rich(data=stream(), max_steps=6)
    extended.train()
    extended.extend(max_steps=11)
    extended.train()
    assert equal(extended, planned)


def test_what_depended_on_the_former_limit_is_another_run():
    """As docs/exactness.md says: a schedule that runs to the end, and an accumulation that the end cut short."""
    for settings in ({"kind": Scheduled}, {"accumulate": 4}):
        planned = rich(max_steps=12, **settings)
        planned.train()
        extended = rich(max_steps=6, **settings)
        extended.train()
        extended.extend(max_steps=12)
        extended.train()
        assert not equal(extended, planned)
    assert (planned.updates(), extended.updates()) == (3, 4), "the second window was closed after two of four"


def test_it_goes_on_as_a_resume_with_the_same_limits(tmp_path):
    """Whatever schedules and windows there are; and so it does when it is killed on the way, and resumed."""
    settings = {"kind": Scheduled, "accumulate": 3, "save_every": "2 steps", "log_every": "1 step"}
    one = rich(max_steps=7, run_dir=tmp_path / "one", **settings)
    one.train()
    one.extend(max_steps=15)
    whole = one.train()
    rich(max_steps=7, run_dir=tmp_path / "two", **settings).train()
    resumed = rich(max_steps=15, run_dir=tmp_path / "two" / "v001", resume=True, **settings)
    assert resumed.train().digest == whole.digest
    for name, steps in (("three", 2), ("four", 0)):
        third = rich(max_steps=7, run_dir=tmp_path / name, **settings)
        third.train()
        third.extend(max_steps=15)
        for _ in range(steps):
            third.iterate()
        kill(third)
        again = rich(max_steps=15, run_dir=tmp_path / name / "v001", resume=True, **settings)
        assert again.train().digest == whole.digest
    lines = [(tmp_path / name / "v001" / "metrics.jsonl").read_text() for name in ("one", "two", "three", "four")]
    records = [[{**json.loads(line), "time": 0} for line in text.splitlines()] for text in lines]
    assert all(each == records[0] for each in records)


def test_a_run_on_disk_says_so(tmp_path):
    path = tmp_path / "r" / "v001"
    trainer = rich(max_epochs=2, run_dir=tmp_path / "r")
    trainer.train()
    assert json.loads((path / "summary.json").read_text())["status"] == "finished"
    trainer.extend(max_epochs=3)
    assert not (path / "summary.json").exists() and "max_epochs: 3" in (path / "config.yaml").read_text()
    with pytest.raises(UsageError, match="is being trained by process"):
        rich(max_epochs=3, run_dir=path, resume=True)  # it has the run again
    trainer.train()
    summary = json.loads((path / "summary.json").read_text())
    assert (summary["status"], summary["epoch"]) == ("finished", 3)
    trainer.close()
    verdict = verify_run(path, lambda where: rich(max_epochs=3, run_dir=where.parent))
    assert verdict.holds and verdict.compared
    finished = rich(max_epochs=3, run_dir=path, resume=True)
    assert finished.ended
    finished.extend(max_epochs=4)
    assert finished.train().epoch == 4


def test_after_patience_was_at_an_end_it_goes_on_also_over_a_kill(tmp_path):
    class Worse(Rich):
        def validation_step(self, batch):
            return {"loss": float(self.progress.epoch)}

    def build(**where):
        return rich(kind=Worse, max_epochs=20, patience=2, save_every="3 epochs", **where)

    trainer = build(run_dir=tmp_path / "r")
    assert trainer.train().epoch == 3
    trainer.extend(max_epochs=20)
    trainer.iterate()
    kill(trainer)
    again = build(run_dir=tmp_path / "r" / "v001", resume=True)
    assert again.train().epoch == 4, "one more validation without improvement"


@pytest.mark.parametrize("event", ["post_step", "post_epoch", "post_validation", "post_training", "teardown"])
def test_a_hook_may_ask_for_more_in_the_last_step(event):
    class More(Hook):
        asked = False

    def ask(self, trainer, *_):
        if not self.asked and trainer.progress.step == 8:
            self.asked = True
            trainer.extend(max_epochs=3)

    setattr(More, event, ask)
    trainer = rich(max_epochs=2, hooks=[More()])
    summary = trainer.train()
    planned = rich(max_epochs=3)
    planned.train()
    assert (summary.status, summary.epoch) == ("finished", 3) and equal(trainer, planned)


def test_an_observer_may_not():
    class Watching(Hook):
        observer = True

        def post_epoch(self, trainer):
            trainer.extend(max_epochs=5)

    trainer = rich(max_epochs=2, hooks=[Watching()])
    assert trainer.train().epoch == 2
    assert "observer failed" in [entry["event"] for entry in trainer.journal]


def test_another_thread_may_ask_by_command():
    trainer = rich(max_epochs=2)
    trainer.train()
    trainer.commands.extend(max_epochs=3).result(60)
    assert trainer.train().epoch == 3
    refused = trainer.commands.extend(max_epochs=2)
    assert isinstance(refused.exception(5), UsageError)


def test_before_the_end_it_raises_the_limit_and_nothing_else():
    trainer, planned = rich(max_epochs=2), rich(max_epochs=3)
    trainer.iterate()
    trainer.extend(max_epochs=3)
    assert trainer.progress.total_steps == 12
    trainer.train()
    planned.train()
    assert equal(trainer, planned)


def test_the_last_events_fire_again_at_the_new_end(diary):
    trainer = rich(max_epochs=1, hooks=[diary])
    trainer.train()
    trainer.extend(max_epochs=2)
    trainer.train()
    names = [name for name, *_ in diary.lines]
    assert names.count("pre_training") == 1 and names.count("pre_epoch") == 2
    assert names.count("post_training") == names.count("teardown") == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no limit: say extend"),
        ({"max_epochs": 1}, "max_epochs is 2 already, and 1 would be less"),
        ({"max_epochs": 2}, r"after 2 epochs and 8 steps the run is still at its end with max_epochs=2: raise"),
        ({"max_epochs": 2.5}, r"max_epochs is 2\.5, expected a whole number"),
        ({"max_epochs": True}, "max_epochs is True"),
        ({"max_steps": 100}, "the run has no max_steps"),
    ],
)
def test_what_is_no_higher_limit_is_refused_and_changes_nothing(given, message):
    trainer = rich(max_epochs=2)
    trainer.train()
    with pytest.raises(UsageError, match=message):
        trainer.extend(**given)
    assert trainer.ended and trainer.config.max_epochs == 2 and trainer.train().step == 8


def test_only_a_run_that_can_go_on_is_extended(tmp_path):
    trainer = rich(max_epochs=1)
    with pytest.raises(UsageError, match="has not begun: give its limits when the trainer is made"):
        trainer.extend(max_epochs=2)
    trainer.iterate()
    trainer.close()
    with pytest.raises(UsageError, match="it is stopped: rewind or resume it"):
        trainer.extend(max_epochs=2)

    class Failing(Line):
        def step(self, batch):
            raise ValueError("no")

    failed = Failing(data=(X, Y), max_epochs=1)
    with pytest.raises(ValueError, match="no"):
        failed.train()
    with pytest.raises(UsageError, match="it is failed: rewind or resume it"):
        failed.extend(max_epochs=2)
