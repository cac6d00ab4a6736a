"""What comes after setup: part of the state, on disk and in memory, or refused at the first checkpoint in one line."""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from treadle import EMA, Hook, LearningRate, StateError, Trainer
from treadle.testing import capture, check_resume, kill, restore

X = torch.linspace(-1, 1, 24).reshape(12, 2)


class Phase(enum.Enum):
    WARM = "warm"
    HOT = "hot"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Pair(NamedTuple):
    first: int
    second: Any


@dataclass(frozen=True)
class Options:
    depth: int
    phase: Phase = Phase.WARM


@dataclass
class Record:
    seen: list[int]


class Own:
    """State of its own."""

    def __init__(self) -> None:
        self.n = 0

    def state_dict(self) -> dict[str, int]:
        return {"n": self.n}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.n = state["n"]


class Deaf(Hook):
    """Hears nothing."""


class Base(Trainer):
    """Two modules, of which the second may join later; `each` is called at the beginning of every step."""

    each: Callable[[Any, int], None]

    def __init__(self, each: Callable[[Any, int], None] | None = None, **settings: Any) -> None:
        object.__setattr__(self, "_each", each)
        super().__init__(**{"data": X, "batch_size": 4, "max_epochs": 3, "seed": 3} | settings)

    transient = ("_each",)

    def setup(self) -> None:
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.optimizer = torch.optim.Adam(self.first.parameters(), lr=0.01)

    def step(self, batch: Tensor) -> dict[str, Any]:
        if self._each is not None:
            self._each(self, self.progress.step)
        loss = self.second(self.first(batch)).square().mean()
        self.minimize(loss)
        return {"loss": loss}


# Data --------------------------------------------------------------------------------------------------------------

VALUES: dict[str, Callable[[int], Any]] = {
    "a number": float,
    "NumPy's number": np.float32,
    "an enumeration": lambda n: list(Phase)[n % 2],
    "a number that is an enumeration": lambda n: list(Level)[n % 2],
    "a frozen dataclass": lambda n: Options(n, list(Phase)[n % 2]),
    "a dataclass": lambda n: Record([n]),
    "a named tuple": lambda n: Pair(n, [Phase.HOT]),
    "a path": lambda n: Path(f"data/{n}"),
    "a dtype": lambda n: [torch.float32, torch.bfloat16][n % 2],
    "a device": lambda n: torch.device("cpu"),
    "a Counter": lambda n: Counter("abc" * n),
    "a defaultdict": lambda n: defaultdict(list, {n: [n]}),
    "an OrderedDict": lambda n: OrderedDict([("b", n), ("a", 1)]),
    "a deque": lambda n: deque([n, n + 1], maxlen=3),
    "dotted and other keys": lambda n: {"a.b": n, "a": {"b": Phase.HOT}, 3: (n,), Phase.WARM: 2},
    "a tensor": lambda n: torch.arange(n + 1.0),
    "a tensor in another order": lambda n: torch.arange(6.0 * (n + 1)).reshape(n + 1, 6).T,
    "an array": lambda n: np.arange(n + 1, dtype=np.int16),
    "nothing": lambda n: None if n % 2 else n,
}


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple | deque):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("when", ["set up", "late", "instead of nothing"])
def test_data_of_every_type_is_what_it_was_wherever_it_was_set(kind: str, when: str, tmp_path: Path) -> None:
    make = VALUES[kind]

    class Setting(Base):
        def setup(self) -> None:
            super().setup()
            if when != "late":
                self.value = make(0) if when == "set up" else None

    def each(trainer: Any, step: int) -> None:
        trainer.value = make(step + 1)

    trainer = Setting(each, run_dir=tmp_path / "run", snapshot_every="1 step", keep_snapshots=9)
    before = capture(trainer).copy()
    digests = []
    for _ in range(3):
        trainer.iterate()
        digests.append(trainer.digest())
    trainer.rewind(2)
    assert same(trainer.value, make(2)) and trainer.digest() == digests[1]
    trainer.save(), kill(trainer)
    resumed = Setting(each, run_dir=trainer.run.path, resume=True)
    assert same(resumed.value, make(2)) and resumed.digest() == digests[1]
    resumed.iterate()
    assert resumed.digest() == digests[2]
    restore(trainer, before)
    assert capture(trainer).digest == before.digest
    assert (
        not hasattr(trainer, "value") if when == "late" else same(trainer.value, make(0) if when == "set up" else None)
    )


