"""What radiance fields come to in a given time: held-out PSNR and SSIM, what pruning saves, each grid, a plain NeRF.

    python benchmarks/nerf.py                    all parts, and whether the promises hold (exit 1 where not); 45 minutes
    python benchmarks/nerf.py --part PART...     spot-240, spot-600, fox-300, fox-600, pruning, grids, plain
    python benchmarks/nerf.py --write            also stores what there is in benchmarks/results/nerf.md
    python benchmarks/nerf.py --pictures DIR     also writes target, render, error and depth of each run
    python benchmarks/nerf.py --short            a tenth of the time of everything: whether it runs

How it is measured. Each row is a run of its own from the start, planned for a time on two idle cores: it has as many
steps as fit by a short trial before. Time is counted as CPU time of all threads, 1.7 s of it for each second: that is
how busy two idle cores are with these steps; a run that would take longer is stopped there, and what it has come to
counts. What it took, and how long by the clock beside what else the machine did, stands beside the figures, without
the time to compile, to decode photographs and to evaluate. PSNR is the mean over held-out views, in 8 bits, over white
where photographs are transparent; "inside" is that of the pixels that the object covers.

Pruning is judged on a model of nerf_spot: samples a ray that go through its occupied cells, and through all
of the box at the same step, of all rays of the held-out views, without ending rays early in either.

The plain NeRF is that of the first paper (`_plain_nerf.py`), on the same rays in the same box; both are measured on
4,096 pixels of the held-out views at the same CPU times.

The scenes lie beside a developer's checkout, in ../shared/data. Parts that were run are kept in a folder (--keep), so
that they can be run one by one; the tables show what is there.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from _plain_nerf import PlainNeRF
from _plot import plot
from _report import Gate, machine, table

from treadle.cameras.capture import Capture
from treadle.cameras.reading import read_capture
from treadle.data.views import spread
from treadle.fields.nerf.feed import RayFeed
from treadle.fields.nerf.pixels import Pixels, Seen
from treadle.fields.nerf_trainer import NeRFTrainer, settle
from treadle.fields.rays import Rays
from treadle.images.display import write_png
from treadle.images.metrics import psnr_of
from treadle.images.panels import panel
from treadle.images.strips import STRIP

RESULTS = Path(__file__).parent / "results" / "nerf.md"
PLOT = Path(__file__).parent / "results" / "nerf_plain.png"
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
KEEP = Path(tempfile.gettempdir()) / "treadle-benchmark-nerf"

QUIET: dict[str, Any] = {
    "device": "cpu",
    "validate_every": None,
    "examples_every": None,
    "log_every": "100 steps",
    "seed": 0,
}

PHOTOS: dict[str, Any] = yaml.safe_load((resources.files("treadle.recipes") / "nerf-photos.yaml").read_text())["config"]

BUSY = 1.7
"""CPU seconds that a second on two idle cores comes to, as these steps are: by them runs are planned and ended, so that
what else the machine has to do takes nothing away."""

# Planned seconds by the clock on two cores.
SPOT, FOX, PRUNING = (240, 600), (300, 600), 60
SPOT_BARS = {240: 30.0, 600: 32.0}
GRIDS, GRID_SECONDS = ("hash", "dense", "octree", "triplane", "codebook"), 30
GRID_GAIN = 6.0
PLAIN_SECONDS = (15, 30, 60, 120)
TRIAL, MARGIN = 48, 0.93


def capture_of(name: str, **how: Any) -> Capture:
    """A scene of the shared data."""
    if not DATA.is_dir():
        sys.exit(f"there is no {DATA}")
    return read_capture(DATA / name, **how)


class Clock:
    """CPU time and time by the clock, of the steps alone."""

    def __init__(self) -> None:
        self.cpu = self.clock = 0.0

    def time(self, work: Callable[[], Any]) -> None:
        """Do some work, and count its time."""
        cpu, clock = time.process_time(), time.perf_counter()
        work()
        self.cpu += time.process_time() - cpu
        self.clock += time.perf_counter() - clock


def begin(capture: Capture, seconds: float, **settings: Any) -> NeRFTrainer:
    """A trainer planned for a time, whose kernels are compiled, and whose photographs are decoded, before that runs."""
    settings = {key: value for key, value in settings.items() if key != "max_steps"}
    trial = NeRFTrainer(data=capture, **QUIET | settings | {"max_steps": TRIAL, "prune_from": TRIAL // 3})
    clock = Clock()
    while trial.progress.step < TRIAL - 1:
        if trial.progress.step < TRIAL // 3:
            trial.iterate()
        else:
            clock.time(trial.iterate)
    trial.close()
    each = clock.cpu / BUSY / (TRIAL - 1 - TRIAL // 3)
    trainer = NeRFTrainer(data=capture, **QUIET | settings | {"max_steps": max(20, int(MARGIN * seconds / each))})
    assert isinstance(trainer.feed, RayFeed)
    len(trainer.feed.pixels)
    return trainer


def train(trainer: NeRFTrainer, limit: float) -> dict[str, Any]:
    """Train to the end, or for as long as there is time; returns the means over held-out views, and what it took."""
    clock, last = Clock(), trainer.config.max_steps - 1
    while trainer.progress.step < last and clock.cpu < BUSY * limit:
        clock.time(trainer.iterate)
    found = trainer.validate()
    rays, samples = trainer.metrics.get("rays", 0.0), trainer.metrics.get("samples", 0.0)
    return {**found, "steps": trainer.progress.step, "planned": last + 1, "cpu": clock.cpu, "clock": clock.clock,
            "rays": rays, "samples": samples, "occupied": trainer.model.occupancy.share}  # fmt: skip


def strips(trainer: NeRFTrainer, path: Path | None) -> None:
    """Some held-out views as they are seen."""
    if path is None:
        return
    with trainer.evaluating():
        assert trainer.validation_feed is not None
        rows = [trainer.strip(trainer.look(view), view) for view in spread(trainer.validation_feed)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, panel(rows, STRIP))


def row(planned: str, found: dict[str, Any]) -> list[str]:
    """A line of a table."""
    inside = found.get("psnr_object")
    return [planned, f"{found['steps']}", f"{found['cpu']:.0f}", f"{found['clock']:.0f}", f"{found['psnr']:.2f}",
            "" if inside is None else f"{inside:.2f}", f"{found['ssim']:.4f}"]  # fmt: skip


HEAD = ["planned for", "steps", "CPU-s", "s", "PSNR", "inside", "SSIM"]


def timed(scene: str, seconds: int, **settings: Any) -> Callable[[float, Path | None], dict[str, Any]]:
    """A part: a scene in so many seconds."""

    def run(share: float, pictures: Path | None) -> dict[str, Any]:
        trainer = begin(capture_of(scene), seconds * share, **settings)
        found = train(trainer, seconds * share)
        strips(trainer, pictures and pictures / f"{scene}-{seconds}.png")
        print(scene, row(f"{seconds} s", found), flush=True)
        trainer.close()
        return found

    return run


def pruning(share: float, pictures: Path | None) -> dict[str, Any]:
    """Samples a ray and PSNR with empty cells skipped, and with all of the box."""
    trainer = begin(capture_of("nerf_spot"), PRUNING * share)
    train(trainer, PRUNING * share)
    model, found = trainer.model, {}
    mask = model.occupancy.mask.clone()
    for name in ("pruned", "whole box"):
        if name == "whole box":
            model.occupancy.mask.fill_(True)
        samples = rays = 0
        figures = []
        with trainer.evaluating():
            for view in spread(trainer.validation_feed, 3):  # type: ignore[arg-type]
                seen = Rays.of(view.camera)
                samples += len(model.occupancy.march(seen, step=model.tracer.step).distances)
                rays += len(seen)
                figures.append(trainer.judged(trainer.look(view), view)["psnr"])
        found[name] = {"samples": samples / rays, "psnr": float(np.mean(figures))}
    model.occupancy.mask.copy_(mask)
    found["occupied"] = model.occupancy.share
    trainer.close()
    print(found, flush=True)
    return found


def grids(share: float, pictures: Path | None) -> dict[str, Any]:
    """Each grid for the same time."""
    rows = {}
    for grid in GRIDS:
        trainer = begin(capture_of("nerf_spot"), GRID_SECONDS * share, grid=grid)
        before = trainer.validate()["psnr"]
        found = train(trainer, GRID_SECONDS * share)
        tensors = list(trainer.model.field.grid.parameters())
        rows[grid] = {
            **found,
            "before": before,
            "parameters": sum(tensor.numel() for tensor in tensors),
            "bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        }
        strips(trainer, pictures and pictures / f"grid-{grid}.png")
        print(grid, rows[grid], flush=True)
        trainer.close()
    return {"rows": rows}


def plain(share: float, pictures: Path | None) -> dict[str, Any]:
    """Curves of PSNR by CPU time: ours, and a plain NeRF's."""
    marks = [BUSY * seconds * share for seconds in PLAIN_SECONDS]  # CPU seconds on two cores
    capture = capture_of("nerf_spot")
    trainer = begin(capture, PLAIN_SECONDS[-1] * share)
    seen = some_pixels(trainer)
    clock, ours = Clock(), []
    for mark in marks:
        while clock.cpu < mark and trainer.progress.step < trainer.config.max_steps - 1:
            clock.time(trainer.iterate)
        with trainer.evaluating():
            rays, white = Rays(seen.origins, seen.directions), torch.ones(3)
            colors = torch.cat([trainer.model(rays[k : k + 2048], background=white).channels["color"]
                                for k in range(0, len(rays), 2048)])  # fmt: skip
        ours.append(point(clock.cpu, trainer.progress.step, colors, seen))
        print("ours", ours[-1], flush=True)
    trainer.close()
    return {"ours": ours, "plain": plain_curve(capture, marks, seen)}


