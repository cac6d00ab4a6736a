"""The settings that paired and unpaired translation share, and the networks and augmentation that they describe."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from treadle.config.settings import Settings, require, setting
from treadle.engine.curves import parse_curve
from treadle.engine.ema import EMA
from treadle.engine.schedule import Every
from treadle.engine.settings import StartSettings, TrainerConfig
from treadle.gans.augmentation import Augmentation, Preprocess, sides
from treadle.gans.diffaugment import DiffAugment
from treadle.gans.oasis import SegmentingDiscriminator
from treadle.gans.patchgan import HALVINGS, PatchGAN, least_size
from treadle.gans.resnet import ResNetGenerator
from treadle.gans.spade import SpadeGenerator
from treadle.gans.strengths import Range
from treadle.gans.unet import UNet
from treadle.gans.values import Values
from treadle.images.bands import Kind
from treadle.images.lpips import SMALLEST
from treadle.images.metrics import HIGHER_IS_BETTER, METRICS

Generator = UNet | ResNetGenerator | SpadeGenerator


@dataclass(kw_only=True)
class PictureSettings(Settings):
    """The data."""

    direction: Literal["AtoB", "BtoA"] = setting("AtoB", common=True)
    """Translate A into B, or B into A."""
    size: int | tuple[int, int] = setting(128, least=8, common=True)
    """Height and width of the pictures that are trained on, in pixels: a number for a square, or two, as [96, 192]."""
    preprocess: Preprocess = setting("resize_and_crop", common=True)
    """How pictures come to a size: "resize_and_crop" brings all to `load_size` and cuts `size` from it; "crop" cuts it
    from them as they are; "scale_width" gives them the width of `load_size` and leaves them their shape,
    "scale_width_and_crop" cuts `size` from that; "none" leaves them alone. Tests see whole pictures, and all but
    "resize_and_crop" their own shape."""
    load_size: int | tuple[int, int] | None = setting(None, least=1)
    """What pictures are brought to first, see `preprocess`; null takes a quarter more than `size` where it is cut (the
    papers have 286 for 256), else `size`, and the packaged house fronts as they are."""
    in_channels: int = setting(3, least=1)
    """Channels of the input: 1 (gray), 3 (RGB) and 4 (RGB and alpha) are converted, other files must have as many."""
    out_channels: int = setting(3, least=1)
    """Channels of the output."""
    in_dtype: Kind | None = setting(None)
    """What the input's numbers are: "uint8", "uint16" or "float32"; null is that of the files that are trained on."""
    out_dtype: Kind | None = setting(None)
    """What the output's numbers are."""
    in_range: tuple[float, float] | None = setting(None)
    """The input's numbers from black to white, such as [0, 4095]; null is all that whole numbers of the type can be, of
    floats what the pictures that are trained on hold."""
    out_range: tuple[float, float] | None = setting(None)
    """The output's numbers from black to white."""
    max_samples: int | None = setting(None, least=1)
    """Train on the first so many pairs, or pictures of A and of B, only; null on all."""
    on_bad: Literal["refuse", "skip"] = setting("refuse")
    """What to do with pictures that cannot be read: refuse the data, naming them, or leave them out."""
    cache_mb: int = setting(1024, least=0, resumable=True, affects_state=False)
    """Decoded pictures that are kept in memory, in MB; 0 reads each again."""


