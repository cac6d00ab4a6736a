"""Treadle: a training loop you can step, rewind and trust.

The public names below are loaded when they are first used, so that `import treadle` costs nothing by itself.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from treadle.errors import RunError, StateError, TreadleError, UsageError

if TYPE_CHECKING:
    from treadle.checkpoint.loops import capture, restore
    from treadle.checkpoint.state import State
    from treadle.config.settings import setting
    from treadle.data.dataset import DatasetFeed
    from treadle.data.feed import Feed
    from treadle.data.random import seed_everything
    from treadle.data.steps import Steps
    from treadle.data.stream import StreamFeed
    from treadle.data.tensors import TensorFeed
    from treadle.engine.bad_steps import BadStep
    from treadle.engine.ema import EMA
    from treadle.engine.events import Hook, Order, Record
    from treadle.engine.guard import BadStepGuard
    from treadle.engine.interrupts import Interrupts
    from treadle.engine.load_weights import load_weights
    from treadle.engine.lr import LearningRate
    from treadle.engine.objective import Losses, Objective
    from treadle.engine.optim import parameter_groups
    from treadle.engine.progress import Progress
    from treadle.engine.rows import RowEdit
    from treadle.engine.schedule import Every, Span
    from treadle.engine.settings import StartSettings, TrainerConfig
    from treadle.engine.summary import Overview, Summary
    from treadle.engine.trainer import Trainer
    from treadle.gans.translating import translate
    from treadle.recipes.actions import fork, resume, test, try_out, verify
    from treadle.runs.checkpoints import Checkpoints
    from treadle.sweeps.sweep import sweep

__version__ = "0.1.0"

_HOMES = {
    "BadStep": "engine.bad_steps",
    "BadStepGuard": "engine.guard",
    "Checkpoints": "runs.checkpoints",
    "DatasetFeed": "data.dataset",
    "EMA": "engine.ema",
    "Every": "engine.schedule",
    "Feed": "data.feed",
    "Hook": "engine.events",
    "Interrupts": "engine.interrupts",
    "LearningRate": "engine.lr",
    "Losses": "engine.objective",
    "Objective": "engine.objective",
    "Order": "engine.events",
    "Progress": "engine.progress",
    "Record": "engine.events",
    "RowEdit": "engine.rows",
    "Span": "engine.schedule",
    "StartSettings": "engine.settings",
    "State": "checkpoint.state",
    "Steps": "data.steps",
    "StreamFeed": "data.stream",
    "Overview": "engine.summary",
    "Summary": "engine.summary",
    "TensorFeed": "data.tensors",
    "Trainer": "engine.trainer",
    "TrainerConfig": "engine.settings",
    "capture": "checkpoint.loops",
    "fork": "recipes.actions",
    "load_weights": "engine.load_weights",
    "parameter_groups": "engine.optim",
    "restore": "checkpoint.loops",
    "resume": "recipes.actions",
    "seed_everything": "data.random",
    "setting": "config.settings",
    "sweep": "sweeps.sweep",
    "test": "recipes.actions",
    "translate": "gans.translating",
    "try_out": "recipes.actions",
    "verify": "recipes.actions",
}

_FORMER = {"Snapshot": "Overview"}
"""Names that were changed, for this release: a snapshot is a state to go back to."""

__all__ = [
    "EMA",
    "BadStep",
    "BadStepGuard",
    "Checkpoints",
    "DatasetFeed",
    "Every",
    "Feed",
    "Hook",
    "Interrupts",
    "LearningRate",
    "Losses",
    "Objective",
    "Order",
    "Overview",
    "Progress",
    "Record",
    "RowEdit",
    "RunError",
    "Span",
    "StartSettings",
    "State",
    "StateError",
    "Steps",
    "StreamFeed",
    "Summary",
    "TensorFeed",
    "Trainer",
    "TrainerConfig",
    "TreadleError",
    "UsageError",
    "__version__",
    "capture",
    "fork",
    "load_weights",
    "parameter_groups",
    "restore",
    "resume",
    "seed_everything",
    "setting",
    "sweep",
    "test",
    "translate",
    "try_out",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _FORMER:
        warnings.warn(f"treadle.{name} is now called treadle.{_FORMER[name]}", FutureWarning, stacklevel=2)
        name = _FORMER[name]
    if name not in _HOMES:
        raise AttributeError(f"module 'treadle' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"treadle.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
