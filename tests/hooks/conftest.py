"""A small trainer that the hooks' tests share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from treadle.testing import Line, line_data


class Scripted(Line):
    """Its n-th validation gives the n-th value of `script` (the last is held)."""

    def __init__(self, script: Sequence[float] = (), **arguments: Any) -> None:
        self.script = list(script)
        self.validations = 0
        super().__init__(**arguments)

    def post_validation(self, metrics: Any) -> None:
        self.validations += 1

    def validation_step(self, batch: Any) -> Any:
        if not self.script:
            return super().validation_step(batch)
        return {"loss": self.script[min(self.validations, len(self.script) - 1)]}


@pytest.fixture
def scripted() -> Callable[..., Scripted]:
    """Make a `Scripted` on 40 points, 4 steps an epoch."""
    data = line_data(40)

    def make(script: Sequence[float] = (), kind: type[Scripted] = Scripted, **settings: Any) -> Scripted:
        return kind(script, **({"data": data, "validation_data": data, "batch_size": 10, "max_epochs": 8} | settings))

    return make
