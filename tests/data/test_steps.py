"""Loops that make their own data."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from treadle import Steps, Trainer, UsageError
from treadle.parallel import World
from treadle.testing import check_resume


class Walk:
    """An environment: it remembers where it is."""

    def __init__(self) -> None:
        self.place = 0.0

    def move(self, push: float) -> float:
        self.place = 0.9 * self.place + push
        return -abs(self.place - 1)

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


class Pusher(Trainer):
    """Learns from what its own moves in the environment come to."""

    def setup(self):
        self.policy = nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD(self.policy.parameters(), lr=0.01)
        self.world = Walk()
        self.numbers = []

    def step(self, number):
        self.numbers.append(number)
        places, pushes, rewards = [], [], []
        for _ in range(4):
            places.append(torch.tensor([self.world.place]))
            pushes.append(self.policy(places[-1]).detach() + torch.randn(1))
            rewards.append(self.world.move(pushes[-1].item()))
        mean = self.policy(torch.stack(places))
        loss = ((torch.stack(pushes) - mean).square().sum(1) * torch.tensor(rewards)).mean()
        self.minimize(loss)
        return {"loss": loss, "reward": sum(rewards) / 4}


def test_a_trainer_may_make_its_own_data() -> None:
    trainer = Pusher(data=Steps(3), max_epochs=2)
    assert trainer.progress.batches_per_epoch == 3
    summary = trainer.train()
    assert (summary.step, summary.epoch) == (6, 2) and trainer.numbers == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_resumes_exactly_in_the_middle_of_an_epoch(tmp_path, accumulate) -> None:
    def build(**where):
        return Pusher(data=Steps(5), max_steps=9, accumulate=accumulate, save_every="2 steps", **where)

    check_resume(build, tmp_path, stops=[3, 5, 8])


def test_another_number_of_steps_is_other_data(tmp_path) -> None:
    Pusher(data=Steps(3), max_epochs=1, run_dir=tmp_path / "r").train()
    with pytest.raises(UsageError, match="the data of 'feed' is not what it was"):
        Pusher(data=Steps(4), max_epochs=1, run_dir=tmp_path / "r" / "v001", resume=True)


def test_every_process_takes_every_step() -> None:
    class Second(World):
        rank, size = 1, 2

    feed = Steps(3)
    feed.bind(0, "cpu", Second())
    batches = feed.iterate(0)
    assert list(batches) == [0, 1, 2] and not batches.borrowed


@pytest.mark.parametrize("count", [0, -1, True, 2.5, None])
def test_an_epoch_has_a_whole_number_of_steps(count) -> None:
    with pytest.raises(UsageError, match="how many steps an epoch has"):
        Steps(count)