def test_a_mixed_dict_with_dotted_keys_and_a_tuple_come_back_entry_by_entry(tmp_path: Path) -> None:
    class Mixed(Base):
        def setup(self) -> None:
            super().setup()
            self.mixed = {"a.b": 0, "net": self.second, "a": {"c": [0, self.first]}, 7: 0}
            self.pair = (self.first, 0)

        def step(self, batch: Tensor) -> dict[str, Any]:
            self.mixed["a.b"] += 1
            self.mixed["a"]["c"][0] += 2
            self.mixed[7] += 3
            self.pair = (self.first, self.pair[1] + 4)
            return super().step(batch)

    check_resume(lambda **where: Mixed(**where), tmp_path, stops=[2])
    trainer, other = Mixed(), Mixed()
    trainer.iterate()
    restore(other, capture(trainer))
    assert (other.mixed["a.b"], other.mixed["a"]["c"][0], other.mixed[7], other.pair[1]) == (1, 2, 3, 4)
    assert other.mixed["net"] is other.second and other.pair[0] is other.first


@pytest.mark.parametrize("keys", [{1: nn.Linear(1, 1), "1": 3}, {"a.b": nn.Linear(1, 1), "a": {"b": 2}}])
def test_two_entries_that_share_a_name_are_refused(keys: dict[Any, Any]) -> None:
    class Shared(Base):
        def setup(self) -> None:
            super().setup()
            self.mixed = keys

    with pytest.raises(StateError, match="two entries of 'mixed' go by the name 'mixed"):
        Shared().digest()


def test_views_and_containers_that_setup_has_shared_stay_shared(tmp_path: Path) -> None:
    class Sharing(Base):
        def setup(self) -> None:
            super().setup()
            self.table = torch.zeros(6)
            self.window, self.turned = self.table[1:4], self.table.reshape(2, 3).T
            self.notes = self.all = [0.0]
            self.rows = [self.table[:2]]

        def step(self, batch: Tensor) -> dict[str, Any]:
            self.table += 1
            self.window += 1
            self.rows[0] += 0.5
            self.turned[0] *= 1.5
            self.notes.append(float(self.table.sum()))
            return super().step(batch) | {"n": len(self.all)}

    check_resume(lambda **where: Sharing(**where), tmp_path, stops=[2])
    trainer = Sharing(snapshot_every="1 step")
    trainer.iterate(), trainer.iterate()
    trainer.rewind(1)
    assert trainer.all is trainer.notes and len(trainer.notes) == 2
    trainer.table.zero_()
    assert not trainer.window.any() and not trainer.turned.any() and not trainer.rows[0].any()


def shift(trainer: Any, step: int) -> None:
    """Views end, begin and move."""
    trainer.table += 1
    if step == 2:
        trainer.window = trainer.window + 1
    if step == 5:
        trainer.before = trainer.table
    if step == 7:
        trainer.table = trainer.table + 1
    trainer.window += trainer.before.sum()


def test_tensors_share_memory_from_a_step_on_or_no_longer(tmp_path: Path) -> None:
    class Shifting(Base):
        def setup(self) -> None:
            super().setup()
            self.table, self.before = torch.zeros(6), torch.zeros(6)
            self.window = self.table[1:4]

    check_resume(lambda **where: Shifting(shift, **where), tmp_path, stops=[1, 4, 6, 8])
    trainer = Shifting(shift, snapshot_every="1 step", keep_snapshots=20)
    trainer.train()
    end = trainer.digest()
    for step in (8, 6, 4, 1, 3):
        trainer.rewind(step)
        trainer.train()
        assert trainer.digest() == end


