"""For all tests: the `Line` trainer on few points, a hook that writes down what it sees, one torch thread per process.

One thread, since pytest runs a process per core: two processes with two threads each would wait for one another in spin
locks and take many times as long. A test that is about threads sets their number itself.
"""

from __future__ import annotations

import gc
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

from treadle import Hook, Trainer, testing
from treadle.testing import Line

# Where it was set, each of the hundreds of processes that tests start would compile our sources anew.
sys.dont_write_bytecode = False

hypothesis.settings.register_profile("patient", deadline=None)  # no clock decides a verdict
hypothesis.settings.load_profile("patient")


class Diary(Hook):
    """Writes down every event with the counters at that moment."""

    def __init__(self) -> None:
        self.lines: list[tuple[Any, ...]] = []

    def write(self, event: str, trainer: Trainer) -> None:
        self.lines.append((event, trainer.progress.epoch, trainer.progress.step))


def _recorder(event: str) -> Callable[..., None]:
    def record(self: Diary, trainer: Trainer, *_: Any) -> None:
        self.write(event, trainer)

    return record


for _event in (
    *("pre_training", "pre_epoch", "pre_step", "pre_update", "post_step", "post_epoch"),
    *("pre_validation", "post_validation", "post_training", "teardown", "on_exception"),
):
    setattr(Diary, _event, _recorder(_event))


def pytest_collection() -> None:
    """What is imported and collected stays: nothing of it is looked through for garbage."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Nor while tests run: half a million objects would be looked through again and again, in a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the page wait for a browser: one that fails is taken again, twice at most, and named at the end.

    All others have one try: what is exact only most of the time is wrong.
    """
    browser = Path(__file__).parent / "studio" / "browser"
    for item in items:
        if item.path.is_relative_to(browser):
            item.add_marker(pytest.mark.flaky(reruns=2))


@pytest.fixture
def line_data() -> tuple[torch.Tensor, torch.Tensor]:
    return testing.line_data()


@pytest.fixture
def line(line_data: tuple[torch.Tensor, torch.Tensor]) -> Callable[..., Line]:
    """Make a `Line` on 50 points in batches of 20, so that the last batch of an epoch is short."""

    def make(kind: type[Line] = Line, **settings: Any) -> Line:
        return kind(**({"data": line_data, "batch_size": 20, "max_epochs": 2, "seed": 0} | settings))

    return make


@pytest.fixture
def diary() -> Diary:
    return Diary()


@pytest.fixture
def line_class() -> type[Line]:
    return Line
