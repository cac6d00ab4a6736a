"""Cells of a cube by number: Morton codes, the tree over them, and which of them a mesh of triangles touches."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from treadle.errors import UsageError
from treadle.kernels import threads
from treadle.kernels.marching import Tree

FINEST = 16
"""The largest level: 65,536 cells along a side."""


def encode(cells: Tensor, level: int) -> Tensor:
    """Morton codes (n,) int64 of `cells` (n, 3) of a level: the bits of x, y and z by turns, x first."""
    codes = torch.zeros(len(cells), dtype=torch.int64, device=cells.device)
    for bit in range(level):
        for axis in range(3):
            codes |= (cells[:, axis] >> bit & 1) << (3 * bit + 2 - axis)
    return codes


def decode(codes: Tensor, level: int) -> Tensor:
    """The cells (n, 3) int64 of Morton codes (n,)."""
    cells = torch.zeros(len(codes), 3, dtype=torch.int64, device=codes.device)
    for bit in range(level):
        for axis in range(3):
            cells[:, axis] |= (codes >> (3 * bit + 2 - axis) & 1) << bit
    return cells


def tree(codes: Tensor, level: int) -> Tree:
    """All larger cells above `codes` (n,), sorted Morton codes of a level, each there once."""
    children, first, nodes = [], [], codes
    for _ in range(level):
        parents, which = torch.unique_consecutive(nodes >> 3, return_inverse=True)
        masks = torch.zeros(len(parents), dtype=torch.int64, device=codes.device)
        masks = masks.scatter_add(0, which, torch.ones_like(nodes) << (nodes & 7))  # each bit once: a sum is an or
        counts = torch.bincount(which, minlength=len(parents))
        children.append(masks.to(torch.uint8))
        first.append(counts.cumsum(0) - counts)
        nodes = parents
    children.reverse()
    first.reverse()
    after = 0
    for height, inner in enumerate(children):
        after += len(inner)
        first[height] += after
    empty = codes.new_zeros(0)
    return Tree(torch.cat([*children, empty.to(torch.uint8)]), torch.cat([*first, empty]), level)


def touched(vertices: NDArray[np.float64], faces: NDArray[np.int64], level: int) -> Tensor:
    """The cells of side 2^(1 - level) in [-1, 1]^3 that triangles touch, boundaries included: sorted Morton codes (n,).

    Exact, by separating axes (Akenine-Möller 2001, "Fast 3D triangle-box overlap testing"), from the box down.

    Args:
        vertices: (v, 3), finite.
        faces: (f, 3), numbers of vertices; those without area touch what their sides touch.
        level: from 0 to `FINEST`.

    Raises:
        UsageError: other shapes, vertices that are not finite, or faces of vertices that are not there.
    """
    vertices, faces = np.ascontiguousarray(vertices, np.float64), np.ascontiguousarray(faces, np.int64)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
        raise UsageError(f"voxels: expected finite vertices (v, 3), got {vertices.shape}")
    if faces.ndim != 2 or faces.shape[1] != 3 or (faces.size and not 0 <= faces.min() <= faces.max() < len(vertices)):
        raise UsageError(f"voxels: expected faces (f, 3) of {len(vertices)} vertices, got {faces.shape}")
    if not 0 <= level <= FINEST:
        raise UsageError(f"voxels: level is {level}: expected 0 to {FINEST}")
    counts = np.zeros(len(faces) + 1, np.int64)
    parts = max(1, min(threads.parts_for(-(-len(faces) // 64)), len(faces)))
    threads.spread(_loops().touch, parts, vertices, faces, level, False, counts, np.empty(0, np.int64))
    starts = counts.cumsum()
    codes = np.empty(starts[-1], np.int64)
    threads.spread(_loops().touch, parts, vertices, faces, level, True, starts, codes)
    return torch.from_numpy(np.unique(codes))


@lru_cache
def _loops() -> Any:
    """Compiled at the first call, and kept on disk: importing this module costs nothing."""
    from treadle.kernels import voxels_loops

    return voxels_loops
