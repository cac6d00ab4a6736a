"""Splatting kernels: tiles, blending, L1 + SSIM and a whole step, against plain torch.

    python benchmarks/splats.py            tables and gates on the terminal; exit code 1 where a gate does not hold
    python benchmarks/splats.py --quick    few rounds, without the largest step and the growth
    python benchmarks/splats.py --write    also writes benchmarks/results/splats.md

Random splats in a cube before a camera, each covering a few pixels. "torch" is the reference rasterizer: a tile at a
time, all its splats and pixels at once, in float32; and two plain conv2d per blur for SSIM. Contestants take turns in
one process with a warm cache; times are medians over rounds, ratios medians of the ratio within a round. Before that
they prove equal work ("difference": the largest relative difference of the picture and of each gradient). "One thread"
is ours alone on one, whose picture and gradients are bitwise those of all threads; elsewhere ours runs as in a
trainer's step, where torch leaves its threads to the kernels.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from _report import machine, table
from torch import Tensor

from treadle.kernels import splatting
from treadle.kernels.splatting import Projection
from treadle.kernels.splatting_reference import rasterize_reference
from treadle.kernels.splatting_warmup import prepare
from treadle.kernels.ssim import ssim_l1
from treadle.kernels.ssim_reference import ssim_l1_reference
from treadle.kernels.threads import left_to_kernels

RESULTS = Path(__file__).with_name("results") / "splats.md"
CASES = {
    "20k @ 400 x 400": (20_000, 400, 100),
    "100k @ 400 x 400": (100_000, 400, 35),
    "5k @ 100 x 100": (5_000, 100, 25),
}
"""Splats, pixels along a side, and how many times torch's speed ours is to be at least."""
STEPS = {"10k @ 200 x 200": (10_000, 200), "50k @ 400 x 400": (50_000, 400), "200k @ 800 x 800": (200_000, 800)}
STAGES = (
    "project",
    "colours",
    "rasterize",
    "L1 + SSIM",
    "back: L1 + SSIM",
    "back: rasterize",
    "back: the rest",
    "Adam",
)
SSIM_TIMES, SSIM_MS, COMPILE_SECONDS = 8.0, 6.0, 20.0
QUOTED = """Measured elsewhere, on another scene (two threads, ms; quoted): OpenSplat's CPU rasterizer 211-313 for 20k @
400 x 400, 334-448 for 100k, 13-16 for 5k @ 100 x 100; a plain C++ kernel 18, 47 and 1.6."""


def cloud(count: int, pixels: int) -> dict[str, Tensor]:
    """Parameters of `count` splats in a cube, of such a size that they cover the picture some dozen times."""
    generator = torch.Generator().manual_seed(0)
    wide = 1.7 * (8.0 / count) ** 0.5 / 8
    values = {
        "means": torch.rand(count, 3, generator=generator) * 2 - 1,
        "quaternions": torch.randn(count, 4, generator=generator),
        "log_scales": torch.randn(count, 3, generator=generator) * 0.5 + torch.tensor(wide).log(),
        "logits": torch.randn(count, generator=generator),
        "dc": torch.randn(count, 3, generator=generator),
        "rest": torch.randn(count, 15, 3, generator=generator) * 0.1,
    }
    return {name: value.requires_grad_() for name, value in values.items()}


def camera(pixels: int) -> tuple[Tensor, tuple[float, float, float, float], tuple[int, int]]:
    """Pose, intrinsics and size: three units before the cube's centre."""
    pose = torch.eye(4)
    pose[2, 3] = 3.0
    return pose, (1.2 * pixels, 1.2 * pixels, pixels / 2, pixels / 2), (pixels, pixels)


def project(values: dict[str, Tensor], pixels: int) -> tuple[Projection, Tensor]:
    """The projection and the opacities."""
    opacities = values["logits"].sigmoid()
    return splatting.project(
        values["means"], values["quaternions"], values["log_scales"].exp(), opacities, *camera(pixels)
    ), opacities


class Drawing:
    """Splats that are projected already, to be drawn and traced back again and again."""

    def __init__(self, count: int, pixels: int) -> None:
        with torch.no_grad():
            flat, opacities = project(cloud(count, pixels), pixels)
        self.leaves = [x.clone().requires_grad_() for x in (flat.centers, flat.conics, opacities)]
        self.leaves.append(torch.rand(count, 3, generator=torch.Generator().manual_seed(1)).requires_grad_())
        self.flat = Projection(*self.leaves[:2], *flat[2:])
        self.size = (pixels, pixels)
        self.weights = torch.randn(pixels, pixels, 3, generator=torch.Generator().manual_seed(2))

    def run(self, function: Callable[..., tuple[Tensor, Tensor]]) -> list[Tensor]:
        """The picture and its gradients to centers, conics, opacities and colours."""
        image, _ = function(self.flat, self.leaves[2], self.leaves[3], self.size)
        return [image.detach(), *torch.autograd.grad(image, self.leaves, self.weights)]