def test_a_step_may_leave_its_loss_behind(tmp_path: Path) -> None:
    class Leaving(Base):
        def setup(self) -> None:
            super().setup()
            self.newest: Tensor | None = None

        def step(self, batch: Tensor) -> dict[str, Any]:
            loss = self.second(self.first(batch)).square().mean()
            if self.newest is not None:
                loss = loss * (1 + self.newest.detach())
            self.minimize(loss)
            self.newest = self.newer = loss
            return {"loss": loss}

    check_resume(lambda **where: Leaving(**where), tmp_path, stops=[2])
    trainer = Leaving(snapshot_every="1 step", keep_snapshots=20)
    trainer.train()
    end = trainer.digest()
    trainer.rewind(2)
    trainer.train()
    assert trainer.digest() == end


# Objects -----------------------------------------------------------------------------------------------------------


def join(trainer: Any, step: int) -> None:
    """The second module learns from the third step on, at a rate of its own, and the first no longer from the sixth."""
    if step == 2:
        trainer.optimizer.add_param_group({"params": list(trainer.second.parameters()), "lr": 0.05, "name": "late"})
    if step == 5:
        for p in trainer.optimizer.param_groups.pop(0)["params"]:
            del trainer.optimizer.state[p]


def test_parameters_join_and_leave_an_optimizer_in_mid_run(tmp_path: Path) -> None:
    check_resume(lambda **where: Base(join, **where), tmp_path, stops=[2, 4, 7])
    trainer = Base(join, snapshot_every="1 step", keep_snapshots=20)
    trainer.train()
    end = trainer.digest()
    for step in (7, 4, 1):
        trainer.rewind(step)
        assert len(trainer.optimizer.param_groups) == (1 if step != 4 else 2)
        trainer.train()
        assert trainer.digest() == end


def anew(trainer: Any, step: int) -> None:
    """A new optimizer of both modules, with moments of its own."""
    if step == 3:
        trainer.optimizer = torch.optim.Adam(
            [{"params": trainer.second.parameters(), "lr": 0.05}, {"params": trainer.first.parameters()}], lr=0.02
        )


def swap(trainer: Any, step: int) -> None:
    """What each attribute stands for changes."""
    if step % 2:
        trainer.first, trainer.second = trainer.second, trainer.first
    trainer.current = trainer.first if step % 3 else trainer.optimizer


def renew(trainer: Any, step: int) -> None:
    """The same kind of module, made again, and an optimizer for it."""
    if step == 3:
        trainer.second = nn.Linear(2, 2)
        trainer.optimizer = torch.optim.Adam([*trainer.first.parameters(), *trainer.second.parameters()], lr=0.02)


@pytest.mark.parametrize("each", [anew, swap, renew])
def test_what_an_attribute_stands_for_is_part_of_the_run(each: Callable[[Any, int], None], tmp_path: Path) -> None:
    check_resume(lambda **where: Base(each, **where), tmp_path, stops=[2, 5])
    trainer = Base(each, snapshot_every="1 step", keep_snapshots=20)
    trainer.train()
    end = trainer.digest()
    for step in (5, 2):
        trainer.rewind(step)
        trainer.train()
        assert trainer.digest() == end


def grow(trainer: Any, step: int) -> None:
    """Objects of every kind that there were none of."""
    if step == 3:
        trainer.head = nn.Linear(2, 2)
        trainer.own, trainer.hook = Own(), Deaf()
        trainer.rate, trainer.average = LearningRate(trainer.optimizer, "cosine 1e-2 to 0"), EMA(trainer.first, 0.9)
        trainer.more = [nn.Linear(1, 1)]
        trainer.more.append(nn.Linear(1, 1))
        trainer.optimizer.add_param_group({"params": list(trainer.head.parameters())})
        trainer.second = trainer.head
        trainer.add_hook(Counting())


class Counting(Hook):
    """Nudges a weight in each step, by more each time."""

    def __init__(self) -> None:
        self.n = 0

    def post_step(self, trainer: Any, batch: Any, outputs: Any) -> None:
        self.n += 1
        trainer.first.weight.data += 1e-3 * self.n

    def state_dict(self) -> dict[str, int]:
        return {"n": self.n}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.n = state["n"]


