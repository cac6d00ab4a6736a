"""Exact states of loops without a trainer: captured anywhere, restored into objects made anew, they go on alike."""

from __future__ import annotations

import enum
import random
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import treadle
from treadle import (
    EMA,
    Checkpoints,
    DatasetFeed,
    LearningRate,
    Objective,
    Progress,
    RowEdit,
    StateError,
    StreamFeed,
    TensorFeed,
    Trainer,
)
from treadle.engine.bad_steps import SpikeDetector
from treadle.errors import DataChanged

X = torch.linspace(-1, 1, 40)[:, None]


class Noisy:
    """Samples that are drawn anew each time."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([index / 20 + random.random()]) + 0.1 * torch.randn(1)


class Counted:
    """A stream that remembers where it is."""

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        while self.at < 20:
            self.at += 1
            yield torch.tensor([self.at / 20 + random.random()])
        self.at = 0

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


def feeds() -> dict[str, Any]:
    return {
        "tensors": lambda: TensorFeed(X[:20].clone(), 3, seed=4),
        "dataset": lambda: DatasetFeed(Noisy(), 3, seed=4),
        "stream": lambda: StreamFeed(lambda epoch: (torch.rand(1) for _ in range(20)), 3, seed=4),
        "stream with state": lambda: StreamFeed(Counted(), 3, seed=4),
        "loader": lambda: treadle.data.as_feed(DataLoader(Noisy(), 3, shuffle=True), seed=4),
    }


class Mode(enum.Enum):
    """Plain data of a program's own."""

    COARSE = 1
    FINE = 2


class Loop:
    """A loop of somebody's own, with a bit of everything that has state; three epochs of seven batches."""

    def __init__(self, feed: str = "tensors") -> None:
        torch.manual_seed(0), np.random.seed(0), random.seed(0)
        self.model = nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.rows = nn.Parameter(torch.rand(4, 2))
        self.use = torch.zeros(4)
        groups = [{"params": self.model[0].parameters(), "lr": 0.02}, {"params": self.model[1:].parameters()}]
        self.optimizers = [torch.optim.AdamW(groups, lr=0.01), torch.optim.SGD([self.rows], lr=0.1, momentum=0.9)]
        self.scheduler = torch.optim.lr_scheduler.MultiStepLR(self.optimizers[0], [2, 2, 9], 0.7)
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimizers[1], patience=1)
        self.ema, self.objective = EMA(self.model, 0.9), Objective()
        self.objective.add("fit", weight="linear 1 to 2 over 10 steps")
        self.objective.add("rows")
        self.progress, self.feed = Progress(), feeds()[feed]()
        self.objective.bind(self.progress)
        self.noise, self.spikes = torch.Generator().manual_seed(3), SpikeDetector(50)
        self.own, self.numpy = random.Random(1), np.random.default_rng(2)
        self.losses: list[float] = []
        self.seen: dict[str, Any] = {"best": None, "table": {1: "one"}, "mean": np.zeros(2)}
        self.objects = dict(vars(self))

    def step(self, batch: torch.Tensor) -> None:
        noise = 0.1 * torch.randn(len(batch), 1, generator=self.noise) + random.random() + np.random.rand()
        fit = (self.model(batch) - noise - self.own.random() - self.numpy.random()).square().mean()
        losses = self.objective(fit=fit, rows=(self.rows - torch.rand(2)).square().mean())
        losses.total.backward()
        self.spikes.check(float(fit.detach()))
        if self.progress.step % 2:  # one update gathers two batches
            for optimizer in self.optimizers:
                optimizer.step(), optimizer.zero_grad()
            self.scheduler.step(), self.plateau.step(float(fit.detach())), self.ema.update()
        if self.progress.step % 4 == 3:
            with RowEdit({"rows": self.rows, "use": self.use}, self.optimizers) as edit:
                edit.append({"rows": torch.rand(1, 2), "use": torch.ones(1)})
        self.losses.append(float(fit.detach()))
        self.seen["best"] = min(self.losses)
        self.seen["mean"] += self.losses[-1]
        self.seen["table"][self.progress.step] = "seen"

    def run(self, stop: int | None = None) -> Loop:
        while self.progress.epoch < 3:
            for batch in self.feed.epoch(self.progress.epoch, self.progress.batch):
                if self.progress.step == stop:
                    return self
                self.step(batch)
                self.progress.count_step()
                if self.progress.step == stop:  # before the feed is asked for more
                    return self
            self.progress.count_epoch()
        return self

    def capture(self) -> treadle.State:
        return treadle.capture(self.objects, random=True)


