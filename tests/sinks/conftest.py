"""The `Line` that the sinks' tests share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treadle import testing

sys.path.insert(0, str(Path(__file__).parent.parent / "tracts"))  # its small_tracts
sys.path.insert(0, str(Path(__file__).parent / "parts"))  # for the services' processes too


class Line(testing.Line):
    """One metric more, that of a picture."""

    def step(self, batch: Any) -> dict[str, Any]:
        outputs = super().step(batch)
        return {"psnr": -outputs["loss"]} | outputs


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a run waits for its services until all is sent, on a busy machine, too; tests of haste do not."""
    monkeypatch.setenv("TREADLE_CLOSING_SECONDS", "60")


@pytest.fixture
def line() -> Callable[..., Line]:
    """Make a `Line` on 40 points, 4 steps an epoch, logging every 2 steps."""
    data = testing.line_data(40)
    settings = {"data": data, "validation_data": data, "batch_size": 10, "max_epochs": 3, "log_every": "2 steps"}

    def make(**more: Any) -> Line:
        return Line(**(settings | more))

    return make
