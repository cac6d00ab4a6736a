"""Means of scalars, weighted by elements, without waiting for the device until somebody reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from treadle.errors import UsageError
from treadle.parallel import World


class Means:
    """Element-weighted means of named scalars.

    Values on the CPU are summed at once, as Python's floats; values on another device are kept as tensors and read
    together by `fold`, so that a training step never waits for the device.
    """

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}
        self._waiting: list[tuple[str, Tensor, float]] = []

    def add(self, values: Mapping[str, Any], weight: float) -> None:
        """Add scalars (tensors with one entry, or numbers), each with `weight` elements."""
        sums = self._sums
        for name, value in values.items():
            if isinstance(value, Tensor):
                if not value.is_cpu:
                    self._waiting.append((name, value.detach(), weight))
                    continue
                try:
                    value = value.item()
                except RuntimeError:
                    raise UsageError(
                        f"metric {name!r} has shape {tuple(value.shape)}: return one number, e.g. its .mean()"
                    ) from None
            elif hasattr(value, "compute") and is_metric(value):  # torchmetrics' objects can be multiplied, too
                raise UsageError(
                    f"metric {name!r} is a {type(value).__name__}: return a number here, say what calling it gives; "
                    "validation_step and test_step may return the object"
                )
            if name in sums:
                entry = sums[name]
            else:
                entry = sums[name] = [0.0, 0.0]
            try:
                entry[0] += value * weight
            except TypeError:
                raise UsageError(f"metric {name!r} is a {type(value).__name__}: return a number or a scalar") from None
            entry[1] += weight

    def fold(self) -> None:
        """Read the values that wait on the device, in one transfer for each device and dtype."""
        if not self._waiting:
            return
        alike: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for index, (_, value, _) in enumerate(self._waiting):
            alike.setdefault((value.device, value.dtype), []).append(index)
        numbers = [0.0] * len(self._waiting)
        for indices in alike.values():
            stacked = torch.stack([self._waiting[index][1].reshape(()) for index in indices])
            for index, number in zip(indices, stacked.tolist(), strict=True):
                numbers[index] = number
        for (name, _, weight), number in zip(self._waiting, numbers, strict=True):
            entry = self._sums.setdefault(name, [0.0, 0.0])
            entry[0] += number * weight
            entry[1] += weight
        self._waiting.clear()

    def merge(self, other: Means) -> None:
        """Add everything `other` holds (folded)."""
        other.fold()
        for name, (total, weight) in other._sums.items():
            entry = self._sums.setdefault(name, [0.0, 0.0])
            entry[0] += total
            entry[1] += weight

    def result(self) -> dict[str, float]:
        """The means, by name; empty when nothing was added."""
        self.fold()
        return {name: total / weight if weight else float("nan") for name, (total, weight) in self._sums.items()}

    def clear(self) -> None:
        """Forget everything."""
        self._sums = {}
        self._waiting = []

    def state_dict(self) -> dict[str, Any]:
        """Sums and weights as plain numbers."""
        self.fold()
        return {name: list(entry) for name, entry in self._sums.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._waiting = []
        self._sums = {name: list(entry) for name, entry in state.items()}


def over(world: World, means: Means) -> Means:
    """The means of all processes together, added in the order of ranks."""
    if world.size == 1:
        return means
    together = Means()
    for state in world.gather(means.state_dict()):
        part = Means()
        part.load_state_dict(state)
        together.merge(part)
    return together


def is_metric(value: Any) -> bool:
    """Whether `value` is a metric object, as torchmetrics has them: with `update`, `compute` and `reset`."""
    return all(callable(getattr(value, name, None)) for name in ("update", "compute", "reset"))


class Meter:
    """Means of the training metrics over two windows at once: the log interval and the epoch.

    The windows do not divide each other, so values are summed in segments that cross neither border.
    """

    def __init__(self) -> None:
        self._segment, self._interval, self._epoch = Means(), Means(), Means()
        self.add = self._segment.add

    def exchange(self, segment: Means) -> Means:
        """Add to `segment` from now on; returns what was added to before."""
        before, self._segment = self._segment, segment
        self.add = segment.add
        return before

    def _end_segment(self) -> None:
        self._interval.merge(self._segment)
        self._epoch.merge(self._segment)
        self._segment.clear()

    def take_interval(self) -> Means:
        """The means since the last `take_interval`."""
        self._end_segment()
        taken, self._interval = self._interval, Means()
        return taken

    def take_epoch(self) -> Means:
        """The means since the last `take_epoch`."""
        self._end_segment()
        taken, self._epoch = self._epoch, Means()
        return taken

    def take_running(self) -> dict[str, Any]:
        """Segment and windows as plain numbers, which then are empty: each of several processes has its own."""
        taken = self.state_dict()
        for means in (self._segment, self._interval, self._epoch):
            means.clear()
        return taken

    def add_running(self, state: dict[str, Any]) -> None:
        """Add what `take_running` gave."""
        for name, means in (("segment", self._segment), ("interval", self._interval), ("epoch", self._epoch)):
            part = Means()
            part.load_state_dict(state[name])
            means.merge(part)

    def state_dict(self) -> dict[str, Any]:
        """Segment and windows as plain numbers. Looking changes nothing: sums keep the order they are added in."""
        return {
            "segment": self._segment.state_dict(),
            "interval": self._interval.state_dict(),
            "epoch": self._epoch.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._segment.load_state_dict(state["segment"])
        self._interval.load_state_dict(state["interval"])
        self._epoch.load_state_dict(state["epoch"])
