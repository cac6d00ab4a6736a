"""Pictures as fields: what a hash grid, a dense grid and SIREN make of held pictures, and how soon.

    python benchmarks/images.py            tables and gates on the terminal; exit code 1 where a gate does not hold
    python benchmarks/images.py --quick    a few steps with a small picture: whether it runs, not what it reaches
    python benchmarks/images.py --race     the second table alone: the demo, and the race with 0.1.0
    python benchmarks/images.py --write    also writes benchmarks/results/images.md

Four held pictures of `../shared/data/images` and one of 12 megapixels made here. Every field of a picture has about as
many parameters, fewer than half of the picture's values, and trains for the same seconds: how many steps that is, is
measured before, so that its learning rate has come down at their end. Quality is the PSNR of the whole picture, of a
float picture that of the logarithm that is fitted. A second table is the demo, `treadle train image`, alone, and the
same with tables of 2^17 rows against version 0.1.0 (its kernels are frozen in `_hashgrid_before.py`, its optimizer is
torch's, its decoder learns at the grid's rate) and against today's kernels at 0.1.0's rates: all train by turns, 25
steps each, in one process from equal weights, and their clocks run only in their turns. A threshold is passed for good
when no later measurement is below it. A third one is a picture of 100 megapixels,
which stays in a mapped file: how much memory the process has taken at most, reading included, and how much it had
before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _hashgrid_before import Before
from _report import machine, table
from torch import Tensor
from torch.nn import functional

from treadle.engine.lr import LearningRate
from treadle.errors import UsageError
from treadle.fields.image_trainer import ImageTrainer
from treadle.images.display import write_png
from treadle.images.metrics import psnr_of
from treadle.images.picture import Picture, default_picture, read_picture
from treadle.recipes.registry import load_recipe

HELD = Path(__file__).parents[2] / "shared" / "data" / "images"
NAMES = ("astronaut.png", "coffee.png", "camera.png", "albert.exr")
RESULTS = Path(__file__).with_name("results") / "images.md"
SECONDS, SECONDS_LARGE = 6.0, 20.0
SHARE = 0.45
"""Parameters per value at most."""
TURN = 25
"""Steps of a turn in the paired run, after which both are measured."""
DEMO, DEMO_SECONDS = 42.0, 10.0
SOONER, THRESHOLD, ENDING = 1.4, 40.0, 50.0


def made(height: int = 3000, width: int = 4000) -> Picture:
    """A picture with detail at every scale: noise of ten octaves, bent stripes, and two hundred discs with edges."""
    generator = torch.Generator().manual_seed(0)
    field = torch.zeros(1, 3, height, width)
    for octave in range(10):
        cells = (max(2, 3 * 2**octave * height // width), 4 * 2**octave)
        noise = torch.rand(1, 3, *cells, generator=generator) - 0.5
        field += functional.interpolate(noise, (height, width), mode="bicubic", align_corners=True) * 0.62**octave
    values = (field[0] * 0.45 + 0.5).permute(1, 2, 0).contiguous()
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    stripes = torch.sin(300 * (x + 0.3 * y) * (1.2 + torch.sin(3 * y)))
    values[stripes.mul(y > 0.4) > 0.5] *= 0.6
    for _ in range(200):
        a, b, radius, *colour = torch.rand(6, generator=generator).tolist()
        inside = (x - 2 * a + 1).square() + (y - 2 * b + 1).square() < (0.01 + 0.06 * radius) ** 2
        values[inside] = 0.5 * values[inside] + 0.5 * torch.tensor(colour)
    return Picture(values.clamp(0, 1).numpy(), False, "made of code, 12 megapixels")


def settings_of(picture: Picture) -> Iterator[tuple[str, dict[str, Any]]]:
    """The fields to compare: each as large as fits into `SHARE` parameters per value; a SIREN 256 wide at most."""
    most = SHARE * picture.values.size
    size, channels = picture.size, picture.channels

    def count(**settings: Any) -> int:
        config = ImageTrainer.Config(**settings)
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in config.field(size, channels).parameters())  # type: ignore[attr-defined]

    def largest(name: str, values: list[int], **others: Any) -> dict[str, Any]:
        fitting = [value for value in values if count(**others, **{name: value}) <= most]
        return {**others, name: fitting[-1]}

    yield "hash", largest("log2_size", list(range(8, 20)), grid="hash")
    yield "dense", largest("n_max", list(range(32, min(4097, 2 * max(size)), 16)), grid="dense", levels=6)
    yield "siren", largest("hidden", list(range(32, 257, 32)), grid="siren", layers=3)


@dataclass
class Fit:
    """What came of one training."""

    parameters: int
    steps: int
    seconds: float
    psnr: float


def fit(picture: Picture, seconds: float, quick: bool, **settings: Any) -> Fit:
    """Train on `picture` for about so many seconds, and measure the whole of it."""
    quiet = {"examples_every": None, "validate_every": None, "log_every": None, "device": "cpu"}

    def build(steps: int) -> ImageTrainer:
        return ImageTrainer(data=picture, max_steps=steps, **quiet, **settings)

    if quick:
        steps = 3
    else:
        with build(1000) as probe:
            for index in range(33):
                if index == 3:
                    start = time.perf_counter()
                probe.iterate()
            steps = max(50, round(30 * seconds / (time.perf_counter() - start)))
    with build(steps) as trainer:
        trainer.step(next(trainer.feed.iterate(0)))
    with build(steps) as trainer:
        start = time.perf_counter()
        while trainer.progress.step < steps - 1:
            trainer.iterate()
        elapsed = time.perf_counter() - start
        trainer.iterate()  # the last one, and the validation of the final state
        parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
        return Fit(parameters, steps, elapsed * steps / (steps - 1), trainer.validation_metrics["psnr"])


class AsBefore(ImageTrainer):
    """With the kernels, the cells, the threads and the optimizer of 0.1.0."""

    def setup(self) -> None:
        """As always; then the field is computed and updated as it was."""
        super().setup()
        self.optimizer = torch.optim.Adam(self.optimizer.param_groups, betas=(0.9, 0.99), eps=1e-15)
        self.rate = LearningRate(self.optimizer, self.config.learning_rate)
        self.model.grid.load_state_dict({"table": self.model.grid.table.detach()})  # as 0.1.0 saved it
        self.before = Before(self.model)

    def step(self, batch: Any) -> dict[str, Tensor]:
        """As 0.1.0 had it."""
        points, targets = batch
        loss = functional.mse_loss(self.before(points), targets)
        self.minimize(loss, self.optimizer)
        return {"loss": loss, "psnr": -10 * loss.detach().log10()}


@dataclass
class Course:
    """How a training went: (steps, its own seconds, dB of the whole picture) after every turn."""

    points: list[tuple[int, float, float]]

    def passed(self, threshold: float) -> float:
        """Seconds after which it stayed at `threshold` or above; inf where it did not."""
        below = [seconds for _, seconds, psnr in self.points if psnr < threshold]
        after = [seconds for _, seconds, psnr in self.points if not below or seconds > below[-1]]
        return after[0] if after else float("inf")


RATES = {"decoder_rate": 1.0}
"""Those of 0.1.0."""
Kinds = dict[str, tuple[type[ImageTrainer], dict[str, Any]]]
NOW: Kinds = {"now": (ImageTrainer, {})}
ALL: Kinds = {**NOW, "as 0.1.0": (AsBefore, RATES), "now, at the rates of 0.1.0": (ImageTrainer, RATES)}


def race(picture: Picture, turns: int, kinds: Kinds, **settings: Any) -> dict[str, Course]:
    """Train each of `kinds`, by turns."""
    quiet = {"examples_every": None, "validate_every": None, "log_every": None, "device": "cpu", "seed": 0}
    field = {
        name: kind(data=picture, max_steps=TURN * turns, **quiet, **settings, **own)
        for name, (kind, own) in kinds.items()
    }
    for begun in zip(*(trainer.model.parameters() for trainer in field.values()), strict=True):
        assert all(torch.equal(begun[0], other) for other in begun), "they begin from other weights"
    courses = {name: Course([]) for name in field}
    spent = dict.fromkeys(field, 0.0)
    for trainer in field.values():  # compiled, and warm
        points, targets = next(trainer.feed.iterate(0))
        call = trainer.before if isinstance(trainer, AsBefore) else trainer.model
        functional.mse_loss(call(points), targets).backward()
        trainer.optimizer.zero_grad()
    for turn in range(turns):
        for name in list(field) if turn % 2 else list(reversed(field)):
            trainer = field[name]
            start = time.perf_counter()
            for _ in range(TURN - (turn == turns - 1)):  # the very last step would end and validate the run
                trainer.iterate()
            spent[name] += time.perf_counter() - start
        for name, trainer in field.items():
            points, targets = next(trainer.validation_feed.iterate(0))
            error = functional.mse_loss(trainer.model.evaluate(points), targets).item()
            courses[name].points.append((trainer.progress.step, spent[name], psnr_of(error)))
    for trainer in field.values():
        trainer.close()
    return courses


def hundred_megapixels() -> str:
    """The table of a picture that is not kept in memory; a process of its own trains, whose memory is measured."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "large.png"
        corner = (made(2500, 2500).values * 255 + 0.5).astype(np.uint8)
        half = np.concatenate((corner, corner[:, ::-1]), axis=1)
        whole = np.concatenate((half, half[::-1]), axis=0)
        write_png(path, np.concatenate((np.concatenate((whole, whole), axis=1),) * 2, axis=0))
        command = [sys.executable, __file__, "--worker", str(path)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    row = [
        "10000 x 10000 x 3", str(found["parameters"]), f"{found['reading']:.1f}", f"{found['step']:.1f}",
        f"{found['validation']:.1f}", f"{found['psnr']:.2f}", f"{found['idle']:.0f}", f"{found['peak']:.0f}",
    ]  # fmt: skip
    head = ["values", "parameters", "s to read", "ms per step", "s to validate", "dB after 300 steps"]
    return table([*head, "MB before", "MB at most"], [row])


def _most() -> float:
    """The most memory that this program has had, in MB; resource.getrusage would count that of who started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def worker(path: Path) -> None:
    """What `hundred_megapixels` asks a process of its own: prints JSON."""
    found = {"idle": _most()}
    start = time.perf_counter()
    quiet = {"examples_every": None, "validate_every": None, "log_every": None, "device": "cpu"}
    trainer = ImageTrainer(data=path, max_steps=300, log2_size=19, batch_size=16384, **quiet)
    found["reading"] = time.perf_counter() - start
    trainer.iterate()
    start = time.perf_counter()
    while trainer.progress.step < 299:
        trainer.iterate()
    found["step"] = (time.perf_counter() - start) / 298 * 1000
    start = time.perf_counter()
    trainer.iterate()
    found["validation"] = time.perf_counter() - start
    found["psnr"] = trainer.validation_metrics["psnr"]
    found["parameters"] = sum(parameter.numel() for parameter in trainer.model.parameters())
    found["peak"] = _most()
    print(json.dumps(found))


def compare_fields(pictures: list[Picture], quick: bool) -> str:
    """The table of fields."""
    rows = []
    for picture in pictures:
        values = picture.values.size
        seconds = SECONDS_LARGE if values > 2**24 else SECONDS
        for name, settings in settings_of(picture):
            print(f"{Path(picture.name).name}: {name} ...", file=sys.stderr, flush=True)
            found = fit(picture, seconds, quick, **settings)
            rows.append(
                [
                    Path(picture.name).name, f"{picture.size[1]} x {picture.size[0]} x {picture.channels}", name,
                    str(found.parameters), f"{found.parameters / values:.2f}", str(found.steps),
                    f"{found.seconds:.1f}", f"{found.psnr:.2f}",
                ]
            )  # fmt: skip
    return table(["picture", "values", "field", "parameters", "per value", "steps", "seconds", "dB"], rows)


def demo(picture: Picture, quick: bool) -> tuple[str, bool]:
    """The table of the demo and of the paired run; and whether its gates hold."""
    config = load_recipe("image").config
    recipe = {name: getattr(config, name) for name in ("batch_size", "log2_size", "n_min", "n_max", "learning_rate")}
    turns = 2 if quick else config.max_steps // TURN
    found = race(picture, turns, NOW, **recipe)["now"]
    more = recipe | {"log2_size": 17, "n_min": 16, "n_max": None}
    large = race(picture, 2 if quick else 1500 // TURN, ALL, **more)
    held = found.points[-1][2] >= DEMO and found.points[-1][1] <= DEMO_SECONDS
    rows = [
        ["the demo", str(found.points[-1][0]), f"{found.points[-1][1]:.1f}", f"{found.passed(DEMO):.1f} (42 dB)",
         f"{found.points[-1][2]:.2f}", f"{'held' if held else 'NOT HELD'} (42 dB in 10 s)"],
    ]  # fmt: skip
    before = large["as 0.1.0"].passed(THRESHOLD)
    for name, course in large.items():
        verdict = "-"
        if name == "now":
            sooner = before / course.passed(THRESHOLD) if course.passed(THRESHOLD) < float("inf") else 0.0
            good = sooner >= SOONER and course.points[-1][2] >= ENDING
            held &= good
            verdict = f"{'held' if good else 'NOT HELD'} ({sooner:.2f} x sooner >= 1.4, ending >= 50 dB)"
        rows.append(
            [f"2^17 rows, {name}", str(course.points[-1][0]), f"{course.points[-1][1]:.1f}",
             f"{course.passed(THRESHOLD):.1f} (40 dB)", f"{course.points[-1][2]:.2f}", verdict]
        )  # fmt: skip
    return table(["training", "steps", "seconds", "passed for good after s", "dB at its end", "gate"], rows), held


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps with a small picture; gates are not judged")
    parser.add_argument("--write", action="store_true", help="also write benchmarks/results/images.md")
    parser.add_argument("--race", action="store_true", help="the second table alone")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker)
        return 0
    pictures = [made(150, 200) if options.quick else made()]
    if not options.quick:
        try:
            pictures = [*(read_picture(HELD / name) for name in NAMES), *pictures]
        except UsageError as error:
            print(f"held pictures are left out: {error}", file=sys.stderr)
    courses, held = demo(pictures[0] if options.quick else default_picture(), options.quick)
    if options.race:
        print(courses)
        return 0 if held else 1
    print(courses, file=sys.stderr, flush=True)
    fields = compare_fields(pictures, options.quick)
    facts = f"{machine(['numba'])} {torch.get_num_threads()} threads."
    large = "" if options.quick else f"{hundred_megapixels()}\n\n"
    text = f"{fields}\n\n{courses}\n\n{large}{facts}"
    print(text)
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        method = (__doc__ or "").split("\n\n")[-1].strip()
        RESULTS.write_text(f"# Pictures\n\n{method}\n\n{text}\n", encoding="utf-8")
    return 0 if held or options.quick else 1


if __name__ == "__main__":
    sys.exit(main())
