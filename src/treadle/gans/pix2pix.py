"""pix2pix: translating pictures, learnt from pairs (Isola et al. 2017, https://arxiv.org/abs/1611.07004)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from treadle.config.settings import Settings, require, setting
from treadle.data.feed import Feed
from treadle.engine.objective import Losses
from treadle.engine.settings import TrainerConfig
from treadle.export.onnx import Exportable
from treadle.gans.augmentation import Augmentation
from treadle.gans.diffaugment import Draw
from treadle.gans.export import exportable_generator
from treadle.gans.images import PairedImages
from treadle.gans.inference import generator_of
from treadle.gans.judging import Judge
from treadle.gans.labels import Labels, Palette, parse_classes
from treadle.gans.layouts import first_of, pairs_in
from treadle.gans.loading import kinds_for, settle_classes, settle_values
from treadle.gans.padding import at_own_size
from treadle.gans.pool import ImagePool
from treadle.gans.settings import Generator, InputSettings, TranslationConfig
from treadle.gans.sources import ArrayPairs, PairSource
from treadle.gans.specs import build_objective
from treadle.gans.translation import TranslationTrainer, house_fronts, means, name_of, samples
from treadle.gans.translator import Half, Translator, translator_of
from treadle.gans.values import Values
from treadle.images.panels import panel
from treadle.images.reading import Pixels
from treadle.reports.rows import Row
from treadle.runs.models import At, find_model


@dataclass(kw_only=True)
class LabelSettings(Settings):
    """Inputs that are label maps."""

    classes: str | None = setting(None, parse=parse_classes, common=True)
    """Inputs are label maps, of which the networks are given a plane for each class: their colours, such as
    "#000000 #800000 #008000", or "auto", those that the training inputs have; null takes inputs as pictures."""


@dataclass(kw_only=True)
class Pix2PixConfig(LabelSettings, InputSettings, TranslationConfig):
    """Settings of `Pix2PixTrainer`."""

    direction: Literal["AtoB", "BtoA"] = "AtoB"
    """Translate the left half of each file into the right one, or the right into the left."""
    spec: str = "pix2pix"
    """The spec that `objective` names parts of: "pix2pix", or one of your own (see `register_spec`)."""
    objective: str = "basic"
    """The loss terms: "basic", "extended" (with L2, Sobel and Laplacian), with "+coarse" (L1 of 4 x 4 pixels at once),
    "+lattice" (patterns of upsampling), "+vgg", "+r1" or "+gp" added."""
    monitor: str | None = "l1"
    """The validation metric that says which model is best: "l1", "psnr" or "ssim", which prefer fog; "texture" (or
    "spectrum", "swd", "lattice"), which does not; with weights "lpips" or "fid"."""

    def __post_init__(self) -> None:
        """Check types and ranges, and what must fit together; raises UsageError naming the field."""
        super().__post_init__()
        require(self, "classes", self.gan != "oasis" or self.classes is not None, "colours or auto, for gan: oasis")
        penalized = {"r1", "gp"} & set(self.objective.split("+"))
        require(self, "objective", self.gan != "oasis" or not penalized, "one without r1 and gp, for gan: oasis")

    def augmentation(self, *, fit: bool = False) -> Augmentation:
        """What is done to the pairs that are trained on; `fit` says that they are made at `size` as they are."""
        return replace(super().augmentation(fit=fit), label_input=self.label_input or self.classes is not None)

    @property
    def palette(self) -> Palette | None:
        """The colours of the classes, None without; raises UsageError where they are still to be found in the data."""
        if self.classes is None:
            return None
        found = parse_classes(self.classes)
        require(self, "classes", found is not None, "colours, where the data come from elsewhere than load_data")
        return found

    @property
    def input_values(self) -> Values:
        """How the numbers of input pictures become the network's: one-hot, where there are classes."""
        palette = self.palette
        return Labels(channels=self.in_channels, palette=palette) if palette else super().input_values

    @property
    def in_planes(self) -> int:
        """The channels of what the networks take for an input: as many as there are classes."""
        return len(self.palette or ()) or self.in_channels


