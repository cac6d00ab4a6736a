"""Sums of scalars that stay on their device until somebody reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class RunningSums:
    """Sums named scalar tensors over calls, without waiting for the device.

    Scalars that come together are summed together, as one small vector for each set of names: two operations a call.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add detached scalars by name, at least one; they may lie on several devices."""
        names = tuple(values)
        vector = _stack(list(values.values()))
        total = self._sums.get(names)
        if total is None or total.device != vector.device:
            total = self._begin(names, vector)
        total.add_(vector)
        self._counts[names] += 1

    def take(self) -> dict[str, float]:
        """Return the mean of each name over the calls that had it, and start anew. Reads the device once."""
        # Sorted, so that a resumed run adds in the same order.
        filled = sorted(names for names, count in self._counts.items() if count)
        if not filled:
            return {}
        numbers = torch.cat([self._sums[names].to("cpu", torch.float64) for names in filled]).tolist()
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for names in filled:
            for name in names:
                sums[name] = sums.get(name, 0.0) + numbers.pop(0)
                counts[name] = counts.get(name, 0) + self._counts[names]
            self._sums[names].zero_()
            self._counts[names] = 0
        return {name: value / counts[name] for name, value in sums.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the sums and counts as they stand, by the names joined with a comma."""
        filled = {names: count for names, count in self._counts.items() if count}
        return {
            "sums": {",".join(names): self._sums[names].clone() for names in filled},
            "counts": {",".join(names): count for names, count in filled.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._sums = {tuple(key.split(",")): total.clone() for key, total in state["sums"].items()}
        self._counts = {tuple(key.split(",")): int(count) for key, count in state["counts"].items()}

    def _begin(self, names: tuple[str, ...], vector: Tensor) -> Tensor:
        """Begin on the vector's device, with what was summed on another before."""
        # Long sums want double precision, which Apple's GPUs do not have.
        dtype = torch.float32 if vector.device.type == "mps" else torch.float64
        before = self._sums.get(names)
        if before is None:
            total = torch.zeros(len(names), dtype=dtype, device=vector.device)
        else:
            total = before.to(vector.device, dtype)
        self._sums[names] = total
        self._counts.setdefault(names, 0)
        return total


def _stack(values: list[Tensor]) -> Tensor:
    """Stack scalars; where they are on several devices, on the first that is not the CPU."""
    try:
        return torch.stack(values)
    except RuntimeError:
        device = next((value.device for value in values if not value.is_cpu), values[0].device)
        return torch.stack([value.to(device, torch.float32) for value in values])
