"""Several processes: what they say to one another, and a run that they train together beside the same run alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.parallel.together import together
from treadle import Objective, RunError, Trainer
from treadle.parallel import this_world
from treadle.testing import capture, restore


def say() -> dict[str, Any]:
    world = this_world()
    tensors = [torch.full((3,), float(world.rank + 1)), torch.tensor([[world.rank]], dtype=torch.int64)]
    turned = torch.full((2, 3), float(world.rank)).t()
    world.sum([*tensors, turned])
    found: dict[str, Any] = {
        "who": [world.rank, world.size],
        "sum": [tensors[0].tolist(), tensors[1].tolist(), turned.tolist()],
        "gather": world.gather({"rank": world.rank, "nan": math.nan, "long": "x" * 2000 * world.rank}),
        "share": world.share(f"of {world.rank}"),
        "agree": world.agree([1, "a", None], "it"),
    }
    try:
        world.agree(world.rank // 2, "the half of the rank")
    except RunError as error:
        found["disagree"] = str(error)
    world.wait()
    return found


def test_what_processes_say_to_one_another(tmp_path: Path) -> None:
    found = together(3, tmp_path, say)
    assert [one["who"] for one in found] == [[0, 3], [1, 3], [2, 3]]
    for rank, one in enumerate(found):
        assert one["sum"] == [[6.0, 6.0, 6.0], [[3]], [[3.0, 3.0]] * 3]
        assert [part["rank"] for part in one["gather"]] == [0, 1, 2]
        assert [len(part["long"]) for part in one["gather"]] == [0, 2000, 4000]
        assert all(math.isnan(part["nan"]) for part in one["gather"])
        assert (one["share"], one["agree"]) == ("of 0", [1, "a", None])
        other, mine = (2, rank // 2) if rank < 2 else (0, 1)
        assert (
            one["disagree"] == f"the half of the rank is {other // 2} in process {other} and {mine} in process {rank}"
        )


class Net(Trainer):
    """An MLP on ragged batches, with a part that only some samples use, and named losses."""

    def setup(self) -> None:
        self.model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
        self.rare = nn.Linear(4, 1)
        self.never = nn.Linear(4, 1)
        parts = [self.model, self.rare, self.never]
        self.optimizer = torch.optim.Adam([p for part in parts for p in part.parameters()], lr=1e-2)

    def step(self, batch: Any) -> dict[str, Any]:
        x, y = batch
        out = self.model(x)
        chosen = x[:, 0] > 1
        if bool(chosen.any()):
            out = out + torch.where(chosen[:, None], self.rare(x), torch.zeros(()))
        loss = nn.functional.mse_loss(out, y)
        self.minimize(loss)
        return {"loss": loss}

    def validation_step(self, batch: Any) -> dict[str, Any]:
        x, y = batch
        return {"loss": nn.functional.mse_loss(self.model(x), y)}


def some_data(count: int = 53) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(1))
    return x, x.sum(1, keepdim=True).sin()


def train_net(kind: type[Trainer], settings: dict[str, Any], data: Any = None) -> dict[str, Any]:
    logged: list[Any] = []

    class Kept(kind):  # type: ignore[misc, valid-type]
        def on_log(self, record: Any) -> None:
            super().on_log(record)
            if record.kind == "scalars":
                logged.append((record.name, record.step, dict(record.value)))

    data = some_data() if data is None else data
    trainer = Kept(data=data, validation_data=data, seed=3, hooks=[], **settings)
    summary = trainer.train()
    weights = {name: p.detach().flatten().tolist() for name, p in trainer.parts.all_parameters().items()}
    updaters = trainer.minimizer.updaters.values()
    return {
        "weights": weights,
        "logged": logged,
        "step": summary.step,
        "updates": [updater.updates for updater in updaters],
        "scales": [updater.scaler.state_dict() for updater in updaters if updater.scaler is not None],
        "losses": [updater.spikes.state_dict() for updater in updaters if updater.spikes is not None],
        "recoveries": trainer.loop.recovery.count,
        "digest": trainer.digest(),
    }


def differ(one: dict[str, Any], other: dict[str, Any]) -> float:
    assert list(one["weights"]) == list(other["weights"])
    return max(
        abs(a - b) for name in one["weights"] for a, b in zip(one["weights"][name], other["weights"][name], strict=True)
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 8, "max_epochs": 4, "log_every": "3 steps"},
        {"batch_size": 8, "max_epochs": 4, "accumulate": 3, "clip_norm": 0.5, "log_every": "3 steps"},
        {"batch_size": 26, "max_epochs": 6, "shuffle": False, "spike": 30.0},  # the last batch has one sample
    ],
)
def test_a_run_of_several_is_the_run_of_one(tmp_path: Path, settings: dict[str, Any]) -> None:
    (alone,) = together(1, tmp_path, train_net, Net, settings)
    for size in (2, 3):
        found = together(size, tmp_path, train_net, Net, settings)
        assert all(one["weights"] == found[0]["weights"] for one in found), "all processes have the same bits"
        assert differ(alone, found[0]) < 5e-6
        assert [one[:2] for one in alone["logged"]] == [one[:2] for one in found[0]["logged"]]
        for mine, theirs in zip(alone["logged"], found[0]["logged"], strict=True):
            assert mine[2] == pytest.approx(theirs[2], rel=1e-4), mine[:2]


class Poisoned(Net):
    def step(self, batch: Any) -> dict[str, Any]:
        x, y = batch
        loss = nn.functional.mse_loss(self.model(x), y)
        if self.progress.step == 2 and bool((x == some_data()[0][0]).all(1).any()):
            loss = loss * math.nan
        self.minimize(loss)
        return {"loss": loss}


def fail_together(settings: dict[str, Any]) -> str:
    try:
        train_net(Poisoned, settings)
    except RunError as error:
        return str(error)
    return "none"


def test_a_bad_loss_in_one_process_ends_all_with_its_line(tmp_path: Path) -> None:
    said = together(2, tmp_path, fail_together, {"batch_size": 53, "max_epochs": 5, "shuffle": False})
    assert said[0] == said[1]
    assert said[0].startswith("the loss is nan in process 0, at step 3 (epoch 3, batch 1)")


def test_a_bad_batch_in_one_process_is_skipped_by_all(tmp_path: Path) -> None:
    settings = {"batch_size": 53, "max_epochs": 5, "shuffle": False, "on_bad_step": "skip"}
    (alone,) = together(1, tmp_path, train_net, Poisoned, settings)
    found = together(2, tmp_path, train_net, Poisoned, settings)
    assert found[0]["weights"] == found[1]["weights"]
    assert differ(alone, found[0]) < 5e-6


class Noisy(Net):
    """Draws in setup, which has to be alike, and in its steps, which must not be."""

    def setup(self) -> None:
        super().setup()
        self.drawn: list[float] = [float(torch.rand(()))]
        self.decided: list[float] = []

    def step(self, batch: Any) -> dict[str, Any]:
        self.drawn.append(float(torch.rand(())))
        return super().step(batch)

    def post_step(self, batch: Any, outputs: Any) -> None:
        super().post_step(batch, outputs)
        self.decided.append(float(torch.rand(())))


def draw(settings: dict[str, Any]) -> tuple[list[float], list[float]]:
    trainer = Noisy(data=some_data(), seed=3, **settings)
    trainer.train()
    return trainer.drawn, trainer.decided


def test_noise_differs_between_processes_and_decisions_do_not(tmp_path: Path) -> None:
    (one, decided), (other, decided_too) = together(2, tmp_path, draw, {"batch_size": 8, "max_steps": 4})
    assert one[0] == other[0]
    assert not set(one[1:]) & set(other[1:])
    assert decided == decided_too and len(set(decided)) == 4


class Dropping(Net):
    """Dropout draws in each process by itself; the terms are logged by an objective; batch statistics differ."""

    def setup(self) -> None:
        self.model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 1))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-2)
        self.objective = Objective()
        self.objective.add("mse")

    def step(self, batch: Any) -> dict[str, Any]:
        x, y = batch
        losses = self.objective(mse=nn.functional.mse_loss(self.model(x), y))
        self.minimize(losses)
        return {"loss": losses.total}


def stop_and_go_on(at: int) -> list[Any]:
    settings: dict[str, Any] = {"batch_size": 12, "max_steps": 14, "log_every": "4 steps", "seed": 5, "accumulate": 2}
    data = some_data(54)  # the last batch has two samples for each of three
    whole = Dropping(data=data, **settings)
    while whole.progress.step < at:
        whole.iterate()
    state = capture(whole).copy()
    whole.train()
    other = Dropping(data=data, **settings)
    restore(other, state)
    other.train()
    undisturbed = Dropping(data=data, **settings)
    undisturbed.train()
    digests = [whole.digest(), other.digest(), undisturbed.digest()]
    return [digests, state.digest, dict(whole.metrics), dict(other.metrics)]


@pytest.mark.parametrize("at", [5, 8])
def test_a_state_of_several_is_the_same_in_all_and_goes_on_bit_for_bit(tmp_path: Path, at: int) -> None:
    found = together(3, tmp_path, stop_and_go_on, at)
    assert found[0] == found[1] == found[2]
    digests, _, metrics, metrics_too = found[0]
    assert len(set(digests)) == 1
    assert metrics == metrics_too


class Termed(Net):
    """Its loss is an objective's term."""

    def setup(self) -> None:
        super().setup()
        self.objective = Objective()
        self.objective.add("mse")

    def step(self, batch: Any) -> dict[str, Any]:
        x, y = batch
        losses = self.objective(mse=nn.functional.mse_loss(self.model(x), y))
        self.minimize(losses)
        return {"loss": losses.total}


def test_the_terms_of_an_objective_are_those_of_whole_batches(tmp_path: Path) -> None:
    settings = {"batch_size": 13, "max_epochs": 2, "log_every": "5 steps"}  # the last batch has one sample
    (alone,) = together(1, tmp_path, train_net, Termed, settings)
    found = together(2, tmp_path, train_net, Termed, settings)
    for mine, theirs in zip(alone["logged"], found[0]["logged"], strict=True):
        assert mine[2] == pytest.approx(theirs[2], rel=1e-4), mine[:2]
