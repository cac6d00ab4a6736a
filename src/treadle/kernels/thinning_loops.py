"""The compiled loop of `thinning`."""

# mypy: disable-error-code="call-arg"
from __future__ import annotations

from typing import Any

from treadle.kernels.compiling import compiled


@compiled()
def thin(points: Any, offsets: Any, tolerance: float, longest: float, keep: Any, part: int, parts: int) -> None:
    """See `thinning.thin`. Lines are shared out."""
    lines = len(offsets) - 1
    for line in range(lines * part // parts, lines * (part + 1) // parts):
        begin, end = offsets[line], offsets[line + 1]
        if begin == end:
            continue
        keep[begin] = 1
        at = begin
        while at < end - 1:
            last = at + 1
            for candidate in range(at + 2, end):
                dx = points[candidate, 0] - points[at, 0]
                dy = points[candidate, 1] - points[at, 1]
                dz = points[candidate, 2] - points[at, 2]
                square = dx * dx + dy * dy + dz * dz
                if square > longest * longest:
                    break
                fits = True
                for between in range(at + 1, candidate):
                    x = points[between, 0] - points[at, 0]
                    y = points[between, 1] - points[at, 1]
                    z = points[between, 2] - points[at, 2]
                    along = 0.0
                    if square > 0.0:
                        along = min(1.0, max(0.0, (x * dx + y * dy + z * dz) / square))
                    x, y, z = x - along * dx, y - along * dy, z - along * dz
                    if x * x + y * y + z * z > tolerance * tolerance:
                        fits = False
                        break
                if not fits:
                    break
                last = candidate
            keep[last] = 1
            at = last
