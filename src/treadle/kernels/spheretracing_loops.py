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
        here, stretch, end = np.float64(distances[ray]), stretches[ray], starts[ray + 1]
        step = max(scale * np.float64(sdf[i]), np.float64(entries[stretch]) - here)
        under_way[i] = False
        there = here + step
        if abs(step) < close or abs(step + np.float64(steps[ray])) < 10.0 * close:
            hits[ray] = True
            distances[ray] = min(there, np.float64(exits[stretch]))
            continue
        last = step
        while stretch < end and there > exits[stretch]:
            stretch += 1
        stretches[ray] = stretch
        if stretch == end:
            continue
        if there < entries[stretch]:
            there = np.float64(entries[stretch])
            last = np.float64(np.inf)
        distances[ray], steps[ray] = there, last
        under_way[i] = True
