"""The compiled loop of `spheretracing`."""

# mypy: disable-error-code="call-arg"
from __future__ import annotations

from typing import Any

import numpy as np

from treadle.kernels.compiling import compiled


@compiled()
def advance(
    distances: Any, steps: Any, stretches: Any, hits: Any, alive: Any, sdf: Any, starts: Any, entries: Any, exits: Any,
    scale: float, close: float, under_way: Any, part: int, parts: int,
) -> None:  # fmt: skip
    """See `spheretracing.advance`; a share of the rays."""
    count = len(alive)
    for i in range(count * part // parts, count * (part + 1) // parts):
        ray = alive[i]
        here, stretch, end = float(distances[ray]), stretches[ray], starts[ray + 1]
        step = max(scale * float(sdf[i]), float(entries[stretch]) - here)
        under_way[i] = False
        there = here + step
        if abs(step) < close or abs(step + float(steps[ray])) < 10.0 * close:
            hits[ray] = True
            distances[ray] = min(there, float(exits[stretch]))
            continue
        last = step
        while stretch < end and there > exits[stretch]:
            stretch += 1
        stretches[ray] = stretch
        if stretch == end:
            continue
        if there < entries[stretch]:
            there, last = float(entries[stretch]), np.inf
        distances[ray], steps[ray] = there, last
        under_way[i] = True