@pytest.mark.parametrize("feed", feeds())
@pytest.mark.parametrize("stop", [3, 7, 12])
def test_a_loop_goes_on_from_any_step_to_the_same_digest(feed: str, stop: int, tmp_path: Path) -> None:
    whole = Loop(feed).run().capture()
    part = Loop(feed).run(stop)
    Checkpoints(tmp_path / "here").save(part.capture(), stop)
    state = Checkpoints(tmp_path / "here").newest()
    assert state is not None and state.step == stop and state.digest == part.capture().digest
    resumed = Loop(feed)
    kept = resumed.losses, resumed.seen, resumed.seen["mean"], resumed.rows, resumed.use
    torch.rand(3), random.random(), np.random.randn()
    assert treadle.restore(resumed.objects, state) is resumed.objects
    assert resumed.capture().digest == state.digest
    assert kept[0] is resumed.losses == part.losses and kept[1] is resumed.seen == resumed.objects["seen"]
    assert kept[2] is resumed.seen["mean"] and kept[3] is resumed.rows and kept[4] is resumed.use
    assert resumed.run().capture().digest == whole.digest


def test_a_state_in_memory_is_gone_back_to_as_often_as_one_likes() -> None:
    loop = Loop().run(9)
    state = loop.capture().copy()
    ends = set()
    for _ in range(3):
        ends.add(loop.run().capture().digest)
        treadle.restore(loop.objects, state)
        assert loop.capture().digest == state.digest
    assert len(ends) == 1 and state.digest not in ends


def test_gradients_under_way_belong_to_it_and_no_others_stay() -> None:
    model = nn.Linear(2, 1)
    model(torch.ones(1, 2)).sum().backward()
    state = treadle.capture({"model": model}).copy()
    other = nn.Linear(2, 1)
    treadle.restore({"model": other}, state)
    assert torch.equal(other.weight.grad, torch.ones(1, 2)) and other.weight.grad is not model.weight.grad
    model.zero_grad()
    without = treadle.capture({"model": model})
    assert without.digest != state.digest
    treadle.restore({"model": other}, without)
    assert other.weight.grad is None


def test_numbers_and_text_are_replaced_containers_refilled() -> None:
    objects: dict[str, Any] = {"step": 3, "name": "a", "log": [1, [2.5]], "last": deque([1, 2], 2), "n": Counter("aab")}
    state = treadle.capture(objects)
    objects |= {"mode": Mode.FINE, "dtype": torch.float64}
    state = treadle.capture({**objects, "directory": Path("there"), "device": torch.device("meta")})
    inner, last = [0], deque([9], 2)
    here: dict[str, Any] = {"step": 0, "name": "", "log": [7, inner, 8], "last": last, "n": Counter()}
    here |= {"mode": Mode.COARSE, "dtype": torch.float32}
    place, log = {"directory": Path("here"), "device": torch.device("cpu")}, here["log"]
    assert treadle.restore(here | place, state) == objects | place, "where a program runs is no state"
    treadle.restore(here, state)
    assert here == objects and log == [1, [2.5]] and here["log"] is log and log[1] is inner
    assert here["last"] is last and type(here["n"]) is Counter
    assert treadle.restore({**here, "step": 0}, state)["step"] == 3


