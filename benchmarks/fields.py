"""Tracing kernels: marching, volume rendering and sphere tracing, against plain torch; where a NeRF step's time goes.

    python benchmarks/fields.py            tables and gates on the terminal; exit code 1 where a gate does not hold
    python benchmarks/fields.py --quick    few rounds
    python benchmarks/fields.py --write    also writes benchmarks/results/fields.md

Rays from around look at three thin shells (a solid's surface, as a trained density has it), whose cells of a grid of
64^3 are occupied. "torch" marches by looking every step up and keeping what is occupied; composites by sums along rays
that are padded to the longest; and traces spheres with all of each step's arithmetic in torch, on the rays that are
left. Contestants take turns in one process with a warm cache; times are medians over rounds, for a million samples,
ratios medians of the ratio within a round. Before that they prove equal work ("difference": the largest relative
difference of the results, and of the gradients). "One thread" is ours alone on one, with results bitwise those of all
threads; elsewhere ours runs as in a trainer's step, where torch leaves its threads to the kernels.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from _report import machine, table
from torch import Tensor

from treadle.fields.field import Field
from treadle.fields.nerf.model import build
from treadle.fields.nerf.settings import NeRFConfig
from treadle.fields.rays import Rays
from treadle.fields.structures.occupancy import OccupancyGrid
from treadle.fields.structures.octree import Octree
from treadle.fields.tracers.radiance import RadianceTracer, ask
from treadle.fields.tracers.sphere import SphereTracer
from treadle.kernels.fields_warmup import prepare
from treadle.kernels.marching import Samples
from treadle.kernels.threads import left_to_kernels
from treadle.kernels.volume import composite

RESULTS = Path(__file__).with_name("results") / "fields.md"
STEP = 2 * math.sqrt(3) / 256
RAYS = 8192
GATES = {"march": 5.0, "march, 4 cascades": 5.0, "composite, colours": 5.0, "composite, 8 channels": 4.0, "trace": 2.0,
         "trace, octree": 3.0}  # fmt: skip
"""How many times torch's speed ours is to be at least."""
FEWER = 8.0
"""How many times fewer samples than in the whole box a ray is to have in the occupied cells."""
COMPILE_SECONDS = 25.0
STAGES = ("march", "field", "composite", "loss", "composite back", "field back", "optimizer")


class Shells(Field):
    """Three spheres as a signed distance, and as a density within .02 of it."""

    channels = {"sdf": 1, "density": 1, "color": 3}

    def forward(
        self,
        points: Tensor,
        directions: Tensor | None = None,
        channels: Sequence[str] | None = None,
        lod: int | None = None,
    ) -> dict[str, Tensor]:
        """The channels at `points`."""
        sdf = self.distance(points)[:, None]
        return {"sdf": sdf, "density": self.density(points)[:, None], "color": points / 2 + 0.5}

    @staticmethod
    def distance(points: Tensor) -> Tensor:
        """(n,) to the nearest of the spheres."""
        balls = ((0.3, 0.0, 0.1, 0.35), (-0.3, 0.1, 0.0, 0.3), (0.1, -0.4, -0.2, 0.25))
        centers = points.new_tensor([ball[:3] for ball in balls])
        radii = points.new_tensor([ball[3] for ball in balls])
        return ((points[:, None] - centers).norm(dim=2) - radii).amin(1)

    @classmethod
    def density(cls, points: Tensor) -> Tensor:
        """(n,) 100 near a surface, 0 elsewhere."""
        return 100.0 * (cls.distance(points).abs() < 0.02)


def looking(count: int, far: float = 2.5) -> Rays:
    """Rays from around the shells, most of which meet one."""
    generator = torch.Generator().manual_seed(0)
    origins = far * torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    aims = 0.3 * torch.randn(count, 3, generator=generator) - origins
    return Rays(origins, torch.nn.functional.normalize(aims, dim=1))


def occupancy(cascades: int = 1) -> OccupancyGrid:
    """What is occupied of the shells, after eight looks."""
    grid = OccupancyGrid(64, cascades)
    for seed in range(8):
        grid.update(Shells.density, torch.Generator().manual_seed(seed), step=STEP)
    return grid


def torch_march(rays: Rays, grid: OccupancyGrid, jitter: Tensor) -> list[Tensor]:
    """Look up every step of every ray: starts, rays, distances."""
    half = grid.extent
    a, b = (-half - rays.origins) / rays.directions, (half - rays.origins) / rays.directions
    near, far = torch.minimum(a, b).amax(1).clamp(min=0), torch.maximum(a, b).amin(1)
    steps = int(2 * math.sqrt(3) * half / STEP) + 1
    t = near[:, None] + (torch.arange(steps) + jitter[:, None]) * STEP
    points = rays.origins[:, None] + t[..., None] * rays.directions[:, None]
    inside = (t < far[:, None]) & grid.occupied(points.reshape(-1, 3)).reshape(t.shape)
    which, place = torch.nonzero(inside, as_tuple=True)
    starts = torch.cat((which.new_zeros(1), torch.bincount(which, minlength=len(rays)).cumsum(0)))
    return [starts, which, t[which, place]]


