"""A field and a tracer of one's own, together and with those of the fields pack: soft balls, seen by X-rays.

    python examples/own_field.py            writes balls.png, xray.png and heat.png

The balls are fitted to pictures of the spinning wheel under the tracer of radiance fields; then the same field is seen
by the tracer below. See docs/write_your_own_field.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from treadle import Trainer
from treadle.cameras.procedural import procedural_capture
from treadle.data.views import View, ViewFeed
from treadle.fields.field import Field
from treadle.fields.pipeline import Pipeline
from treadle.fields.rays import Rays
from treadle.fields.rendering import render
from treadle.fields.structures.occupancy import OccupancyGrid
from treadle.fields.structures.structure import Structure
from treadle.fields.tracer import Traced, Tracer, declared
from treadle.fields.tracers.radiance import RadianceTracer
from treadle.images.display import write_png


class Balls(Field):
    """Soft balls. Beside density and colour it says how near the middle of a ball a place is: its "heat"."""

    channels: Mapping[str, int] = {"density": 1, "color": 3, "heat": 1}

    def __init__(self, count: int = 40, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.centers = nn.Parameter(1.4 * torch.rand(count, 3, generator=generator) - 0.7)
        self.log_radii = nn.Parameter(torch.full((count,), -2.0))
        self.colors = nn.Parameter(torch.zeros(count, 3))

    def forward(
        self,
        points: Tensor,
        directions: Tensor | None = None,
        channels: Sequence[str] | None = None,
        lod: int | None = None,
    ) -> dict[str, Tensor]:
        """Near each ball's middle it is densest, and has its colour."""
        squares = (points[:, None] - self.centers).square().sum(2)
        shares = (-squares / self.log_radii.exp().square()).exp()
        every = shares.sum(1, keepdim=True)
        color = shares @ self.colors.sigmoid() / every.clamp(min=1e-6)
        return {"density": 20 * every, "color": color, "heat": shares.amax(1, keepdim=True)}


class XRay(Tracer):
    """What is absorbed along each ray, with no light of its own: opacity is 1 - exp(-integral of the density).

    Channels are means over the ray, weighted by where it is absorbed.
    """

    def __init__(self, structure: Structure, step: float = 0.02) -> None:
        super().__init__()
        self.structure, self.step = structure, step

    def forward(
        self,
        field: Field,
        rays: Rays,
        channels: Sequence[str] = ("color",),
        *,
        background: Tensor | None = None,
        generator: torch.Generator | None = None,
        lod: int | None = None,
    ) -> Traced:
        """March through occupied cells, and add up."""
        names = declared(field, "density", channels)
        jitter = None if generator is None else torch.rand(len(rays), generator=generator)
        samples = self.structure.march(rays, step=self.step, jitter=jitter)
        directions = rays.directions[samples.rays]
        points = rays.origins[samples.rays] + samples.distances[:, None] * directions
        found = field(points, directions, ["density", *names], lod)
        absorbed = found["density"] * samples.deltas[:, None]

        def total(values: Tensor) -> Tensor:
            return values.new_zeros(len(rays), values.shape[1]).index_add(0, samples.rays, values)

        thickness = total(absorbed)
        safe = thickness.clamp(min=1e-9)
        means = {name: total(absorbed * found[name]) / safe for name in names}
        distance = (total(absorbed * samples.distances[:, None]) / safe)[:, 0]
        return Traced(means, distance, 1 - (-thickness[:, 0]).exp(), len(points))


class BallsTrainer(Trainer):
    """Fits balls to photographs, a view a step."""

    def setup(self) -> None:
        """The field, the tracer of radiance fields over a grid that learns where balls are, and an optimizer."""
        self.model = Pipeline(Balls(), RadianceTracer(OccupancyGrid(16), step=0.08))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.03)

    def step(self, view: View) -> Mapping[str, Any]:
        """Compare what a camera sees with its photograph."""
        wanted = view.target(torch.zeros(3)).colors.reshape(-1, 3)
        if self.progress.step % 20 == 19:
            generator = torch.Generator().manual_seed(self.progress.step)
            balls: Balls = self.model.field  # type: ignore[assignment]
            structure: OccupancyGrid = self.model.tracer.structure  # type: ignore[assignment]
            structure.update(lambda points: balls(points)["density"], generator, step=0.08)
        traced = self.model(Rays.of(view.camera), background=torch.zeros(3))
        loss = functional.mse_loss(traced.channels["color"], wanted)
        self.minimize(loss)
        return {"loss": loss, "samples": traced.samples}


def main() -> None:
    """Train, and write what is seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--size", type=int, default=32, help="of the pictures, in pixels")
    parser.add_argument("--out", type=Path, default=Path())
    arguments = parser.parse_args()
    capture = procedural_capture(arguments.size, train=24, test=1)
    trainer = BallsTrainer(data=ViewFeed(capture.train), max_steps=arguments.steps, device="cpu", seed=0)
    print(trainer.train())
    camera = capture.test.cameras[0].resized(160, 160)
    field, tracer = trainer.model.field, trainer.model.tracer
    seen = render(Pipeline(field, tracer), camera)
    through = render(Pipeline(field, XRay(tracer.structure)), camera, ["heat"])
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_png(arguments.out / "balls.png", seen["color"].numpy())
    write_png(arguments.out / "xray.png", 1 - through["opacity"].numpy())
    write_png(arguments.out / "heat.png", (through["heat"] * through["opacity"]).numpy())


if __name__ == "__main__":
    main()
