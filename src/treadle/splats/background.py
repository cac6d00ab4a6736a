"""What shows where nothing is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Plain = Literal["white", "black"]


@dataclass(frozen=True)
class Background:
    """White, black, or another colour in each step, so that nothing is gained by painting the background.

    Attributes:
        trained: over what is trained: "white", "black" or "random".
        tested: over what is measured: "white" or "black".
    """

    trained: Plain | Literal["random"]
    tested: Plain

    @classmethod
    def of(cls, chosen: str, *, transparent: bool) -> Background:
        """The background that a setting means, for photographs that are `transparent` in places or not."""
        if chosen == "auto":
            chosen = "random" if transparent else "black"
        if chosen == "random":
            return cls("random", "white" if transparent else "black")
        plain: Plain = "white" if chosen == "white" else "black"
        return cls(plain, plain)

    def in_training(self, generator: torch.Generator, device: torch.device) -> Tensor:
        """The colour of a step, (3,) from 0 to 1; a random one is drawn from `generator`, on the CPU."""
        return (
            torch.rand(3, generator=generator).to(device) if self.trained == "random" else _plain(self.trained, device)
        )

    def in_tests(self, device: torch.device) -> Tensor:
        """The colour behind held-out views, (3,)."""
        return _plain(self.tested, device)


def _plain(name: str, device: torch.device) -> Tensor:
    return torch.full((3,), 1.0 if name == "white" else 0.0, device=device)
