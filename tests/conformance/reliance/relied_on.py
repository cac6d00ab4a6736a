"""What the lines of the table share: the smallest trainer, what writes down a run, and a resume after a kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from treadle import Feed, Hook, Trainer
from treadle.checkpoint.compare import differences
from treadle.engine.events import EVENTS
from treadle.testing import capture, kill

F = TypeVar("F", bound=Callable[..., None])

X = torch.linspace(-1, 1, 12)[:, None]
DATA = X, 3 * X + 1


def asserted_by(*tests: str) -> Callable[[F], F]:
    """Names the tests of other trainers that assert the same: "Keras test_early_stopping"."""
    assert tests
    return lambda function: function


class Fit(Trainer):
    """Fits a line with plain SGD: 3 steps an epoch on `DATA` in batches of 4."""

    def setup(self) -> None:
        self.model: Any = nn.Linear(1, 1)
        self.optimizer: Any = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def loss(self, batch: Any) -> Tensor:
        return nn.functional.mse_loss(self.model(batch[0]), batch[1])

    def step(self, batch: Any) -> Any:
        loss = self.loss(batch)
        self.minimize(loss)
        return {"loss": loss}

    def validation_step(self, batch: Any) -> Any:
        return {"loss": self.loss(batch)}


def fit(kind: type[Trainer] = Fit, **settings: Any) -> Any:
    """A `kind` on 12 points in batches of 4, for 2 epochs: 6 steps."""
    defaults = {"data": DATA, "max_epochs": 2, "seed": 0} | settings
    if not isinstance(defaults["data"], Feed | DataLoader):  # which make batches of their own
        defaults = {"batch_size": 4} | defaults
    return kind(**defaults)


def trained(kind: type[Trainer] = Fit, **settings: Any) -> Any:
    """The same, trained to its end."""
    trainer = fit(kind, **settings)
    trainer.train()
    return trainer


def after(steps: int, trainer: Any) -> Any:
    """The trainer, once it has taken so many steps in all."""
    while trainer.progress.step < steps:
        assert trainer.iterate()
    return trainer


def end(trainer: Any) -> str:
    """The digest that a run ends with."""
    trainer.train()
    digest: str = trainer.digest()
    return digest


def killed(stop: int, tmp_path: Path, kind: type[Trainer] = Fit, **settings: Any) -> Path:
    """Where the run is that was saved after so many steps, and killed there."""
    trainer = fit(kind, **(settings | {"run_dir": tmp_path / "run"}))
    after(stop, trainer).save()
    kill(trainer)
    path: Path = trainer.run.path
    return path


def resumed(stop: int, tmp_path: Path, kind: type[Trainer] = Fit, **settings: Any) -> Any:
    """A trainer that goes on where another was killed, after so many steps."""
    return fit(kind, **(settings | {"run_dir": killed(stop, tmp_path, kind, **settings), "resume": True}))


def resumes_exactly(stop: int, tmp_path: Path, kind: type[Trainer] = Fit, **settings: Any) -> Any:
    """Assert that a killed and resumed run ends as one that was left alone; returns the resumed trainer."""
    trainer = resumed(stop, tmp_path, kind, **settings)
    # What is best is kept on the disk by a run that has one, and else in memory, as a part of its state.
    whole = fit(kind, **(settings | ({"run_dir": tmp_path / "whole"} if "validation_data" in settings else {})))
    trainer.train(), whole.train()
    difference = next(differences(capture(whole), capture(trainer)), None)
    assert difference is None, difference
    return trainer


class Diary(Hook):
    """Writes down the events: "pre_step 0.2" is one after 0 epochs and 2 steps."""

    def __init__(self, *events: str) -> None:
        self.events = events or ("pre_training", "pre_epoch", "pre_step", "pre_update", "post_step", "post_epoch")
        self.lines: list[str] = []

    @property
    def names(self) -> list[str]:
        return [line.partition(" ")[0] for line in self.lines]


def _writer(event: str) -> Callable[..., None]:
    def write(self: Diary, trainer: Trainer, *_: Any) -> None:
        if event in self.events:
            self.lines.append(f"{event} {trainer.progress.epoch}.{trainer.progress.step}")

    return write


for _event in EVENTS:
    setattr(Diary, _event, _writer(_event))


class At(Hook):
    """Calls a function of the trainer at each event of a name."""

    def __init__(self, event: str, function: Callable[..., Any]) -> None:
        self.event, self.function = event, function


def _caller(event: str) -> Callable[..., None]:
    def call(self: At, trainer: Trainer, *arguments: Any) -> None:
        if event == self.event:
            self.function(trainer, *arguments)

    return call


for _event in EVENTS:
    setattr(At, _event, _caller(_event))