class Pix2PixTrainer(TranslationTrainer):
    """A generator translates pictures, a discriminator tells its work from the real one, given the input.

    Args:
        data: pairs (x, y) of pictures, float32 (N, C, H, W) in [-1, 1]: a dataset such as `PairedImages`, tensors, or
            anything else that a Trainer takes.
        config, hooks, settings: as for every `Trainer`.

    Example:
        trainer = Pix2PixTrainer(**Pix2PixTrainer.load_data(config, Path("facades")), config=config, run_dir="runs/try")
        trainer.train()
    """

    Config: ClassVar[type[TrainerConfig]] = Pix2PixConfig
    computes: ClassVar[tuple[str, ...]] = ("G_GAN", "D_real", "D_fake", "D_R1", "D_GP")

    @classmethod
    def dataset(cls, config: Any, path: Path | None, split: str) -> PairedImages | None:
        """The pairs in `path`/train, val or test, files with A left and B right, or in `path`/A/train and B/train.

        For no path, house fronts.
        """
        channels, most = (config.in_channels, config.out_channels), config.max_samples if split == "train" else None
        source: PairSource | None
        if path is None:
            source = ArrayPairs(*(pictures[:most] for pictures in house_fronts(config, split)))
        else:
            source = pairs_in(path, split, config.direction, channels, config.on_bad, kinds_for(config, split))
            if source is None:
                return None
            first_of(source, most)
        if split == "train":
            settle_values(config, source)
            settle_classes(config, source)
        augmentation = config.augmentation(fit=path is None)
        if split != "train":
            still = augmentation.still()
            return PairedImages(source, config.size, None, config.cache_mb, values=config.values, still=still)
        return PairedImages(source, config.size, augmentation, config.cache_mb, cls.transform(), config.values)

    def setup(self) -> None:
        """Build the two networks, an optimizer for each, and the terms of the game."""
        config = self.config
        self.generator = config.build_generator()
        self.discriminator = config.build_discriminator(config.in_planes + config.out_channels)
        self.average = config.build_average(self.generator)
        self.g_optimizer = config.adam(self.generator)
        self.d_optimizer = config.adam(self.discriminator)
        self.pool = ImagePool(config.pool)
        objective = build_objective(
            config.objective,
            config.spec,
            weights=config.weights,
            vgg_weights=config.vgg_weights,
            required=("G_GAN", "D_real", "D_fake"),
        )
        self.set_up_game(objective)
        # An attribute, so that a resume notices when the file holds other weights.
        self.perceptual = objective.terms["G_VGG"].function if "G_VGG" in objective.terms else None

    def step(self, batch: tuple[Tensor, Tensor]) -> Mapping[str, Any]:
        """The discriminator learns to tell real pairs from made ones, then the generator to deceive it."""
        x, y = batch
        with torch.set_grad_enabled(self.learning()["g"]):
            fake = at_own_size(self.generator, x)
        return self.play(d=lambda: self.d_losses(x, y, fake.detach()), g=lambda: self.g_losses(x, y, fake))

    def d_losses(self, x: Tensor, y: Tensor, fake: Tensor) -> Losses:
        """The discriminator's terms for real pairs and made ones, which it sees alike."""
        draw = self.draw(y)
        real = self.adversarial.real(self.judge(x, y, draw))
        made = self.adversarial.fake(self.judge(*self.shown(x, fake), draw))
        return self.objective(D_real=real, D_fake=made, **self.penalties(x, y, fake))

    def shown(self, x: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """The made pairs that the discriminator is shown: these, or with a pool earlier ones among them."""
        if self.config.pool == 0:
            return x, fake
        # An earlier picture belongs to the input that it was made of.
        pairs = self.pooled(self.pool, torch.cat([x, fake], 1))
        return pairs[:, : x.shape[1]], pairs[:, x.shape[1] :]

    def g_losses(self, x: Tensor, y: Tensor, fake: Tensor) -> Losses:
        """The generator's terms: the discriminator's verdict, and all that compare its pictures with the target."""
        verdict = self.adversarial.generator(self.judge(x, fake, self.draw(y)))
        return self.objective(G_GAN=verdict, **dict.fromkeys(self.comparing, (fake, y)))

    @property
    def comparing(self) -> list[str]:
        """The generator's terms that have a function, of made pictures and their targets."""
        return [name for name, term in self.objective.terms.items() if term.function and "generator" in term.tags]

    def judge(self, x: Tensor, y: Tensor, draw: Draw | None = None) -> Tensor:
        """The discriminator's logits for pairs, which it sees through the differentiable augmentation."""
        if draw is not None:
            x, y = self.diffaugment(x, draw, color=False), self.diffaugment(y, draw)
        logits: Tensor = self.discriminator(torch.cat([x, y], 1))
        return logits

    def penalties(self, x: Tensor, y: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The gradient penalties that the objective has, at the updates at which they are due."""
        return self.penalties_of(lambda pictures: self.judge(x, pictures), y, fake)

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> Mapping[str, Any]:
        """L1, PSNR and SSIM of the translated pictures to their targets, and how like these all of them are.

        LPIPS and FID too, where `monitor` names them.
        """
        x, y = batch
        output = self.translate(x, self.generator)
        self.validating.gather(output, y)
        return {**means(self.validating.measure(output, y)), **self.validating.figures}

    def rows(self, feed: Feed, judge: Judge) -> Iterator[Row]:
        """Every pair of `feed`: input, output, target, and the output's figures."""
        for number, (x, y) in samples(feed, self.config.limit_test_batches):
            output = self.translate(x.to(self.device), self.generator).cpu()
            judge.gather(output, y)
            yield Row(name_of(feed, number), self.triplet(x, output, y), judge.compare(output, y)[0])

    def examples(self) -> dict[str, Any]:
        """Input, output and target of the first pairs (see `probes`)."""
        rows = [self.triplet(x, self.translate(x.to(self.device), self.generator), y) for x, y in self.probes()]
        return {"translations": panel([list(row.values()) for row in rows], list(rows[0]))} if rows else {}

    def views(self) -> dict[str, Any]:
        """Input, output and target of held-out samples, and where they differ."""
        from treadle.gans.live import pair_views

        return pair_views(self)

    def triplet(self, x: Tensor, output: Tensor, y: Tensor) -> dict[str, Pixels]:
        """Input, output and target, (1, C, H, W) each, as pictures to be looked at; label maps in their colours."""
        inputs, outputs = self.config.values
        return {"input": inputs.shown(x[0]), "output": outputs.shown(output[0]), "target": outputs.shown(y[0])}

    @classmethod
    def load_model(cls, run: str | Path, *, at: At | None = None) -> Generator:
        """The generator of a run's final model, for inference: `translate(Pix2PixTrainer.load_model(run), picture)`.

        `at` names another: the step of one that is kept, or "best". Raises UsageError where the run has no such model,
        or none of this trainer's.
        """
        found = find_model(run, at, cls.preferred_model)
        return generator_of(found, found.config(cls.Config))

    @classmethod
    def translators(cls, run: Path, *, at: At | None = None) -> dict[str, Translator]:
        """What `treadle translate` uses: the generator, by the direction that it learnt."""
        found = find_model(run, at, cls.preferred_model)
        config = found.config(cls.Config)
        half: Half = "right" if config.direction == "BtoA" else "left"
        return {config.direction: translator_of(cls.load_model(run, at=at), config, str(found), half)}

    @classmethod
    def exportable(cls, run: Path, *, at: At | None = None) -> dict[str, Exportable]:
        """What `treadle export` offers: the generator."""
        found = find_model(run, at, cls.preferred_model)
        config = found.config(cls.Config)
        return {"generator": exportable_generator(found, config, config.direction)}
