"""Sparse gradients of several processes, added up: the entries of all, in the order of ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from treadle.errors import RunError
from treadle.parallel import World


def add_sparse(world: World, gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> list[Tensor]:
    """The sums over processes of sparse gradients, coalesced; None is what a process has where only others have one.

    Collective. A message with the numbers of entries, then two for each parameter, as long as the most entries that a
    process has. Raises RunError where one is sparse in other dimensions than in another process.
    """
    mine = [None if g is None else g.coalesce() for g in gradients]
    told = world.gather([[0, 0] if g is None else [g._nnz(), g.sparse_dim()] for g in mine])
    sums = []
    for index, (g, p) in enumerate(zip(mine, parameters, strict=True)):
        counts = [one[index][0] for one in told]
        kinds = {one[index][1] for one in told} - {0}
        if len(kinds) != 1:
            raise RunError(f"a gradient of shape {tuple(p.shape)} is sparse in other dimensions in another process")
        (dims,) = kinds
        places = torch.zeros(dims, max(counts), dtype=torch.int64, device=p.device)
        values = torch.zeros(max(counts), *p.shape[dims:], dtype=p.dtype, device=p.device)
        if g is not None:
            places[:, : g._nnz()] = g.indices()
            values[: g._nnz()] = g.values()
        theirs = zip(world.collect(places), world.collect(values), counts, strict=True)
        found = [(place[:, :count], value[:count]) for place, value, count in theirs]
        joined = torch.cat([place for place, _ in found], 1), torch.cat([value for _, value in found])
        sums.append(torch.sparse_coo_tensor(*joined, p.shape, check_invariants=False).coalesce())
    return sums


def add_mixed(world: World, gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> list[Tensor]:
    """The sums of gradients that are sparse in some processes and dense in others: dense, as in one process."""
    sums = [torch.zeros_like(p) for p in parameters]
    for total, g in zip(sums, gradients, strict=True):
        if g is not None:
            total += g
    world.sum(sums)
    return sums
