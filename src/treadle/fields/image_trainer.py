"""Fitting a picture with a neural field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch.nn import functional

from treadle.config.settings import setting
from treadle.data.feed import Feed
from treadle.data.tensors import TensorFeed
from treadle.engine.curves import parse_curve
from treadle.engine.events import Hook
from treadle.engine.lr import LearningRate
from treadle.engine.optim import parameter_groups
from treadle.engine.schedule import Every
from treadle.engine.settings import StartSettings, TrainerConfig
from treadle.engine.trainer import Trainer
from treadle.errors import UsageError
from treadle.fields.encoding import PositionalGrid
from treadle.fields.grids.dense import LOG2_MOST, DenseGrid
from treadle.fields.grids.hash import HashEncoding
from treadle.fields.hash_field import pixel_centres
from treadle.fields.image.measuring import measure_tiled, measure_whole
from treadle.fields.image.panels import LONGEST
from treadle.fields.image.picture_field import PictureField
from treadle.fields.image.pixels import PixelFeed
from treadle.fields.image.tiles import SpreadFeed, TiledPicture, TileFeed, read_tiled
from treadle.fields.siren import Siren
from treadle.fields.warming import ask_once, compile_now
from treadle.images.display import to_display
from treadle.images.metrics import psnr_of
from treadle.images.picture import Picture, default_picture, read_picture
from treadle.images.reading import picture_size
from treadle.kernels.adam import Adam
from treadle.kernels.layout import GridLayout
from treadle.kernels.threads import left_to_kernels
from treadle.runs.models import At, find_model

TILED = 2**24
"""Pixels from which on a picture is not kept in memory."""

MEASURED = 2**22
"""Pixels at most on which a tiled picture's fit is measured during training; at its end all are."""

SINES_RATE = 0.1
"""The learning rate of sines, relative to that of layers with ReLU: 5e-4 where a grid takes 1e-2."""


@dataclass(kw_only=True)
class ImageConfig(StartSettings, TrainerConfig):
    """Settings of `ImageTrainer`."""

    max_steps: int | None = 1500
    """Steps to train for; with `max_epochs`, whichever comes first."""
    batch_size: int = 8192
    """Pixels per step; an epoch is every pixel once."""
    validate_every: str | None = "20%"
    """When the PSNR of the whole picture is measured; the final state's always is."""
    save_every: str | None = "50%"
    """When a run on disk writes a checkpoint; it also does at its end."""
    monitor: str | None = "psnr"
    """The validation metric that says which model is best."""
    grid: Literal["hash", "dense", "siren"] = setting("hash", common=True)
    """What the field is: a decoder over a grid, "hash" (finer vertices share rows) or "dense" (each has its own), or no
    grid, and layers of sines over the place itself (SIREN, Sitzmann et al. 2020; there hidden: 256, layers: 3)."""
    levels: int = setting(16, common=True)
    """Resolutions of the grid."""
    features: int = setting(2, common=True)
    """Learnt values per vertex."""
    log2_size: int = setting(17, common=True)
    """Base-two logarithm of the most vertices stored per level; finer levels share them by hashing."""
    n_min: int = setting(16)
    """Vertices per axis of the coarsest level."""
    n_max: int | None = setting(None, common=True)
    """Vertices per axis of the finest level; null takes 1.5 times the picture's longer side (hash) or half of it."""
    hidden: int = setting(64, least=1, common=True)
    """Width of the decoder's hidden layers."""
    layers: int = setting(2, least=0, common=True)
    """Hidden layers of the decoder; siren has its first one before them."""
    learning_rate: float | str = setting(
        "cosine 1e-2 to 1e-4", parse=parse_curve, common=True, command="LearningRateMultiplier"
    )
    """Learning rate of the grid."""
    decoder_rate: float = setting(0.5, above=0)
    """The decoder's learning rate, relative to the grid's; sines take a tenth of it. At the grid's own rate a large
    grid's fit keeps falling back by some dB."""
    examples_every: str | None = setting(
        "20%", parse=Every, resumable=True, affects_state=False, common=True, live="unless null"
    )
    """When a picture of the fit is logged."""

    def __post_init__(self) -> None:
        """Check types and ranges; raises UsageError naming the field."""
        super().__post_init__()
        if self.grid != "siren":
            self.layout((16, 16))  # levels, features, log2_size, n_min and n_max name themselves

    def layout(self, size: tuple[int, int]) -> GridLayout:
        """How the grid of a picture of `size` lies; raises UsageError for settings out of range."""
        dense = self.grid == "dense"
        own = max(size) // 2 if dense else 3 * max(size) // 2
        n_max = max(self.n_min, own) if self.n_max is None else self.n_max
        return GridLayout(2, self.levels, self.features, LOG2_MOST if dense else self.log2_size, self.n_min, n_max)

    def field(self, size: tuple[int, int], channels: int) -> PictureField:
        """An untrained field for pictures of `size` (height, width) with that many channels."""
        if self.grid == "siren":
            sines = Siren(2, channels, self.hidden, self.layers)
            return PictureField(PositionalGrid(None, 0, 2), channels, decoder=sines)
        layout = self.layout(size)
        arguments = {name: getattr(layout, name) for name in ("dimensions", "levels", "features", "n_min", "n_max")}
        grid = DenseGrid(**arguments) if self.grid == "dense" else HashEncoding(**arguments, log2_size=layout.log2_size)
        return PictureField(grid, channels, self.hidden, self.layers)


