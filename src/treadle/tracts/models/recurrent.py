"""Learn2Track: an LSTM or GRU that follows lines.

Poulin et al., Learn to track (MICCAI 2017); the layers as in dwi_ml's `StackedRNN`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from treadle.errors import UsageError
from treadle.tracts.models.buckets import stretches
from treadle.tracts.models.model import LineModel
from treadle.tracts.models.previous import PreviousDirections


class RecurrentState(NamedTuple):
    """Where lines stand."""

    remembered: Tensor
    """What `PreviousDirections` remembers of n lines."""
    layers: list[tuple[Tensor, ...]]
    """Of each layer (1, n, size): the hidden state, and an LSTM's cells. Empty before the first point."""


class Recurrent(LineModel):
    """Recurrent layers over the features and previous directions of lines.

    Between layers stand layer normalisation, where it is asked for, dropout and ReLU. With skip connections every later
    layer sees the first one's inputs, too, and what comes out is what all layers say, and those inputs (Graves,
    arXiv:1308.0850, figure 1, as dwi_ml has it). Whole lines run in stretches of time (see `buckets`): the same as on
    packed sequences, at several times the speed.
    """

    def __init__(
        self,
        inputs: int,
        embed: nn.Module,
        embedded: int,
        previous: PreviousDirections,
        *,
        kind: Literal["lstm", "gru"] = "lstm",
        sizes: Sequence[int] = (100, 100),
        dropout: float = 0.0,
        skip_connections: bool = False,
        layer_normalization: bool = False,
    ) -> None:
        """
        Args:
            inputs: features per point.
            embed: from (n, inputs) to (n, embedded).
            embedded: what `embed` makes.
            previous: what is seen of earlier directions.
            kind: "lstm" or "gru".
            sizes: neurons of each layer.
            dropout: the share of numbers that are 0 between layers, in training.
            skip_connections, layer_normalization: see above.

        Raises:
            UsageError: there is nothing to see, neither features nor previous directions.
        """
        super().__init__()
        first = embedded + previous.width
        if first == 0:
            raise UsageError(f"the {kind} sees nothing: give it a volume, or previous_directions of 1 or more")
        self.inputs, self.embed, self.previous = inputs, embed, previous
        befores = [first, *(size + first * skip_connections for size in sizes[:-1])]
        layer = nn.LSTM if kind == "lstm" else nn.GRU
        self.layers = nn.ModuleList(layer(before, size) for before, size in zip(befores, sizes, strict=True))
        self.norms = nn.ModuleList(nn.LayerNorm(size) if layer_normalization else nn.Identity() for size in sizes)
        self.dropout, self.skip_connections = nn.Dropout(dropout), skip_connections
        self.width = sum(sizes) + first if skip_connections else sizes[-1]

    def forward(self, features: Tensor, previous: Tensor, offsets: Tensor) -> Tensor:
        """(p, width) of whole lines; see `LineModel.forward`."""
        seen = torch.cat([self.embed(features), self.previous(previous, offsets)], dim=1)
        if len(seen) == 0:
            return seen.new_zeros(0, self.width)
        blocks = stretches(offsets, seen.device)
        outputs, _ = self._run(blocks.spread(seen), [])
        return blocks.gather(outputs)

    def start(self, count: int) -> RecurrentState:
        """The state of `count` lines before their first point."""
        return RecurrentState(self.previous.start(count), [])

    def advance(self, state: RecurrentState, features: Tensor, previous: Tensor) -> tuple[Tensor, RecurrentState]:
        """One point on; see `LineModel.advance`."""
        directions, remembered = self.previous.advance(state.remembered, previous)
        seen = torch.cat([self.embed(features), directions], dim=1)
        outputs, layers = self._run([seen[None]], state.layers)
        return outputs[0][0], RecurrentState(remembered, layers)

    def keep(self, state: RecurrentState, indices: Tensor) -> RecurrentState:
        """The state of some of the lines, in the order of `indices`."""
        layers = [tuple(part.index_select(1, indices) for part in parts) for parts in state.layers]
        return RecurrentState(state.remembered.index_select(0, indices), layers)

    def _run(
        self, blocks: list[Tensor], states: list[tuple[Tensor, ...]]
    ) -> tuple[list[Tensor], list[tuple[Tensor, ...]]]:
        """Blocks (steps, lines, f), each going on with the first lines of the one before -> outputs, end states."""
        first, said, ends = blocks, [], []
        for index, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            blocks, end = _through(layer, blocks, states[index] if states else None)
            ends.append(end)
            blocks = [norm(block) for block in blocks]
            last = index == len(self.layers) - 1
            if not last:
                blocks = [self.dropout(block).relu() for block in blocks]
            if self.skip_connections:
                said.append(blocks)
                if not last:
                    blocks = [torch.cat(pair, dim=2) for pair in zip(blocks, first, strict=True)]
        if self.skip_connections:
            blocks = [torch.cat(parts, dim=2) for parts in zip(*said, first, strict=True)]
        return blocks, ends


def _through(
    layer: nn.Module, blocks: list[Tensor], state: tuple[Tensor, ...] | None
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """One layer over all blocks, from a state (none: zeros): what it says, and the state after the last block."""
    outputs = []
    for block in blocks:
        lines = block.shape[1]
        given: Any = None if state is None else tuple(part[:, :lines].contiguous() for part in state)
        if isinstance(layer, nn.GRU) and given is not None:
            (given,) = given
        output, end = layer(block, given)
        state = end if isinstance(end, tuple) else (end,)
        outputs.append(output)
    assert state is not None, "there is a block"
    return outputs, state
