"""Fixed parts: the same bits in 1, 2 and 4 processes, with dropout, several optimizers, row edits, and a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import treadle
from tests.parallel.test_group import Net, Poisoned, some_data
from tests.parallel.together import together
from treadle import Objective, Trainer, UsageError
from treadle.testing import Line, line_data

SETTINGS: dict[str, Any] = {
    "parts": 4,
    "batch_size": 10,
    "max_steps": 13,
    "log_every": "4 steps",
    "save_every": "3 steps",
    "keep_checkpoints": 20,
    "seed": 5,
    "deterministic": True,
}


class Game(Trainer):
    """Two optimizers, of which the second sees what the first has done; dropout, batch statistics, named losses."""

    def setup(self) -> None:
        self.model = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 1))
        self.critic = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        self.first = torch.optim.Adam(self.critic.parameters(), lr=1e-2)
        self.second = torch.optim.Adam(self.model.parameters(), lr=1e-2)
        self.objective = Objective()
        self.objective.add("mse")
        self.objective.add("judged", weight="linear 0 to 1 over 50%")

    def step(self, batch: Any) -> dict[str, Any]:
        x, y = batch
        out = self.model(torch.cat([x, x]))[: len(x)]  # batch statistics of one sample are none
        judged = (self.critic(y) - self.critic(out.detach())).square().mean()
        self.minimize(judged, self.first)
        losses = self.objective(mse=nn.functional.mse_loss(out, y), judged=self.critic(out).mean())
        self.log("noise", torch.rand(()))
        updated = self.minimize(losses, self.second)
        return {"loss": losses.total, "critic": judged, "updated": float(updated), "left": self.critic[0].weight.sum()}

    def validation_step(self, batch: Any) -> dict[str, Any]:
        x, y = batch
        return {"loss": nn.functional.mse_loss(self.model(x), y)}


class Growing(Trainer):
    """Gaussians in a plane that multiply where they are pulled, as the hooks see the gradient of the whole batch."""

    def setup(self) -> None:
        self.xy = nn.Parameter(torch.rand(6, 4))
        self.height = nn.Parameter(torch.zeros(6, 1))
        self.pull = torch.zeros(6)
        self.optimizer = torch.optim.Adam([self.xy, self.height], lr=1e-2)

    def step(self, batch: Any) -> dict[str, Any]:
        x, y = batch
        near = (-(x[:, None] - self.xy).square().sum(2)).exp()
        near = nn.functional.dropout(near, 0.2)
        loss = nn.functional.mse_loss(near @ self.height, y)
        self.minimize(loss)
        return {"loss": loss, "rows": len(self.xy)}

    def pre_update(self, optimizer: Any) -> None:
        super().pre_update(optimizer)
        assert self.xy.grad is not None
        self.pull += self.xy.grad.norm(dim=1)

    def post_step(self, batch: Any, outputs: Any) -> None:
        super().post_step(batch, outputs)
        if self.progress.step % 3 == 0:
            chosen = self.pull.argsort(descending=True)[:2]
            rows = {"xy": self.xy[chosen] + torch.randn(2, 4) / 9, "height": self.height[chosen]}
            with self.edit_rows({"xy": self.xy, "height": self.height, "pull": self.pull}) as edit:
                edit.append(rows | {"pull": torch.zeros(2)})
            self.pull.zero_()

    def validation_step(self, batch: Any) -> dict[str, Any]:
        x, y = batch
        return {"loss": nn.functional.mse_loss((-(x[:, None] - self.xy).square().sum(2)).exp() @ self.height, y)}


def train(kind: type[Trainer], path: str | None, settings: dict[str, Any], resume: Any = False, until: int = 0) -> Any:
    data = some_data(53)
    where = {} if path is None else {"run_dir": path, "resume": resume}
    trainer = kind(data=data, validation_data=data, **where, **SETTINGS | settings)
    if until:
        while trainer.progress.step < until:
            trainer.iterate()
        trainer.driver.abandon()
        return None
    trainer.train()
    return [trainer.digest(), dict(trainer.metrics), dict(trainer.validation_metrics), trainer.progress.step]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Game, {}),
        (Game, {"accumulate": 2, "clip_norm": 0.5, "spike": 50.0}),
        (Game, {"batch_size": 25}),  # the last batch has fewer samples than there are parts
        (Growing, {}),
        (Net, {"precision": "bf16"}),
    ],
)
def test_the_bits_are_the_same_in_1_2_and_4_processes(tmp_path: Path, kind: Any, settings: dict[str, Any]) -> None:
    (alone,) = together(1, tmp_path, train, kind, None, settings)
    for size in (2, 4):
        assert together(size, tmp_path, train, kind, None, settings) == [alone] * size


@pytest.mark.parametrize("kind", [Game, Growing])
def test_it_goes_on_in_another_number_of_processes_to_the_same_digest_and_one_verifies_it(
    tmp_path: Path, kind: Any
) -> None:
    settings = {"accumulate": 2}
    (alone,) = together(1, tmp_path, train, kind, str(tmp_path / "whole"), settings)
    run = tmp_path / "run" / "v001"
    together(4, tmp_path, train, kind, str(run), settings, False, 5)
    together(1, tmp_path, train, kind, str(run), settings, True, 8)
    found = together(2, tmp_path, train, kind, str(run), settings, True)
    assert found == [alone] * 2
    (verdict,) = together(1, tmp_path, verify, str(run), kind, settings)
    assert verdict == [[6, 9, 12, 13], None]


def verify(run: str, kind: Any, settings: dict[str, Any]) -> list[Any]:
    data = some_data(53)
    build = {"data": data, "validation_data": data}
    found = treadle.verify(run, start=0, trainer=kind, **build)
    return [found.compared[1:], found.differs_at]


def test_a_bad_part_is_skipped_by_all(tmp_path: Path) -> None:
    settings = {"batch_size": 53, "shuffle": False, "on_bad_step": "skip", "deterministic": False}
    (alone,) = together(1, tmp_path, train, Poisoned, None, settings)
    assert together(2, tmp_path, train, Poisoned, None, settings) == [alone] * 2
    assert alone[3] == 13


class Different(Line):
    def step(self, batch: Any) -> Any:
        if float(batch[0][0]) < 0:
            self.minimize(self.loss(batch))
        return {"loss": 0.0}


class Editing(Line):
    def step(self, batch: Any) -> Any:
        with self.edit_rows([self.model.weight]) as edit:
            edit.keep([0])
        return super().step(batch)


class Hasty(Line):
    def pre_step(self, batch: Any) -> None:
        self.minimize(self.loss(batch))


class Failing(Line):
    """Fails while other parts wait; what they have entered is left."""

    inside = 0

    def step(self, batch: Any) -> Any:
        Failing.inside += 1
        try:
            if float(batch[0][0]) > 0:
                raise ValueError("no")
            self.minimize(self.loss(batch))
        finally:
            Failing.inside -= 1
        return {"loss": 0.0}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Different, "the parts of a batch call minimize for different optimizers (none and optimizer)"),
        (Editing, "edit_rows in step, which each of the parts of a batch takes: edit rows in post_step"),
        (Hasty, "with parts, minimize is called in step"),
    ],
)
def test_what_parts_cannot_do_is_refused(kind: Any, said: str) -> None:
    trainer = kind(data=line_data(), max_steps=2, parts=2, shuffle=False, batch_size=50)
    with pytest.raises(UsageError) as error:
        trainer.train()
    assert str(error.value).startswith(said)


def test_an_error_in_one_part_unwinds_the_others_and_leaves_the_programs_streams() -> None:
    torch.manual_seed(7)
    expected = torch.rand(())
    torch.manual_seed(7)
    with pytest.raises(ValueError, match="no"):
        Failing(data=line_data(), max_steps=2, parts=2, shuffle=False, batch_size=50).train()
    assert Failing.inside == 0
    assert torch.equal(torch.rand(()), expected)


def test_data_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(UsageError, match="data is read in order, and the parts of a batch cannot be made"):
        Line(data=[torch.ones(1)].__iter__, max_steps=2, parts=2)


def refuse() -> str:
    try:
        Line(data=line_data(), max_steps=2, parts=4)
    except UsageError as error:
        return str(error)
    return "none"


def test_a_number_of_processes_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    assert (
        together(3, tmp_path, refuse)
        == ["parts is 4, which 3 processes cannot share alike: start 1, 2 or 4 of them"] * 3
    )
