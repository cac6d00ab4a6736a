"""A distance field learnt from photographs: the field of `sdf` under the tracer of `nerf`, against the true mesh.

    python benchmarks/neus.py                 the table on the terminal; exit code 1 where the gate does not hold
    python benchmarks/neus.py --write         also writes benchmarks/results/neus.md
    python benchmarks/neus.py --pictures DIR  also writes views of the surface
    python benchmarks/neus.py --steps N       so many steps (default: 1500)
    python benchmarks/neus.py --data DIR      nerf_spot (default: ../shared/data/nerf_spot)

Nothing but photographs is trained on. The field's second head makes a density of its distance (NeuS, Wang et al. 2021);
the trainer of radiance fields, its rays, occupancy and tracer are as they are, and one term is added, which keeps the
gradient's length at 1. Then the surface where the distance is 0 is taken by marching cubes and compared with the mesh
that the photographs were rendered from. "Chamfer" is the mean of the mean exact distances of the two surfaces, both
ways, as a share of the mesh's diagonal.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _report import Gate, machine, table
from torch import Tensor

from treadle.cameras.reading import read_capture
from treadle.fields.decoder import Decoder
from treadle.fields.nerf.model import Radiance
from treadle.fields.nerf_trainer import NeRFTrainer
from treadle.fields.sdf import losses, panels
from treadle.fields.sdf.exporters import surface
from treadle.fields.sdf.field import SDFField
from treadle.fields.sdf.judging import apart
from treadle.fields.sdf.solid import read_solid
from treadle.fields.settings import build_grid
from treadle.images.display import write_png

RESULTS = Path(__file__).with_name("results") / "neus.md"
DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "nerf_spot"
CHAMFER = 0.0075
"""The most that the two surfaces may be apart."""
EIKONAL, POINTS, APART = 0.1, 1024, 0.01
SETTINGS: Mapping[str, Any] = {
    "levels": 6, "features": 4, "log2_size": 15, "n_min": 16, "n_max": 160, "learning_rate": "cosine 5e-3 to 1e-4",
    "ema": None, "validate_views": 4, "validate_every": None, "examples_every": None, "samples": 32_768,
}  # fmt: skip


class NeuSTrainer(NeRFTrainer):
    """A radiance field whose density is that of a distance field."""

    def build_model(self) -> Radiance:
        """The tracer of radiance fields, and a distance field that begins as a ball."""
        model = super().build_model()
        grid = build_grid(self.config)
        model.field = SDFField(grid, Decoder(grid.width, 4, 64, 2, "none"), ball=0.5, sharpness=40.0)  # type: ignore[assignment]
        return model

    def setup(self) -> None:
        """Everything as it is, and one term more."""
        super().setup()
        self.objective.add("eikonal", weight=EIKONAL)

    def terms(self, traced: Any, seen: Any, background: Tensor) -> dict[str, Tensor]:
        """Those of radiance fields, and how far the gradient's length is from 1 at random places."""
        points = torch.rand(POINTS, 3, generator=self.generator("eikonal")).to(self.device) * 2 - 1
        slopes = self.model.field.gradients(points, APART)  # type: ignore[operator]
        return super().terms(traced, seen, background) | {"eikonal": losses.eikonal(slopes)}


def run(data: Path, steps: int, pictures: Path | None) -> dict[str, Any]:
    """Train, cut out the surface, and compare."""
    capture = read_capture(data)
    truth = read_solid(data / "mesh_normalized.ply")
    began, busy = time.perf_counter(), time.process_time()
    trainer = NeuSTrainer(data=capture, max_steps=steps, **SETTINGS)
    trainer.train()
    seconds, cpu = time.perf_counter() - began, time.process_time() - busy
    with trainer.evaluating():
        field = trainer.model.field
        mesh = surface(field, 256)  # type: ignore[arg-type]
        matrix = trainer.model.to_input.numpy()
        places = mesh.vertices.astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3]
        between = apart((places - truth.center) * truth.scale, mesh.faces, truth)
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
            write_png(pictures / "neus-spot.png", panels.together(panels.views(field, 400)))  # type: ignore[arg-type]
        return {
            "seconds": seconds,
            "cpu": cpu,
            "psnr": trainer.validation_metrics["psnr"],
            "chamfer": between.relative,
            "from_fit": between.from_fit / truth.diagonal,
            "to_fit": between.to_fit / truth.diagonal,
            "sharpness": float(field.sharpness),  # type: ignore[arg-type]
            "shape": str(between.fit),
            "parameters": sum(parameter.numel() for parameter in field.parameters()),
        }


def main() -> int:
    """Run it and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    if not options.data.is_dir():
        print(f"{options.data} is not there: nothing to compare with")
        return 0
    found = run(options.data, options.steps, options.pictures)
    head = [
        "steps",
        "parameters",
        "seconds",
        "CPU",
        "PSNR",
        "Chamfer",
        "fit to mesh",
        "mesh to fit",
        "sharpness",
        "shape",
    ]
    line = [
        str(options.steps), f"{found['parameters']:,}", f"{found['seconds']:.0f}", f"{found['cpu']:.0f}",
        f"{found['psnr']:.2f}", f"{found['chamfer']:.2e}", f"{found['from_fit']:.2e}", f"{found['to_fit']:.2e}",
        f"{found['sharpness']:.0f}", found["shape"],
    ]  # fmt: skip
    gate = Gate("mean distance both ways, in % of the diagonal", 100 * found["chamfer"], 100 * CHAMFER)
    text = "\n\n".join(
        [
            "# A distance field from photographs",
            machine(["libigl", "numba"]),
            table(head, [line]),
            table(Gate.HEAD, [gate.row()]),
        ]
    )
    print(text)
    if options.write:
        RESULTS.write_text(text + "\n")
    return 0 if gate.held else 1


if __name__ == "__main__":
    sys.exit(main())
