"""What the gauntlet trains of image translation that no recipe has: shapes, depths, transforms and penalties."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gauntlet_kinds import SHORT
from PIL import Image

from treadle import Trainer
from treadle.gans.cyclegan import CycleGANConfig, CycleGANTrainer
from treadle.gans.images import UnpairedImages
from treadle.gans.pix2pix import Pix2PixConfig, Pix2PixTrainer
from treadle.gans.sources import ArrayPairs

SMALL = SHORT | {
    "device": "cpu",
    "precision": "fp32",
    "features": 4,
    "downs": 2,
    "d_features": 4,
    "patch": 16,
    "max_steps": 13,
    "validate_every": "3 steps",
    "examples": 1,
    "examples_every": "4 steps",
    "keep_generators": 2,
}


class Dimmed(Pix2PixTrainer):
    """Some inputs are darker than they were."""

    @staticmethod
    def augment(x: Any, y: Any, rng: np.random.Generator) -> Any:
        return (x // 2 if rng.random() < 0.5 else x), y


def rectangles(workers: int, **where: Any) -> Trainer:
    """Pictures of 16 bits and two shapes, batched by shape and deformed; a Wasserstein game, judged by its texture."""
    config = Pix2PixConfig(
        **(SMALL | {"norm": "batch", "pool": 3, "workers": workers}),
        size=16,
        preprocess="scale_width",
        in_channels=1,
        elastic=2.0,
        motion_blur=4.0,
        chances={"elastic": 0.5},
        batch_size=2,
        gan="wgan",
        objective="basic+gp",
        penalty_every=2,
        ema=None,
        monitor="texture",
    )
    folder = where["run_dir"].parent / "rectangles-data"
    _write(folder, lambda rng, height: rng.integers(0, 65536, (height, 16), dtype=np.uint16))
    data = {name: feed for name, feed in Dimmed.load_data(config, folder).items() if name != "test_data"}
    return Dimmed(config, **data, **where)


def label_maps(workers: int, **where: Any) -> Trainer:
    """Maps of classes found in the data, at every stage of the generator, and an opponent that names their pixels."""
    config = Pix2PixConfig(
        **(SMALL | {"norm": "batch", "workers": workers}),
        size=16,
        load_size=18,
        classes="auto",
        generator="spade",
        gan="oasis",
        diffaugment="color,translation",
        batch_size=2,
    )
    folder = where["run_dir"].parent / "label_maps-data"
    colors = np.array([[0, 0, 170], [0, 170, 255], [255, 85, 0]], np.uint8)
    _write(folder, lambda rng, height: colors[rng.integers(0, 3, (height // 4, 4))].repeat(4, 0).repeat(4, 1))
    data = {name: feed for name, feed in Pix2PixTrainer.load_data(config, folder).items() if name != "test_data"}
    return Pix2PixTrainer(config, **data, **where)


def _write(folder: Path, draw: Callable[[np.random.Generator, int], Any]) -> None:
    """A/train, B/train, A/val and B/val: inputs as they are drawn, targets in colour; a kill may come at any moment."""
    for split, count in (("train", 7), ("val", 3)):
        for index in range(count):
            rng = np.random.default_rng([index, count])
            height = 24 if index % 3 else 16
            for side, pixels in (
                ("A", draw(rng, height)),
                ("B", rng.integers(0, 256, (height, 16, 3), dtype=np.uint8)),
            ):
                (folder / side / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / side / split / f"{index}.png")


def unpaired_floats(workers: int, **where: Any) -> Trainer:
    """Pictures of five channels, as floats, without pairs; penalties in both games, and nothing to validate on."""
    floats: Any = {"channels": 5, "dtype": "float32", "range": (0.0, 1.0)}
    sides = {f"{side}_{name}": value for side in ("in", "out") for name, value in floats.items()}
    config = CycleGANConfig(
        **(SMALL | sides | {"blocks": 1, "pool": 4, "workers": workers}),
        size=(16, 24),
        load_size=(18, 26),
        gan="hinge",
        objective="basic+r1",
        penalty_every=2,
    )
    a, b = np.random.default_rng(4).random((2, 7, 20, 30, 5), dtype=np.float32)
    pictures = UnpairedImages(ArrayPairs(a, b), config.size, config.augmentation(), values=config.values)
    return CycleGANTrainer(config, data=pictures, **where)