def test_objects_that_come_late_come_and_go_with_a_rewind() -> None:
    trainer = Base(grow, snapshot_every="1 step", keep_snapshots=20)
    trainer.train()
    end = trainer.digest()
    for step in (6, 4, 2, 3):
        trainer.rewind(step)
        assert hasattr(trainer, "head") == hasattr(trainer, "rate") == (step > 3)
        assert any(isinstance(hook, Counting) for hook in trainer.hooks) == (step > 3)
        trainer.train()
        assert trainer.digest() == end


class Rich(Base):
    """With some more that may be replaced."""

    def setup(self) -> None:
        super().setup()
        self.nets, self.rate = [nn.Linear(1, 1), nn.Linear(1, 1)], LearningRate(self.optimizer, 0.01)
        self.loss, self.later = torch.nn.functional.mse_loss, None
        self.average, self.model = EMA(self.first), nn.Sequential(nn.Linear(1, 1), nn.Dropout())
        self.generator = np.random.default_rng(1)
        self.mixed: list[Any] = [nn.Linear(1, 1)]
        self.table = torch.zeros(4)


REFUSED: dict[str, tuple[Callable[[Any], object], str]] = {
    "a module": (lambda t: setattr(t, "head", nn.Linear(1, 1)), r"attribute 'head' \(Linear\) came after setup"),
    "instead of None": (
        lambda t: setattr(t, "later", nn.Linear(1, 1)),
        r"attribute 'later' \(Linear\) came after setup",
    ),
    "a list of modules": (lambda t: setattr(t, "heads", [nn.Linear(1, 1)]), r"'heads.0' \(Linear\) came after setup"),
    "one more in a list": (lambda t: t.nets.append(nn.Linear(1, 1)), r"'nets.2' \(Linear\) came after setup"),
    "a module in a module": (
        lambda t: t.model.add_module("2", nn.Linear(1, 1)),
        r"model.2 \(Linear\) came into the module after setup",
    ),
    "a parameter in a module": (
        lambda t: t.model.register_parameter("scale", nn.Parameter(torch.ones(1))),
        r"model.scale \(Parameter\) came into the module",
    ),
    "a module gone from a module": (lambda t: t.model.pop(1), r"model.1 \(Dropout\) has gone from the module"),
    "a class changed": (
        lambda t: t.model.__setitem__(1, nn.ReLU()),
        r"model.1 is a ReLU now and was a Dropout after setup",
    ),
    "a parameter": (lambda t: setattr(t, "w", nn.Parameter(torch.ones(1))), r"'w' \(Parameter\) came after setup"),
    "a leaf": (lambda t: setattr(t, "w", torch.ones(1, requires_grad=True)), r"'w' \(Tensor\) came after setup"),
    "a schedule": (lambda t: setattr(t, "r", LearningRate(t.optimizer, 0.1)), r"'r' \(LearningRate\) came after setup"),
    "another schedule": (
        lambda t: setattr(t, "rate", LearningRate(t.optimizer, 0.1)),
        "'rate' was a LearningRate after setup and is another LearningRate now",
    ),
    "another average": (lambda t: setattr(t, "average", EMA(t.first)), "'average' was a EMA after setup"),
    "another kind of optimizer": (
        lambda t: (delattr(t, "rate"), setattr(t, "optimizer", torch.optim.SGD(t.first.parameters(), lr=0.1))),
        "attribute 'optimizer' was a Adam after setup and is another SGD now",
    ),
    "a module that an average is of": (
        lambda t: (
            delattr(t, "rate"),
            setattr(t, "optimizer", torch.optim.Adam(t.second.parameters())),
            setattr(t, "first", nn.Linear(2, 2)),
        ),
        "still holds the first",
    ),
    "a hook": (lambda t: setattr(t, "hook", Deaf()), r"'hook' \(Deaf\) came after setup"),
    "a hook that is given": (lambda t: t.add_hook(Deaf()), "the hook Deaf came while the run went on"),
    "another function": (
        lambda t: setattr(t, "loss", torch.nn.functional.l1_loss),
        "attribute 'loss' is another function than after setup, which a state cannot hold: keep its name",
    ),
    "a function": (lambda t: setattr(t, "f", len), r"attribute 'f' \(builtin_function_or_method\) came after setup"),
    "a class": (lambda t: setattr(t, "kind", nn.ReLU), r"attribute 'kind' \(ReLU\) came after setup"),
    "gone": (lambda t: delattr(t, "generator"), r"attribute 'generator' \(Generator\) has gone since setup"),
    "none any more": (lambda t: setattr(t, "nets", None), r"attribute 'nets.0' \(Linear\) has gone since setup"),
    "another generator": (
        lambda t: setattr(t, "generator", np.random.Generator(np.random.MT19937(1))),
        "'generator' draws from another generator",
    ),
    "places exchanged": (lambda t: t.nets.reverse(), "'nets.0' has changed places since setup"),
    "data beside objects": (
        lambda t: t.mixed.append(3),
        "'mixed.1' came after setup into 'mixed', which holds objects",
    ),
    "a class that cannot be found": (
        lambda t: setattr(t, "mode", enum.Enum("Made", "A B").A),
        "mode is a .*Made, a class that a resume would not find",
    ),
    "a view": (
        lambda t: setattr(t, "view", t.table[1:3]),
        "'table' and 'view' share memory since setup, which a resume",
    ),
    "a view of a parameter": (
        lambda t: setattr(t, "view", t.first.weight.data),
        "'first.weight' and 'view' share memory since setup, which a resume would part: clone\\(\\) one of them",
    ),
    "what cannot be saved": (lambda t: setattr(t, "odd", {1, 2}), "'odd' .set. came after setup"),
    "a parameter that nothing holds": (
        lambda t: t.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3))]}),
        r"an optimizer updates a parameter of shape \(3,\) that no attribute of the trainer holds: make it one",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_resume_could_not_have_again_is_refused_at_the_first_checkpoint(what: str, tmp_path: Path) -> None:
    change, message = REFUSED[what]

    def each(trainer: Any, step: int) -> None:
        if step == 1:
            change(trainer)

    trainer = Rich(each, run_dir=tmp_path / "run", save_every="2 steps")
    with pytest.raises(StateError, match=message) as caught:
        trainer.train()
    assert "\n" not in str(caught.value) and trainer.progress.step == 2
    assert not list((trainer.run.path / "checkpoints").glob("step-*"))


