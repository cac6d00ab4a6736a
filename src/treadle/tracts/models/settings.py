"""The settings of models that follow lines, and the model that they describe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from treadle.config.settings import Settings, require, setting
from treadle.errors import UsageError
from treadle.tracts.getters.sphere import is_sphere
from treadle.tracts.models.embeddings import build_embedding
from treadle.tracts.models.mlp import Perceptron
from treadle.tracts.models.model import LineModel
from treadle.tracts.models.previous import PreviousDirections
from treadle.tracts.models.recurrent import Recurrent
from treadle.tracts.models.tokens import DirectionTokens
from treadle.tracts.models.transformers import Transformer


@dataclass(kw_only=True)
class ModelSettings(Settings):
    """What follows lines."""

    model: Literal["lstm", "gru", "tto", "tts", "ttst", "mlp"] = setting("lstm", common=True)
    """"lstm" and "gru": recurrent layers (Learn2Track); "tto": a transformer that encodes features and decodes previous
    directions, "tts": one that encodes features alone, "ttst": one that encodes both side by side; "mlp": a perceptron
    at each point."""
    residual: bool | None = setting(None, common=True)
    """Learn how a line leaves the direction that it came by, instead of where it goes; null does so for an mlp."""
    sizes: list[int] = setting(default_factory=lambda: [100, 100], common=True)
    """lstm, gru, mlp: neurons of each layer."""
    dropout: float = setting(0.0, least=0, below=1, common=True)
    """The share of numbers that are 0 in a step of training: between recurrent layers, after the mlp's, all over a
    transformer, after embeddings."""
    skip_connections: bool = setting(False)
    """lstm, gru: each layer sees what the first one sees, too, and all of them are heard."""
    layer_normalization: bool = setting(False)
    """lstm, gru: bring what each layer says to mean 0 and variance 1."""
    embedding: Literal["none", "nn", "cnn"] | None = setting(None)
    """What is made of the features of a point: nothing, a layer, or convolutions over a grid of neighbours. null takes
    "nn" for a transformer, else "none"."""
    embedding_size: int = setting(64, least=1, common=True)
    """embedding nn: its width; a transformer is as wide."""
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
    heads: int = setting(4, least=1, common=True)
    """tto, tts, ttst: heads of each attention; they divide the model's width."""
    layers: int = setting(2, least=1, common=True)
    """tto, tts, ttst: layers of the encoder."""
    decoder_layers: int | None = setting(None, least=1)
    """tto: layers of the decoder; null takes as many as the encoder has."""
    feedforward: int | None = setting(None, least=1)
    """tto, tts, ttst: width inside a layer; null takes half the model's."""
    activation: Literal["relu", "gelu"] = setting("relu")
    """tto, tts, ttst: what stands inside a layer."""
    norm_first: bool = setting(False)
    """tto, tts, ttst: normalise before each part of a layer instead of after it."""
    positions: Literal["sinusoidal", "relational"] = setting("sinusoidal")
    """tto, tts, ttst: how a point's place on its line is told: added to what is known of it, or by its distance from
    the points that it looks at."""
    sos: Literal["label", "class"] = setting("label")
    """tto, ttst: how the start of a line is told: by a fourth coordinate of directions, or as a class beside those of a
    sphere, which directions are then, too."""
    sos_classes: int = setting(642, least=12)
    """sos class: directions of that sphere, as `classes` of the getter."""
    target_size: int = setting(16, least=1)
    """ttst: width of the previous direction's embedding; the model is `embedding_size` + `target_size` wide."""

    def __post_init__(self) -> None:
        """Check types and ranges; raises UsageError naming the field."""
        super().__post_init__()
        for name in ("sizes", "filters", "kernels"):
            values = getattr(self, name)
            require(self, name, bool(values) and min(values) >= 1, "one or more numbers of at least 1")
        require(self, "sos_classes", is_sphere(self.sos_classes), "10 f^2 + 2 for a whole f, as 162, 362, 642 or 812")

    @property
    def is_transformer(self) -> bool:
        """Whether it is one of those."""
        return self.model in ("tto", "tts", "ttst")

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
    if inputs == 0 and settings.is_transformer:
        raise UsageError(f"the transformer {settings.model!r} needs features: give it a volume")
    embed, embedded = build_embedding(
        settings.embedding or ("nn" if settings.is_transformer else "none"),
        inputs,
        settings.embedding_size,
        neighbours=neighbours,
        filters=settings.filters,
        kernels=settings.kernels,
        dropout=settings.dropout,
    )
    kind = settings.model
    if kind == "tto" or kind == "tts" or kind == "ttst":
        return _transformer(settings, kind, inputs, embed, embedded)
    previous = PreviousDirections(
        settings.previous_directions,
        normalize=settings.normalize_previous,
        embedding=settings.previous_embedding,
        size=settings.previous_size,
    )
    if kind == "mlp":
        return Perceptron(inputs, embed, embedded, previous, sizes=settings.sizes, dropout=settings.dropout)
    return Recurrent(
        inputs,
        embed,
        embedded,
        previous,
        kind=kind,
        sizes=settings.sizes,
        dropout=settings.dropout,
        skip_connections=settings.skip_connections,
        layer_normalization=settings.layer_normalization,
    )


def _transformer(
    settings: ModelSettings, kind: Literal["tto", "tts", "ttst"], inputs: int, embed: nn.Module, embedded: int
) -> Transformer:
    """The transformer of `settings` over features that are `embedded` wide."""
    tokens = None
    if kind != "tts":
        tokens = DirectionTokens(
            embedded if kind == "tto" else settings.target_size,
            sos=settings.sos,
            normalize=settings.normalize_previous,
            classes=settings.sos_classes,
        )
    return Transformer(
        inputs,
        embed,
        embedded,
        tokens,
        kind=kind,
        heads=settings.heads,
        layers=settings.layers,
        decoder_layers=settings.decoder_layers or settings.layers,
        feedforward=settings.feedforward,
        dropout=settings.dropout,
        activation=settings.activation,
        norm_first=settings.norm_first,
        positions=settings.positions,
    )
