"""The settings of models that follow lines, and the model that they describe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from treadle.config.settings import Settings, require, setting
from treadle.tracts.models.embeddings import build_embedding
from treadle.tracts.models.mlp import Perceptron
from treadle.tracts.models.model import LineModel
from treadle.tracts.models.previous import PreviousDirections
from treadle.tracts.models.recurrent import Recurrent


@dataclass(kw_only=True)
class ModelSettings(Settings):
    """What follows lines."""

    model: Literal["lstm", "gru", "mlp"] = setting("lstm", common=True)
    """"lstm" and "gru": recurrent layers (Learn2Track); "mlp": a perceptron at each point."""
    residual: bool | None = setting(None, common=True)
    """Learn how a line leaves the direction that it came by, instead of where it goes; null does so for an mlp."""
    sizes: list[int] = setting(default_factory=lambda: [100, 100], common=True)
    """lstm, gru, mlp: neurons of each layer."""
    dropout: float = setting(0.0, least=0, below=1, common=True)
    """The share of numbers that are 0 in a step of training: between recurrent layers, after the mlp's, after
    embeddings."""
    skip_connections: bool = setting(False)
    """lstm, gru: each layer sees what the first one sees, too, and all of them are heard."""
    layer_normalization: bool = setting(False)
    """lstm, gru: bring what each layer says to mean 0 and variance 1."""
    embedding: Literal["none", "nn", "cnn"] | None = setting(None)
    """What is made of the features of a point: nothing, a layer, or convolutions over a grid of neighbours. null takes
    "none"."""
    embedding_size: int = setting(64, least=1)
    """embedding nn: its width."""
    filters: list[int] = setting(default_factory=lambda: [32])
    """embedding cnn: channels that each layer makes."""
    kernels: list[int] = setting(default_factory=lambda: [3])
    """embedding cnn: the size of each layer's kernel, in neighbours along each axis."""
    previous_directions: int = setting(1, least=0, common=True)
    """lstm, gru, mlp: how many of the last directions are seen beside the features."""
    normalize_previous: bool = setting(True)
    """Directions that are seen have length 1; else they are as long as the steps of the line, in mm."""
    previous_embedding: Literal["none", "nn"] = setting("none")
    """lstm, gru, mlp: what is made of the last directions: nothing, or a layer ..."""
    previous_size: int | None = setting(None, least=1)
    """... of this width; null takes 3 per direction."""

    def __post_init__(self) -> None:
        """Check types and ranges; raises UsageError naming the field."""
        super().__post_init__()
        for name in ("sizes", "filters", "kernels"):
            values = getattr(self, name)
            require(self, name, bool(values) and min(values) >= 1, "one or more numbers of at least 1")

    @property
    def is_residual(self) -> bool:
        """Whether directions are said about the previous one."""
        return self.model == "mlp" if self.residual is None else self.residual


def build_model(settings: ModelSettings, inputs: int, neighbours: int = 1) -> LineModel:
    """The model of `settings`, with weights drawn from torch's generator.

    Args:
        settings: what it is.
        inputs: features per point, those of all neighbours.
        neighbours: points that are read around each one, it among them (see `kernels.trilinear.neighbourhood`).

    Raises:
        UsageError: parts that do not fit together.
    """
    embed, embedded = build_embedding(
        settings.embedding or "none",
        inputs,
        settings.embedding_size,
        neighbours=neighbours,
        filters=settings.filters,
        kernels=settings.kernels,
        dropout=settings.dropout,
    )
    previous = PreviousDirections(
        settings.previous_directions,
        normalize=settings.normalize_previous,
        embedding=settings.previous_embedding,
        size=settings.previous_size,
    )
    if settings.model == "mlp":
        return Perceptron(inputs, embed, embedded, previous, sizes=settings.sizes, dropout=settings.dropout)
    return Recurrent(
        inputs,
        embed,
        embedded,
        previous,
        kind=settings.model,
        sizes=settings.sizes,
        dropout=settings.dropout,
        skip_connections=settings.skip_connections,
        layer_normalization=settings.layer_normalization,
    )
