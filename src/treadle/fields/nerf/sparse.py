"""Grids that store occupied cells alone: what is found empty leaves them, with its rows, while they are trained."""

from __future__ import annotations

import torch
from torch import Tensor

from treadle.fields.grids.octree import EditRows, SparseGrid
from treadle.fields.nerf.field import NeRFField
from treadle.fields.structures.structure import Structure

_CHUNK = 1 << 15


def shrink(field: NeRFField, structure: Structure, edit_rows: EditRows) -> int:
    """Take the cells out of a field's octree or codebook in which nothing is occupied; returns how many rows went.

    A cell stays where any place in it, or half a cell around it, is occupied: what is to be interpolated next to a
    surface stays, and so does everything where nothing is occupied at all.
    """
    gone = 0
    for grid in field.grid.modules():
        if isinstance(grid, SparseGrid):
            keep = occupied_cells(grid, field, structure)
            if bool(keep.any()):
                gone += grid.prune(keep, edit_rows)
    return gone


def occupied_cells(grid: SparseGrid, field: NeRFField, structure: Structure) -> Tensor:
    """(m,) bool: which cells of the finest level are occupied, or next to what is."""
    side = 2.0 / 2**grid.finest
    shifts = torch.linspace(-side, side, 5, device=grid.codes.device)
    probes = torch.cartesian_prod(shifts, shifts, shifts)
    found = []
    for centers in grid.centres().split(_CHUNK):
        places = (centers[:, None] + probes).clamp(-1, 1).reshape(-1, 3)
        found.append(structure.occupied(field.unplaced(places)).reshape(len(centers), -1).any(1))
    return torch.cat(found)
