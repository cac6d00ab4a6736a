"""Learning rates follow their curve, per optimizer and per group."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from treadle.engine.lr import LearningRate
from treadle.engine.optim import parameter_groups
from treadle.engine.progress import Progress
from treadle.errors import UsageError
from treadle.testing import Line, kill, line_data


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


# torch's schedulers, as attributes of a trainer ----------------------------------------------------------------------

S = torch.optim.lr_scheduler
SCHEDULERS: dict[str, Any] = {
    "StepLR": lambda o: S.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda o: S.MultiStepLR(o, [3, 5, 9], 0.5),
    "LambdaLR": lambda o: S.LambdaLR(o, lambda step: 0.9**step),
    "OneCycleLR": lambda o: S.OneCycleLR(o, 0.1, total_steps=20),
    "CosineAnnealingWarmRestarts": lambda o: S.CosineAnnealingWarmRestarts(o, 4),
    "SequentialLR": lambda o: S.SequentialLR(o, [S.LinearLR(o, 0.1, total_iters=3), S.ExponentialLR(o, 0.9)], [3]),
    "ChainedScheduler": lambda o: S.ChainedScheduler([S.LinearLR(o, 0.1, total_iters=3), S.ExponentialLR(o, 0.9)]),
    "ReduceLROnPlateau": lambda o: S.ReduceLROnPlateau(o, patience=1),
}


class Scheduled(Line):
    scheduler = ""

    def setup(self) -> None:
        super().setup()
        self.scheduler = SCHEDULERS[type(self).scheduler](self.optimizer)
        self.rates: list[float] = []

    def post_step(self, batch: Any, outputs: Any) -> None:
        self.scheduler.step(*([outputs["loss"].item()] if type(self).scheduler == "ReduceLROnPlateau" else []))
        self.rates.append(self.optimizer.param_groups[0]["lr"])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", SCHEDULERS)
def test_torchs_schedulers_are_state_like_everything_else(name: str, tmp_path: Path) -> None:
    def make(**where: Any) -> Any:
        kind = type("Scheduled", (Scheduled,), {"scheduler": name})
        return kind(data=line_data(40), batch_size=10, max_epochs=3, seed=0, **where)

    whole = make()
    whole.train()
    assert len(set(whole.rates)) > 1
    killed = make(run_dir=tmp_path / "v001", save_every="1 step")
    for _ in range(5):
        killed.iterate()
    kill(killed)
    resumed = make(run_dir=tmp_path / "v001", save_every="1 step", resume=True)
    rewound = make(snapshot_every="1 step")
    for _ in range(6):
        rewound.iterate()
    rewound.rewind(5)
    for trainer in (resumed, rewound):
        trainer.train()
        assert trainer.rates == whole.rates
        assert trainer.digest() == whole.digest()


@pytest.mark.parametrize("name", ["StepLR", "SequentialLR", "ReduceLROnPlateau"])
def test_a_torch_scheduler_and_a_learning_rate_on_one_optimizer_are_refused(name: str) -> None:
    """Before: the one that acted last won, without a word."""

    class Both(Scheduled):
        scheduler = name

        def setup(self) -> None:
            super().setup()
            self.rate = LearningRate(self.optimizer, 0.1)

    with pytest.raises(UsageError, match=rf"self\.scheduler \({name}\) and a LearningRate both set .* self\.optimizer"):
        Both(data=line_data(), max_epochs=1)

    class Apart(Scheduled):
        """On two optimizers they are nobody's harm."""

        scheduler = name

        def setup(self) -> None:
            super().setup()
            self.head = torch.nn.Linear(1, 1)
            self.other = torch.optim.SGD(self.head.parameters())
            self.rate = LearningRate(self.other, 0.1)

    Apart(data=line_data(), max_epochs=1)
