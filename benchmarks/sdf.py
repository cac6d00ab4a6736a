"""Signed distance fields: how near to a mesh a minute of two cores comes, sampling included.

    python benchmarks/sdf.py               tables and gates on the terminal; exit code 1 where a gate does not hold
    python benchmarks/sdf.py --quick       a sixth of the steps; no gates
    python benchmarks/sdf.py --write       also writes benchmarks/results/sdf.md
    python benchmarks/sdf.py --pictures DIR  also writes views, slices and a close look of each (fandisk's stay private)
    python benchmarks/sdf.py --grids       also every grid on one mesh
    python benchmarks/sdf.py --meshes DIR  where spot/spot.obj and fandisk.obj are (default: ../shared/data/meshes)

Each mesh is trained on in a process of its own with a warm cache of kernels, by the recipe `sdf` as it is shipped.
"Seconds" are from reading the mesh to the last step, on the clock, and "CPU" those of all threads together. IoU is that
of the insides on a million uniform points in the box, none of which was trained on. "Distance" is the mean exact
distance of points on the one surface from the other, both ways, as a share of the mesh's diagonal; the surface is that
of marching cubes with 256 voxels a side. Normals are compared at points on the mesh, by the mean angle; "edges" are
points within .01 of an edge of more than 30 degrees.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from _report import Gate, machine, table

RESULTS = Path(__file__).with_name("results") / "sdf.md"
MESHES = Path(__file__).resolve().parents[2] / "shared" / "data" / "meshes"
FILES = {"spot": "spot/spot.obj", "fandisk": "fandisk.obj", "knot": None}
LEAST_IOU = {"spot": 0.99, "fandisk": 0.985}
SECONDS, DISTANCE = 60.0, 0.001
GRIDS: Mapping[str, Mapping[str, Any]] = {
    "hash": {},
    "dense": {"grid": "dense", "n_max": 96},
    "octree": {"grid": "octree", "levels": 4, "base": 3},
    "triplane": {"grid": "triplane"},
    "codebook": {"grid": "codebook", "levels": 4, "base": 3},
    "siren": {"grid": "none", "decoder": "siren", "hidden": 128, "learning_rate": "cosine 5e-4 to 1e-5"},
}


def train(name: str, mesh: Path | None, settings: Mapping[str, Any], pictures: Path | None) -> dict[str, Any]:
    """Train on one mesh, and judge it."""
    import torch

    import treadle.recipes
    from treadle.config.files import load
    from treadle.fields.sdf.extraction import extract
    from treadle.fields.sdf.judging import apart, iou, normal_error
    from treadle.fields.sdf_trainer import SDFTrainer

    recipe = load(Path(treadle.recipes.__file__).with_name("sdf.yaml"))
    config = SDFTrainer.Config(**{**recipe["config"], **settings})
    warm = {"max_steps": 2, "pool": 2 * config.batch_size, "validation_points": 100, "examples_every": None}
    SDFTrainer(config, **warm).train()
    began, busy = time.perf_counter(), time.process_time()
    data = SDFTrainer.load_data(config, mesh)["data"]
    trainer = SDFTrainer(config, data=data, validate_every=None, examples_every=None, validation_points=1000)
    trainer.train()
    seconds, cpu = time.perf_counter() - began, time.process_time() - busy
    with trainer.evaluating():
        vertices, faces = extract(trainer.model, 256)
        between = apart(vertices, faces, data, 200_000, seed=1)
        found = {
            "mesh": name,
            "steps": trainer.progress.step,
            "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
            "seconds": seconds,
            "cpu": cpu,
            "iou": iou(trainer.model, data, 1_000_000, seed=1),
            "distance": between.relative,
            "farthest": between.largest / data.diagonal,
            "normals": normal_error(trainer.model, data),
            "edges": at_edges(trainer.model, data),
            "shape": str(between.fit),
            "same": between.fit.watertight and between.fit.genus == data.topology.genus,
            "threads": torch.get_num_threads(),
        }
        if pictures is not None:
            draw(trainer.model, data, pictures, name)
    return found


def at_edges(field: Any, solid: Any) -> float:
    """The mean distance that the field has at sharp edges of the solid, where it should be 0, over its diagonal."""
    import torch

    edges, _, _ = sharp(solid)
    if not len(edges):
        return float("nan")
    ends = solid.vertices[edges]
    share = np.random.default_rng(0).random((len(edges), 8, 1))
    places = (ends[:, None, 0] * share + ends[:, None, 1] * (1 - share)).reshape(-1, 3)
    found = field.evaluate(torch.from_numpy(places).float()).abs().double()
    return float(found.mean()) / solid.diagonal


def sharp(solid: Any, degrees: float = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges (n, 2) whose two faces differ by more than so much, and these faces."""
    directed = solid.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    keys = directed.min(1) * len(solid.vertices) + directed.max(1)
    order = np.argsort(keys, kind="stable")
    first, second = order[::2] // 3, order[1::2] // 3
    cosine = (solid.normals[first] * solid.normals[second]).sum(1)
    chosen = cosine < np.cos(np.radians(degrees))
    return directed[order[::2]][chosen], first[chosen], second[chosen]