@dataclass(kw_only=True)
class AugmentationSettings(Settings):
    """Augmentation of the data."""

    flip: float = setting(0.5, least=0, most=1)
    """Probability of mirroring a picture left to right (a pair is mirrored as one)."""
    vertical_flip: float = setting(0.0, least=0, most=1)
    """Probability of mirroring a picture upside down."""
    rotate: bool = setting(False)
    """Turn pictures by multiples of 90 degrees; for data without an up, such as maps."""
    elastic: Range = setting(0.0, least=0)
    """Elastic deformation: most standard deviation of smooth displacements, in pixels; two numbers are least and
    most, here and wherever a setting takes either."""
    elastic_sigma: float = setting(16.0, above=0)
    """How smooth these displacements are, in pixels: above 3 times `elastic` nothing folds."""
    distortion: Range = setting(0.0, least=-1, most=1)
    """Most distortion as of a lens, to either side: k of r (1 + k r^2 + k r^4), r in widths of the picture."""
    chances: dict[str, float] = setting(default_factory=dict, least=0, most=1)
    """Probability of what is to be done to some pictures only, by setting, such as {elastic: 0.3}; others: 1."""

    def changes(self) -> dict[str, Any]:
        """What is done to pictures by chance, as arguments of an `Augmentation`."""
        return {
            "flip": self.flip,
            "vertical_flip": self.vertical_flip,
            "rotate": self.rotate,
            "elastic": self.elastic,
            "elastic_sigma": self.elastic_sigma,
            "distortion": self.distortion,
            "chances": self.chances,
        }


@dataclass(kw_only=True)
class InputSettings(AugmentationSettings):
    """Where pairs are given: how the input alone is changed, and what compares features."""

    label_input: bool = False
    """Resize the input by nearest neighbour: for label maps, whose colours bicubic resizing blends into others."""
    jitter: Range = setting(0.0, least=0)
    """Random brightness, contrast and saturation, as a share of each (at most 1); two numbers are factors."""
    gamma: Range = setting(0.0, least=0)
    """Random gamma: to the power of 1 - gamma to 1 + gamma (at most 1); two numbers are powers."""
    gray: float = setting(0.0, least=0, most=1)
    """Probability of turning the input gray."""
    noise: Range = setting(0.0, least=0, most=1)
    """Most standard deviation of Gaussian noise; pictures are in 0 to 1."""
    blur: Range = setting(0.0, least=0)
    """Most standard deviation of Gaussian blur, in pixels."""
    motion_blur: Range = setting(0.0, least=0)
    """Longest motion while the picture was taken, in pixels."""
    jpeg: Range = setting(0.0, least=0, most=100)
    """Lowest quality of JPEG compression, 1 to 100; 0 compresses nothing."""
    cutout: Range = setting(0.0, least=0)
    """Most rectangles that are cut out, and black."""
    cutout_size: Range = setting((0.05, 0.25), least=0, most=1)
    """Longest sides of these rectangles, as shares of the picture's."""
    cutout_both: bool = setting(False)
    """Cut the same rectangles out of the target."""
    vgg_weights: Path | None = None
    """Weights of VGG-19 for the objective's "+vgg", a safetensors file with torchvision's names."""

    def changes(self) -> dict[str, Any]:
        """What is done to pictures by chance, as arguments of an `Augmentation`."""
        return super().changes() | {
            "label_input": self.label_input,
            "jitter": self.jitter,
            "gamma": self.gamma,
            "gray": self.gray,
            "noise": self.noise,
            "blur": self.blur,
            "motion_blur": self.motion_blur,
            "jpeg": self.jpeg,
            "cutout": self.cutout,
            "cutout_size": self.cutout_size,
            "cutout_both": self.cutout_both,
        }


