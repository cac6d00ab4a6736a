"""Which of two values is better."""

from __future__ import annotations

from typing import Any

import pytest

from treadle.errors import UsageError
from treadle.hooks.monitor import is_better, monitored

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("value", "best", "mode", "by", "expected"),
    [
        (1.0, 2.0, "min", 0.0, True),
        (2.0, 2.0, "min", 0.0, False),
        (1.5, 2.0, "min", 0.5, False),
        (3.0, 2.0, "max", 0.0, True),
        (2.5, 2.0, "max", 0.5, False),
        (NAN, 2.0, "min", 0.0, False),
        (NAN, None, "min", 0.0, False),
        (NAN, NAN, "max", 0.0, False),
        (2.0, NAN, "min", 0.0, True),
        (2.0, NAN, "max", 0.5, True),
        (2.0, None, "min", 9.0, True),
        (5.0, INF, "min", 0.0, True),
        (INF, INF, "max", 0.0, False),
    ],
)
def test_is_better(value: float, best: float | None, mode: Any, by: float, expected: bool) -> None:
    assert is_better(value, best, mode, by) is expected


def test_monitored() -> None:
    assert monitored({"psnr": 30}, "psnr") == 30.0
    with pytest.raises(UsageError, match=r"monitor is 'loss', .*; known: psnr"):
        monitored({"psnr": 30}, "loss")