def torch_composite(density: Tensor, values: Tensor, samples: Samples) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of values, opacity and mean distance of rays that are padded to the longest."""
    starts, rays, distances, deltas = samples
    place = torch.arange(len(rays)) - starts[:-1][rays]
    count, longest = len(starts) - 1, int(starts.diff().max())

    def padded(packed: Tensor) -> Tensor:
        return packed.new_zeros(count, longest, *packed.shape[1:]).index_put((rays, place), packed)

    depths = padded(density * deltas)
    weights = torch.exp(depths - depths.cumsum(1)) * -torch.expm1(-depths)
    opacity = weights.sum(1)
    distance = (weights * padded(distances)).sum(1) / opacity.clamp(min=1e-10)
    return (weights[..., None] * padded(values)).sum(1), opacity, distance


@torch.no_grad()
def torch_trace(field: Field, rays: Rays) -> list[Tensor]:
    """Sphere tracing of the box, as `SphereTracer` does it: how far, and whether anything is hit."""
    a, b = (-1 - rays.origins) / rays.directions, (1 - rays.origins) / rays.directions
    t, far = torch.minimum(a, b).amax(1).clamp(min=0), torch.maximum(a, b).amin(1)
    last, hits = torch.full_like(t, torch.inf), torch.zeros(len(t), dtype=torch.bool)
    alive = torch.nonzero(t < far)[:, 0]
    for _ in range(256):
        if len(alive) == 0:
            break
        points = rays.origins[alive] + t[alive, None] * rays.directions[alive]
        step = 0.8 * field(points, None, ["sdf"])["sdf"][:, 0]
        hit = (step.abs() < 3e-4) | ((step + last[alive]).abs() < 3e-3)
        t[alive] += step
        hits[alive] = hit
        last[alive] = step
        alive = alive[~hit & (t[alive] <= far[alive])]
    return [torch.where(hits, t, 0), hits.float()]


def difference(found: Sequence[Tensor], wanted: Sequence[Tensor], what: str, most: float = 0.01) -> float:
    """The largest relative difference; ends the program above a percent."""
    worst = max(
        math.inf if a.shape != b.shape else float((a.double() - b.double()).norm() / b.double().norm())
        for a, b in zip(found, wanted, strict=True)
    )
    if not worst < most:
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


def timed(work: Callable[[], object], repeated: int = 1) -> float:
    """Milliseconds of one call: the median of so many."""
    found = []
    for _ in range(repeated):
        start = time.perf_counter()
        work()
        found.append(1e3 * (time.perf_counter() - start))
    return statistics.median(found)


def duel(
    what: str,
    ours: Callable[[], list[Tensor]],
    theirs: Callable[[], list[Tensor]],
    rounds: int,
    compared: Callable[[list[Tensor]], list[Tensor]] = list,
) -> list[float]:
    """Medians: torch's ms, ours, ours on one thread, how many times torch; and the difference of their work.

    `compared` gives what has to agree of what they return.
    """
    worst = difference(compared(ours()), compared(theirs()), what)
    if not all(torch.equal(a, b) for a, b in zip(ours(), on_one_thread(ours), strict=True)):
        sys.exit(f"{what}: the number of threads changes the result")
    slow, fast, single = [], [], []
    for index in range(rounds):
        turns = [(slow, theirs, 1), (fast, left_to_kernels()(ours), 3), (single, lambda: on_one_thread(ours), 3)]
        for times, work, repeated in turns if index % 2 else reversed(turns):
            times.append(timed(work, repeated))
    ratio = statistics.median(a / b for a, b in zip(slow, fast, strict=True))
    return [*(statistics.median(times) for times in (slow, fast, single)), ratio, worst]


def marching(cascades: int, rounds: int) -> tuple[list[float], int]:
    """The duel of the march, and how many samples it finds."""
    grid, rays = occupancy(cascades), looking(RAYS // cascades, 2.5 * 2 ** (cascades - 1))
    jitter = torch.rand(len(rays), generator=torch.Generator().manual_seed(1))

    def compared(found: list[Tensor]) -> list[Tensor]:
        # Rounding decides of samples at the sides of cells: one ray more or less of thousands.
        starts, _, distances, *_ = found
        return [distances.double().sum(), starts.diff().double().square().sum()]

    found = duel(
        f"march, {cascades} cascades",
        lambda: list(grid.march(rays, step=STEP, jitter=jitter)),
        lambda: torch_march(rays, grid, jitter),
        rounds,
        compared,
    )
    return found, len(grid.march(rays, step=STEP, jitter=jitter).rays)


def compositing(channels: int, rounds: int) -> tuple[list[float], int]:
    """The duel of volume rendering, forward and backward, and how many samples it has."""
    samples = OccupancyGrid(64).march(looking(RAYS // 2), step=STEP)
    generator, count = torch.Generator().manual_seed(0), len(samples.rays)
    density = torch.rand(count, generator=generator).mul(2).requires_grad_()
    values = torch.rand(count, channels, generator=generator).requires_grad_()
    slope = torch.randn(len(samples.starts) - 1, channels, generator=generator)

    def run(sums: Tensor, opacity: Tensor, distance: Tensor) -> list[Tensor]:
        outcome = (sums * slope).sum() + opacity.sum() + distance.sum()
        return [sums.detach(), opacity.detach(), distance.detach(), *torch.autograd.grad(outcome, (density, values))]

    def ours() -> list[Tensor]:
        found = composite(density, values, samples.distances, samples.deltas, samples.starts, stop=0.0)
        return run(found.values, found.opacity, found.distance)

    found = duel("composite", ours, lambda: run(*torch_composite(density, values, samples)), rounds)
    return found, count


def tracing(sparse: bool, rounds: int) -> tuple[list[float], int]:
    """The duel of sphere tracing, and how often the field is asked."""
    field, rays = Shells(), looking(2 * RAYS)
    cells = torch.cartesian_prod(*[torch.arange(32)] * 3)
    near = Shells.distance((cells + 0.5) / 16 - 1).abs() < 1.8 / 32
    tracer = SphereTracer(Octree(cells[near], 5) if sparse else None, refine=0)

    with torch.no_grad():
        found, (_, hits) = tracer(field, rays, ()), torch_trace(field, rays)
        samples = SphereTracer(refine=0)(field, rays, ()).samples  # of the box, for all of them
    if (found.opacity - hits).abs().mean() > 0.005:
        sys.exit("trace: other rays hit than in torch")
    both = (found.opacity > 0) & (hits > 0)

    @torch.no_grad()
    def ours() -> list[Tensor]:
        again = tracer(field, rays, ())
        return [again.distance, again.opacity]

    return duel("trace", ours, lambda: torch_trace(field, rays), rounds, lambda seen: [seen[0][both]]), samples


@left_to_kernels()
def nerf_step(pruned: bool, rounds: int) -> tuple[list[float], int, int]:
    """Milliseconds of each of `STAGES` in a step of the pack's own radiance field, medians; its rays and samples."""
    torch.manual_seed(0)
    config = NeRFConfig(bound=1.0, contracted=False, near=0.0, cone=0.0)
    model = build(config)
    if pruned:
        model.occupancy.load_state_dict(occupancy().state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-15, fused=True)
    generator = torch.Generator().manual_seed(0)
    trial = model.occupancy.march(looking(1024), step=config.step)
    rays = looking(int(32_768 * 1024 / len(trial.rays)))
    wanted, rows, count = torch.rand(len(rays), 3, generator=generator), [], 0
    for index in range(rounds + 2):
        marks = [time.perf_counter()]

        def mark(marks: list[float] = marks) -> None:
            marks.append(time.perf_counter())

        jitter = torch.rand(len(rays), generator=generator)
        samples = model.occupancy.march(rays, step=config.step, jitter=jitter)
        mark()
        density, colors = ask(model.field, rays, samples.rays, samples.distances, ["color"], None)
        mark()
        # The graph is cut at the tensors where a stage begins, to time each alone.
        cut = density.detach().requires_grad_(), colors.detach().requires_grad_()
        seen = composite(*cut, samples.distances, samples.deltas, samples.starts)
        mark()
        loss = (seen.values - wanted).square().mean()
        (slope,) = torch.autograd.grad(loss, seen.values, retain_graph=True)
        mark()
        slopes = torch.autograd.grad(seen.values, cut, slope)
        mark()
        optimizer.zero_grad()
        torch.autograd.backward([density, colors], slopes)
        mark()
        optimizer.step()
        mark()
        count = len(samples.rays)
        if index > 1:  # the first ones warm up
            rows.append([1e3 * (b - a) for a, b in pairwise(marks)])
    return [statistics.median(column) for column in zip(*rows, strict=True)], len(rays), count