@dataclass(kw_only=True)
class NetworkSettings(Settings):
    """The networks."""

    generator: Literal["unet", "resnet", "spade"] = setting("unet", common=True)
    """Kind of the generator: a U-Net, a ResNet, or for label maps "spade", a U-Net that is told at every size what is
    where, and has noise to make texture of (always bilinear, with instance norm)."""
    features: int = setting(64, least=1, common=True)
    """Channels of the generator's first convolution."""
    downs: int | None = setting(None, least=0)
    """Halvings in the generator; null goes down to one pixel (at most 8) in a U-Net, and takes 2 in a ResNet and 5 at
    most in "spade"."""
    blocks: int = setting(9, least=0)
    """Residual blocks of a ResNet."""
    residual: bool = setting(False)
    """Add a residual block to each stage of a U-Net."""
    upsampling: Literal["transposed", "bilinear"] = setting("transposed")
    """What doubles the picture; bilinear cannot make a checkerboard."""
    norm: Literal["batch", "instance", "none"] = setting("instance")
    """Normalization in all networks. With "batch", evaluation uses running statistics."""
    padding: Literal["zeros", "reflect"] = setting("zeros")
    """What surrounds pictures in the convolutions of a U-Net and of the discriminator (a ResNet reflects)."""
    rectify_skips: bool = setting(False)
    """Hand the skips of a U-Net on through a ReLU, as the official code does."""
    dropout: float = setting(0.5, least=0, below=1)
    """Probability, in the three innermost stages of a U-Net's decoder."""
    d_features: int = setting(64, least=1)
    """Channels of the discriminator's first convolution."""
    patch: int = setting(70, choices=HALVINGS)
    """Size of the patches that the discriminator judges, in pixels: 1 (PixelGAN: its colour), 16, 34, 70 or 142; that
    of gan "oasis" judges each pixel by all that is around it."""
    spectral: bool = setting(False)
    """Spectral normalization of the discriminator."""


@dataclass(kw_only=True)
class GameSettings(Settings):
    """The game, and how it is learnt."""

    gan: Literal["bce", "lsgan", "hinge", "wgan", "oasis"] = setting("bce", common=True)
    """The game: cross-entropy, least squares, hinge, Wasserstein (which wants the objective's "gp"), or "oasis", in
    which the discriminator sorts pixels into the input's `classes` and one more: made."""
    objective: str = setting("basic", common=True)
    """The loss terms: names of parts of `spec`, joined by "+"."""
    weights: dict[str, float | str] = setting(default_factory=dict, common=True, command="LossWeight")
    """Other weights of the objective's terms, by name: numbers, or curves such as "linear 0 to 10 over 30%"."""
    spec: str = setting()
    """The spec that `objective` names parts of, or one of your own (see `register_spec`)."""
    penalty_every: int = setting(1, least=1)
    """Compute r1 and gp at every such update of the discriminator only, with as many times the weight."""
    pool: int = setting(0, least=0)
    """Earlier outputs that a discriminator is shown again; 0 shows it the newest only."""
    diffaugment: str = setting("", parse=DiffAugment)
    """Differentiable augmentation of what the discriminator sees: of "color,translation,cutout"."""
    d_turns: int = setting(1, least=1)
    """With `g_turns`: of every max(d_turns, g_turns) batches, the discriminator learns from the first `d_turns` ..."""
    g_turns: int = setting(1, least=1)
    """... and the generator from the first `g_turns`; 5 and 1 is WGAN's ratio."""
    learning_rate: float | str = setting(
        "constant 2e-4 for 50% then linear to 0", parse=parse_curve, common=True, command="LearningRateMultiplier"
    )
    """Learning rate of the generator."""
    d_learning_rate: float | str | None = setting(None, parse=parse_curve, command="LearningRateMultiplier")
    """Learning rate of the discriminator; null shares the generator's."""
    beta1: float = setting(0.5, least=0, below=1)
    """Adam's first decay."""
    beta2: float = setting(0.999, least=0, below=1)
    """Adam's second decay."""
    ema: float | None = setting(0.999, above=0, below=1)
    """Decay of the generator's moving average, which is what is evaluated and kept; null keeps none."""


@dataclass(kw_only=True)
class JudgingSettings(Settings):
    """What is shown and measured."""

    lpips_weights: Path | None = setting(None, resumable=True, affects_state=False)
    """Weights of LPIPS, a safetensors file: tests report it where they are given, validations where it is `monitor`."""
    fid_weights: Path | None = setting(None, resumable=True, affects_state=False)
    """Weights of Inception for the Fréchet distance, a safetensors file: tests report it where they are given,
    validations where `monitor` is "fid"."""
    examples: int = setting(4, least=0, resumable=True, affects_state=False)
    """Pictures that are translated for the eye: the first that are validated on, or where there are none trained on."""
    examples_every: str | None = setting(
        "10%", parse=Every, resumable=True, affects_state=False, common=True, live="unless null"
    )
    """When examples are made."""
    keep_generators: int = setting(10, least=0, resumable=True, affects_state=False)
    """Generators of past validations that are kept at most, spread over the run: to be tested, exported and used
    (`--at STEP`), and seen side by side in the report; 0 keeps none."""


