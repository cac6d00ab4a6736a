"""The compiled loop of `voxels`: triangles against boxes, by separating axes."""

# mypy: disable-error-code="call-arg"
from __future__ import annotations

from typing import Any

import numpy as np

from treadle.kernels.compiling import compiled


@compiled()
def apart(x0: float, x1: float, x2: float, reach: float) -> Any:
    """Whether three corners, along an axis on which the box reaches from -reach to reach, lie on one side of it."""
    return min(x0, x1, x2) > reach or max(x0, x1, x2) < -reach


@compiled()
def overlaps(v: Any, cx: float, cy: float, cz: float, half: float) -> Any:
    """Whether triangle `v` (3, 3) touches the cube of half side `half` around a centre: no axis separates the two.

    The axes are the cube's three, the triangle's normal, and the nine that are across an edge of each.
    """
    a0, a1, a2 = v[0, 0] - cx, v[0, 1] - cy, v[0, 2] - cz
    b0, b1, b2 = v[1, 0] - cx, v[1, 1] - cy, v[1, 2] - cz
    c0, c1, c2 = v[2, 0] - cx, v[2, 1] - cy, v[2, 2] - cz
    if apart(a0, b0, c0, half) or apart(a1, b1, c1, half) or apart(a2, b2, c2, half):
        return False
    for edge in range(3):
        e0 = v[(edge + 1) % 3, 0] - v[edge, 0]
        e1 = v[(edge + 1) % 3, 1] - v[edge, 1]
        e2 = v[(edge + 1) % 3, 2] - v[edge, 2]
        if apart(e1 * a2 - e2 * a1, e1 * b2 - e2 * b1, e1 * c2 - e2 * c1, half * (abs(e1) + abs(e2))):
            return False
        if apart(e2 * a0 - e0 * a2, e2 * b0 - e0 * b2, e2 * c0 - e0 * c2, half * (abs(e2) + abs(e0))):
            return False
        if apart(e0 * a1 - e1 * a0, e0 * b1 - e1 * b0, e0 * c1 - e1 * c0, half * (abs(e0) + abs(e1))):
            return False
    n0 = (b1 - a1) * (c2 - a2) - (b2 - a2) * (c1 - a1)
    n1 = (b2 - a2) * (c0 - a0) - (b0 - a0) * (c2 - a2)
    n2 = (b0 - a0) * (c1 - a1) - (b1 - a1) * (c0 - a0)
    distance = n0 * a0 + n1 * a1 + n2 * a2
    return abs(distance) <= half * (abs(n0) + abs(n1) + abs(n2))


@compiled()
def touch(vertices: Any, faces: Any, level: int, fill: bool, starts: Any, codes: Any, part: int, parts: int) -> None:
    """Count the cells that each triangle touches in `starts[1:]`, or, with `fill`, write their codes."""
    waiting, heights = np.empty(8 * level + 8, np.int64), np.empty(8 * level + 8, np.int64)
    v = np.empty((3, 3))
    for face in range(len(faces) * part // parts, len(faces) * (part + 1) // parts):
        for corner in range(3):
            for axis in range(3):
                v[corner, axis] = vertices[faces[face, corner], axis]
        count, depth = 0, 1
        waiting[0], heights[0] = 0, level
        while depth:
            depth -= 1
            code, height = waiting[depth], heights[depth]
            x, y, z = 0, 0, 0
            for bit in range(level - height):
                x |= ((code >> (3 * bit + 2)) & 1) << bit
                y |= ((code >> (3 * bit + 1)) & 1) << bit
                z |= ((code >> (3 * bit)) & 1) << bit
            half = 0.5 ** (level - height)
            if not overlaps(v, (2 * x + 1) * half - 1.0, (2 * y + 1) * half - 1.0, (2 * z + 1) * half - 1.0, half):
                continue
            if height == 0:
                if fill:
                    codes[starts[face] + count] = code
                count += 1
                continue
            for child in range(8):
                waiting[depth], heights[depth] = (code << 3) | child, height - 1
                depth += 1
        if not fill:
            starts[face + 1] = count