def steps(rounds: int) -> str:
    """Where the time of a NeRF step goes, as a table."""
    columns = {}
    for what, pruned in (("shells, pruned", True), ("the whole box", False)):
        progress(f"a NeRF step, {what}")
        times, rays, samples = nerf_step(pruned, rounds)
        columns[f"{what}: {rays:,} rays, {samples:,} samples"] = times
    rows = [
        [stage, *(f"{times[i]:.1f} ({100 * times[i] / sum(times):.0f} %)" for times in columns.values())]
        for i, stage in enumerate(STAGES)
    ]
    rows.append(["all", *(f"{sum(times):.1f}" for times in columns.values())])
    return table(["a step, ms", *columns], rows)


def density_first(rounds: int) -> str:
    """What it brings to ask for the density alone before colours, as a table."""
    field = _Opaque(build(NeRFConfig(bound=1.0, contracted=False, near=0.0, cone=0.0)).field)
    rays, rows = looking(2048), []
    for what, solid in (("thin shells", False), ("solid", True)):
        grid = occupancy()
        if solid:
            grid.update(lambda p: 100.0 * (Shells.distance(p) < 0), torch.Generator(), step=STEP, decay=0.0)
        times = []
        for first in (False, True):
            step = partial(_trace_back, RadianceTracer(grid, step=STEP, density_first=first), field, rays)
            times.append([timed(left_to_kernels()(step)) for _ in range(rounds + 1)][1:])
        ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
        rows.append([what, *(f"{statistics.median(found):.1f}" for found in times), f"{ratio:.2f}"])
    return table(["trace and gradients, ms", "at once", "density first", "times as fast"], rows)