@dataclass(kw_only=True)
class TranslationConfig(
    JudgingSettings,
    GameSettings,
    StartSettings,
    NetworkSettings,
    AugmentationSettings,
    PictureSettings,
    TrainerConfig,
):
    """Settings of `Pix2PixTrainer` and `CycleGANTrainer`.

    The groups are inherited, not nested, as the engine's are: a keyword, a flag and a line of a file stay one name
    (`features`, not `networks.features`), and what takes `NetworkSettings` takes the whole config too.
    """

    batch_size: int = 1
    """Pictures per step."""
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "auto"
    """Autocast dtype of `step`; "auto" is bf16 where the device multiplies in it, else fp32."""
    validate_every: str | None = "10%"
    """When the validation pictures are translated and measured; the final state's always are."""
    save_every: str | None = "10%"
    """When a run on disk writes a checkpoint; it also does at its end."""

    def __post_init__(self) -> None:
        """Check types and ranges, and what must fit together; raises UsageError naming the field."""
        super().__post_init__()
        if self.monitor in ("cycle", *METRICS):
            better = "max" if self.monitor in HIGHER_IS_BETTER else "min"
            fits = self.monitor_mode in (None, better)
            require(self, "monitor_mode", fits, f"null or {better!r}, for {self.monitor!r}")
        for side in ("in", "out"):
            ends = getattr(self, f"{side}_range")
            fits = ends is None or (isfinite(ends[0]) and isfinite(ends[1]) and ends[0] < ends[1])
            require(self, f"{side}_range", fits, "two numbers, the smaller one first, or null")
        least = 0 if self.generator == "resnet" else 2
        require(self, "downs", self.downs is None or self.downs >= least, f"at least {least}, or null")
        monitored = str(self.monitor).rpartition("/")[2]  # of several sets to validate on, each has a name
        if monitored in ("lpips", "fid"):
            weights = f"{monitored}_weights"
            require(self, weights, getattr(self, weights) is not None, f"a file, which monitor: {self.monitor} needs")
        steerable = monitored.partition("_")[0] != "sharpness"  # neither more nor less of it is better
        require(self, "monitor", steerable, "a figure with a best end: 'texture' takes sharpness in")
        self._check_sizes()
        self.augmentation()

    def _check_sizes(self) -> None:
        size = sides(self.size)
        how, load = self.preprocess, self.load_size
        if how in ("crop", "none"):
            require(self, "load_size", load is None, f"null, since preprocess {how!r} resizes nothing")
        elif load is not None:
            axes = [0, 1] if how == "resize_and_crop" else [1] if how == "scale_width_and_crop" else []
            fits = all(sides(load)[axis] >= size[axis] for axis in axes)
            require(self, "load_size", fits, "at least `size`, or null")
        if how not in ("scale_width", "none"):  # of those, the pictures tell
            fits = self.lpips_weights is None or min(size) >= SMALLEST
            require(self, "lpips_weights", fits, f"null, since LPIPS needs pictures of {SMALLEST} pixels or more")
            fits = min(size) >= least_size(self.patch)
            words = " x ".join(map(str, size[::-1])) if size[0] != size[1] else str(size[0])
            require(self, "patch", fits, f"a patch that suits pictures of {words} pixels: choose a smaller one")
            multiple = 2 ** self.halvings()
            fits = all(side % multiple == 0 for side in size)
            require(self, "size", fits, f"a multiple of {multiple}, for a generator that halves it so")

    @property
    def sizes(self) -> str:
        """The size of the pictures that are evaluated, for the eye."""
        height, width = sides(self.size)
        return f"{width} x {height} pixels" if self.preprocess == "resize_and_crop" else "pictures in their own shape"

    def halvings(self) -> int:
        """How often the generator halves the picture."""
        if self.downs is not None:
            return self.downs
        if self.generator == "resnet":
            return 2
        most = 5 if self.generator == "spade" else 8
        height, width = sides(self.size)
        if self.preprocess in ("scale_width", "none"):  # pictures of many sizes, which are padded
            return max(2, min(most, min(height, width).bit_length() - 1))
        both = height | width  # as often as height and width divide by 2
        return max(2, min(most, (both & -both).bit_length() - 1))

    def augmentation(self, *, fit: bool = False) -> Augmentation:
        """What is done to the pictures that are trained on; `fit` says that they are made at `size` as they are."""
        load_size = self.load_size
        if load_size is None:
            cut = self.preprocess in ("resize_and_crop", "scale_width_and_crop") and not fit
            height, width = (round(side * 5 / 4) if cut else side for side in sides(self.size))
            load_size = height if height == width else (height, width)
        return Augmentation(
            load_size=load_size,
            crop_size=self.size,
            preprocess=self.preprocess,
            in_range=self.in_range,
            out_range=self.out_range,
            **self.changes(),
        )

    @property
    def values(self) -> tuple[Values, Values]:
        """How the numbers of input and output pictures become the networks', and back."""
        return self.input_values, self.output_values

    @property
    def input_values(self) -> Values:
        """How the numbers of input pictures become the network's; raises UsageError for floats whose range is open."""
        return Values(channels=self.in_channels, dtype=self.in_dtype or "uint8", range=self.in_range)

    @property
    def output_values(self) -> Values:
        """How what the network gives becomes output pictures; raises UsageError for floats whose range is open."""
        return Values(channels=self.out_channels, dtype=self.out_dtype or "uint8", range=self.out_range)

    @property
    def in_planes(self) -> int:
        """The channels of what the networks take for an input."""
        return self.in_channels

    def build_generator(self, *, reverse: bool = False) -> Generator:
        """An initialized generator from input to output pictures; with `reverse`, from output to input pictures."""
        inputs, outputs = self.in_planes, self.out_channels
        if reverse:
            inputs, outputs = outputs, inputs
        if self.generator == "spade":
            return SpadeGenerator(inputs, outputs, features=self.features, downs=self.halvings())
        if self.generator == "resnet":
            return ResNetGenerator(
                inputs,
                outputs,
                features=self.features,
                blocks=self.blocks,
                downs=self.halvings(),
                upsampling=self.upsampling,
                norm=self.norm,
            )
        return UNet(
            inputs,
            outputs,
            features=self.features,
            downs=self.halvings(),
            upsampling=self.upsampling,
            norm=self.norm,
            dropout=self.dropout,
            padding=self.padding,
            rectify_skips=self.rectify_skips,
            block="residual" if self.residual else None,
        )

    def build_discriminator(self, channels: int) -> PatchGAN | SegmentingDiscriminator:
        """An initialized discriminator of pictures with so many channels, the input's among them."""
        if self.gan == "oasis":
            made, downs = channels - self.in_planes, min(5, min(sides(self.size)).bit_length() - 1)
            return SegmentingDiscriminator(self.in_planes, made, features=self.d_features, downs=downs)
        # The penalties want the gradient of one picture's logits, which a batch norm would make depend on the others.
        norm = "none" if self.gan == "wgan" and self.norm == "batch" else self.norm
        return PatchGAN(
            channels,
            features=self.d_features,
            field=self.patch,
            norm=norm,
            padding=self.padding,
            spectral=self.spectral,
        )

    def build_average(self, generator: nn.Module) -> EMA | None:
        """The moving average of a generator, or None where none is kept."""
        return None if self.ema is None else EMA(generator, self.ema, warm_up=True)

    def adam(self, *networks: nn.Module) -> torch.optim.Adam:
        """An Adam over the parameters of `networks`; a LearningRate sets its rate."""
        parameters = [parameter for network in networks for parameter in network.parameters()]
        return torch.optim.Adam(parameters, betas=(self.beta1, self.beta2))
