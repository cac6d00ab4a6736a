"""Parts: what attributes are, each once, found again when they change; without a trainer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from treadle import EMA, Hook, LearningRate, Objective, Trainer, UsageError
from treadle.engine.parts import Parts, walk


class Ear(Hook):
    pass


def things():
    model, other = nn.Linear(2, 2), nn.Linear(2, 1)
    adam = torch.optim.Adam(model.parameters())
    sgd = torch.optim.SGD(other.parameters(), lr=0.1)
    return {
        "model": model,
        "again": model,
        "pair": (other, "text"),
        "optimizers": {"first": adam, "rest": [sgd, adam]},
        "rate": LearningRate(adam, 0.1),
        "ema": EMA(model),
        "objective": Objective(),
        "ear": Ear(),
        "alone": nn.Parameter(torch.zeros(3)),
        "table": torch.arange(4.0),
        "number": 3,
        "names": ["a", "b"],
    }


def test_each_kind_is_found_by_its_dotted_name_and_each_object_once():
    have = things()
    parts = Parts(have)
    assert parts.modules == {"model": have["model"], "pair.0": have["pair"][0]}
    assert list(parts.optimizers) == ["optimizers.first", "optimizers.rest.0"]
    assert parts.rates == {"rate": have["rate"]} and parts.emas == {"ema": have["ema"]}
    assert parts.objectives == {"objective": have["objective"]} and parts.hooks == {"ear": have["ear"]}
    assert list(parts.tensors) == ["alone", "table"] and list(parts.parameters) == ["alone"]
    assert set(parts.all_parameters()) == {"alone", "model.weight", "model.bias", "pair.0.weight", "pair.0.bias"}
    assert [type(module) for module in parts.submodules()] == [nn.Linear, nn.Linear]


def test_walk_looks_into_lists_tuples_and_dicts():
    assert list(walk({"a": [1, (2,)], 3: {"b": None}}, "x")) == [("x.a.0", 1), ("x.a.1.0", 2), ("x.3.b", None)]
    assert list(walk([], "x")) == []


def test_what_comes_later_is_found_when_somebody_says_so():
    have = things()
    parts = Parts(have)
    version = parts.version
    assert not parts.changed() and not parts.refresh() and parts.version == version
    have["late"] = Ear()
    assert not parts.refresh(), "nobody has said so"
    parts.stale = True
    assert parts.refresh() and "late" in parts.hooks and parts.version == version + 1
    assert not parts.refresh()


@pytest.mark.parametrize(
    "change",
    [
        lambda have: have["optimizers"].update(first=torch.optim.SGD(have["model"].parameters(), lr=0.1)),
        lambda have: have["optimizers"]["rest"].append(Ear()),
        lambda have: have["optimizers"]["rest"].pop(),
        lambda have: have["optimizers"].pop("first"),
        lambda have: have.pop("optimizers"),
    ],
)
def test_lists_and_dicts_with_parts_are_watched(change):
    have = things()
    parts = Parts(have)
    change(have)
    assert parts.changed() and parts.refresh() and not parts.changed()
    assert parts.optimizers == Parts(have).optimizers and parts.hooks == Parts(have).hooks


def test_lists_of_plain_data_cost_nothing():
    have = things()
    parts = Parts(have)
    have["names"].append("c")
    assert [name for name, _ in parts.watched] == ["optimizers", "pair"] and not parts.changed()


def test_transient_names_are_kept_for_whoever_saves():
    parts = Parts({"model": nn.Linear(1, 1), "handle": object()}, transient=("handle",))
    assert parts.transient == ("handle",) and list(parts.modules) == ["model"]


def test_a_transient_attribute_is_a_part_and_no_state(line_data):
    class Extra(Trainer):
        transient = ("judge", "socket")

        def setup(self):
            self.model, self.judge, self.socket = nn.Linear(1, 1), nn.Linear(1, 1), object()
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

        def step(self, batch):
            self.minimize(self.model(batch[0]).square().mean())
            return {}

    trainer = Extra(data=line_data, max_epochs=1)
    assert list(trainer.parts.modules) == ["model", "judge"]
    before = trainer.digest()
    nn.init.zeros_(trainer.judge.weight)
    assert trainer.digest() == before
    nn.init.zeros_(trainer.model.weight)
    assert trainer.digest() != before


def test_attributes_set_before_init_and_late_ones_belong_to_a_trainer(line, line_class):
    class Own(line_class):
        def __init__(self, **settings):
            self.first = Ear()
            super().__init__(**settings)

    trainer = line(Own)
    trainer.second = Ear()
    assert trainer.parts.refresh()
    assert trainer.parts.hooks == {"first": trainer.first, "second": trainer.second}
    del trainer.first
    assert trainer.parts.refresh() and list(trainer.parts.hooks) == ["second"]


def test_an_optimizer_of_nothing_that_is_held_is_refused_by_name():
    have = things() | {"stray": torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)}
    with pytest.raises(UsageError, match="optimizer 'stray' updates no parameter of the trainer's modules"):
        Parts(have).check_optimizers()