class Comparing:
    """A picture and its target."""

    def __init__(self, pixels: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.target = torch.rand(pixels, pixels, 3, generator=generator)
        self.image = (self.target + 0.1 * torch.randn(pixels, pixels, 3, generator=generator)).requires_grad_()

    def run(self, function: Callable[..., tuple[Tensor, Tensor]]) -> list[Tensor]:
        """The loss and its gradient."""
        l1, ssim = function(self.image, self.target)
        loss = 0.8 * l1 + 0.2 * (1 - ssim)
        return [loss.detach(), *torch.autograd.grad(loss, self.image)]


def difference(found: list[Tensor], wanted: list[Tensor], what: str) -> float:
    """The largest relative difference; ends the program above one percent."""
    worst = max(((a - b).norm() / b.norm()).item() for a, b in zip(found, wanted, strict=True))
    if not worst < 0.01:
        sys.exit(f"{what}: ours does other work than torch, by {worst:.1%}")
    return worst


def on_one_thread(work: Callable[[], list[Tensor]]) -> list[Tensor]:
    """Do it on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return work()
    finally:
        torch.set_num_threads(before)


def timed(work: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


def duel(what: str, ours: Callable[[], list[Tensor]], theirs: Callable[[], list[Tensor]], rounds: int) -> list[float]:
    """Medians: torch's ms, ours, ours on one thread, how many times torch; and the difference of their work."""
    worst = difference(ours(), theirs(), what)
    if not all(torch.equal(a, b) for a, b in zip(ours(), on_one_thread(ours), strict=True)):
        sys.exit(f"{what}: the number of threads changes the result")
    slow, fast, single = [], [], []
    for index in range(rounds):
        turns = [(slow, theirs), (fast, left_to_kernels()(ours)), (single, lambda: on_one_thread(ours))]
        for times, work in turns if index % 2 else reversed(turns):
            # What is quick is repeated, so that a round compares like with like.
            repeated = 1 if work is theirs else 5
            times.append(min(timed(work) for _ in range(repeated)) if repeated == 1 else
                         statistics.median(timed(work) for _ in range(repeated)))  # fmt: skip
    ratio = statistics.median(a / b for a, b in zip(slow, fast, strict=True))
    return [*(statistics.median(times) for times in (slow, fast, single)), ratio, worst]


@left_to_kernels()
def whole_step(count: int, pixels: int, rounds: int) -> list[float]:
    """Milliseconds of each of `STAGES`, medians."""
    values, target = cloud(count, pixels), Comparing(pixels).target
    optimizer = torch.optim.Adam(list(values.values()), lr=1e-4, eps=1e-15, fused=True)
    eye = torch.tensor([0.0, 0.0, -3.0])
    rows = []
    for index in range(rounds + 2):
        marks = [time.perf_counter()]

        def mark(marks: list[float] = marks) -> None:
            marks.append(time.perf_counter())

        flat, opacities = project(values, pixels)
        mark()
        colors = splatting.spherical_harmonics(
            values["dc"], values["rest"], values["means"], eye, 3, flat.extents[:, 0] > 0
        )
        mark()
        # The graph is cut at the tensors where a stage begins, to time each alone.
        cut = [x.detach().requires_grad_() for x in (flat.centers, flat.conics, opacities, colors)]
        image, _ = splatting.rasterize(
            Projection(*cut[:2], *(x.detach() for x in flat[2:])), *cut[2:], (pixels, pixels)
        )
        mark()
        picture = image.detach().requires_grad_()
        l1, ssim = ssim_l1(picture, target)
        loss = 0.8 * l1 + 0.2 * (1 - ssim)
        mark()
        (slope,) = torch.autograd.grad(loss, picture)
        mark()
        slopes = torch.autograd.grad(image, cut, slope)
        mark()
        optimizer.zero_grad()
        torch.autograd.backward([flat.centers, flat.conics, opacities, colors], slopes)
        mark()
        optimizer.step()
        mark()
        if index > 1:  # the first ones warm up
            rows.append([1e3 * (b - a) for a, b in pairwise(marks)])
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def compile_seconds() -> float:
    """Seconds to compile everything in a fresh process with an empty cache."""
    code = "from treadle.kernels.splatting_warmup import prepare; import time; a = time.perf_counter(); prepare(); " \
           "print(time.perf_counter() - a)"  # fmt: skip
    with tempfile.TemporaryDirectory() as cache:
        run = subprocess.run([sys.executable, "-c", code], env={**os.environ, "NUMBA_CACHE_DIR": cache},
                             capture_output=True, text=True, check=True)  # fmt: skip
    return float(run.stdout)


def progress(text: str) -> None:
    """Say on the terminal what is measured."""
    print(f"{text} ...", file=sys.stderr, flush=True)


def gate(ratio: float, least: float) -> str:
    """Whether at least so much was reached."""
    return f"{'held' if ratio >= least else 'NOT HELD'} (>= {least:g})"


def kernels(rounds: int) -> tuple[str, bool]:
    """The table of duels, and whether their gates hold."""
    rows, held = [], True
    for what, (count, pixels, least) in CASES.items():
        progress(what)
        drawing = Drawing(count, pixels)
        found = duel(
            what, lambda d=drawing: d.run(splatting.rasterize), lambda d=drawing: d.run(rasterize_reference), rounds
        )
        held &= found[3] >= least
        rows.append(
            [what, *(f"{ms:.1f}" for ms in found[:3]), f"{found[3]:.0f}", f"{found[4]:.0e}", gate(found[3], least)]
        )
    for pixels in (200, 400, 800):
        progress(f"L1 + SSIM @ {pixels}")
        pair = Comparing(pixels)
        what = f"L1 + SSIM @ {pixels} x {pixels}"
        found = duel(what, lambda p=pair: p.run(ssim_l1), lambda p=pair: p.run(ssim_l1_reference), 2 * rounds)
        verdict = "-"
        if pixels == 400:
            within = found[1] <= SSIM_MS
            held &= found[3] >= SSIM_TIMES and within
            verdict = f"{gate(found[3], SSIM_TIMES)}, {'held' if within else 'NOT HELD'} (<= {SSIM_MS:g} ms)"
        rows.append([what, *(f"{ms:.1f}" for ms in found[:3]), f"{found[3]:.0f}", f"{found[4]:.0e}", verdict])
    head = ["forward + backward", "torch, ms", "ours, ms", "one thread, ms", "times torch", "difference", "gate"]
    return table(head, rows), held


def steps(quick: bool) -> str:
    """Where the time of a step goes."""
    columns = {}
    for what, (count, pixels) in STEPS.items():
        if not (quick and count > 100_000):
            progress(f"whole step, {what}")
            columns[what] = whole_step(count, pixels, 5 if quick else 15)
    rows = [[stage, *(f"{times[i]:.1f}" for times in columns.values())] for i, stage in enumerate(STAGES)]
    rows.append(["all", *(f"{sum(times):.1f}" for times in columns.values())])
    return table(["a step, ms", *columns], rows)


def growth() -> str:
    """How a step grows with splats and with pixels."""
    rows = []
    for count, pixels in [(n, 400) for n in (6_250, 12_500, 25_000, 50_000, 100_000, 200_000)] + [
        (50_000, n) for n in (100, 200, 400, 800)
    ]:
        progress(f"growth, {count} @ {pixels}")
        times = whole_step(count, pixels, 7)
        drawn = times[2] + times[5]
        rows.append([f"{count:,}", f"{pixels} x {pixels}", f"{drawn:.1f}", f"{sum(times):.1f}"])
    return table(["splats", "pixels", "rasterize, both ways, ms", "a step, ms"], rows)


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, without the largest step and the growth")
    parser.add_argument("--write", action="store_true", help="also write benchmarks/results/splats.md")
    options = parser.parse_args()
    prepare()
    compared, held = kernels(2 if options.quick else 5)
    parts = [compared, QUOTED, steps(options.quick)]
    if not options.quick:
        parts.append(growth())
        progress("compiling with an empty cache")
        seconds = compile_seconds()
        held &= seconds <= COMPILE_SECONDS
        verdict = "held" if seconds <= COMPILE_SECONDS else "NOT HELD"
        parts.append(
            f"Compiling everything with an empty cache: {seconds:.1f} s, {verdict} (<= {COMPILE_SECONDS:g} s)."
        )
    parts.append(f"{machine(['numba'])} {torch.get_num_threads()} threads.")
    text = "\n\n".join(parts)
    print(text)
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        method = (__doc__ or "").split("\n\n")[-1].strip()
        RESULTS.write_text(f"# Splatting kernels\n\n{method}\n\n{text}\n", encoding="utf-8")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
