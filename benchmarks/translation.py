"""What label maps become in ten minutes: each recipe on real pairs, in figures that fog cannot please, and in pictures.

    python benchmarks/translation.py                     both contenders, and whether the promises hold; 25 minutes
    python benchmarks/translation.py --part NAME...      pix2pix-0.2, pix2pix-labels
    python benchmarks/translation.py --minutes N         other than 10 each
    python benchmarks/translation.py --part pix2pix-labels --seed S      another run of it, shown beside
    python benchmarks/translation.py --write             also stores them in benchmarks/results/translation.md
    python benchmarks/translation.py --quick             a few steps: whether it runs; for the tests

How it is measured. Fronts of houses, label map to photograph, at 128 x 128 pixels: 88 pairs to train on and 24 to judge
by, of which 12 also choose the best model (by L1, as in every recipe). Each recipe trains from the start, for as many
steps as fit into so many minutes on two cores: it is planned by the CPU time of a short trial before, both cores busy
counted as two seconds a second, so that what else the machine does takes nothing away; schedules in percent end with
these steps. What it took stands beside, validation and checkpoints included. `pix2pix-labels` takes the epochs
that it asks for, if these are fewer. `pix2pix-0.2` is the recipe pix2pix as version 0.2 had it.

L1 is 1 from black to white. Sharpness, spectrum, swd and lattice are those of `treadle.images.texture`: gradients over
those of the targets (1 is right), distances of spectra and of patches (0 is right), and by how many dB the peaks of 2,
4 and 8 pixels, which upsampling leaves, stand out more than the targets' own; those of another dozen photographs do by
up to 0.6 dB. Centre is the mean gradient of the middle 16 x 16 pixels over that of the picture, over the same of the
targets: a star that bottlenecks leave there makes it more than 1. What real photographs come to is in the row of those
trained on: 24 of these differ from the 24 targets, too, and the centre of two dozen is .91 of the targets', +- .07.
"Best" is the model of the validation with the least L1, "final" the moving average at the end, which is what `treadle
test`, `translate` and `export` use.

The pairs lie beside a developer's checkout, in ../shared/data. Parts that were run are kept in a folder (--keep), so
that they can be run one by one; the tables show what is there.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _report import machine, table
from PIL import Image
from torch import Tensor

from treadle.gans.judging import Judge
from treadle.gans.pix2pix import Pix2PixConfig, Pix2PixTrainer
from treadle.images.display import write_png
from treadle.images.metrics import measure
from treadle.images.pixels import read_pixels, to_pixels
from treadle.images.reading import Pixels
from treadle.images.texture import luminance
from treadle.recipes.registry import load_recipe

RESULTS = Path(__file__).parent / "results" / "translation.md"
STRIP = Path(__file__).parent / "results" / "translation.jpg"
DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "pairs_facades"
KEEP = Path(tempfile.gettempdir()) / "treadle-benchmark-translation"

LABELS = "pix2pix-labels"
OLD: dict[str, Any] = {
    "size": 128, "features": 32, "d_features": 32, "upsampling": "bilinear", "gan": "lsgan", "spectral": True,
    "diffaugment": "color,translation,cutout", "weights": {"G_L1": 50},
    "learning_rate": "constant 2e-4 for 50% then linear to 0",
}  # fmt: skip
"""The recipe pix2pix of version 0.2."""
COMMON: dict[str, Any] = {
    "direction": "BtoA", "device": "cpu", "monitor": "l1", "examples_every": None, "log_every": "100 steps", "seed": 0,
}  # fmt: skip
SMALL: dict[str, Any] = {"features": 2, "d_features": 2, "size": 64, "load_size": 64}
"""The settings of a quick run."""
PARTS = ("pix2pix-0.2", LABELS)

TRIAL, WARM, MARGIN, CORES = 40, 10, 0.95, 2
SHOWN = (1, 3, 5, 8, 10)
"""The pictures of the strip."""
FIGURES = ("l1", "ssim", "psnr", "sharpness", "spectrum", "swd", "lattice", "centre")
OF_SETS = FIGURES[3:]
"""The figures that need no target of their own for each picture."""


@dataclass(frozen=True)
class Bar:
    """A measured value, and between what it should be."""

    what: str
    value: float
    least: float = -float("inf")
    most: float = float("inf")

    @property
    def held(self) -> bool:
        """Whether it is."""
        return self.least <= self.value <= self.most

    def row(self) -> list[str]:
        """Its row in a table."""
        ends = [f"{word} {end:g}" for word, end in (("at least", self.least), ("at most", self.most)) if abs(end) < 1e9]
        return [self.what, ", ".join(ends), f"{self.value:.3f}", "held" if self.held else "NOT HELD"]


def config_of(name: str, **settings: Any) -> Pix2PixConfig:
    """The settings of a contender; those of a recipe are the ones for given data."""
    if name != LABELS:
        return Pix2PixConfig(**OLD | COMMON | settings)
    recipe = load_recipe(name).for_given_data(DATA).with_settings(COMMON | settings)
    assert isinstance(recipe.config, Pix2PixConfig)
    return recipe.config


def begin(config: Pix2PixConfig, run: Path | None = None) -> Pix2PixTrainer:
    """A trainer on the real pairs."""
    return Pix2PixTrainer(**Pix2PixTrainer.load_data(config, DATA), config=config, run_dir=run)


def seconds_of_a_step(name: str) -> float:
    """CPU time, by a short trial."""
    trial = begin(config_of(name, max_epochs=None, max_steps=TRIAL, validate_every=None))
    for _ in range(WARM):
        trial.iterate()
    cpu = time.process_time()
    for _ in range(TRIAL - WARM - 1):
        trial.iterate()
    trial.close()
    return (time.process_time() - cpu) / (TRIAL - WARM - 1)


def train(name: str, minutes: float, quick: bool, directory: Path, seed: int, called: str) -> dict[str, Any]:
    """Train a contender, and judge its best and its final model; keeps what they make of some pictures, as `called`."""
    few = (SMALL if quick else {}) | {"seed": seed}
    steps = 3 if quick else int(MARGIN * CORES * 60 * minutes / seconds_of_a_step(name))
    if name == LABELS and not quick:
        own = begin(config_of(name)).progress.total_steps
        steps = min(steps, own or steps)
    with tempfile.TemporaryDirectory() as folder:
        trainer = begin(config_of(name, max_epochs=None, max_steps=steps, **few), Path(folder, "run"))
        cpu, clock = time.process_time(), time.perf_counter()
        trainer.train()
        found: dict[str, Any] = {"steps": steps, "minutes": minutes}
        found |= {"cpu": time.process_time() - cpu, "clock": time.perf_counter() - clock}
        assert trainer.run is not None
        x, y = judged_on(config_of(name, max_epochs=None, max_steps=1, **few))
        for at in ("best", "final"):
            model = Pix2PixTrainer.load_model(trainer.run.path, at=at)
            with torch.no_grad():
                outputs = torch.cat([model(each[None]) for each in x])
            found[at] = judged(outputs, y)
            strip(outputs, directory / f"{called}-{at}.png")
    strip(y, directory / "targets.png")
    labels, _ = judged_on(config_of("pix2pix-0.2", label_input=True, max_steps=1, **few))
    strip(labels, directory / "labels.png")
    return found


def judged_on(config: Pix2PixConfig) -> list[Tensor]:
    """Inputs and targets that are not trained on: the 12 of the test and the 12 of the validation."""
    trainer = begin(config)
    feeds = [feed for feed in (trainer.test_feed, trainer.validation_feed) if feed is not None]
    return [torch.cat(parts) for parts in zip(*(batch for feed in feeds for batch in feed.iterate(0)), strict=True)]


def judged(outputs: Tensor, targets: Tensor) -> dict[str, float]:
    """All figures of the pictures that are not trained on."""
    judge = Judge()
    judge.gather(outputs, targets)
    found = {name: float(np.mean(values)) for name, values in measure(outputs, targets).items()}
    return found | judge.overall() | {"centre": centre(outputs) / centre(targets)}


def centre(pictures: Tensor) -> float:
    """The mean gradient of the central 16 x 16 pixels over that of the whole picture."""
    values = luminance(pictures)
    gradient = np.abs(np.diff(values, axis=1))[:, :, :-1] + np.abs(np.diff(values, axis=2))[:, :-1]
    middle = gradient.shape[-1] // 2
    return float(gradient[:, middle - 8 : middle + 8, middle - 8 : middle + 8].mean() / gradient.mean())


def strip(pictures: Tensor, path: Path) -> None:
    """Write some pictures side by side."""
    write_png(path, np.concatenate([to_pixels(pictures[index]) for index in SHOWN], 1))


def photographs() -> dict[str, float]:
    """The figures of sets for photographs that are trained on, instead of pictures that were made."""
    config = config_of("pix2pix-0.2", max_steps=1, load_size=128)  # whole, as the targets are
    trainer, targets = begin(config), judged_on(config)[1]
    assert trainer.feed is not None
    taken = torch.cat([target for _, target in trainer.feed.iterate(0)])[: len(targets)]
    found = judged(taken, targets)
    return {name: value for name, value in found.items() if name in OF_SETS}


def strips(keep: Path, names: Sequence[str]) -> dict[str, Pixels]:
    """What was kept of the contenders' pictures, by what a reader calls them."""
    files = {"input": "labels", "target": "targets"}
    files |= {f"{name}, {at}": f"{name}-{at}" for name in names for at in ("best", "final")}
    return {said: read_pixels(file) for said, name in files.items() if (file := keep / f"{name}.png").exists()}


