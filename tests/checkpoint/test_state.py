"""Capture and restore: stopped anywhere, through memory or the disk, a run goes on to the same digest."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from treadle import EMA, LearningRate, Objective, StateError, Trainer
from treadle.checkpoint.store import Retention, list_checkpoints, read_checkpoint, write_checkpoint
from treadle.checkpoint.tensorfile import hash_tensors
from treadle.testing import capture, restore

X = torch.linspace(-1, 1, 50)[:, None]
Y = 3 * X + 1


class Everything(Trainer):
    """A bit of everything that has state: dropout, noise, EMA, an objective, a scheduler, generators, plain data."""

    def setup(self):
        self.model = torch.nn.Sequential(
            torch.nn.Linear(1, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1)
        )
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.others = {"scale": torch.optim.SGD([self.scale], lr=0.01, momentum=0.9)}
        self.rate = LearningRate(self.optimizer, "cosine 1e-2 to 0")
        self.torch_schedule = torch.optim.lr_scheduler.StepLR(self.others["scale"], 3, 0.5)
        self.ema = EMA(self.model, 0.9)
        self.objective = Objective()
        self.objective.add("fit", weight="linear 1 to 2")
        self.noise = torch.Generator().manual_seed(3)
        self.numpy_noise = np.random.default_rng(4)
        self.python_noise = random.Random(5)
        self.history, self.table, self.previous = [], {1: "one", "pair": (1, 2.5)}, None
        self.handle = Path("somewhere")

    def step(self, batch):
        x, y = batch
        y = y + 0.01 * torch.randn_like(y) + 0.01 * torch.randn(y.shape, generator=self.noise)
        y = y + np.random.rand() + random.random() + self.numpy_noise.random() + self.python_noise.random()
        losses = self.objective(fit=(self.scale * self.model(x) - y).square().mean())
        self.minimize(losses, [self.optimizer, self.others["scale"]])
        self.torch_schedule.step()
        self.history.append(float(losses["fit"]))
        self.table[self.progress.step] = self.history[-1]
        self.previous = y.mean()
        return losses


def make(**settings):
    return Everything(**({"data": (X, Y), "batch_size": 8, "max_epochs": 3, "seed": 1} | settings))


@pytest.mark.parametrize("steps", [1, 6, 7, 10])
@pytest.mark.parametrize("settings", [{}, {"accumulate": 3}, {"precision": "fp16"}])
def test_a_run_goes_on_from_any_step_to_the_same_digest(steps, settings, tmp_path):
    class OneAtATime(Everything):
        """fp16 scales each optimizer's loss by itself."""

        def minimize(self, loss, optimizer=None, *, elements=None):
            return super().minimize(loss, optimizer[0], elements=elements)

    kind = OneAtATime if "precision" in settings else Everything

    def build():
        return kind(data=(X, Y), batch_size=8, max_epochs=3, seed=1, **settings)

    whole = build()
    whole.train()
    part = build()
    for _ in range(steps):
        part.iterate()
    path, digest = write_checkpoint(tmp_path, capture(part))
    assert digest == part.digest()
    resumed = build()
    torch.rand(7), np.random.rand(7), random.random()
    restore(resumed, read_checkpoint(path))
    assert resumed.digest() == part.digest()
    assert resumed.train().step == 21
    assert resumed.digest() == whole.digest()
    assert resumed.history == whole.history and resumed.table == whole.table


def test_what_already_fired_does_not_fire_again(tmp_path):
    fired = []

    class Diary(Everything):
        def pre_training(self):
            fired.append("pre_training")

        def pre_epoch(self):
            fired.append(("pre_epoch", self.epoch))

        def on_load(self, state):
            fired.append(("on_load", state))

        def on_save(self, state):
            state["extra"] = torch.ones(2)

    def build():
        return Diary(data=(X, Y), batch_size=8, max_epochs=2, seed=1)

    first = build()
    for _ in range(3):
        first.iterate()
    state = capture(first)
    del fired[:]
    second = build()
    restore(second, state)
    second.train()
    assert [entry if isinstance(entry, str) else entry[0] for entry in fired] == ["on_load", "pre_epoch"]
    assert torch.equal(fired[0][1]["extra"], torch.ones(2)) and fired[1] == ("pre_epoch", 1)


