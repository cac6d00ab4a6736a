"""How many rays a step takes: as many as it takes to have about so many samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from treadle.fields.rendering import next_rays

_LEAST = 64


class RayRate:
    """Follows how many samples a ray takes, which falls as empty space is pruned, and says how many rays to take next.

    What it says is a function of the counts it was told alone; it is saved with the run.

    Args:
        target: samples that a step is to take; None takes `most` rays in every step.
        first: rays of the first step.
        most: rays at most.

    Example:
        rate = RayRate(target=65_536, first=512, most=16_384)
        rate.tell(rays=rate.rays, samples=131_072)
        rate.rays                            # 256
    """

    def __init__(self, target: int | None, first: int, most: int) -> None:
        self.target, self.most = target, most
        self.rays = most if target is None else max(1, min(first, most))

    def tell(self, rays: int, samples: int) -> None:
        """A step has taken so many rays, and samples along them."""
        if self.target is None:
            return
        # At most twice as many as before: a step that met nothing says little about the next.
        most = min(self.most, 2 * self.rays)
        self.rays = next_rays(rays, samples, self.target, min(_LEAST, most), most)

    def state_dict(self) -> dict[str, Any]:
        """The rays of the next step."""
        return {"rays": self.rays}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.rays = int(state["rays"])