def bars(found: dict[str, Any]) -> list[Bar]:
    """What the recipe for label maps promises of ten minutes."""
    best, final = found["best"], found["final"]
    return [
        Bar("final: sharpness", final["sharpness"], least=0.7),
        Bar("final: spectrum", final["spectrum"], most=0.7),
        Bar("final: lattice, dB", final["lattice"], most=0.05),
        Bar("final: centre", final["centre"], 0.85, 1.15),
        Bar("final: L1", final["l1"], most=0.18),
        Bar("best: L1", best["l1"], most=0.172),
        Bar("best: SSIM", best["ssim"], least=0.2),
    ]


def told(kept: dict[str, Any], real: dict[str, float]) -> tuple[str, list[Bar]]:
    """The tables of what there is, and the figures of real photographs."""
    rows = []
    for name, found in kept.items():
        for at in ("best", "final"):
            figures = [f"{found[at][figure]:.3f}" for figure in FIGURES]
            rows.append(
                [f"{name}, {at}", f"{found['steps']}", f"{found['cpu']:.0f}", f"{found['clock']:.0f}", *figures]
            )
    figures = [f"{real[figure]:.3f}" if figure in real else "" for figure in FIGURES]
    rows.append(["photographs trained on", "", "", "", *figures])
    head = ["contender", "steps", "CPU-s", "s", "L1", "SSIM", "PSNR", *FIGURES[3:]]
    text = f"{machine()}\n\n{table(head, rows)}"
    found = bars(kept[LABELS]) if LABELS in kept else []
    if found:
        text += f"\n\n{table(['promise of ' + LABELS, 'bar', 'measured', ''], [bar.row() for bar in found])}"
    return text, found


