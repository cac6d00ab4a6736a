"""A trainer in a program of one's own, small enough to be swept in a moment, and processes that can be killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from treadle.recipes.scripts import load_trainer

PROGRAM = '''
import os
import time
from dataclasses import dataclass

import torch

from treadle import TrainerConfig, setting
from treadle.testing import Line, line_data


@dataclass(kw_only=True)
class Optimizer:
    momentum: float = setting(0.5, least=0, below=1)


@dataclass(kw_only=True)
class SlopeConfig(TrainerConfig):
    max_epochs: int | None = 4
    batch_size: int | None = 10
    save_every: str | None = None
    lr: float = setting(0.1, above=0)
    width: int = setting(1, least=1, most=8)
    optim: Optimizer = setting(default_factory=Optimizer)
    validate: bool = True


class Slope(Line):
    """Fits a line; without any data it has its own. Of width 3 it fails, of width 4 nothing comes of it.

    Before the seventh step of trials that SLOPE_HOLD names it writes into their file "held", and waits for one, "go".
    """

    Config = SlopeConfig

    @classmethod
    def load_data(cls, config, path):
        return {"data": line_data(), **({"validation_data": line_data()} if config.validate else {})}

    def setup(self):
        super().setup()
        self.dropout = torch.nn.Dropout(0.1)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=self.config.lr, momentum=self.config.optim.momentum
        )

    def step(self, batch):
        trial = self.run.path.parent
        # No setting: the run is the same.
        if trial.name in os.environ.get("SLOPE_HOLD", "") and self.progress.step == 6:
            with open(trial / "held", "a") as file:
                file.write("x")
            while not (trial / "go").exists():
                time.sleep(0.02)
        if self.config.width == 3:
            raise ValueError("three is too wide")
        x, y = batch
        return super().step((self.dropout(x), y))

    def validation_step(self, batch):
        loss = super().validation_step(batch)["loss"]
        return {"loss": loss * float("nan") if self.config.width == 4 else loss}
'''


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Path]:
    """The file of the trainer `Slope`."""
    path = tmp_path / "slope.py"
    path.write_text(PROGRAM)
    yield path
    sys.modules.pop("slope", None)
    sys.path[:] = [each for each in sys.path if each != str(tmp_path)]


@pytest.fixture
def slope(program: Path) -> Any:
    """The trainer `Slope`."""
    return load_trainer(f"{program}:Slope")


@pytest.fixture
def forked() -> Iterator[Callable[[Callable[[], None]], int]]:
    """Begin a function in a process of its own, and give its id; what is left at the end is killed."""
    children: list[int] = []

    def fork(function: Callable[[], None]) -> int:
        child = os.fork()
        if child == 0:
            try:
                function()
            finally:
                os._exit(0)
        children.append(child)
        return child

    yield fork
    for child in children:
        try:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        except (ProcessLookupError, ChildProcessError):
            continue


def held(*trials: Path) -> bool:
    """Whether each of these trials waits before its seventh step, and has a checkpoint to go back to."""
    return all((trial / "held").exists() and any(trial.glob("v001/checkpoints/step-*")) for trial in trials)


def wait_for(what: Callable[[], Any], seconds: float = 100.0) -> Any:
    """What `what` gives once that is something; fails after so many seconds."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)
    return found