def test_it_is_told_after_the_first_step_already(tmp_path: Path) -> None:
    trainer = Base(lambda t, step: setattr(t, "head", nn.Linear(1, 1)), run_dir=tmp_path / "run", save_every="9 steps")
    with pytest.raises(StateError, match="'head'"):
        trainer.train()
    assert trainer.progress.step == 1


def test_what_is_transient_may_come_and_go(tmp_path: Path) -> None:
    class Passing(Base):
        transient = ("_each", "head", "f", "generator")

        def setup(self) -> None:
            super().setup()
            self.generator = np.random.default_rng(1)

    def each(trainer: Any, step: int) -> None:
        trainer.head, trainer.f = nn.Linear(1, 1) if step % 2 else None, len
        if step == 4:
            del trainer.generator

    check_resume(lambda **where: Passing(each, **where), tmp_path, stops=[2, 3])


def test_an_optimizer_of_a_parameter_that_nothing_holds_is_refused_from_the_beginning() -> None:
    class Stray(Base):
        def setup(self) -> None:
            super().setup()
            self.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3))]})

    with pytest.raises(StateError, match=r"'optimizer' updates a parameter of shape \(3,\) that no attribute"):
        Stray().digest()


def test_moments_of_a_parameter_that_has_left_are_refused_by_name() -> None:
    trainer = Base()
    trainer.iterate()
    trainer.optimizer.param_groups.pop()
    trainer.optimizer.add_param_group({"params": list(trainer.second.parameters())})
    with pytest.raises(
        StateError, match=r"kept moments of a parameter of shape \(2, 2\) that is in none of its groups"
    ):
        trainer.digest()


def test_who_drives_the_run_may_add_hooks_before_it_and_those_without_state_later(tmp_path: Path) -> None:
    trainer = Base(run_dir=tmp_path / "run", save_every="1 step")
    trainer.add_hook(Counting())
    trainer.iterate()
    trainer.add_hook(Deaf())
    trainer.iterate()
    trainer.add_hook(Counting())
    with pytest.raises(StateError, match="the hook Counting came while the run went on, a resume would be without it"):
        trainer.iterate()
