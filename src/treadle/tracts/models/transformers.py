"""Transformers that follow lines: dwi_ml's TTO, TTS and TTST.

TTO encodes the features and decodes the previous directions, looking at what was encoded up to the same point; TTS
encodes the features alone; TTST encodes features and previous direction side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from treadle.tracts.models.attention import Layer, Memory, sinusoids
from treadle.tracts.models.buckets import groups
from treadle.tracts.models.model import LineModel
from treadle.tracts.models.tokens import DirectionTokens


class TransformerState(NamedTuple):
    """What lines that have come equally far remember."""

    steps: int
    """Points so far."""
    encoder: list[Memory]
    """Of each layer of the encoder; empty before the first point."""
    decoder: list[Memory]
    """Of each layer of the decoder, where there is one."""


class Transformer(LineModel):
    """Causal layers over the features of lines and the directions that they came by.

    Whole lines run in groups of similar length; point by point, keys and values are remembered.
    """

    def __init__(
        self,
        inputs: int,
        embed: nn.Module,
        embedded: int,
        tokens: DirectionTokens | None,
        *,
        kind: Literal["tto", "tts", "ttst"],
        heads: int = 4,
        layers: int = 2,
        decoder_layers: int = 2,
        feedforward: int | None = None,
        dropout: float = 0.0,
        activation: Literal["relu", "gelu"] = "relu",
        norm_first: bool = False,
        positions: Literal["sinusoidal", "relational"] = "sinusoidal",
    ) -> None:
        """
        Args:
            inputs: features per point.
            embed: from (n, inputs) to (n, embedded).
            embedded: what `embed` makes.
            tokens: how previous directions are embedded, for "tto" as wide as `embedded`; none for "tts".
            kind: see the module.
            heads: must divide the width.
            layers: of the encoder.
            decoder_layers: of the decoder, for "tto".
            feedforward: width inside a layer; None is half the model's.
            dropout: the share of numbers that are 0, in training.
            activation, norm_first: see `attention.Layer`; with `norm_first` what comes out is normalised, too.
            positions: "sinusoidal": where a point is on its line is added to what is known of it; "relational": scores
                depend on the distance of points (see `attention.Attention`).

        Raises:
            UsageError: heads that do not divide the width.
        """
        super().__init__()
        beside = tokens.width if tokens is not None and kind == "ttst" else 0
        self.inputs, self.width, self.kind, self.positions = inputs, embedded + beside, kind, positions
        self.embed, self.tokens, self.dropout = embed, tokens, nn.Dropout(dropout)
        layer: Callable[..., Layer] = partial(
            Layer,
            self.width,
            heads,
            feedforward or max(1, self.width // 2),
            dropout,
            activation=activation,
            norm_first=norm_first,
            relational=positions == "relational",
        )
        self.encoder = nn.ModuleList(layer(decoder=False) for _ in range(layers))
        self.decoder = nn.ModuleList(layer(decoder=True) for _ in range(decoder_layers if kind == "tto" else 0))
        self.norm = nn.LayerNorm(self.width) if norm_first else nn.Identity()

    def forward(self, features: Tensor, previous: Tensor, offsets: Tensor) -> Tensor:
        """(p, width) of whole lines; see `LineModel.forward`."""
        first = torch.zeros(len(features), dtype=torch.bool)
        first[offsets[:-1][offsets.diff() > 0]] = True
        source, target = self._embedded(features, previous, first.to(features.device))
        if len(source) == 0:
            return source.new_zeros(0, self.width)
        blocks = groups(offsets, features.device)
        targets = blocks.spread(target) if target is not None else [None] * len(blocks.shapes)
        start = self.start(0)
        return blocks.gather([self._run(*both, start)[0] for both in zip(blocks.spread(source), targets, strict=True)])

    def start(self, count: int) -> TransformerState:
        """The state of `count` lines before their first point."""
        return TransformerState(0, [], [])

    def advance(self, state: TransformerState, features: Tensor, previous: Tensor) -> tuple[Tensor, TransformerState]:
        """One point on; see `LineModel.advance`."""
        first = torch.full((len(features),), state.steps == 0, device=features.device)
        source, target = self._embedded(features, previous, first)
        points, state = self._run(source[:, None], None if target is None else target[:, None], state)
        return points[:, 0], state

    def keep(self, state: TransformerState, indices: Tensor) -> TransformerState:
        """The state of some of the lines, in the order of `indices`."""

        def kept(memories: list[Memory]) -> list[Memory]:
            return [tuple(each.index_select(1, indices) for each in memory) for memory in memories]

        return TransformerState(state.steps, kept(state.encoder), kept(state.decoder))

    def _embedded(self, features: Tensor, previous: Tensor, first: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the encoder and the decoder see at each point."""
        source = self.embed(features)
        if self.tokens is None:
            return source, None
        tokens = self.tokens(previous, first)
        return (torch.cat([source, tokens], dim=1), None) if self.kind == "ttst" else (source, tokens)

    def _run(self, source: Tensor, target: Tensor | None, state: TransformerState) -> tuple[Tensor, TransformerState]:
        """Points (n, t, width) after those of `state` -> what is said there, and the state after them."""
        points, encoder = self._through(self.encoder, self._placed(source, state.steps), None, state.encoder)
        decoder: list[Memory] = []
        if target is not None:
            placed = self._placed(target, state.steps)
            points, decoder = self._through(self.decoder, placed, points, state.decoder)
        return self.norm(points), TransformerState(state.steps + source.shape[1], encoder, decoder)

    def _placed(self, points: Tensor, before: int) -> Tensor:
        """With where they are on their lines, after `before` others."""
        if self.positions == "sinusoidal":
            places = torch.arange(before, before + points.shape[1], device=points.device)
            points = points + sinusoids(places, points.shape[2]).to(points)
        return self.dropout(points)

    @staticmethod
    def _through(
        layers: nn.ModuleList, points: Tensor, encoded: Tensor | None, past: list[Memory]
    ) -> tuple[Tensor, list[Memory]]:
        """Through all layers, with what each remembers afterwards."""
        memories = []
        for index, layer in enumerate(layers):
            points, memory = layer(points, encoded, past[index] if past else None)
            memories.append(memory)
        return points, memories
