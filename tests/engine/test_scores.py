"""Means of scalars and metric objects, side by side."""

from __future__ import annotations

import torch

from treadle.engine.scores import Scores


class Count:
    def __init__(self) -> None:
        self.n = 0

    def update(self, n: int) -> None:
        self.n += n

    def compute(self) -> dict[str, object]:
        return {"all": self.n, "half": {"of": torch.tensor(self.n / 2)}}

    def reset(self) -> None:
        self.n = 0


def test_scalars_are_averaged_and_objects_computed_once() -> None:
    scores, count = Scores(), Count()
    for n, loss in ((3, 1.0), (1, 5.0)):
        count.update(n)
        scores.add({"loss": torch.tensor(loss), "count": count}, n)
    assert scores.result() == {"loss": 2.0, "count/all": 4.0, "count/half/of": 2.0}
    scores.close()
    assert count.n == 0
