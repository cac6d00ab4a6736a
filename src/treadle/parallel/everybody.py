"""Tensors of everybody: of all processes, and of all parts of a batch that these have, of whatever shapes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from treadle.parallel.world import World


def everybodys(world: World, mine: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """For each tensor the list of everybody's, in the order of ranks, and of each process's own entries of `mine`.

    Every process has as many entries, with as many tensors, of the same dtypes; the shapes may differ.
    """
    count = len(mine[0])
    if world.size == 1 or not count:
        return [[entry[k] for entry in mine] for k in range(count)]
    shapes = world.gather([[list(tensor.shape) for tensor in entry] for entry in mine])
    found: list[list[Tensor]] = [[] for _ in range(count)]
    for rank, theirs in enumerate(shapes):
        for number, entry in enumerate(theirs):
            for k, shape in enumerate(entry):
                own = mine[number][k]
                found[k].append(own.contiguous() if rank == world.rank else own.new_empty(shape))
        world.spread([tensor for some in found for tensor in some[-len(theirs) :] if tensor.numel()], rank)
    return found
