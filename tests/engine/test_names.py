"""The author's namespace: which names are the trainer's own, and that all others are free."""

from __future__ import annotations

import pytest
import torch

from treadle import TensorFeed, Trainer, UsageError
from treadle.testing import Line, line_data

TAKEN = [
    *("best", "elements", "epoch", "log", "stop", "test", "metrics", "batch", "status", "hooks", "journal", "commands"),
    *("config", "device", "loop", "driver", "parts", "random", "train", "iterate", "save", "validate", "minimize"),
    *("note", "progress", "finish", "rewind", "close", "summary", "step", "setup", "post_step", "examples", "feeds"),
]


@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize("event", ["setup", "step"])
def test_a_name_of_the_engine_cannot_be_taken(name: str, event: str) -> None:
    class Taking(Line):
        def setup(self) -> None:
            super().setup()
            if event == "setup":
                setattr(self, name, [0.0])

        def step(self, batch):
            setattr(self, name, [0.0])
            return super().step(batch)

    with pytest.raises(UsageError, match=rf"Taking sets self\.{name}, which the trainer itself needs: choose another"):
        Taking(data=line_data(), max_steps=1).train()


@pytest.mark.parametrize("name", [*TAKEN, "feed", "run"])
def test_a_class_attribute_cannot_take_it_either(name: str) -> None:
    with pytest.raises(UsageError, match=rf"Taking\.{name} hides what the trainer itself needs: choose another name"):
        type("Taking", (Line,), {name: [0.0]})


@pytest.mark.parametrize("name", ["log", "stop", "test", "elements", "validate", "post_step", "step", "finish"])
def test_a_method_cannot_take_it_for_something_else(name: str) -> None:
    with pytest.raises(UsageError, match=rf"Taking\.{name} takes the place of the trainer's {name}\(.*choose another"):
        type("Taking", (Line,), {name: lambda: None})


def test_nor_can_a_class_beside_the_trainer() -> None:
    class Mixin:
        def log(self, message):
            print(message)

    with pytest.raises(UsageError, match=r"Taking\.log takes the place of the trainer's log\(self, name, value\)"):
        type("Taking", (Mixin, Line), {})
    assert issubclass(type("Fine", (Line, Mixin), {}), Line), "it hides nothing there"


def test_a_method_of_the_same_form_may() -> None:
    class Counting(Line):
        def log(self, name, value, unit=None):
            self.logged = name
            super().log(name, value)

        def step(self, *batches, **kwargs):
            self.log("pressure", 3.0, unit="bar")
            return super().step(*batches)

        elements = staticmethod(lambda batch: 7)

        @classmethod
        def exportable(cls, run):
            return {}

    trainer = Counting(data=line_data(), max_steps=2)
    trainer.train()
    assert trainer.logged == "pressure" and trainer.metrics["pressure"] == 3.0


def test_a_function_may_stand_for_a_method_of_the_author_in_one_trainer() -> None:
    trainer = Line(data=line_data(), batch_size=25, max_steps=2, validation_data=line_data())
    seen = []
    trainer.elements = lambda batch: seen.append(len(batch[0])) or 1
    trainer.train()
    assert seen[0] == 25


def test_the_names_that_the_engine_uses_inside_are_the_authors() -> None:
    class Own(Line):
        def setup(self):
            super().setup()
            self._counts, self._steps, self._batches, self._adopted = [1], 2, {"three": 4}, None

        def _settle(self):
            return "mine"

        def step(self, batch):
            self._steps += 1
            self._counts.append(self._settle())
            return super().step(batch)

    trainer = Own(data=line_data(), batch_size=25, max_epochs=1)
    trainer.train()
    assert vars(trainer)["_counts"] == [1, "mine", "mine"] and vars(trainer)["_steps"] == 4


def test_a_feed_is_set_as_a_feed() -> None:
    class Feeding(Line):
        def setup(self):
            super().setup()
            self.feed = line_data()

    with pytest.raises(UsageError, match=r"self\.feed is set to a tuple: expected a Feed, as .*as_feed"):
        Feeding(max_steps=1)


def test_a_feed_may_be_set_later_where_nothing_is_to_be_resumed(tmp_path) -> None:
    x, y = line_data(32)

    class Harder(Line):
        def post_epoch(self):
            if self.epoch == 1:
                self.feed = TensorFeed((x, 2 * y), 4)

    trainer = Harder(data=(x, y), batch_size=16, max_epochs=2, seed=7)
    assert trainer.train().step == 2 + 8 and trainer.feed.seed == 7
    with pytest.raises(UsageError, match=r"self\.feed is set while the run goes on, and a resume would"):
        Harder(data=(x, y), batch_size=16, max_epochs=2, run_dir=tmp_path / "r").train()


def test_what_is_set_before_the_trainer_is_made_is_looked_at_too() -> None:
    class Early(Trainer):
        def __init__(self, **given):
            self.best = 3
            super().__init__(**given)

    with pytest.raises(UsageError, match=r"sets self\.best"):
        Early(data=torch.ones(4, 1), max_steps=1)