def test_parts_in_containers_have_dotted_names() -> None:
    nets = {"a": nn.Linear(1, 1), "b": [nn.Linear(1, 1), 5]}
    state = treadle.capture({"nets": nets}).copy()
    other = {"a": nn.Linear(1, 1), "b": [nn.Linear(1, 1), 0]}
    treadle.restore({"nets": other}, state)
    assert set(state.values["attributes"]) == {"nets.a", "nets.b.0", "nets.b.1"}
    assert torch.equal(other["b"][0].weight, nets["b"][0].weight) and other["b"][1] == 5
    pair = {"pair": (nn.Linear(1, 1), 4)}
    with pytest.raises(StateError, match=r"'pair.1' is in a tuple, which cannot be changed: put it into a list"):
        treadle.restore(pair, treadle.capture({"pair": (nn.Linear(1, 1), 5)}))
    treadle.restore(pair, treadle.capture(pair))


class Wrapper:
    """An optimizer around another, as Lightning hands them out: it looks like one, and has a state of its own."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.__class__ = type("Wrapped", (Wrapper, type(optimizer)), {})

    def __getattr__(self, name: str) -> Any:
        return getattr(self.optimizer, name)


def test_the_optimizer_inside_a_wrapper_is_what_is_restored() -> None:
    def made() -> dict[str, Any]:
        model = nn.Linear(2, 1)
        return {"model": model, "optimizer": Wrapper(torch.optim.Adam(model.parameters(), lr=0.1))}

    objects, other = made(), made()
    objects["model"](torch.ones(1, 2)).sum().backward()
    objects["optimizer"].optimizer.step()
    state = treadle.capture(objects)
    treadle.restore(other, state)
    assert len(other["optimizer"].optimizer.state) == 2
    assert treadle.capture(other).digest == state.digest


class Library(dict[str, Any]):
    """A dict of a library's own, as Lightning keeps in its modules."""


def test_what_a_module_keeps_in_attributes_comes_back_but_for_what_is_its_librarys() -> None:
    def made(calls: int, settings: Any, owner: Any) -> nn.Module:
        model = nn.Linear(1, 1)
        model.calls, model.settings, model.owner, model.sums = calls, settings, owner, torch.full((2,), float(calls))
        return model

    state = treadle.capture({"model": made(7, Library(a=1), None)})
    owner = object()
    other = made(0, mine := Library(b=2), owner)
    treadle.restore({"model": other}, state)
    assert other.calls == 7 and other.sums.tolist() == [7, 7]
    assert other.settings is mine == {"b": 2} and other.owner is owner


def test_groups_that_were_added_late_come_back() -> None:
    def made() -> dict[str, Any]:
        model, head = nn.Linear(2, 2), nn.Parameter(torch.rand(2))
        return {"optimizer": torch.optim.Adam(model.parameters(), lr=0.1), "model": model, "head": head}

    def train(objects: dict[str, Any]) -> treadle.State:
        (objects["model"](torch.ones(1, 2)) * objects["head"]).sum().backward()
        objects["optimizer"].step(), objects["optimizer"].zero_grad()
        return treadle.capture(objects).copy()

    objects, other = made(), made()
    train(objects)
    objects["optimizer"].add_param_group({"params": [objects["head"]], "lr": 0.5})
    state = train(objects)
    treadle.restore(other, state)
    groups = other["optimizer"].param_groups
    assert [group["lr"] for group in groups] == [0.1, 0.5] and groups[1]["params"][0] is other["head"]
    assert treadle.capture(other).digest == state.digest
    assert train(other).digest == train(objects).digest


def test_what_would_not_come_back_is_refused_when_it_is_captured() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"optimizer": optimizer}, r"'optimizer' updates a parameter of shape \(2, 3\) .* give the module that has it"),
        ({"model": model, "schedule": schedule}, "'schedule' schedules an optimizer that is none of the objects"),
        ({"model": nn.Linear}, "'model' is a type, which has no state"),
        ({"make": {"model": nn.Linear(1, 1), "loss": nn.functional.mse_loss}}, "'make.loss' is a function, which has"),
        ({"loader": DataLoader(X)}, r"'loader' is a DataLoader, whose position .* treadle\.data\.as_feed"),
        ({"reader": iter([1])}, r"reader is a .*list_iterator, which cannot be saved: give it state_dict\(\)"),
        ({"a.b": model, "a": {"b": nn.Linear(1, 1)}}, r"two of the objects are called 'a\.b'"),
        ({3: model}, "named by text, not by 3"),  # type: ignore[dict-item]
    ]
    for objects, told in refused:
        with pytest.raises(StateError, match=told):
            treadle.capture(objects)
    treadle.capture({"model": model, "optimizer": optimizer, "schedule": schedule, "rate": LearningRate(optimizer, 1)})
    treadle.capture({"weight": model.weight, "bias": model.bias, "optimizer": optimizer})


