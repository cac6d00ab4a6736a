"""What the trainers of paired and unpaired translation share: the game around the networks, tests, packaged data."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from treadle.data import limit
from treadle.data.feed import Feed
from treadle.data.named import sets_of
from treadle.data.random import derive_seed
from treadle.data.tensors import TensorFeed
from treadle.engine.lr import LearningRate
from treadle.engine.objective import Losses, Objective
from treadle.engine.settings import TrainerConfig
from treadle.engine.trainer import Trainer
from treadle.errors import UsageError, nearest
from treadle.gans.adversarial import Adversarial, gradient_penalty, r1
from treadle.gans.augmentation import sides
from treadle.gans.diffaugment import DiffAugment, Draw
from treadle.gans.facades import facades
from treadle.gans.images import PairedImages, Transform, UnpairedImages
from treadle.gans.judging import NOTE, WORDS, Judge
from treadle.gans.loading import in_batches
from treadle.gans.padding import at_own_size
from treadle.gans.pool import ImagePool
from treadle.gans.settings import TranslationConfig
from treadle.gans.strip import strip
from treadle.gans.values import Array, conform
from treadle.hooks.examples import Examples
from treadle.hooks.kept_models import KeptModels, KeptUnvalidated
from treadle.hooks.timing import Timing
from treadle.images.display import write_png
from treadle.images.folders import has_split
from treadle.images.metrics import METRICS
from treadle.images.reading import Pixels, read_array
from treadle.reports.report import write_report
from treadle.reports.rows import Row

SPLITS = {"data": "train", "validation_data": "val", "test_data": "test"}
"""The split that each of a trainer's arguments is."""

PACKAGED = {"train": 400, "val": 32, "test": 64}
"""How many house fronts are trained, validated and tested on where no data is given."""


