"""Learning rates follow their curve, per optimizer and per group."""

from __future__ import annotations

import math

import pytest
import torch

from treadle.engine.lr import LearningRate
from treadle.engine.optim import parameter_groups
from treadle.engine.progress import Progress
from treadle.errors import UsageError


def optimizer() -> torch.optim.SGD:
    net = torch.nn.ModuleDict({"head": torch.nn.Linear(2, 1), "body": torch.nn.Linear(2, 2)})
    groups = parameter_groups(net, {"head.*": {"lr_scale": 0.1, "name": "head"}})
    return torch.optim.SGD(groups, lr=123.0)


def rates(of: torch.optim.Optimizer) -> dict[str, float]:
    return {group["name"]: group["lr"] for group in of.param_groups}


def test_all_groups_follow_with_their_own_scale() -> None:
    tuned = optimizer()
    schedule = LearningRate(tuned, "linear 1 to 0")
    schedule.apply(Progress(step=5, max_steps=10))
    assert rates(tuned) == {"head": 0.05, "rest": 0.5}
    schedule.apply(Progress(step=5, max_steps=10), multiplier=2.0)
    assert rates(tuned) == {"head": 0.1, "rest": 1.0}


def test_values_are_absolute_so_a_resumed_run_goes_on_right() -> None:
    tuned = optimizer()
    schedule = LearningRate(tuned, "linear 1 to 0")
    for step in (0, 5, 5, 5):
        schedule.apply(Progress(step=step, max_steps=10))
    assert rates(tuned)["rest"] == 0.5


def test_one_group_alone() -> None:
    tuned = optimizer()
    LearningRate(tuned, 0.5, group="rest").apply(Progress())
    assert rates(tuned) == {"head": 123.0, "rest": 0.5}


def test_groups_are_found_again_after_a_load() -> None:
    tuned = optimizer()
    schedule = LearningRate(tuned, 0.5, group="rest")
    tuned.load_state_dict(tuned.state_dict())
    schedule.apply(Progress())
    assert rates(tuned)["rest"] == 0.5


def test_an_unknown_group_is_named() -> None:
    with pytest.raises(UsageError, match=r"no parameter group named 'haed'; did you mean 'head'\?"):
        LearningRate(optimizer(), 0.1, group="haed")
    bare = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(UsageError, match="groups have no names"):
        LearningRate(bare, 0.1, group="head")


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_impossible_rates_are_refused_and_leave_the_optimizer_alone(value: float) -> None:
    tuned = optimizer()
    with pytest.raises(UsageError, match=r"learning rate .* at step 3"):
        LearningRate(tuned, lambda progress: value).apply(Progress(step=3))
    assert rates(tuned) == {"head": 123.0, "rest": 123.0}


def test_a_tensor_rate_is_set_in_place() -> None:
    rate = torch.tensor(1.0)
    tuned = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    LearningRate(tuned, 0.25).apply(Progress())
    assert tuned.param_groups[0]["lr"] is rate
    assert rate.item() == 0.25