def test_a_state_of_other_objects_is_refused_before_anything_is_changed() -> None:
    model, other = nn.Linear(1, 1), nn.Linear(1, 1)
    state = treadle.capture({"model": model, "count": 3})
    before = treadle.capture({"model": other}).copy()
    for objects, told in [
        ({"modle": other, "count": 3}, "the state has 'model', the objects have not; did you mean 'modle'"),
        ({"model": other, "count": 3, "ema": EMA(other)}, "the objects have 'ema', the state has not"),
    ]:
        with pytest.raises(StateError, match=told):
            treadle.restore(objects, state)
        assert treadle.capture({"model": other}).digest == before.digest
    with pytest.raises(StateError, match="'model' does not take the checkpoint's state"):
        treadle.restore({"model": nn.Embedding(1, 1), "count": 3}, state)


def test_a_state_that_somebody_made_up_is_refused_in_one_line() -> None:
    state = treadle.capture({"model": nn.Linear(1, 1)}, random=True)
    for section, forged in [
        ("attributes", 3),
        ("attributes", {"model": {"state": [1]}}),
        ("random", {"python": {}}),
        ("gradients", {"model": {"weight": "none"}}),
    ]:
        with pytest.raises(StateError, match=r"^[^\n]*$"):
            treadle.restore({"model": nn.Linear(1, 1)}, treadle.State(state.values | {section: forged}, state.tensors))


def test_data_that_has_changed_is_refused() -> None:
    state = treadle.capture({"feed": TensorFeed(X, 3)})
    treadle.restore({"feed": TensorFeed(X.clone(), 3)}, state)
    with pytest.raises(DataChanged, match="the data of 'feed' is not what it was"):
        treadle.restore({"feed": TensorFeed(X + 1, 3)}, state)


def test_a_trainers_state_is_the_trainers() -> None:
    from treadle.testing import Line, capture, line_data

    trainer: Trainer = Line(data=line_data(), max_steps=1)
    with pytest.raises(StateError, match="the state is a trainer's"):
        treadle.restore({"model": trainer.model, "optimizer": trainer.optimizer}, capture(trainer))


def test_the_programs_streams_go_on_between_two_gaussians() -> None:
    np.random.seed(3), random.seed(3)
    np.random.randn(), random.gauss(0, 1)
    state = treadle.capture({}, random=True)
    drawn = [(np.random.randn(), random.gauss(0, 1), random.random(), float(torch.rand(1))) for _ in range(2)]
    treadle.restore({}, state)
    assert drawn == [(np.random.randn(), random.gauss(0, 1), random.random(), float(torch.rand(1))) for _ in range(2)]
    assert "random" not in treadle.capture({}).values


def test_another_generator_behind_numpys_global_functions_is_refused() -> None:
    before = np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(1))
    try:
        with pytest.raises(StateError, match=r"NumPy's global generator is a PCG64.*default_rng\(seed\)"):
            treadle.capture({}, random=True)
    finally:
        np.random.set_bit_generator(before)


def test_tensors_whose_paths_would_meet_are_all_there() -> None:
    state = treadle.capture({"x": {"a/b": torch.zeros(2), "a": {"b": torch.ones(2)}}})
    other: dict[str, Any] = {"x": {}}
    treadle.restore(other, state)
    assert other["x"]["a/b"].tolist() == [0, 0] and other["x"]["a"]["b"].tolist() == [1, 1]


def test_a_seed_alone_decides_where_all_generators_begin() -> None:
    def digest(seed: int) -> str:
        treadle.seed_everything(seed)
        return treadle.capture({}, random=True).digest

    first = digest(1)
    random.random(), np.random.randn(), torch.rand(1)
    assert treadle.capture({}, random=True).digest != first
    assert digest(1) == first != digest(2)
