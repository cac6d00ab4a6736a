"""Datasets of the feed tests; in a module of their own, so that spawned workers can import them."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import Any

import numpy as np
import torch


class Noisy:
    """Samples that draw from all three global generators."""

    def __init__(self, n: int = 20) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> dict[str, Any]:
        noise = [random.random(), np.random.rand(), torch.rand(()).item()]
        return {"index": index, "noise": torch.tensor(noise, dtype=torch.float64), "array": np.full((2, 3), index)}


class Drawn(Noisy):
    """Samples that draw from the generator they are given."""

    def sample(self, index: int, rng: np.random.Generator) -> torch.Tensor:
        return torch.from_numpy(rng.random(3))


class Broken(Noisy):
    """Sample 7 cannot be read."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == 7:
            raise OSError(5, "Input/output\nerror", "scan_7.nii")
        return super().__getitem__(index)

    def describe(self, index: int) -> str:
        return f"file scan_{index}.nii"


class Obedient(Noisy):
    """Does what the sample at an index says: dies, sleeps, or just is itself. Holds one large tensor."""

    def __init__(self, acts: dict[int, str], n: int = 20) -> None:
        super().__init__(n)
        self.acts = acts
        self.large = torch.arange(600_000, dtype=torch.float32)

    def __getitem__(self, index: int) -> torch.Tensor:
        act = self.acts.get(index)
        if act == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if act == "sleep":
            time.sleep(600)
        return self.large[index]


class Words:
    """Samples no pickler of ours knows specially: strings, None, scalars, an empty tensor, a bfloat16 one."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return ("word", None, index, torch.empty(0, 4), torch.full((), index, dtype=torch.bfloat16))


def as_list(samples: list[Any]) -> list[Any]:
    """A collate function that leaves samples as they are."""
    return samples
