"""What the batches of a set come to: means of scalars, and metric objects, which are computed once over the whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from treadle.engine.means import Means, is_metric
from treadle.errors import UsageError


class Scores:
    """Collects what a step returns for each batch of a set.

    Scalars are averaged, weighted by elements. Metric objects (torchmetrics', or anything with `update`, `compute` and
    `reset`), which the step has updated, are computed when all batches are through. `close` resets them, whatever
    happened, so that the next set begins anew and no checkpoint holds half of one.
    """

    def __init__(self) -> None:
        self.means = Means()
        self._metrics: dict[str, Any] = {}

    @property
    def has_objects(self) -> bool:
        """Whether a metric object is among them, which remembers all batches."""
        return bool(self._metrics)

    def add(self, outputs: Mapping[str, Any], weight: float) -> None:
        """Take what the step returned for a batch of `weight` elements."""
        scalars = {}
        for name, value in outputs.items():
            if isinstance(value, Tensor | float | int) or not is_metric(value):
                scalars[name] = value
            elif self._metrics.setdefault(name, value) is not value:
                raise UsageError(f"metric {name!r} is another object for each batch: make it once, in setup")
        self.means.add(scalars, weight)

    def result(self) -> dict[str, float]:
        """Means and computed metrics by name; one that computes several numbers gives "name/key" for each."""
        found = self.means.result()
        for name, metric in self._metrics.items():
            found |= _numbers(name, metric.compute())
        return found

    def close(self) -> None:
        """Reset the metric objects."""
        for metric in self._metrics.values():
            metric.reset()


def _numbers(name: str, computed: Any) -> dict[str, float]:
    """What a metric has computed, as floats by name."""
    if isinstance(computed, Mapping):
        return {
            key: value for part, each in computed.items() for key, value in _numbers(f"{name}/{part}", each).items()
        }
    if isinstance(computed, Tensor) and computed.numel() != 1:
        raise UsageError(
            f"metric {name!r} computes a tensor of shape {tuple(computed.shape)}: let it average, say with "
            "average='macro', or make a scalar of it"
        )
    try:
        return {name: float(computed)}
    except (TypeError, ValueError):
        raise UsageError(f"metric {name!r} computes a {type(computed).__name__}: expected a number") from None
