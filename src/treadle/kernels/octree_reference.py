"""Trilinear look-ups in a sparse octree in plain torch: the definition, and what a GPU runs.

A point x in [-1, 1]^3 lies, in level l, in the cell c = min(floor(2^l (x + 1) / 2), 2^l - 1). Where that cell is
occupied, the level's features are the trilinear blend of the rows at its corners with weights 2^l (x + 1) / 2 - c;
where it is not, they are zero. Outside of the box nothing is occupied. A NaN coordinate makes all features NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from treadle.kernels.octree_index import OctreeIndex


def encode_reference(points: Tensor, table: Tensor, index: OctreeIndex) -> Tensor:
    """Encode points with differentiable torch operations, on any device and in any floating dtype.

    Args:
        points: (n, 3).
        table: (index.rows, features) learnt rows, of the dtype and on the device of `points`.
        index: where the rows lie.

    Returns:
        (n, levels * features), level by level.
    """
    finest = index.base + index.levels - 1
    inside = ((points >= -1) & (points <= 1)).all(dim=1)
    # Whoever is outside is computed at the centre: what is not used must not make NaN of gradients either.
    position = (points.where(inside[:, None], torch.zeros_like(points)) + 1) * 2.0 ** (finest - 1)
    cell = position.detach().clamp(max=2**finest - 1).long()
    node = _at(cell >> (finest - index.base), index)
    node = node.where(inside, torch.full_like(node, -1))
    found = []
    for level in range(index.levels):
        shift = finest - index.base - level
        record = index.records[node.clamp(min=0).long()]
        weight = position * 2.0**-shift - (cell >> shift)
        values = points.new_zeros(len(points), table.shape[1])
        for corner in range(8):
            sides = [weight[:, a] if corner >> a & 1 else 1 - weight[:, a] for a in range(3)]
            share = sides[0] * sides[1] * sides[2]
            values = values + share[:, None] * table[record[:, 8 + corner].long()]
        found.append(values.where((node >= 0)[:, None], torch.zeros_like(values)))
        if shift:
            bits = (cell >> (shift - 1)) & 1
            octant = bits[:, 0] + 2 * bits[:, 1] + 4 * bits[:, 2]
            child = record.gather(1, octant[:, None])[:, 0]
            node = child.where(node >= 0, torch.full_like(child, -1))
    features = torch.cat(found, dim=1)
    missing = points.isnan().any(dim=1, keepdim=True)
    return features.where(~missing, torch.full_like(features, torch.nan))


def _at(cells: Tensor, index: OctreeIndex) -> Tensor:
    """The records of cells of the base level."""
    return index.roots[cells[:, 0] + ((cells[:, 1] + (cells[:, 2] << index.base)) << index.base)]
