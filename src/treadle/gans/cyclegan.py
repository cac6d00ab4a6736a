"""CycleGAN: translating pictures both ways, learnt without pairs (Zhu et al. 2017, https://arxiv.org/abs/1703.10593)."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from treadle.data.feed import Feed
from treadle.engine.objective import Losses
from treadle.engine.settings import TrainerConfig
from treadle.errors import UsageError
from treadle.export.onnx import Exportable
from treadle.gans.export import exportable_generator
from treadle.gans.images import PairedImages, UnpairedImages
from treadle.gans.inference import generator_of
from treadle.gans.judging import Judge
from treadle.gans.layouts import first_of
from treadle.gans.loading import kinds_for, settle_values
from treadle.gans.padding import at_own_size
from treadle.gans.pool import ImagePool
from treadle.gans.settings import Generator, TranslationConfig
from treadle.gans.sources import ArrayPairs, UnpairedFolders, UnpairedSource
from treadle.gans.specs import build_objective
from treadle.gans.translation import TranslationTrainer, house_fronts, means, name_of, samples
from treadle.gans.translator import Half, Translator, translator_of
from treadle.images.folders import side_folders
from treadle.images.metrics import l1, measure
from treadle.images.panels import panel
from treadle.images.reading import Pixels
from treadle.reports.rows import Row
from treadle.runs.models import At, find_model


@dataclass(kw_only=True)
class CycleGANConfig(TranslationConfig):
    """Settings of `CycleGANTrainer`."""

    direction: Literal["AtoB", "BtoA"] = "AtoB"
    """Which of trainA and trainB is called A here; both directions are learnt in any case."""
    generator: Literal["unet", "resnet"] = "resnet"
    """Kind of the generators."""
    gan: Literal["bce", "lsgan", "hinge", "wgan"] = "lsgan"
    """The game: cross-entropy, least squares, hinge or Wasserstein (which wants the objective's "gp")."""
    spec: str = "cyclegan"
    """The spec that `objective` names parts of: "cyclegan", or one of your own (see `register_spec`)."""
    objective: str = "basic"
    """The loss terms: "basic" (adversarial, cycle and identity), with "+r1" or "+gp" added."""
    pool: int = 50
    """Earlier outputs that each discriminator is shown again; 0 shows it the newest only."""
    monitor: str | None = "cycle"
    """The validation metric that says which model is best: "cycle", which prefers what changes little; "texture", of
    both directions; with weights "fid"; with known targets "l1", "psnr" or "ssim", and with weights "lpips"."""


GAMES = ("G_GAN_AB", "G_GAN_BA", "D_A_real", "D_A_fake", "D_B_real", "D_B_fake")
"""The terms of the two games, which no objective can do without."""
TITLES = {"ab": "A to B", "ba": "B to A"}
"""What the two directions are called."""


class CycleGANTrainer(TranslationTrainer):
    """One generator makes B of A, one makes A of B, and going there and back must change nothing.

    Args:
        data: (a, b) of pictures that need not belong together, float32 (N, C, H, W) in [-1, 1]: a dataset such as
            `UnpairedImages`, tensors, or anything else that a Trainer takes.
        config, hooks, settings: as for every `Trainer`.

    Example:
        trainer = CycleGANTrainer(config, **CycleGANTrainer.load_data(config, Path("horse2zebra")), run_dir="runs/try")
        trainer.train()
    """

    Config: ClassVar[type[TrainerConfig]] = CycleGANConfig
    ways: ClassVar[tuple[str, ...]] = tuple(TITLES)
    used = ("generator_ab", "generator_ba")
    computes: ClassVar[tuple[str, ...]] = (
        *GAMES,
        *("G_CYCLE_A", "G_CYCLE_B", "G_IDENTITY_A", "G_IDENTITY_B"),
        *("D_A_R1", "D_B_R1", "D_A_GP", "D_B_GP"),
    )

    @classmethod
    def dataset(cls, config: Any, path: Path | None, split: str) -> UnpairedImages | PairedImages | None:
        """The pictures in `path`/trainA and trainB (valA ...), or A/train and B/train; for no path, house fronts."""
        channels, most = (config.in_channels, config.out_channels), config.max_samples if split == "train" else None
        source: UnpairedSource
        if path is None:
            a, b = house_fronts(config, split)
            if split != "train":
                still = config.augmentation(fit=True).still()
                pairs = ArrayPairs(a, b)
                return PairedImages(pairs, config.size, None, config.cache_mb, values=config.values, still=still)
            source = ArrayPairs(a[: len(a) // 2][:most], b[len(b) // 2 :][:most])  # of different houses
        elif split == "train" or side_folders(path, split) is not None:
            kinds = kinds_for(config, split)
            source = UnpairedFolders(path, split, config.direction, channels, config.on_bad, kinds)
            first_of(source, most)
        else:
            return None
        if split != "train":
            still = config.augmentation().still()
            return UnpairedImages(source, config.size, None, config.cache_mb, values=config.values, still=still)
        settle_values(config, source)
        augmentation = config.augmentation(fit=path is None)
        return UnpairedImages(source, config.size, augmentation, config.cache_mb, cls.transform(), config.values)

    def setup(self) -> None:
        """Build the four networks, an optimizer for each pair of them, and the terms of the game."""
        config = self.config
        self.generator_ab, self.generator_ba = config.build_generator(), config.build_generator(reverse=True)
        self.discriminator_a = config.build_discriminator(config.in_channels)
        self.discriminator_b = config.build_discriminator(config.out_channels)
        self.average_ab = config.build_average(self.generator_ab)
        self.average_ba = config.build_average(self.generator_ba)
        self.g_optimizer = config.adam(self.generator_ab, self.generator_ba)
        self.d_optimizer = config.adam(self.discriminator_a, self.discriminator_b)
        self.pool_a, self.pool_b = ImagePool(config.pool), ImagePool(config.pool)
        self.set_up_game(build_objective(config.objective, config.spec, weights=config.weights, required=GAMES))
        if (self.uses("G_IDENTITY_A") or self.uses("G_IDENTITY_B")) and config.in_channels != config.out_channels:
            raise UsageError(
                "identity needs pictures with as many channels in A as in B: "
                "set in_channels and out_channels alike, or the weights of G_IDENTITY_A and G_IDENTITY_B to 0"
            )

    def step(self, batch: tuple[Tensor, Tensor]) -> Mapping[str, Any]:
        """The generators learn to deceive and to come back, then the discriminators to tell real from made."""
        a, b = batch
        with torch.set_grad_enabled(self.learning()["g"]):
            fake_b, fake_a = at_own_size(self.generator_ab, a), at_own_size(self.generator_ba, b)
        return self.play(
            g=lambda: self.g_losses(a, b, fake_a, fake_b),
            d=lambda: self.d_losses(a, b, self.pooled(self.pool_a, fake_a), self.pooled(self.pool_b, fake_b)),
        )

    def g_losses(self, a: Tensor, b: Tensor, fake_a: Tensor, fake_b: Tensor) -> Losses:
        """The generators' terms: the verdicts, the ways there and back, and what is already as it should be."""
        terms: dict[str, Any] = {
            "G_GAN_AB": self.adversarial.generator(self.judge(self.discriminator_b, fake_b)),
            "G_GAN_BA": self.adversarial.generator(self.judge(self.discriminator_a, fake_a)),
        }
        if self.uses("G_CYCLE_A"):
            terms["G_CYCLE_A"] = (at_own_size(self.generator_ba, fake_b), a)
        if self.uses("G_CYCLE_B"):
            terms["G_CYCLE_B"] = (at_own_size(self.generator_ab, fake_a), b)
        if self.uses("G_IDENTITY_A"):
            terms["G_IDENTITY_A"] = (at_own_size(self.generator_ba, a), a)
        if self.uses("G_IDENTITY_B"):
            terms["G_IDENTITY_B"] = (at_own_size(self.generator_ab, b), b)
        return self.objective(**terms)

    def d_losses(self, a: Tensor, b: Tensor, fake_a: Tensor, fake_b: Tensor) -> Losses:
        """The discriminators' terms for real pictures and made ones, and their gradient penalties."""
        return self.objective(
            D_A_real=self.adversarial.real(self.judge(self.discriminator_a, a)),
            D_A_fake=self.adversarial.fake(self.judge(self.discriminator_a, fake_a)),
            D_B_real=self.adversarial.real(self.judge(self.discriminator_b, b)),
            D_B_fake=self.adversarial.fake(self.judge(self.discriminator_b, fake_b)),
            **self.penalties_of(self.discriminator_a, a, fake_a, "D_A"),
            **self.penalties_of(self.discriminator_b, b, fake_b, "D_B"),
        )

    def uses(self, name: str) -> bool:
        """Whether the objective has this term, with a weight other than a constant 0."""
        term = self.objective.terms.get(name)
        return term is not None and term.constant_or_curve() != 0

    def judge(self, discriminator: nn.Module, pictures: Tensor) -> Tensor:
        """A discriminator's logits for pictures, which it sees through the differentiable augmentation."""
        draw = self.draw(pictures)
        logits: Tensor = discriminator(pictures if draw is None else self.diffaugment(pictures, draw))
        return logits

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> Mapping[str, Any]:
        """How far there and back is from the start (mean absolute difference, black to white is 1), in both directions.

        How like real pictures of the other kind the translations are, in both directions; where A and B are pairs all
        the same, also L1, PSNR and SSIM of the translations from A to their targets.
        """
        a, b = batch
        fake_b, fake_a = self.translate(a, self.generator_ab), self.translate(b, self.generator_ba)
        ways = (self.translate(fake_b, self.generator_ba), a), (self.translate(fake_a, self.generator_ab), b)
        deep = [values.deep for values in self.config.values]
        cycles = [value for way, of in zip(ways, deep, strict=True) for value in measure(*way, deep=of)["l1"]]
        known = self.validating.measure(fake_b, b) if self.has_targets else {}
        self.validating.gather(fake_b, b, "ab")
        self.validating.gather(fake_a, a, "ba")
        return {**means({"cycle": cycles, **known}), **self.validating.figures}

    def rows(self, feed: Feed, judge: Judge) -> Iterator[Row]:
        """Every A translated to B and back, and every B to A and back, with their figures."""
        paired, several = self.targets_in(feed), counts(feed)
        for number, pair in samples(feed, self.config.limit_test_batches):
            # The shorter side of unpaired pictures starts again at its end: what it repeats counts once.
            new = [number < count for count in several]
            for side, (way, title) in enumerate(TITLES.items()):
                target = pair[1 - side]
                seen = self.there_and_back(pair[side], way) if new[side] else {}
                if seen:
                    name, figures = f"{title}: {name_of_side(feed, number, side)}", self.cycle_of(seen, way)
                    if paired and way == "ab":
                        figures = judge.compare(seen["output"], target)[0] | figures
                    yield Row(name, self.pictures_of(seen | ({"target": target} if paired else {}), way), figures)
                judge.gather(seen.get("output", target[:0]), target[: new[1 - side]], way)

    def targets_in(self, feed: Feed | None) -> bool:
        """Whether the samples of `feed` are pairs, so that the right translation of each A is known."""
        return isinstance(getattr(feed, "dataset", None), PairedImages)

    def there_and_back(self, start: Tensor, way: str) -> dict[str, Tensor]:
        """A picture (1, C, H, W), its translation, and that translated back, on the CPU; `way` is "ab" or "ba"."""
        there, back = (self.generator_ab, self.generator_ba)[:: 1 if way == "ab" else -1]
        output = self.translate(start.to(self.device), there)
        return {"input": start, "output": output.cpu(), "back": self.translate(output, back).cpu()}

    def pictures_of(self, tensors: Mapping[str, Tensor], way: str) -> dict[str, Pixels]:
        """Pictures (1, C, H, W) of `there_and_back`, and their target, to be looked at."""
        start, end = self.config.values[:: 1 if way == "ab" else -1]
        return {
            name: (start if name in ("input", "back") else end).shown(tensor[0]) for name, tensor in tensors.items()
        }

    def cycle_of(self, tensors: Mapping[str, Tensor], way: str) -> dict[str, float]:
        """How far the way there and back leads from the start: the mean absolute difference; black to white is 1."""
        start = self.config.values[0 if way == "ab" else 1]
        return {"cycle": l1(tensors["back"][0], tensors["input"][0], deep=start.deep)}

    def examples(self) -> dict[str, Any]:
        """The first pictures of A and of B (see `probes`): as they are, translated, and back again."""
        shown: dict[str, list[list[Pixels]]] = {way: [] for way in TITLES}
        for pair in self.probes():
            for start, (way, rows) in zip(pair, shown.items(), strict=True):
                rows.append(list(self.pictures_of(self.there_and_back(start, way), way).values()))
        return {
            title.replace(" ", "_"): panel(shown[way], (title[0], title, "and back"))
            for way, title in TITLES.items()
            if shown[way]
        }

    def views(self) -> dict[str, Any]:
        """Held-out pictures of A and of B: as they are, translated, and back again."""
        from treadle.gans.live import cycle_views

        return cycle_views(self)

    @classmethod
    def load_model(
        cls, run: str | Path, direction: Literal["AtoB", "BtoA"] = "AtoB", *, at: At | None = None
    ) -> Generator:
        """A generator of a run's final model, for inference: `translate(CycleGANTrainer.load_model(run), picture)`.

        `at` names another: the step of one that is kept, or "best". Raises UsageError where the run has no such model,
        or none of this trainer's.
        """
        found = find_model(run, at, cls.preferred_model)
        config = found.config(cls.Config)
        if direction == "AtoB":
            return generator_of(found, config, "generator_ab")
        return generator_of(found, config, "generator_ba", reverse=True)

    @classmethod
    def translators(cls, run: Path, *, at: At | None = None) -> dict[str, Translator]:
        """What `treadle translate` uses: both generators."""
        found = find_model(run, at, cls.preferred_model)
        config = found.config(cls.Config)
        halves: tuple[Half, Half] = ("right", "left") if config.direction == "BtoA" else ("left", "right")
        there, back = cls.load_model(run, "AtoB", at=at), cls.load_model(run, "BtoA", at=at)
        return {
            "AtoB": translator_of(there, config, str(found), halves[0]),
            "BtoA": translator_of(back, config, str(found), halves[1], reverse=True),
        }

    @classmethod
    def exportable(cls, run: Path, *, at: At | None = None) -> dict[str, Exportable]:
        """What `treadle export` offers: both generators."""
        found = find_model(run, at, cls.preferred_model)
        config = found.config(cls.Config)
        return {
            "AtoB": exportable_generator(found, config, "AtoB", "generator_ab"),
            "BtoA": exportable_generator(found, config, "BtoA", "generator_ba", reverse=True),
        }


def counts(feed: Feed) -> tuple[int, int]:
    """How many pictures of A and of B are evaluated."""
    dataset = getattr(feed, "dataset", None)
    if isinstance(dataset, UnpairedImages):
        return len(dataset.source.a), len(dataset.source.b)
    return feed.samples or sys.maxsize, feed.samples or sys.maxsize


def name_of_side(feed: Feed, number: int, side: int) -> str:
    """What a picture of A (side 0) or of B (1) is called."""
    dataset = getattr(feed, "dataset", None)
    if isinstance(dataset, UnpairedImages):
        return (dataset.source.a, dataset.source.b)[side].name(number)
    return name_of(feed, number)
