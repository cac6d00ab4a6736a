"""How fast picture pairs for pix2pix are read: Treadle's loader beside torch's DataLoader with a plain dataset.

    python benchmarks/gan_data.py [--quick]

The pairs are JPEG files written to a temporary folder, A and B side by side. Everybody resizes both to 286/256 of the
size, crops, flips and gives batches of one, one torch thread per process; without augmentation the bits are equal
(asserted). The consumer does nothing else, so workers compete with nobody. Passes over all pairs are interleaved; the
median counts. A loader's time is shown as a share of a training step of pix2pix on two cores. Exits with 1 where a
promise does not hold.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from _report import Gate, machine, table
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from treadle import DatasetFeed
from treadle.gans.augmentation import Augmentation
from treadle.gans.images import PairedImages
from treadle.gans.sources import PairFolder

STEP = {128: 0.100, 256: 0.383}
"""Seconds of a training step of pix2pix (U-Net, batch 1) on two cores, by size."""

MOST = 2.0
"""The cached loader may take this many percent of a step, without workers."""


class Plain(Dataset[tuple[Tensor, Tensor]]):
    """The dataset that everybody writes: Pillow for every item."""

    def __init__(self, files: list[Path], load_size: int, size: int, flip: float) -> None:
        self.files, self.load_size, self.size, self.flip = files, load_size, size, flip

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = Image.open(self.files[index]).convert("RGB")
        width, height = image.size
        halves = image.crop((0, 0, width // 2, height)), image.crop((width // 2, 0, width, height))
        left, top = (random.randint(0, self.load_size - self.size) for _ in range(2))
        mirrored = random.random() < self.flip
        tensors = []
        for half in halves:
            part = half.resize((self.load_size, self.load_size), Image.Resampling.BICUBIC)
            part = part.crop((left, top, left + self.size, top + self.size))
            if mirrored:
                part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            tensors.append(torch.from_numpy(np.array(part)).permute(2, 0, 1).float().div(127.5).sub(1))
        return tensors[0], tensors[1]


@dataclass
class Loader:
    """Something that gives batches of one pair, and the seconds that it took for each, pass by pass."""

    name: str
    workers: int
    epoch: Callable[[int], Iterable[tuple[Tensor, Tensor]]]
    seconds: list[float] = field(default_factory=list)

    def run(self, epoch: int) -> float:
        """Seconds per batch over one pass."""
        begin = time.perf_counter()
        shapes = [x.shape for x, _ in self.epoch(epoch)]
        return (time.perf_counter() - begin) / len(shapes)


def write_pairs(directory: Path, count: int, size: int) -> None:
    """Pairs of rectangles, blurred on the right: they compress about as photographs do."""
    rng = np.random.default_rng(0)
    for index in range(count):
        cells = rng.integers(0, 256, (size // 8, size // 8, 3), dtype=np.uint8)
        pair = Image.new("RGB", (2 * size, size))
        for place, method in enumerate((Image.Resampling.NEAREST, Image.Resampling.BICUBIC)):
            pair.paste(Image.fromarray(cells).resize((size, size), method), (place * size, 0))
        pair.save(directory / f"{index}.jpg", quality=90)


def loaders(directory: Path, size: int, workers: int = 2) -> list[Loader]:
    """All of them, without and with workers, after checking that they deliver the same pictures."""
    source, load_size = PairFolder(directory), size * 286 // 256
    still, plain = PairedImages(source, size), Plain(source.files, size, size, 0)
    for index in range(len(source)):
        if not all(map(torch.equal, still[index], plain[index])):
            raise SystemExit(f"pair {index} differs between Treadle and the plain dataset")
    found = []
    augmentation = Augmentation(load_size=load_size, crop_size=size)
    for count in (0, workers):
        for name, megabytes in (("Treadle, cached", 512), ("Treadle, not cached", 0)):
            feed = DatasetFeed(PairedImages(source, size, augmentation, megabytes), 1, workers=count, seed=0)
            found.append(Loader(name, count, feed.iterate))
        settings = {"persistent_workers": True, "multiprocessing_context": "spawn"} if count else {}
        peer = DataLoader(Plain(source.files, load_size, size, 0.5), shuffle=True, num_workers=count, **settings)
        found.append(Loader("DataLoader", count, lambda _, peer=peer: peer))
    return found


def measure(size: int, quick: bool) -> list[Loader]:
    """Everybody at `size`; the first passes start the workers, and each of those fills its own cache."""
    pairs, workers, warm_up, passes = (8, 1, 1, 1) if quick else (64, 2, 3, 5)
    with tempfile.TemporaryDirectory() as directory:
        write_pairs(Path(directory), pairs, size)
        everyone = loaders(Path(directory), size, workers)
        for epoch in range(warm_up + passes):
            for loader in everyone:
                seconds = loader.run(epoch)
                if epoch >= warm_up:
                    loader.seconds.append(seconds)
    return everyone


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one size, few pairs, no promises about time")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    rows, gates = [], []
    for size in [min(STEP)] if quick else STEP:
        for loader in measure(size, quick):
            seconds, step = statistics.median(loader.seconds), STEP[size]
            figures = f"{seconds * 1e3:.2f}", f"{1 / seconds:,.0f}", f"{seconds / step:.1%}"
            rows.append([str(size), loader.name, str(loader.workers), *figures])
            if loader.name == "Treadle, cached" and not loader.workers:
                gates.append(Gate(f"cached, {size} px: % of a step", 100 * seconds / step, MOST))
    print(machine(["pillow"]), "\n")
    print(table(["px", "loader", "workers", "ms/batch", "samples/s", "of a step"], rows))
    if quick:
        return 0
    print("\n" + table(Gate.HEAD, [gate.row() for gate in gates]))
    return 0 if all(gate.held for gate in gates) else 1


if __name__ == "__main__":
    sys.exit(main())