def main(given: Sequence[str] | None = None) -> int:
    """Run parts, and tell all that there are."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", nargs="*", choices=PARTS, default=list(PARTS), help="these contenders; default: all")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long each trains, on two idle cores (10)")
    parser.add_argument("--seed", type=int, default=0, help="of the runs (0); others are shown beside")
    parser.add_argument("--write", action="store_true", help=f"store the tables in benchmarks/results/{RESULTS.name}")
    parser.add_argument("--quick", action="store_true", help="a few steps of tiny networks, to see whether it runs")
    parser.add_argument("--keep", type=Path, default=KEEP, help=f"where parts that were run are kept ({KEEP})")
    options = parser.parse_args(given)
    if not DATA.is_dir():
        print(f"there is no {DATA}: nothing is measured")
        return 0
    options.keep.mkdir(parents=True, exist_ok=True)
    for name in options.part:
        called = f"{name}, seed {options.seed}" if options.seed else name
        found = train(name, options.minutes, options.quick, options.keep, options.seed, called)
        (options.keep / f"{called}.json").write_text(json.dumps(found, indent=1))
    names = [name for part in PARTS for name in sorted(file.stem for file in options.keep.glob(f"{part}*.json"))]
    kept = {name: json.loads((options.keep / f"{name}.json").read_text()) for name in names}
    text, found = told(kept, photographs())
    print(text)
    pictures = strips(options.keep, names)
    picture = Image.fromarray(np.concatenate(list(pictures.values())))
    picture.save(options.keep / STRIP.name, quality=88)
    if options.write:
        about = (__doc__ or "").partition("How it is measured.")
        rows = ", ".join(pictures)
        RESULTS.write_text(
            f"# What label maps become in ten minutes\n\n{text}\n\n![pictures]({STRIP.name})\n\n"
            f"From above: {rows}.\n\n{about[1]}{about[2]}"
        )
        picture.save(STRIP, quality=88)
    return 0 if options.quick or all(bar.held for bar in found) else 1


if __name__ == "__main__":
    sys.exit(main())