def _trace_back(tracer: RadianceTracer, field: Field, rays: Rays) -> None:
    tracer(field, rays).channels["color"].sum().backward()


class _Opaque(Field):
    """A field whose density is that of the shells' balls, at the cost of its own."""

    def __init__(self, field: Field) -> None:
        super().__init__()
        self.inner, self.channels = field, field.channels

    def forward(
        self,
        points: Tensor,
        directions: Tensor | None = None,
        channels: Sequence[str] | None = None,
        lod: int | None = None,
    ) -> dict[str, Tensor]:
        """The channels at `points`."""
        found = dict(self.inner(points, directions, channels, lod))
        opaque = 100.0 * (Shells.distance(points)[:, None] < 0.02)
        return found | {"density": opaque + 0 * found["density"]}


def compile_seconds() -> float:
    """Seconds to compile everything in a fresh process with an empty cache."""
    code = "from treadle.kernels.fields_warmup import prepare; import time; a = time.perf_counter(); prepare(); " \
           "print(time.perf_counter() - a)"  # fmt: skip
    with tempfile.TemporaryDirectory() as cache:
        run = subprocess.run([sys.executable, "-c", code], env={**os.environ, "NUMBA_CACHE_DIR": cache},
                             capture_output=True, text=True, check=True)  # fmt: skip
    return float(run.stdout)


def progress(text: str) -> None:
    """Say on the terminal what is measured."""
    print(f"{text} ...", file=sys.stderr, flush=True)


def kernels(rounds: int) -> tuple[str, bool]:
    """The table of duels, and whether their gates hold."""
    duels: dict[str, Callable[[], tuple[list[float], int]]] = {
        "march": lambda: marching(1, rounds),
        "march, 4 cascades": lambda: marching(4, max(2, rounds // 2)),
        "composite, colours": lambda: compositing(3, rounds),
        "composite, 8 channels": lambda: compositing(8, rounds),
        "trace": lambda: tracing(False, rounds),
        "trace, octree": lambda: tracing(True, rounds),
    }
    rows, held = [], True
    for what, measure in duels.items():
        progress(what)
        found, samples = measure()
        least = GATES[what]
        within = found[3] >= least
        held &= within
        times = [f"{1e6 * ms / samples:.1f}" for ms in found[:3]]
        verdict = f"{'held' if within else 'NOT HELD'} (>= {least:g})"
        rows.append([what, f"{samples:,}", *times, f"{found[3]:.1f}", f"{found[4]:.0e}", verdict])
    head = ["ms for a million samples", "samples", "torch", "ours", "one thread", "times torch", "difference", "gate"]
    return table(head, rows), held


def pruning() -> tuple[str, bool]:
    """A line on how many samples a ray has, and whether they are few enough."""
    rays = looking(RAYS)
    box, few = (len(grid.march(rays, step=STEP).rays) / RAYS for grid in (OccupancyGrid(64), occupancy()))
    held = box >= FEWER * few
    verdict = f"{'held' if held else 'NOT HELD'} (>= {FEWER:g})"
    return f"Samples a ray in the whole box {box:.1f}, in occupied cells {few:.1f}: {box / few:.1f} times fewer, " \
           f"{verdict}.", held  # fmt: skip


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--write", action="store_true", help="also write benchmarks/results/fields.md")
    options = parser.parse_args()
    prepare()
    compared, held = kernels(2 if options.quick else 7)
    fewer, pruned = pruning()
    held &= pruned
    parts = [compared, fewer, steps(3 if options.quick else 15), density_first(3 if options.quick else 15)]
    if not options.quick:
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
        RESULTS.write_text(f"# Tracing kernels\n\n{method}\n\n{text}\n", encoding="utf-8")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