class TranslationTrainer(Trainer):
    """What `Pix2PixTrainer` and `CycleGANTrainer` have in common; each builds `g_optimizer` and `d_optimizer`."""

    Config: ClassVar[type[TrainerConfig]] = TranslationConfig
    least_epochs: ClassVar[int] = 20
    computes: ClassVar[tuple[str, ...]] = ()
    """The loss terms that `step` computes; a subclass that computes more of them adds their names."""
    preferred_model = "final"
    ways: ClassVar[tuple[str, ...]] = ("",)
    """The directions of translation, as they are told apart in the names of figures."""
    used: ClassVar[tuple[str, ...]] = ("generator",)
    """The networks that are used once it is trained, by attribute."""
    g_optimizer: torch.optim.Optimizer
    d_optimizer: torch.optim.Optimizer

    @classmethod
    def load_data(cls, config: Any, path: Path | None) -> dict[str, Any]:
        """The pictures in `path`, split by split (see `dataset`), by argument of a trainer; None makes house fronts."""
        return cls._load(config, path, SPLITS)

    @classmethod
    def load_test_data(cls, config: Any, path: Path | None) -> dict[str, Any]:
        """As `load_data`, of a folder that need not have pictures to train on."""
        splits = dict(SPLITS)
        if (
            path is not None
            and not has_split(path, "train")
            and any(has_split(path, split) for split in ("val", "test"))
        ):
            del splits["data"]
        return cls._load(config, path, splits)

    @classmethod
    def _load(cls, config: Any, path: Path | None, splits: Mapping[str, str]) -> dict[str, Any]:
        found = {name: cls.dataset(config, path, split) for name, split in splits.items()}
        return {
            name: in_batches(config, data, training=name == "data") for name, data in found.items() if data is not None
        }

    @classmethod
    @abstractmethod
    def dataset(cls, config: Any, path: Path | None, split: str) -> PairedImages | UnpairedImages | None:
        """The "train", "val" or "test" pictures in `path` (house fronts for None); None where it has no such split."""

    @staticmethod
    def augment(x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """A transform of one's own, to override: what is done to each pair that is trained on, after the settings.

        Without pairs, `x` and `y` are a picture of A and one of B. Of data that `load_data` loads; a dataset takes such
        a function as `transform`.

        Args:
            x: input, (size, size, C) of the file's type, and free to be written into.
            y: target.
            rng: what everything random has to come from: it is that of (seed, epoch, index), so a resumed run, and any
                number of workers, see the same pictures.

        Returns:
            Two arrays of the same shapes and types.

        Example:
            class Mine(Pix2PixTrainer):          # treadle train --trainer prog.py:Mine --data facades
                @staticmethod
                def augment(x, y, rng):
                    return (255 - x if rng.random() < 0.3 else x), y
        """
        return x, y

    @classmethod
    def transform(cls) -> Transform | None:
        """What `augment` is where a subclass has one. Raises UsageError where that needs a trainer, a method's self."""
        if cls.augment is TranslationTrainer.augment:
            return None
        if inspect.isfunction(inspect.getattr_static(cls, "augment")):
            raise UsageError(
                f"{cls.__name__}.augment is a method of a trainer, but samples are made where there is none: write "
                "@staticmethod above it, and leave out self"
            )
        return cls.augment

    def set_up_game(self, objective: Objective) -> None:
        """Set up what surrounds the networks: loss terms, learning rates, the kind of game, pictures to look at.

        Raises UsageError for a term that nothing computes.
        """
        config = self.config
        self.objective = objective
        for name in objective.terms:
            if name not in self.computes and name not in self.comparing:
                raise UsageError(
                    f"objective {config.objective!r} has the term {name!r}, which {type(self).__name__} does not "
                    f"compute{nearest(name, self.computes)}"
                )
        self.g_rate = LearningRate(self.g_optimizer, config.learning_rate)
        self.d_rate = LearningRate(
            self.d_optimizer, config.learning_rate if config.d_learning_rate is None else config.d_learning_rate
        )
        self.adversarial = Adversarial(config.gan)
        self.diffaugment = DiffAugment(config.diffaugment)
        monitored = str(config.monitor).rpartition("/")[2]
        weights = {name: getattr(config, f"{name}_weights") for name in ("lpips", "fid") if monitored == name}
        self.validating = Judge(weights.get("lpips"), weights.get("fid"), self.ways, deep=config.output_values.deep)
        if config.keep_generators and self.validation_feed is not None:
            self.add_hook(KeptModels(config.keep_generators, self.used))
        elif config.keep_generators and config.validate_every is not None:
            self.add_hook(KeptUnvalidated(config.keep_generators, self.used, config.validate_every))
        self.timing = Timing()
        self.add_hook(self.timing)
        self.add_hook_of(
            "examples_every", lambda config: Examples.of(config.examples_every) if config.examples else None
        )

    @property
    def comparing(self) -> list[str]:
        """Further terms, with a function of made pictures and what they should be."""
        return []

    def learning(self) -> dict[str, bool]:
        """Whether the discriminators ("d") and the generators ("g") learn in this step."""
        d_turns, g_turns = self.config.d_turns, self.config.g_turns
        turn = self.progress.step % max(d_turns, g_turns)
        return {"d": turn < d_turns, "g": turn < g_turns}

    def play(self, **losses: Callable[[], Losses]) -> dict[str, Tensor]:
        """Let those whose turn it is learn, in the order given: "d" and "g", each with what computes its losses.

        Returns the terms of all losses that were computed.
        """
        optimizers, learning = {"d": self.d_optimizer, "g": self.g_optimizer}, self.learning()
        found: dict[str, Tensor] = {}
        for player, compute in losses.items():
            if learning[player]:
                terms = compute()
                self.minimize(terms, optimizers[player])
                found.update(terms)
        return found

    def penalties_of(
        self, judge: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, game: str = "D"
    ) -> dict[str, Tensor]:
        """The gradient penalties of a discriminator that the objective has, at the updates at which they are due.

        Args:
            judge: the discriminator: pictures to logits.
            real, fake: what it is trained on, (N, C, H, W) each.
            game: how its terms' names begin: "D" for "D_R1" and "D_GP".
        """
        every, terms, found = self.config.penalty_every, self.objective.terms, {}
        if self.updates(self.d_optimizer) % every == 0:
            if f"{game}_R1" in terms:
                pictures = real.detach().requires_grad_()
                found[f"{game}_R1"] = every * r1(judge(pictures), pictures)
            if f"{game}_GP" in terms:
                found[f"{game}_GP"] = every * gradient_penalty(judge, real, fake)
        return found

    def pooled(self, pool: ImagePool, pictures: Tensor) -> Tensor:
        """What a pool gives for made pictures, detached: one pool for the whole batch, whoever has made which of it."""
        if not pool.size:
            return pictures.detach()
        given = self.once(lambda made: pool(torch.cat(made)).split([len(some) for some in made]), pictures)
        own: Tensor = given[self.batch_part]
        return own if len(own) else pictures.detach()  # made of a sample that another process has

    def draw(self, pictures: Tensor) -> Draw | None:
        """A draw of the differentiable augmentation for a batch of pictures, or None where there is none."""
        return (
            self.diffaugment.draw(len(pictures), pictures.shape[2:], pictures.device)
            if self.diffaugment.names
            else None
        )

    def report(self, directory: Path) -> dict[str, Any]:
        """Write the examples as the weights at hand make them, and how they came to be.

        Returns their paths, the last metrics and the timing.
        """
        found: dict[str, Any] = {**self.validation_metrics, "step": str(self.timing.steps)}
        if self.timing.epochs.count:
            found["epoch"] = str(self.timing.epochs)
        if self.config.examples:
            with self.evaluating():
                for name, picture in {**self.examples(), **self.strips()}.items():
                    found[name] = directory / f"{name}.png"
                    write_png(found[name], picture)
        return found

    def test_report(self, directory: Path, feed: Feed) -> dict[str, Any]:
        """Translate every picture of `feed`; writes tables and a page (`write_report`), returns means and paths."""
        run = directory.parent
        config = self.config
        judge = Judge(config.lpips_weights, config.fid_weights, self.ways, deep=config.output_values.deep)
        of_pictures = ("lattice", *METRICS, "lpips") if self.targets_in(feed) else ()
        monitored = config.monitor if config.monitor in of_pictures else None
        with self.evaluating():
            return write_report(
                directory,
                self.rows(feed, judge),
                title=f"Test of {run.parent.name}/{run.name}",
                description=f"{self.shown_model}; {self.config.sizes}",
                sort_by=monitored,
                overall=judge.overall,
                strips=kept_strips(run),
                words=WORDS,
                note=NOTE,
            )

    @abstractmethod
    def rows(self, feed: Feed, judge: Judge) -> Iterator[Row]:
        """Every picture of `feed`, translated, with its figures."""

    @abstractmethod
    def examples(self) -> dict[str, Any]:
        """Panels of translated pictures (see `probes`), for the eye."""

    def strips(self) -> dict[str, Any]:
        """The examples' pictures as the generators of the validations made them that are kept, step by step."""
        found: dict[str, Any] = {}
        if self.run is None:
            return found
        probes, run, step, values = list(self.probes()), self.run.path, self.progress.step, self.config.values
        for side, (way, name) in enumerate(zip(self.ways, self.used, strict=True)):
            pictures = [(pair[side], pair[1 - side] if self.has_targets else None) for pair in probes]
            made = (
                strip(run, name, getattr(self, name), step, pictures, self.translate, values[:: -1 if side else 1])
                if pictures
                else None
            )
            if made is not None:
                found[f"steps_{way}" if way else "steps"] = made
        return found

    @property
    def has_targets(self) -> bool:
        """Whether what is validated on are pairs, so that it is known what a translation should be."""
        return self.targets_in(self.validation_feed)

    def targets_in(self, feed: Feed | None) -> bool:
        """Whether the samples of `feed` are pairs."""
        return True

    def probes(self) -> Iterator[list[Tensor]]:
        """The first `examples` samples to be looked at, tensors (1, C, H, W) each: of the validation data.

        Without any they are those that are trained on, as they are, without augmentation; none of a stream of batches,
        which cannot be looked into without moving on.
        """
        feed = self.validation_feed
        dataset = getattr(self.feed, "dataset", None)
        found: Iterator[list[Tensor]] = iter(())
        if feed is not None:
            found = (parts for part in sets_of(feed).values() for _, parts in samples(part))
        elif isinstance(self.feed, TensorFeed):
            columns = self.feed.tensors
            found = ([column[number : number + 1] for column in columns] for number in range(len(columns[0])))
        elif dataset is not None:
            found = ([part[None] for part in dataset[number]] for number in range(len(dataset)))
        return islice(found, self.config.examples)

    def translate(self, x: Tensor, generator: nn.Module) -> Tensor:
        """The generator's pictures for `x`, of any size, in full precision, as they will be wherever it is used."""
        with torch.autocast(x.device.type, enabled=False):
            return at_own_size(generator, x)


def kept_strips(run: Path) -> dict[str, Pixels]:
    """What the report of a training shows of its way (see `TranslationTrainer.strips`), by caption."""
    found = {}
    for path in sorted((run / "report").glob("steps*.png")):
        way = " to ".join(path.stem.removeprefix("steps").strip("_").upper())
        caption = "how the training went: the same pictures at each validation"
        found[f"{caption}, {way}" if way else caption] = read_array(path)
    return found


def house_fronts(config: Any, split: str) -> tuple[Array, Array]:
    """The packaged inputs and targets of a split, (N, side, side, C) each: label maps and house fronts for "AtoB"."""
    labels, pictures = facades(derive_seed(0, split), PACKAGED[split], max(sides(config.size)))
    first, second = (pictures, labels) if config.direction == "BtoA" else (labels, pictures)
    forms = (config.in_channels, config.in_dtype), (config.out_channels, config.out_dtype)
    x, y = (
        np.stack([conform(picture, channels, dtype or "uint8") for picture in pictures])
        for pictures, (channels, dtype) in zip((first, second), forms, strict=True)
    )
    return x, y


def means(figures: Mapping[str, list[float]]) -> dict[str, float]:
    """The mean of each figure over the pictures that it was measured of."""
    return {name: sum(values) / len(values) for name, values in figures.items()}


def name_of(feed: Feed, index: int) -> str:
    """What sample `index` of a feed is called: its file's name where the data has names, else its number."""
    name = getattr(getattr(feed, "dataset", None), "name", None)
    return str(name(index)) if callable(name) else f"{index:04d}"


def samples(feed: Feed, batches: int | None = None) -> Iterator[tuple[int, list[Tensor]]]:
    """Number and tensors, each (1, ...), of the samples of a feed that is not shuffled, one by one.

    With `batches` those of the first so many alone.
    """
    number = 0
    for batch in limit.iterate(feed, 0, limit=batches):
        for parts in zip(*batch, strict=True):
            yield number, [part[None] for part in parts]
            number += 1
