"""Grids: what each kind is worth, as quality against parameters, bytes and time, for a distance field and a scene.

    python benchmarks/grids.py               both tables on the terminal
    python benchmarks/grids.py --sdf         distances alone; --nerf the scene alone; --only hash,octree some grids
    python benchmarks/grids.py --steps 400   other than the 2,000 steps (distances) and 1,000 steps (scene)
    python benchmarks/grids.py --mesh FILE --photographs FOLDER    other data than the recipes' own
    python benchmarks/grids.py --write       also writes benchmarks/results/grids.md

Every grid is trained by the recipe's own trainer for equally many steps on equal samples, with the defaults of
`GridSettings` but for what the column "settings" says. IoU is on 200,000 uniform points, distance (mean, both ways,
exact, as a share of the mesh's diagonal) between the surfaces, by marching cubes of 160 voxels; PSNR and SSIM are
those of the held-out views, "object" is PSNR on the object's pixels alone. "parameters" are all that are trained;
"bytes" what the field takes in a file: four a parameter, for a codebook the baked grid and its decoder. "CPU s" is
processor time of all threads within training steps, but for the first three, which compile; "us" that of evaluating
the field at a point of the box, in microseconds, without gradient.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from _report import machine, table
from torch import Tensor, nn

from treadle.cameras.reading import read_capture
from treadle.errors import UsageError
from treadle.fields.grids.codebook import CodebookGrid
from treadle.fields.nerf_trainer import NeRFTrainer
from treadle.fields.sdf.exporters import surface
from treadle.fields.sdf.judging import apart, iou, normal_error
from treadle.fields.sdf_trainer import SDFTrainer

RESULTS = Path(__file__).with_name("results") / "grids.md"
QUIET = {"examples_every": None, "validate_every": None, "save_every": None, "device": "cpu", "seed": 0}
POINTS = 65536
SDF: Mapping[str, dict[str, Any]] = {
    "hash": {},
    "dense": {},
    "octree": {},
    "triplane": {},
    "codebook": {},
    "positional": {"grid": "none", "positional": 6, "hidden": 128, "layers": 4, "learning_rate": "cosine 2e-3 to 1e-4"},
    "siren": {"grid": "none", "decoder": "siren", "hidden": 128, "layers": 2, "learning_rate": "cosine 5e-4 to 1e-5"},
}
NERF: Mapping[str, dict[str, Any]] = {"hash": {}, "dense": {}, "octree": {}, "triplane": {}, "codebook": {}}


class Clock:
    """A trainer's steps with the processor's time that they take."""

    seconds = 0.0

    def step(self, batch: Any) -> Any:
        """As the trainer's."""
        began = time.process_time()
        found = super().step(batch)  # type: ignore[misc]
        if self.progress.step >= 3:  # type: ignore[attr-defined]
            Clock.seconds += time.process_time() - began
        return found


class Distances(Clock, SDFTrainer):
    """The recipe "sdf", timed."""


class Scene(Clock, NeRFTrainer):
    """The recipe "nerf", timed."""


def bytes_of(field: nn.Module) -> int:
    """What a field takes in a file."""
    total = 4 * sum(parameter.numel() for parameter in field.parameters())
    for grid in field.modules():
        if isinstance(grid, CodebookGrid):
            total += grid.baked().bytes - 4 * sum(parameter.numel() for parameter in grid.parameters())
    return total


