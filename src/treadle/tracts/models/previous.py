"""The directions that a line came by, as something to look at beside the features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from treadle.tracts.directions import unit
from treadle.tracts.models.buckets import positions
from treadle.tracts.models.embeddings import Embedding, build_embedding


class PreviousDirections(nn.Module):
    """The `count` steps before each point, the latest first, embedded; 0 where a line has not come so far.

    dwi_ml's `nb_previous_dirs`, `normalize_prev_dirs`, `prev_dirs_embedding_key` and `prev_dirs_embedded_size`.
    """

    def __init__(self, count: int, *, normalize: bool, embedding: Embedding = "none", size: int | None = None) -> None:
        """
        Args:
            count: how many; 0 makes rows of width 0.
            normalize: whether each is brought to length 1 before.
            embedding: "none" or "nn".
            size: numbers per point of "nn"; None is 3 * count.
        """
        super().__init__()
        self.count, self.normalize = count, normalize
        self.embed, self.width = build_embedding(embedding if count else "none", 3 * count, size or 3 * count)

    def forward(self, previous: Tensor, offsets: Tensor) -> Tensor:
        """(p, width) from the step (p, 3) that led to each point of packed lines."""
        if self.count == 0:
            return previous[:, :0]
        latest = unit(previous) if self.normalize else previous
        taken = [latest]
        if self.count > 1:
            before = positions(offsets).to(previous.device)
            rows = torch.arange(len(previous), device=previous.device)
        for back in range(1, self.count):
            there = before >= back
            taken.append(latest[(rows - back).clamp_min(0)] * there[:, None])
        return self.embed(torch.cat(taken, dim=1))

    def start(self, count: int) -> Tensor:
        """What `count` lines remember before their first point: (count, self.count - 1, 3)."""
        parameter = next(self.parameters(), None)
        like = torch.empty(0) if parameter is None else parameter
        return like.new_zeros(count, max(0, self.count - 1), 3)

    def advance(self, remembered: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
        """One point on: the step (n, 3) that led there -> (n, width), and what is remembered now."""
        if self.count == 0:
            return previous[:, :0], remembered
        latest = unit(previous) if self.normalize else previous
        steps = torch.cat([latest[:, None], remembered.to(latest)], dim=1)
        return self.embed(steps.flatten(1)), steps[:, :-1]