def some_pixels(trainer: NeRFTrainer, count: int = 4096) -> Seen:
    """Pixels of all held-out views, drawn evenly: a plain NeRF would take a minute for each whole view."""
    pixels = Pixels(trainer.capture.validation)
    return pixels.seen(np.random.default_rng(0).integers(0, len(pixels), count))


def plain_curve(capture: Capture, marks: list[float], held: Seen, rays: int = 64) -> list[dict[str, float]]:
    """What the plain NeRF comes to."""
    torch.manual_seed(0)
    config = NeRFTrainer.Config()
    placed = settle(config, capture)
    feed = RayFeed(placed.train, rays)
    feed.bind(0, "cpu")
    model, generator = PlainNeRF(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    batches, clock, found, step = iter(feed.iterate(0)), Clock(), [], 0

    def update() -> None:
        seen = feed.rays(next(batches))
        background = torch.rand(len(seen.origins), 3, generator=generator)
        wanted = seen.colors(background)
        coarse, fine = model(seen.origins, seen.directions, background, generator)
        loss = (coarse - wanted).square().mean() + (fine - wanted).square().mean()
        for group in optimizer.param_groups:
            group["lr"] = 5e-4 * 0.1 ** min(1.0, clock.cpu / marks[-1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for mark in marks:
        while clock.cpu < mark:
            clock.time(update)
            step += 1
        with torch.no_grad():
            parts = [model(held.origins[k : k + 256], held.directions[k : k + 256], torch.ones(3), None)[1]
                     for k in range(0, len(held.origins), 256)]  # fmt: skip
        found.append(point(clock.cpu, step, torch.cat(parts), held))
        print("plain", found[-1], flush=True)
    return found


def point(cpu: float, step: int, colors: torch.Tensor, held: Seen) -> dict[str, float]:
    """PSNR at a time, of pixels over white: of all, and of those that the object covers."""
    squares = (colors.clamp(0, 1) - held.colors(torch.ones(3))).square().mean(1)
    assert held.alpha is not None
    figures = {"psnr": squares, "psnr_object": squares[held.alpha > 0]}
    return {"cpu": cpu, "step": step, **{name: psnr_of(float(values.mean())) for name, values in figures.items()}}


PARTS: dict[str, Callable[[float, Path | None], dict[str, Any]]] = {
    **{f"spot-{seconds}": timed("nerf_spot", seconds) for seconds in SPOT},
    **{f"fox-{seconds}": timed("nerf_fox", seconds, **PHOTOS) for seconds in FOX},
    "pruning": pruning,
    "grids": grids,
    "plain": plain,
}


def told(kept: dict[str, Any]) -> tuple[str, list[Gate]]:
    """The tables of the parts that there are, and their promises."""
    text, gates = machine(["numba"]), []
    spots = {seconds: kept[f"spot-{seconds}"] for seconds in SPOT if f"spot-{seconds}" in kept}
    if spots:
        text += "\n\n### nerf_spot, 80 + 20 views, 200 x 200, over white\n\n"
        text += table(HEAD, [row(f"{name // 60} min on two cores", found) for name, found in spots.items()])
    for name, bar in SPOT_BARS.items():  # what is reached sooner is reached
        best = max([found["psnr"] for seconds, found in spots.items() if seconds <= name], default=None)
        if best is not None:
            gates.append(Gate(f"dB below {bar:g} dB (spot, {name // 60} min)", bar - best, 0.0))
    foxes = {seconds: kept[f"fox-{seconds}"] for seconds in FOX if f"fox-{seconds}" in kept}
    if foxes:
        text += "\n\n### nerf_fox, 43 + 7 photographs, 270 x 480, every 8th held out, unbounded\n\n"
        text += table(HEAD, [row(f"{name // 60} min on two cores", found) for name, found in foxes.items()])
    if "pruning" in kept:
        found = kept["pruning"]
        few, all_ = found["pruned"], found["whole box"]
        text += f"\n\n### Pruning ({100 * found['occupied']:.2f}% of the cells are occupied)\n\n"
        head = ["marched", "samples a ray", "PSNR"]
        text += table(head, [[name, f"{found[name]['samples']:.1f}", f"{found[name]['psnr']:.2f}"]
                             for name in ("pruned", "whole box")])  # fmt: skip
        gates.append(Gate("samples a ray, of those of the whole box", few["samples"] / all_["samples"], 1 / 8))
        gates.append(Gate("dB that pruning costs", all_["psnr"] - few["psnr"], 0.3))
    if "grids" in kept:
        text += f"\n\n### Grids: nerf_spot in {GRID_SECONDS} s on two cores\n\n"
        head = ["grid", "parameters", "bytes", "steps", "CPU-s", "PSNR before", "PSNR", "inside", "SSIM"]
        rows = kept["grids"]["rows"]
        text += table(head, [
            [grid, f"{found['parameters']:,}", f"{found['bytes']:,}", f"{found['steps']}", f"{found['cpu']:.0f}",
             f"{found['before']:.2f}", f"{found['psnr']:.2f}", f"{found['psnr_object']:.2f}", f"{found['ssim']:.4f}"]
            for grid, found in rows.items()
        ])  # fmt: skip
        for grid, found in rows.items():
            short = found["before"] + GRID_GAIN - found["psnr"]
            gates.append(Gate(f"dB short of {GRID_GAIN:g} above the start (grid: {grid})", short, 0.0))
    if "plain" in kept:
        text += "\n\n### Beside a plain NeRF: nerf_spot, PSNR (inside) by CPU time\n\n"
        pairs = list(zip(kept["plain"]["ours"], kept["plain"]["plain"], strict=True))
        head = ["CPU-s", "ours: steps", "PSNR", "inside", "plain: steps", "PSNR", "inside"]
        text += table(head, [
            [f"{one['cpu']:.0f}", f"{one['step']:.0f}", f"{one['psnr']:.2f}", f"{one['psnr_object']:.2f}",
             f"{two['step']:.0f}", f"{two['psnr']:.2f}", f"{two['psnr_object']:.2f}"]
            for one, two in pairs
        ])  # fmt: skip
        text += f"\n\n![PSNR by CPU time]({PLOT.name})"
    if gates:
        text += f"\n\n### Promises\n\n{table(Gate.HEAD, [gate.row() for gate in gates])}"
    return text, gates


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", nargs="*", choices=PARTS, default=list(PARTS), help="these parts; default: all")
    parser.add_argument("--write", action="store_true", help="store the tables in benchmarks/results/nerf.md")
    parser.add_argument("--pictures", type=Path, help="a folder for strips of each run")
    parser.add_argument("--short", action="store_true", help="a tenth of the time, to see whether it runs")
    parser.add_argument("--keep", type=Path, default=KEEP, help=f"where parts that were run are kept ({KEEP})")
    options = parser.parse_args()
    torch.set_num_threads(2)
    options.keep.mkdir(parents=True, exist_ok=True)
    for name in options.part:
        found = PARTS[name](0.1 if options.short else 1.0, options.pictures)
        (options.keep / f"{name}.json").write_text(json.dumps(found, indent=1))
    kept = {name: json.loads(file.read_text()) for name in PARTS if (file := options.keep / f"{name}.json").exists()}
    text, gates = told(kept)
    print(text)
    if options.write:
        about = (__doc__ or "").partition("How it is measured.")
        RESULTS.write_text(f"# What radiance fields come to\n\n{text}\n\n{about[1]}{about[2]}")
        if "plain" in kept:
            curves = {
                name: [(each["cpu"], each["psnr"]) for each in kept["plain"][key]]
                for name, key in (("treadle, hash grid", "ours"), ("plain torch NeRF", "plain"))
            }
            plot(PLOT, curves, "nerf_spot, held-out PSNR", "CPU seconds", "dB")
    return 0 if all(gate.held for gate in gates) else 1


if __name__ == "__main__":
    sys.exit(main())