def microseconds(evaluate: Any, rounds: int = 7) -> float:
    """Processor time of evaluating a point, in microseconds: the median over rounds."""
    points = torch.rand(POINTS, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    times = []
    for _ in range(rounds):
        began = time.process_time()
        evaluate(points)
        times.append(1e6 * (time.process_time() - began) / POINTS)
    return statistics.median(times)


def settings_of(chosen: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The settings of a contestant: its own, and its name where they do not name a grid."""
    return {"grid": name, **chosen}


def described(chosen: Mapping[str, Any]) -> str:
    """Settings as they are written on the command line."""
    return ", ".join(f"{name} {value}" for name, value in chosen.items() if name != "grid") or "-"


def distances(name: str, chosen: Mapping[str, Any], steps: int, mesh: Path | None) -> list[str]:
    """A row of the table of distance fields."""
    Clock.seconds = 0.0
    given = {} if mesh is None else {"data": mesh}
    with Distances(**given, **QUIET, **settings_of(chosen, name), max_steps=steps, validation_points=1000) as trainer:
        trainer.train()
        model, solid = trainer.model, trainer.solid
        try:
            mesh_back = surface(model, 160)
            between = f"{apart(mesh_back.vertices, mesh_back.faces, solid, 50_000).relative:.5f}"
        except UsageError:  # a field that has learnt nothing yet
            between = "-"
        return [
            name, described(chosen), f"{iou(model, solid, 200_000):.4f}", between,
            f"{normal_error(model, solid, 20_000):.2f}", *_size(model), f"{Clock.seconds:.1f}",
            f"{microseconds(model.evaluate):.2f}",
        ]  # fmt: skip


def scene(name: str, chosen: Mapping[str, Any], steps: int, photographs: Path | None) -> list[str]:
    """A row of the table of radiance fields."""
    Clock.seconds = 0.0
    given = {} if photographs is None else {"data": read_capture(photographs)}
    with Scene(**given, **QUIET, **settings_of(chosen, name), max_steps=steps) as trainer:
        trainer.train()
        seconds, found = Clock.seconds, trainer.validation_metrics
        field = trainer.model.field

        @torch.no_grad()
        def evaluate(points: Tensor) -> Any:
            return field(points, torch.nn.functional.normalize(points, dim=1))

        inside = next((found[key] for key in found if key.startswith("psnr_")), float("nan"))
        return [
            name, described(chosen), f"{found['psnr']:.2f}", f"{inside:.2f}", f"{found['ssim']:.3f}",
            *_size(field), f"{seconds:.1f}", f"{microseconds(evaluate):.2f}",
        ]  # fmt: skip


def _size(field: nn.Module) -> list[str]:
    parameters = sum(parameter.numel() for parameter in field.parameters())
    return [f"{parameters:,}", f"{bytes_of(field):,}"]


def measured(contestants: Mapping[str, Any], only: Sequence[str], row: Any, *arguments: Any) -> list[list[str]]:
    """The rows of a table, one after the other."""
    rows = []
    for name, chosen in contestants.items():
        if only and name not in only:
            continue
        began = time.monotonic()
        rows.append(row(name, chosen, *arguments))
        print(f"{name}: {' '.join(rows[-1][2:])}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return rows


def main() -> int:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sdf", action="store_true", help="distances alone")
    parser.add_argument("--nerf", action="store_true", help="the scene alone")
    parser.add_argument("--only", default="", help="some grids, with commas between")
    parser.add_argument("--steps", type=int, help="training steps of each")
    parser.add_argument("--mesh", type=Path, help="another mesh than the recipe's own")
    parser.add_argument("--photographs", type=Path, help="another scene than the recipe's own")
    parser.add_argument("--write", action="store_true", help="also write benchmarks/results/grids.md")
    options = parser.parse_args()
    both = options.sdf == options.nerf
    only = [name for name in options.only.split(",") if name]
    size = ["parameters", "bytes", "CPU s", "us"]
    parts = []
    if both or options.sdf:
        steps = options.steps or 2000
        rows = measured(SDF, only, distances, steps, options.mesh)
        head = ["grid", "settings", "IoU", "distance", "normals, degrees", *size]
        what = "the knot" if options.mesh is None else options.mesh.stem
        parts.append(f"## Distance from {what}, {steps:,} steps\n\n{table(head, rows)}")
    if both or options.nerf:
        steps = options.steps or 1000
        rows = measured(NERF, only, scene, steps, options.photographs)
        head = ["grid", "settings", "PSNR", "object", "SSIM", *size]
        what = "the procedural scene" if options.photographs is None else options.photographs.name
        parts.append(f"## Radiance of {what}, {steps:,} steps\n\n{table(head, rows)}")
    text = "\n\n".join([*parts, f"{machine(['numba'])} {torch.get_num_threads()} threads."])
    print(text)
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        method = (__doc__ or "").split("\n\n")[-1].strip()
        RESULTS.write_text(f"# Grids\n\n{method}\n\n{text}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
