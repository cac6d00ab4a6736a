"""Putting a trainer together."""

from __future__ import annotations

import pytest
import torch

from treadle import TensorFeed, UsageError
from treadle.testing import Line, line_data


@pytest.mark.parametrize("name", ["metrics", "batch", "best", "random", "loop", "status", "hooks"])
def test_setup_cannot_take_a_name_of_the_engine(name: str) -> None:
    """Such a module would be neither moved to the device nor saved, without a word."""

    class Taking(Line):
        def setup(self) -> None:
            super().setup()
            setattr(self, name, torch.nn.Linear(1, 1))

    with pytest.raises(UsageError, match=f"sets self.{name}, which the trainer itself needs"):
        Taking(max_steps=1)


def test_setup_may_make_the_feed() -> None:
    class Feeding(Line):
        def setup(self) -> None:
            super().setup()
            self.feed = TensorFeed(line_data(8), 4)

    assert Feeding(max_epochs=1).train().step == 2