def test_grown_parameters_resume_into_a_model_of_the_initial_size():
    class Growing(Trainer):
        def setup(self):
            self.xy = torch.nn.Parameter(torch.rand(4, 2))
            self.module = torch.nn.ParameterDict({"colour": torch.nn.Parameter(torch.rand(4, 3))})
            self.optimizer = torch.optim.Adam([self.xy, self.module["colour"]], lr=0.1)
            self.age = torch.zeros(4)

        def step(self, batch):
            self.minimize(self.xy.square().sum() + self.module["colour"].square().sum())
            rows = {"xy": self.xy, "colour": self.module["colour"], "age": self.age}
            with self.edit_rows(rows) as edit:
                edit.append({"xy": torch.rand(1, 2), "colour": torch.rand(1, 3), "age": torch.ones(1)})
            return {"n": len(self.xy)}

    def build():
        return Growing(data=torch.zeros(6, 1), batch_size=1, max_epochs=1)

    whole, part, resumed = build(), build(), build()
    whole.train()
    for _ in range(4):
        part.iterate()
    restore(resumed, capture(part))
    assert resumed.xy.shape == (8, 2) and resumed.age.shape == (8,)
    resumed.train()
    assert resumed.digest() == whole.digest()
    assert resumed.optimizer.state[resumed.xy]["exp_avg"].shape == (10, 2)


class Opaque:
    """Has state, and no way to save it."""


def test_what_cannot_be_saved_raises_and_names_it():
    trainer = make()
    trainer.reader = Opaque()
    with pytest.raises(StateError, match=r"reader is a .*Opaque, which cannot be saved: give it state_dict"):
        capture(trainer)

    class Aware(Everything):
        transient = ("reader",)

    aware = Aware(data=(X, Y), max_epochs=1)
    aware.reader = Opaque()
    capture(aware)


def test_frozen_parameters_stay_frozen():
    trainer, other = make(), make()
    trainer.model[0].weight.requires_grad_(False)
    trainer.scale.requires_grad_(False)
    trainer.model[1].eval()
    before = capture(other).copy()
    restore(other, capture(trainer))
    assert not other.model[0].weight.requires_grad and other.model[3].weight.requires_grad
    assert not other.model[1].training and other.model[2].training and not other.scale.requires_grad
    restore(other, before)
    assert other.model[0].weight.requires_grad and other.scale.requires_grad


def test_a_state_of_another_trainer_is_refused_by_name():
    trainer, other = make(), make()
    trainer.extra_module = torch.nn.Linear(1, 1)
    with pytest.raises(StateError, match="the checkpoint has attribute 'extra_module', the trainer has not"):
        restore(other, capture(trainer))
    with pytest.raises(StateError, match="the trainer has attribute 'extra_module', the checkpoint has not"):
        restore(trainer, capture(other))

    class Smaller(Everything):
        def setup(self):
            super().setup()
            self.model = torch.nn.Linear(1, 1)
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
            self.rate, self.ema = LearningRate(self.optimizer, "cosine 1e-2 to 0"), EMA(self.model, 0.9)

    trainer, other = make(), Smaller(data=(X, Y), max_epochs=1)
    with pytest.raises(StateError, match="'model' does not take the checkpoint's state"):
        restore(other, capture(trainer))


def test_the_digest_sees_every_bit_and_no_clock():
    one, two = make(), make()
    two.loop.lifecycle.seconds = 99.0
    assert one.digest() == two.digest()
    two.model[0].weight.data[0, 0] += 1e-7
    assert one.digest() != two.digest()
    shapes = [torch.zeros(2), torch.zeros(1, 2), torch.zeros(2, dtype=torch.int32), torch.zeros(2).neg()]
    assert len({hash_tensors({"x": tensor}) for tensor in shapes}) == 4


def test_tied_tensors_are_saved_once_and_views_alone(tmp_path):
    class Tied(Trainer):
        def setup(self):
            self.a = torch.nn.Linear(3, 3)
            self.b = torch.nn.Linear(3, 3)
            self.b.weight = self.a.weight
            self.window = torch.arange(10.0)[2:5]

    trainer = Tied(data=X, max_epochs=1)
    path, _ = write_checkpoint(tmp_path, capture(trainer))
    state = read_checkpoint(path)
    assert "a/state/weight" in state.tensors and "b/state/weight" not in state.tensors
    other = Tied(data=X, max_epochs=1, seed=9)
    restore(other, state)
    assert torch.equal(other.b.weight, trainer.a.weight) and other.window.tolist() == [2, 3, 4]


def test_only_the_newest_are_kept_and_damage_is_named(tmp_path):
    trainer = make()
    for _ in range(4):
        trainer.iterate()
        write_checkpoint(tmp_path, capture(trainer), Retention(last=2))
    kept = list_checkpoints(tmp_path)
    assert [path.name for path in kept] == ["step-00000003", "step-00000004"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.json", "step-00000003", "step-00000004"]
    tensors = kept[-1] / "tensors.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-1] ^= 1
    tensors.write_bytes(data)
    with pytest.raises(StateError, match=r"tensors.safetensors is damaged"):
        read_checkpoint(kept[-1])
    (kept[0] / "state.json").unlink()
    with pytest.raises(StateError, match="cannot be read"):
        read_checkpoint(kept[0])