class ImageTrainer(Trainer):
    """Fit a picture with a field: a multiresolution grid under a small decoder, or layers of sines.

    Args:
        data: a `Picture`, or the path of one (see `read`); None takes the astronaut of scikit-image. One of more than
            `TILED` pixels, or a `TiledPicture`, stays in a mapped file: memory does not grow with it.
        config, hooks, settings: as for every `Trainer`.

    Example:
        trainer = ImageTrainer(data="photo.jpg", max_steps=1000)
        trainer.train()
        trainer.model.picture().values          # (height, width, channels)
    """

    Config: ClassVar[type[TrainerConfig]] = ImageConfig
    transient: ClassVar[tuple[str, ...]] = ("picture",)

    def __init__(
        self,
        config: ImageConfig | None = None,
        *,
        data: Picture | TiledPicture | str | Path | None = None,
        hooks: Sequence[Hook] = (),
        **settings: Any,
    ) -> None:
        if data is None:
            data = default_picture()
        self.picture = read(data) if isinstance(data, str | Path) else data
        super().__init__(config, hooks=hooks, **settings)

    @classmethod
    def load_data(cls, config: Any, path: Path | None) -> dict[str, Any]:
        """The picture at `path`, or the astronaut."""
        return {"data": default_picture() if path is None else read(path)}

    def setup(self) -> None:
        """Build the field, its optimizer, and the feeds of the picture's pixels."""
        config, picture = self.config, self.picture
        self.model = config.field(picture.size, picture.channels)
        self.model.describe(picture)
        sines = config.grid == "siren"
        scale = config.decoder_rate * (SINES_RATE if sines else 1.0)
        rules: dict[str, dict[str, Any]] = {"decoder.*": {"name": "decoder", "lr_scale": scale}}
        groups = parameter_groups(self.model, rules if sines else {"grid.*": {"name": "grid"}, **rules})
        # As in instant-ngp: the tiny eps lets rows with tiny gradients, seen by few pixels, move as far as the others.
        self.optimizer = Adam(groups, betas=(0.9, 0.99), eps=1e-15)
        self.rate = LearningRate(self.optimizer, config.learning_rate)
        self.feed, self.validation_feed = self.feeds_of(picture)
        if self.device.type == "cpu":
            compile_now({"grid and decoder": partial(ask_once, self.model, torch.zeros(2, 2))})
        from treadle.hooks.examples import Examples

        self.add_hook_of("examples_every", lambda config: Examples.of(config.examples_every))

    def feeds_of(self, picture: Picture | TiledPicture) -> tuple[Feed, Feed]:
        """The pixels to train on, and those to measure the fit on: all, of a tiled picture `MEASURED` at most."""
        if isinstance(picture, TiledPicture):
            feed = TileFeed(picture, self.model.encode, self.config.batch_size)
            return feed, SpreadFeed(feed, MEASURED)
        height, width = picture.size
        points, targets = pixel_centres(height, width), self.model.targets(picture)
        pixels = PixelFeed(points, targets, height, width, self.config.batch_size)
        return pixels, TensorFeed((pixels.points, pixels.values), height * width, shuffle=False)

    def step(self, batch: Any) -> Mapping[str, Any]:
        """One update on the mean squared error."""
        points, targets = batch
        # A grid's work is in compiled kernels; that of sines in torch's own operators.
        with nullcontext() if self.config.grid == "siren" else left_to_kernels():
            loss = functional.mse_loss(self.model(points), targets)
            self.minimize(loss, self.optimizer)
        return {"loss": loss, "psnr": -10 * loss.detach().log10()}

    def validation_step(self, batch: Any) -> Mapping[str, Any]:
        """All that is measured, as one batch: so PSNR is that of the picture."""
        points, targets = batch
        loss = functional.mse_loss(self.model.evaluate(points), targets)
        return {"loss": loss, "psnr": psnr_of(loss.item())}

    def examples(self) -> dict[str, Any]:
        """The fit as it is now; of a tiled picture, seen from afar."""
        height, width = self.picture.size
        if isinstance(self.picture, TiledPicture):
            scale = min(1.0, LONGEST / max(height, width))
            height, width = max(1, round(height * scale)), max(1, round(width * scale))
        fit = self.model.picture(height, width)
        return {"fit": to_display(fit.values, linear=fit.linear)}

    def views(self) -> dict[str, Any]:
        """Fit, target and error, from near and afar."""
        from treadle.fields.image.live import FitView

        return {"fit": FitView(self.model, self.picture)}

    def report(self, directory: Path) -> dict[str, Any]:
        """Write `comparison.png` (fit, target, error) and `fit.png` into `directory`; returns what it is worth.

        Beside PSNR in dB and the pictures' paths: how many parameters there are, how many values the picture has (its
        pixels times their channels), and how many parameters that is per value. Below 1 it is compression.
        """
        with self.evaluating():
            if isinstance(self.picture, TiledPicture):
                found = measure_tiled(self.model, self.picture, directory)
            else:
                found = measure_whole(self.model, self.picture, directory)
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        values = self.picture.size[0] * self.picture.size[1] * self.picture.channels
        return {
            **found,
            "parameters": parameters,
            "values": values,
            "parameters_per_value": parameters / values,
            "fit": directory / "fit.png",
            "picture": directory / "comparison.png",
        }

    @classmethod
    def load_model(cls, run: str | Path, *, at: At | None = None) -> PictureField:
        """The best model of a run, ready for inference: `load_model("runs/image/v001").picture()`.

        `at` names another: the step of one that is kept, or "final". Raises UsageError where the run has no such model,
        or none of an `ImageTrainer`.
        """
        found = find_model(run, at, cls.preferred_model)
        weights, config = found.of("model"), found.config(cls.Config)
        if "size" not in weights or "peak" not in weights:
            raise UsageError(f"{run} is not the run of an image: it has no picture's size")
        height, width = weights["size"].tolist()
        biases = [name for name in weights if name.startswith("decoder.") and name.endswith(".bias")]
        channels = weights[max(biases, key=lambda name: int(name.split(".")[2]))].shape[0]
        model: PictureField = config.field((height, width), channels)
        model.load_state_dict(weights)
        return model.eval()


def read(path: str | Path) -> Picture | TiledPicture:
    """Read a picture (see `read_picture`); one of more than `TILED` pixels into a mapped file."""
    width, height = picture_size(path)
    return read_tiled(path) if width * height > TILED else read_picture(path)