def draw(field: Any, solid: Any, folder: Path, name: str) -> None:
    """Views, slices, and a close look at what is sharp."""
    from treadle.fields.sdf import panels
    from treadle.images.display import write_png

    folder.mkdir(parents=True, exist_ok=True)
    write_png(folder / f"sdf-{name}.png", panels.together(panels.views(field, 400)))
    write_png(folder / f"sdf-{name}-slices.png", panels.slices(field, 400))
    close = panels.camera_at((1.0, 0.6, 0.5), 900)
    shaded = panels.shaded(panels.see(field, close))
    write_png(folder / f"sdf-{name}-close.png", shaded)


def beside(name: str, mesh: Path | None, settings: Mapping[str, Any], pictures: Path | None) -> dict[str, Any]:
    """`train` in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, __file__, "--one", name, "--out", str(out), "--settings", json.dumps(dict(settings))]
        command += [] if mesh is None else ["--mesh", str(mesh)]
        command += [] if pictures is None else ["--pictures", str(pictures)]
        subprocess.run(command, check=True)
        found: dict[str, Any] = json.loads(out.read_text())
        return found


HEAD = ["", "steps", "parameters", "seconds", "CPU", "IoU", "distance", "farthest", "normals", "edges", "shape"]


def row(label: str, found: Mapping[str, Any]) -> list[str]:
    """A line of the table."""
    return [
        label, str(found["steps"]), f"{found['parameters']:,}", f"{found['seconds']:.1f}", f"{found['cpu']:.1f}",
        f"{found['iou']:.4f}", f"{found['distance']:.2e}", f"{found['farthest']:.1e}", f"{found['normals']:.1f}°",
        f"{found['edges']:.1e}", found["shape"],
    ]  # fmt: skip


def gates(name: str, found: Mapping[str, Any]) -> list[Gate]:
    """What was promised of a mesh."""
    return [
        Gate(f"{name}: seconds, sampling included", found["seconds"], SECONDS),
        Gate(f"{name}: 1 - IoU, in %", 100 * (1 - found["iou"]), 100 * (1 - LEAST_IOU[name])),
        Gate(f"{name}: mean distance both ways, in % of the diagonal", 100 * found["distance"], 100 * DISTANCE),
        Gate(f"{name}: other genus, or not watertight", float(not found["same"]), 0),
    ]


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("quick", "write", "grids"):
        parser.add_argument(f"--{flag}", action="store_true")
    parser.add_argument("--meshes", type=Path, default=MESHES)
    parser.add_argument("--pictures", type=Path)
    for hidden in ("one", "out", "mesh", "settings"):
        parser.add_argument(f"--{hidden}", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        found = train(options.one, Path(options.mesh) if options.mesh else None, json.loads(options.settings),
                      options.pictures)  # fmt: skip
        Path(options.out).write_text(json.dumps(found))
        return 0
    settings: dict[str, Any] = {"max_steps": 300} if options.quick else {}
    rows, held = [], []
    for name, file in FILES.items():
        mesh = None if file is None else options.meshes / file
        if mesh is not None and not mesh.exists():
            print(f"{mesh} is not there: left out")
            continue
        found = beside(name, mesh, settings, options.pictures)
        rows.append(row(name, found))
        held += gates(name, found) if name in LEAST_IOU else []
    pages = ["# Signed distance fields", machine(["libigl", "numba"]), table(HEAD, rows)]
    if options.grids:
        mesh = options.meshes / "spot/spot.obj"
        lines = [row(name, beside(name, mesh, {**settings, **own}, None)) for name, own in GRIDS.items()]
        pages += ["Every grid, on spot:", table(HEAD, lines)]
    if held and not options.quick:
        pages.append(table(Gate.HEAD, [gate.row() for gate in held]))
    text = "\n\n".join(pages)
    print(text)
    if options.write:
        RESULTS.write_text(text + "\n")
    return 0 if options.quick or all(gate.held for gate in held) else 1


if __name__ == "__main__":
    sys.exit(main())
