"""Attention to the past: the layers of a transformer that follows lines."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from treadle.errors import UsageError

Memory = tuple[Tensor, ...]
"""What a layer has to remember of n lines: keys and values (2, n, heads, steps, e) of each of its attentions."""


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Positions (t,) as sines and cosines of falling frequency, (t, width): Vaswani et al., arXiv:1706.03762."""
    rates = torch.exp(torch.arange(0, width, 2, device=positions.device) * (-math.log(10000.0) / width))
    angles = positions[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width]


class Attention(nn.Module):
    """Several heads that look from points at what is remembered of their own and of earlier points.

    With relational positions a score also depends on how many points lie between (Dai et al., Transformer-XL,
    arXiv:1901.02860: a learnt projection of the sinusoids of the distance), instead of on where both are.
    """

    def __init__(self, width: int, heads: int, dropout: float, *, relational: bool) -> None:
        """
        Args:
            width: numbers per point.
            heads: must divide `width`.
            dropout: the share of attention that is 0, in training.
            relational: see above.
        """
        super().__init__()
        if width % heads:
            raise UsageError(f"a transformer {width} wide (see embedding_size) cannot have {heads} heads of equal size")
        self.heads, self.dropout = heads, dropout
        self.queries, self.memory = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.distances = nn.Linear(width, width, bias=False) if relational else None

    def remember(self, source: Tensor, past: Tensor | None) -> Tensor:
        """Keys and values of points (n, t, width), after those of the past: (2, n, heads, all steps, e)."""
        memory = self._heads(self.memory(source)).unflatten(1, (2, self.heads)).transpose(0, 1)
        return memory if past is None else torch.cat([past, memory], dim=3)

    def forward(self, points: Tensor, memory: Tensor) -> Tensor:
        """Look from points (n, q, width), the last q of the t steps in `memory` (q is t or 1): (n, q, width)."""
        queries, (keys, values) = self._heads(self.queries(points)), memory
        causal, scores = points.shape[1] > 1, None
        if self.distances is not None:
            scores, causal = self._scores(queries, keys.shape[2]), False
        found = functional.scaled_dot_product_attention(
            queries, keys, values, scores, dropout_p=self.dropout if self.training else 0.0, is_causal=causal
        )
        return self.out(found.transpose(1, 2).flatten(2))

    def _heads(self, values: Tensor) -> Tensor:
        """(n, t, k * width) as (n, k * heads, t, e), for k of 1 or 2."""
        return values.unflatten(2, (-1, self.queries.in_features // self.heads)).transpose(1, 2)

    def _scores(self, queries: Tensor, steps: int) -> Tensor:
        """What distances add to the scores (n, heads, q, t), and minus infinity for what is to come."""
        assert self.distances is not None
        here = torch.arange(steps, device=queries.device)
        told = self.distances(sinusoids(here, self.distances.in_features).to(queries))
        each = queries @ told.unflatten(1, (self.heads, -1)).permute(1, 2, 0) / math.sqrt(queries.shape[3])
        distances = here[-queries.shape[2] :, None] - here
        scores = each.gather(3, distances.clamp_min(0).expand(each.shape))
        return scores.masked_fill(distances < 0, -math.inf)


class Layer(nn.Module):
    """Attention to one's own past, in a decoder also to the encoder's, then two layers at each point, each part added.

    As torch's `TransformerEncoderLayer` and `TransformerDecoderLayer` (batch first), causal throughout.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        feedforward: int,
        dropout: float,
        *,
        activation: Literal["relu", "gelu"],
        norm_first: bool,
        relational: bool,
        decoder: bool,
    ) -> None:
        """
        Args:
            width, heads: see `Attention`.
            feedforward: width between the two layers.
            dropout: the share of numbers that are 0 after each part, and inside, in training.
            activation: between the two layers.
            norm_first: bring to mean 0 and variance 1 before each part instead of after it was added.
            relational: see `Attention`.
            decoder: also look at an encoder.
        """
        super().__init__()
        self.norm_first, self.dropout = norm_first, nn.Dropout(dropout)
        self.own = Attention(width, heads, dropout, relational=relational)
        self.other = Attention(width, heads, dropout, relational=relational) if decoder else None
        between = nn.ReLU() if activation == "relu" else nn.GELU()
        self.each = nn.Sequential(
            nn.Linear(width, feedforward), between, nn.Dropout(dropout), nn.Linear(feedforward, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3 if decoder else 2))

    def forward(self, points: Tensor, encoded: Tensor | None, past: Memory | None) -> tuple[Tensor, Memory]:
        """Points (n, t, width), after those of `past` -> the same shape, and the memory; a decoder sees `encoded`."""
        norms = iter(self.norms)
        norm = next(norms)
        seen = norm(points) if self.norm_first else points
        memory = [self.own.remember(seen, past[0] if past else None)]
        points = self._add(points, self.own(seen, memory[0]), norm)
        if self.other is not None:
            assert encoded is not None, "a decoder looks at what was encoded"
            norm = next(norms)
            memory.append(self.other.remember(encoded, past[1] if past else None))
            points = self._add(points, self.other(norm(points) if self.norm_first else points, memory[1]), norm)
        norm = next(norms)
        points = self._add(points, self.each(norm(points) if self.norm_first else points), norm)
        return points, tuple(memory)

    def _add(self, points: Tensor, found: Tensor, norm: nn.Module) -> Tensor:
        """What a part has found, added to its input."""
        total = points + self.dropout(found)
        return total if self.norm_first else norm(total)
